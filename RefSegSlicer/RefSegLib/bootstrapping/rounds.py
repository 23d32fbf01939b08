"""A segmenter learns from pseudo labels, labels the images anew, and the next one learns from that."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from RefSegLib.bootstrapping.mask_pool import MaskPool
from RefSegLib.bootstrapping.mask_vae import MaskVae
from RefSegLib.bootstrapping.pictures import gray
from RefSegLib.bootstrapping.selection import KEPT, agreement, chosen, quality
from RefSegLib.bootstrapping.template import Template, prominence
from RefSegLib.models.networks import build_segmenter
from RefSegLib.models.spec import SegmenterSpec
from RefSegLib.progress import SILENT, Progress
from RefSegLib.training.augment import Augmentation, random_looks, random_patch
from RefSegLib.training.batches import batch_of
from RefSegLib.training.fit import Fit, fast_precision, fit
from RefSegLib.training.losses import dice_ce, one_hot
from RefSegLib.training.train import started

FLOOR = 0.1  # below which no pixel's weight falls
SETTLED = 0.98  # mean Dice between the labels of two rounds at which a further one changes nothing
# Share of the best round's prominence that labels must have. Good rounds kept .81 of it and more while the true Dice
# rose; rounds that went astray had less than none.
KEEPS = 0.5
CHECKS = 8  # of a training, on the pseudo labels of patients that validate


@dataclass(frozen=True)
class RoundSettings:
    """How the segmenters are trained. kept: the share of the pseudo labels that is learned from, best first, round by
    round, the last one also in all later rounds; weighting: pixels count by how much they are believed; rounds: at most
    so many; steps: of each."""

    kept: tuple[float, ...] = KEPT
    weighting: bool = False
    rounds: int = 3
    steps: int = 300


@dataclass(frozen=True)
class Pseudo:
    """Pseudo labels of a set of images, all (n, 1, j, i) float32 in 0..1: labels, 0 or 1; found, the probabilities they
    were made of; other, a second opinion on them. quality: (n,) in 0..1."""

    labels: torch.Tensor
    found: torch.Tensor
    other: torch.Tensor
    quality: torch.Tensor


@dataclass
class Rounds:
    """What came of it, an entry per round: the segmenter, how its training went, the labels it learned from, a line of
    numbers. last: the labels that the last segmenter gives."""

    segmenters: list[nn.Module] = field(default_factory=list)
    fits: list[Fit] = field(default_factory=list)
    labels: list[Pseudo] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    last: Pseudo | None = None


def pseudo_labels(found: torch.Tensor, vae: MaskVae, pool: MaskPool, other: torch.Tensor | None = None) -> Pseudo:
    """From probabilities (n, 1, j, i) to pseudo labels: thresholded, shaped, judged.

    other: what was found the round before; without one the second opinion is the mask the VAE draws in its place.
    """
    labels = shaped(found, pool)
    good = quality(labels, found, vae) * (1 if other is None else agreement(labels, other))
    with torch.no_grad():
        other = vae(labels).float() if other is None else other
    return Pseudo(labels, found, other, good)


def starting_labels(found: torch.Tensor, template: Template, pool: MaskPool) -> list[Pseudo]:
    """Pseudo labels from two sources that know nothing of each other, probabilities (n, 1, j, i) and the template, in
    the order in which they are worth a try.

    Of a structure known to be an ellipse: those of the template alone, whose mistakes are by chance and thus not
    learned (heads: labels of .82, learned .91; those of both sources .82 and .87), then the ellipses of both. Masks of
    other images are examples only, so there what was found is the label. Good are those both sources agree on.
    """
    if not pool.ellipses:
        return [Pseudo(shaped(found, pool), found, template.alone, template.fits)]
    return [Pseudo(labels, found, template.alone, template.fits) for labels in (template.alone, template.fitted)]


def shaped(found: torch.Tensor, pool: MaskPool) -> torch.Tensor:
    """Probabilities (n, 1, j, i) as masks, 0 or 1, such as the structure can have."""
    return torch.stack([torch.from_numpy(pool.shaped(one[0].numpy() > 0.5))[None].float() for one in found])


def weights_of(pseudo: Pseudo) -> torch.Tensor:
    """How much each pixel's label is to be believed, (n, 1, j, i) in FLOOR..1: its agreement with the second opinion,
    times how decided the first one was."""
    sure = (1 - (pseudo.labels - pseudo.other).abs()) * (2 * pseudo.found - 1).abs()
    return sure.clamp(min=FLOOR)


def train_on(
    spec: SegmenterSpec,
    images: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    validation: tuple[torch.Tensor, torch.Tensor],
    *,
    steps: int,
    seed: int,
    checkpoint: Path | None = None,
    progress: Progress = SILENT,
) -> tuple[nn.Module, Fit]:
    """A segmenter from random weights learns by noise-weighted Dice (Wang 2021) and cross-entropy.

    images (n, C, j, i), labels and weights (n, 1, j, i). Kept are the weights whose masks of validation[0] agree best
    with validation[1].
    """
    module = started(build_segmenter, spec, seed, None)
    epoch = math.ceil(steps / CHECKS)
    pictures = torch.cat([images, weights], 1).unsqueeze(2).numpy()
    structures = labels[:, :1].numpy().astype(np.uint8)

    def batches(number: int) -> Iterator[tuple[torch.Tensor, ...]]:
        chance = torch.Generator().manual_seed(seed * 1_000_003 + number)
        for _ in range(epoch):
            drawn = torch.randint(len(pictures), (batch_of(spec),), generator=chance).tolist()
            patches = [
                random_patch(pictures[n], structures[n], 2, spec.patch, (1, 1, 1), Augmentation(), chance)
                for n in drawn
            ]
            both, targets = (torch.stack(part) for part in zip(*patches, strict=True))
            yield random_looks(both[:, :-1].contiguous(), Augmentation(), chance), targets, both[:, -1:]

    def loss_of(network: nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        shown, targets, weight = batch
        with fast_precision(shown.device):
            logits = network(shown)
        return dice_ce(logits, one_hot(targets, 2), weight.clamp(min=FLOOR))

    def validate(network: nn.Module) -> float:
        return float(agreement((probabilities(network, validation[0]) > 0.5).float(), validation[1]).mean())

    fitted = fit(
        module,
        batches,
        loss_of,
        validate,
        epochs=CHECKS,
        steps=epoch,
        pieces=batch_of(spec),
        checkpoint=checkpoint,
        progress=progress,
    )
    return module, fitted


@torch.no_grad()
def probabilities(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What a segmenter finds in images (n, C, j, i): (n, 1, j, i) float32 in 0..1."""
    found = []
    for some in images.split(32):
        with fast_precision(images.device):
            logits = network(some.unsqueeze(2))
        found.append(logits.float().softmax(1)[:, 1])
    return torch.cat(found)


