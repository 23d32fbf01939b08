"""Images and masks that do not belong to each other, translated into one another: a CycleGAN (Zhu 2017) whose masks
are also judged by a VAE and whose mask generator is calibrated by its discriminator (Wang, Guo, Wang, Zhang, TMI 2021,
rebuilt from its description)."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from RefSegLib.bootstrapping.gan_networks import CycleGan
from RefSegLib.bootstrapping.mask_pool import MaskPool
from RefSegLib.bootstrapping.mask_vae import MaskVae, plausibility
from RefSegLib.bootstrapping.poses import posed, random_poses
from RefSegLib.errors import RefSegError
from RefSegLib.progress import SILENT, Progress
from RefSegLib.training.fit import fast_precision, save_checkpoint

BETAS = (0.5, 0.999)
HISTORY = 50  # earlier drawings, shown to the discriminators every other time (Shrivastava 2017)
AVERAGING = 0.995  # of the running mean of the weights that is judged and kept
CHECKS = 10  # times the running mean is judged in the second half of the training
CPU = torch.device("cpu")


@dataclass(frozen=True)
class GanSettings:
    """What the CycleGAN has and how it is trained.

    vae, calibration: the two additions to a plain CycleGAN. noise: standard deviation of what is added to a mask before
    an image is drawn from it, without which the image is hidden in the mask's border. cycle_image, cycle_mask,
    vae_weight: weights beside those of the two discriminators, which are 1.
    """

    vae: bool = True
    calibration: bool = True
    steps: int = 700
    batch: int = 4
    rate: float = 4e-4
    cycle_image: float = 2.0
    cycle_mask: float = 2.0
    vae_weight: float = 1.0
    noise: float = 0.2


@dataclass
class Translated:
    """What came of a training: the CycleGAN that scored best, its score without labels, one entry per check."""

    gan: CycleGan
    score: float
    history: list[dict[str, float]] = field(default_factory=list)


def train_cyclegan(
    images: torch.Tensor,
    judged: torch.Tensor,
    pool: MaskPool,
    vae: MaskVae,
    settings: GanSettings,
    *,
    seed: int,
    checkpoint: Path | None = None,
    progress: Progress = SILENT,
) -> Translated:
    """Train on images (n, 1, j, i) in 0..1; judged: images on which checkpoints are scored, by `unlabeled_score`.

    A training that was killed goes on from the file `checkpoint`, to the same weights. Raises RefSegError if it breaks
    down.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        gan = CycleGan(vae=settings.vae, calibration=settings.calibration)
    average = copy.deepcopy(gan)
    judges = [p for name, p in gan.named_parameters() if name.startswith("judge")]
    drawers = [p for name, p in gan.named_parameters() if not name.startswith("judge")]
    optimizers = [torch.optim.Adam(part, settings.rate, BETAS, fused=True) for part in (drawers, judges)]
    parts = {"gan": gan, "average": average, "drawers": optimizers[0], "judges": optimizers[1]}
    state: dict[str, Any] = {"step": 0, "score": -np.inf, "weights": {}, "history": [], "masks": [], "images": []}
    if checkpoint is not None and checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved.pop(name))
        state = saved
    every = max(1, settings.steps // (2 * CHECKS))
    while (step := state["step"]) < settings.steps:
        chance = torch.Generator().manual_seed(seed * 1_000_003 + step)
        for optimizer in optimizers:  # even, then falling to zero over the second half
            optimizer.param_groups[0]["lr"] = settings.rate * min(1.0, 2 - 2 * step / settings.steps)
        chosen = images[torch.randint(len(images), (settings.batch,), generator=chance)]
        poses = random_poses(settings.batch, images.shape[2:], 0.1, 10.0, 0.05, chance)
        shown, masks = posed(chosen, poses, "border"), pool(settings.batch, chance)
        _set_learning(judges, False)
        with fast_precision(CPU):
            loss, found, drawn = generator_loss(gan, shown, masks, vae, settings, chance)
        _step(optimizers[0], loss)
        _set_learning(judges, True)
        found, drawn = _past(state["masks"], found, chance), _past(state["images"], drawn, chance)
        with fast_precision(CPU):
            judgment = discriminator_loss(gan, shown, masks, found, drawn, vae)
        _step(optimizers[1], judgment)
        _follow(average, gan, step)
        state["step"] = step + 1
        progress(state["step"] / settings.steps, f"translating, step {state['step']} of {settings.steps}")
        if state["step"] % every:
            continue
        losses = {"drawing": float(loss.detach()), "judging": float(judgment.detach())}
        if not all(map(np.isfinite, losses.values())):
            raise RefSegError(f"Training broke down at step {state['step']} (a loss is {losses}). Try another seed.")
        entry = {"step": state["step"]} | losses | unlabeled_score(average, judged, pool, vae, seed)
        state["history"].append(entry)
        if state["step"] >= settings.steps // 2 and entry["score"] > state["score"]:
            state |= {"score": entry["score"], "weights": copy.deepcopy(average.state_dict())}
        if checkpoint is not None:
            save_checkpoint(checkpoint, state | {name: part.state_dict() for name, part in parts.items()})
    average.load_state_dict(state["weights"])
    return Translated(average.eval().requires_grad_(False), state["score"], state["history"])


def generator_loss(
    gan: CycleGan,
    images: torch.Tensor,
    masks: torch.Tensor,
    vae: MaskVae,
    settings: GanSettings,
    chance: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The loss of both generators, the masks found in `images`, and the images drawn of `masks`.

    Least squares against the discriminators; mean absolute difference of images that came back through a mask;
    cross-entropy and Dice of masks that came back through an image.
    """

    def noisy(mask: torch.Tensor) -> torch.Tensor:
        return mask + settings.noise * torch.randn(mask.shape, generator=chance)

    found = gan.masks(images).float().sigmoid()
    again = gan.images(noisy(found), textures(found.shape, chance)).float()
    drawn = gan.images(noisy(masks), textures(masks.shape, chance)).float()
    back = gan.masks(other_looks(drawn, chance)).float()
    overlap = 2 * (back.sigmoid() * masks).sum((1, 2, 3)) / (back.sigmoid() + masks).sum((1, 2, 3)).clamp(min=1e-6)
    loss = _real(gan.judge_mask(found)) + _real(gan.judge_image(drawn))
    loss = loss + settings.cycle_image * (again - images).abs().mean()
    loss = loss + settings.cycle_mask * (F.binary_cross_entropy_with_logits(back, masks) + (1 - overlap).mean())
    if gan.judge_latent is not None:
        loss = loss + settings.vae_weight * _real(gan.judge_latent(vae.mean(found).float()))
    return loss, found.detach(), drawn.detach()


def discriminator_loss(
    gan: CycleGan,
    images: torch.Tensor,
    masks: torch.Tensor,
    found: torch.Tensor,
    drawn: torch.Tensor,
    vae: MaskVae,
) -> torch.Tensor:
    """What the discriminators get wrong about real images and masks, and drawn ones."""
    loss = _real(gan.judge_image(images)) + _drawn(gan.judge_image(drawn))
    loss = loss + _real(gan.judge_mask(masks)) + _drawn(gan.judge_mask(found))
    if gan.judge_latent is not None:
        real, other = (vae.mean(part).float() for part in (masks, found))
        loss = loss + _real(gan.judge_latent(real)) + _drawn(gan.judge_latent(other))
    return loss / 2


def textures(shape: tuple[int, ...], chance: torch.Generator) -> torch.Tensor:
    """Noise (n, 1, j, i) of four grains, from single pixels to the whole image, for what no mask foretells."""
    noise = torch.randn((shape[0], 1, 1, 1), generator=chance).expand(shape)
    for grain in (1, 4, 16):
        coarse = torch.randn((shape[0], 1, -(-shape[2] // grain), -(-shape[3] // grain)), generator=chance)
        noise = noise + F.interpolate(coarse, shape[2:], mode="bilinear", align_corners=False)
    return noise / 2


def other_looks(images: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    """Images (n, 1, j, i) with another gamma, contrast, brightness and noise: no mask hides in what nobody sees."""

    def even(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand((len(images), 1, 1, 1), generator=chance)

    images = images.clamp(1e-3, 1) ** even(-0.4, 0.4).exp()
    images = (images - 0.5) * even(0.8, 1.2) + 0.5 + even(-0.1, 0.1)
    return images + even(0, 0.1) * torch.randn(images.shape, generator=chance)


@torch.no_grad()
def unlabeled_score(gan: CycleGan, images: torch.Tensor, pool: MaskPool, vae: MaskVae, seed: int) -> dict[str, float]:
    """How well a CycleGAN does, as far as that shows without labels; every part at best 1, score their mean.

    shape: how plausible the masks of `images` are to the VAE; size: 1 - the mean gap between the sorted areas of these
    masks and of masks of the pool, over the mean area; steady: Dice of the masks of `images` with those of the same
    images turned and shifted.
    """
    chance = torch.Generator().manual_seed(seed)
    found = (gan.find(images) > 0.5).float()
    areas = found.mean((1, 2, 3)).sort().values
    wanted = pool(len(images), chance).mean((1, 2, 3)).sort().values
    poses = random_poses(len(images), images.shape[2:], 0.0, 10.0, 0.05, chance)
    turned = posed(found, poses, "zeros")
    moved = (gan.find(posed(images, poses, "border")) > 0.5).float()
    steady = 2 * (moved * turned).sum((1, 2, 3)) / (moved + turned).sum((1, 2, 3)).clamp(min=1)
    entry = {
        "shape": float(plausibility(vae, found).mean()),
        "size": float(1 - (areas - wanted).abs().mean() / wanted.mean()),
        "steady": float(steady.mean()),
    }
    return entry | {"score": float(np.mean(list(entry.values())))}


def _real(verdict: torch.Tensor) -> torch.Tensor:
    return (verdict.float() - 1).square().mean()


def _drawn(verdict: torch.Tensor) -> torch.Tensor:
    return verdict.float().square().mean()


def _set_learning(parameters: list[torch.nn.Parameter], on: bool) -> None:
    for parameter in parameters:
        parameter.requires_grad_(on)


def _step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _past(kept: list[torch.Tensor], drawn: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    """`drawn`, every other one replaced by one from before, which it takes the place of."""
    given = []
    for one in drawn:
        if len(kept) < HISTORY:
            kept.append(one)
        elif torch.rand(1, generator=chance) < 0.5:
            index = int(torch.randint(HISTORY, (1,), generator=chance))
            one, kept[index] = kept[index], one
        given.append(one)
    return torch.stack(given)


@torch.no_grad()
def _follow(average: CycleGan, gan: CycleGan, step: int) -> None:
    share = 1 - min(AVERAGING, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(gan.parameters()), share)