def bootstrap_rounds(
    spec: SegmenterSpec,
    images: torch.Tensor,
    validates: torch.Tensor,
    starts: Sequence[Pseudo],
    vae: MaskVae,
    pool: MaskPool,
    settings: RoundSettings,
    kind: str,
    *,
    seed: int,
    folder: Path | None = None,
    progress: Progress = SILENT,
) -> Rounds:
    """Train on pseudo labels of images (n, C, j, i); then on those of the segmenter itself, until they settle,
    settings.rounds are done, or borders stand out half as far as after an earlier round (that round is dropped).

    starts: pseudo labels to begin with, in the order in which they are tried: all of one but the last are learned from,
    and the next one takes its place if what was learned has less prominent borders than the labels. Fetal heads found
    by their skull: 4.2, learned 4.6. Optic discs found by their border, which is often the cup's: 3.8, learned 3.1.
    validates: (n,) bool, whose pseudo labels choose the checkpoint instead of training; pool: what masks are like;
    kind: of their borders, see `template.match`. Each round starts from random weights. A round must be long enough to
    learn its labels: on 51 optic discs 100 steps came to a Dice of .81, falling from round to round, and 300 steps to
    .86. folder: checkpoints of a training that goes on after a kill.
    """
    (pseudo, *waiting), best, done = starts, -math.inf, Rounds()
    more = len(waiting)
    while (number := len(done.segmenters)) < settings.rounds:
        place = number + more - len(waiting)  # never back
        kept = 1.0 if waiting else settings.kept[min(number, len(settings.kept) - 1)]
        learned, judged = (chosen(pseudo.quality, part, kept) for part in (~validates, validates))
        weights = weights_of(pseudo) if settings.weighting else torch.ones_like(pseudo.labels)
        module, fitted = train_on(
            spec,
            images[learned],
            pseudo.labels[learned],
            weights[learned],
            (images[judged], pseudo.labels[judged]),
            steps=settings.steps,
            seed=seed + number,
            checkpoint=folder and folder / f"round-{number + 1}-{len(waiting)}.checkpoint",
            progress=progress.part(place / (settings.rounds + more), (place + 1) / (settings.rounds + more)),
        )
        after = pseudo_labels(probabilities(module, images), vae, pool, pseudo.found)
        before, border = (
            float(prominence(gray(images), labels, pool, kind, seed).mean()) for labels in (pseudo.labels, after.labels)
        )
        if waiting and border < before:
            pseudo = waiting.pop(0)
            continue
        if done.segmenters and border < KEEPS * best:
            break
        waiting, best = [], max(best, border)
        same = float(agreement(after.labels, pseudo.labels).mean())
        done.segmenters.append(module)
        done.fits.append(fitted)
        done.labels.append(pseudo)
        done.last = after
        numbers = {"learned": int(learned.sum()), "same": same, "quality": float(pseudo.quality.mean())}
        done.history.append({"round": number + 1, **numbers, "border": border})
        if same > SETTLED:
            break
        pseudo = after
    return done
