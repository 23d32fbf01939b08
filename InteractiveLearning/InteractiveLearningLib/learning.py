"""Streaming fine-tuning: one accepted case, and some earlier ones so that they are not forgotten.

After Tian, Chen, Gao 2023 (arXiv 2312.06072): the target of a voxel is a mixture of what was accepted and what the
model said before this case (self-distillation against forgetting), earlier cases are replayed, voxels are weighted by
confidence. Departures: the mixture holds where nobody drew; a slice a person drew is taken as it is.
"""

from __future__ import annotations

import io
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from RefSegLib.durable import write_durably
from RefSegLib.errors import BadInput, Cancelled
from RefSegLib.inference.predict import prepare
from RefSegLib.inference.region import RegionOfInterest, find_regions
from RefSegLib.inference.segmenter import Segmenter, load_segmenter
from RefSegLib.inference.tiling import infer
from RefSegLib.models.networks import build_segmenter
from RefSegLib.models.spec import SegmenterSpec
from RefSegLib.models.store import ModelVersion
from RefSegLib.noisy.pixels import belief
from RefSegLib.progress import SILENT, Progress
from RefSegLib.training.augment import Augmentation, random_looks, random_patch
from RefSegLib.training.batches import batch_of
from RefSegLib.training.fit import fast_precision
from RefSegLib.training.losses import dice_ce
from RefSegLib.volume.resample import resample_array, resample_labels
from torch import Tensor, nn

from InteractiveLearningLib.accepted import AcceptedCase
from InteractiveLearningLib.weights import LEAST, voxel_weights

# The network knows its kind of image already; strong changes would only slow the few iterations down.
LIGHT = Augmentation(rotation=10.0, scale=0.1, shift=0.08, looks=0.15)

# Of a curve that is kept or shown; more points than these tell nothing more.
MOST_LOSSES = 200

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LearningSettings:
    """How one case is learnt.

    iterations, seconds: whichever ends first; `patience` iterations without a falling loss end it too.
    rate: of AdamW, reached after `warm_up` iterations, then falling to 0. Chosen on a finished hippocampus network, 30
    iterations on one case, two cases: 1e-5, 3e-5, 1e-4 gained 0.5, 1.4, 2.5 Dice points on that case and changed 16
    patients of the validation split by 0.0, -0.1, -0.7. A network at its beginning bears much more: 28 cases learnt by
    one of 8 patients gave .845, .853, .856 with 5e-4 (`share` 0.5), 1e-3, 2e-3 (0.25) on validation patients.
    batch: patches an iteration, None: as many as training takes. share: how likely a patch is of the new case; 0.25
    and 0.5 were alike (.853, .848).
    step: how far a version goes from its parent towards what was learnt; half way is the mean of both (Wortsman 2022,
    arXiv 2109.01903). Hearts .603 instead of .596 with 0.5, hippocampi alike.
    trust: weight of an accepted voxel that nobody drew against what the model said before. confidence, reach, emphasis:
    see voxel_weights; without any of the four hippocampi were alike (.854). capacity: earlier cases replayed; hearts
    forgot 4 points of the first pathology with 4, none with 16. checkpoint: iterations between checkpoints.
    doubt: a voxel of a proxy mask that nobody drew counts as far as the model before finds it right, see
    RefSegLib/noisy/pixels.py; a stream of 40 hippocampi ended at .8549 with it (published; newest .8565) and .8545
    without (.8549), which is nothing.
    """

    iterations: int = 150
    seconds: float = 120.0
    patience: int = 40
    rate: float = 3e-5
    warm_up: int = 10
    batch: int | None = None
    share: float = 0.5
    trust: float = 0.7
    confidence: bool = True
    reach: float = 0.0
    emphasis: float = 1.0
    step: float = 1.0
    capacity: int = 16
    checkpoint: int = 20
    doubt: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Sample:
    """One region of a case as the network sees it: image (channel, k, j, i), soft target (output, k, j, i), weight
    (k, j, i), all float32; spacing in mm."""

    image: Floats
    target: Floats
    weight: Floats
    spacing: tuple[float, float, float]


@dataclass(frozen=True)
class Learnt:
    """What came out: weights by name, the loss of every iteration, seconds spent in this and earlier runs."""

    weights: dict[str, npt.NDArray]
    losses: list[float]
    seconds: float

    def summary(self) -> dict[str, Any]:
        """What a version records of its learning: iterations, seconds, mean loss of the first and last ten, and the
        curve: (iteration from 1, loss), at most MOST_LOSSES of them, evenly spread."""
        first, last = (round(float(np.mean(part)), 4) for part in (self.losses[:10], self.losses[-10:]))
        kept = np.unique(np.linspace(0, len(self.losses) - 1, min(len(self.losses), MOST_LOSSES)).round().astype(int))
        curve = [(int(n) + 1, round(self.losses[n], 4)) for n in kept]
        return {"done": len(self.losses), "took": round(self.seconds, 1), "loss": [first, last], "losses": curve}


def samples_of(
    case: AcceptedCase, spec: SegmenterSpec, segmenter: Segmenter | None, settings: LearningSettings
) -> list[Sample]:
    """What can be learnt from a case, one sample per region that holds a label.

    segmenter: the model as it was before this case; its probabilities are mixed into the target. None: they are not.
    """
    weights = voxel_weights(case, confidence=settings.confidence, reach=settings.reach, emphasis=settings.emphasis)
    drawn = case.drawn().astype(np.uint8)
    regions = [RegionOfInterest(case.image.grid)] if case.region else find_regions(case.image, spec)
    samples = []
    for region in regions:
        labels = resample_labels(case.labels, region.grid).array.astype(int) - region.offset
        labels[(labels < 0) | (labels >= spec.outputs)] = 0
        if not labels.any():
            continue
        here = resample_array(drawn, case.image.grid, region.grid, nearest=True).astype(bool)
        # Outside the image the weight is 0: padding teaches nothing.
        weight = resample_array(weights, case.image.grid, region.grid).astype(np.float32)
        image = prepare(case.image, region.grid, spec)
        trust = np.where(here, 1.0, settings.trust).astype(np.float32)
        one_hot = np.moveaxis(np.eye(spec.outputs, dtype=np.float32)[labels], -1, 0)
        doubt = segmenter is not None and settings.doubt and case.confidence is not None
        soft = segmenter is not None and trust.min() < 1
        seen = infer(segmenter, image, SILENT) if soft or doubt else one_hot
        target = trust * one_hot + (1 - trust) * seen if soft else one_hot
        if doubt:
            weight *= np.where(here, 1.0, np.maximum(belief(seen, labels), LEAST))
        samples.append(Sample(image, target, weight, region.grid.spacing))
    return samples


def learn(
    version: ModelVersion,
    case: tuple[str, AcceptedCase],
    replayed: Sequence[AcceptedCase],
    settings: LearningSettings,
    checkpoint: Path,
    report: Callable[[float], None],
    progress: Progress = SILENT,
) -> Learnt:
    """Fine-tune a version on a new case (id and content) and on earlier ones; the version itself stays as it is.

    Resumes from `checkpoint` if that belongs to this case, version and settings. When cancelled, the checkpoint is
    written first. report is told the loss of every iteration, those before a resumption first. Raises BadInput if the
    case holds nothing to learn from, or if learning diverges.
    """
    spec, (identifier, accepted) = version.spec, case
    mixed = (settings.trust < 1 or settings.doubt) and any(c.confidence is not None for c in (accepted, *replayed))
    before = load_segmenter(version) if mixed else None  # takes a second that full masks need not wait for
    new = samples_of(accepted, spec, before, settings)
    if not new:
        raise BadInput(f"Case {identifier} has no label inside the region that {spec.name} looks at.")
    old = [sample for earlier in replayed for sample in samples_of(earlier, spec, before, settings)]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = build_segmenter(spec)
    module.load_state_dict({name: torch.from_numpy(np.array(a)) for name, a in version.segmenter().items()})
    module.to(device).train()
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()  # statistics of one patient would replace those of many
    optimizer = torch.optim.AdamW(module.parameters(), lr=settings.rate)
    mine = {"case": identifier, "parent": version.version, "settings": asdict(settings)}
    losses, spent = _resume(checkpoint, mine, module, optimizer, device)
    generator = torch.Generator().manual_seed(zlib.crc32(f"{settings.seed} {identifier} {len(losses)}".encode()))
    size = settings.batch or batch_of(spec)
    started = time.monotonic() - spent
    for loss in losses:
        report(loss)

    def save() -> None:
        state = {"weights": module.state_dict(), "optimizer": optimizer.state_dict()}
        content = io.BytesIO()
        torch.save({"about": mine, "losses": losses, "spent": time.monotonic() - started} | state, content)
        write_durably(checkpoint, content.getvalue())

    try:
        while not _finished(losses, time.monotonic() - started, settings):
            for group in optimizer.param_groups:
                group["lr"] = _rate(len(losses), time.monotonic() - started, settings)
            fresh = torch.rand(size, generator=generator) < settings.share
            pools = [new if mine_too or not old else old for mine_too in fresh.tolist()]
            chosen = [pool[int(torch.randint(len(pool), (1,), generator=generator))] for pool in pools]
            image, target, weight = (t.to(device) for t in _batch(chosen, spec, generator))
            with fast_precision(device):
                logits = module(image)
            loss = dice_ce(logits, target, weight)
            if not torch.isfinite(loss):
                raise BadInput(f"Learning from case {identifier} diverged; nothing was changed.")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            losses.append(float(loss.detach()))
            report(losses[-1])
            progress(len(losses) / settings.iterations, f"Iteration {len(losses)}, loss {losses[-1]:.3f}")
            if len(losses) % settings.checkpoint == 0:
                save()
    except Cancelled:
        save()
        raise
    parent = version.segmenter()
    weights = {
        name: _between(np.asarray(parent[name]), value.detach().cpu().numpy(), settings.step)
        for name, value in module.state_dict().items()
    }
    return Learnt(weights, losses, time.monotonic() - started)


def _between(start: npt.NDArray, end: npt.NDArray, step: float) -> npt.NDArray:
    if step == 1 or not np.issubdtype(end.dtype, np.floating):
        return end
    return (start + step * (end - start)).astype(end.dtype)


def _rate(done: int, seconds: float, settings: LearningSettings) -> float:
    """Up in the first iterations, then down to nothing where iterations or seconds run out, whichever is first."""
    left = 1 - max(done / settings.iterations, min(seconds / settings.seconds, 1.0))
    return settings.rate * min(1.0, (done + 1) / max(settings.warm_up, 1)) * left


def _finished(losses: list[float], seconds: float, settings: LearningSettings) -> bool:
    if len(losses) >= settings.iterations or (losses and seconds >= settings.seconds):
        return True
    window = settings.patience
    if len(losses) < 2 * window + settings.warm_up:
        return False
    return bool(np.mean(losses[-window:]) >= 0.995 * np.mean(losses[-2 * window : -window]))


def _batch(samples: list[Sample], spec: SegmenterSpec, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Patches in slightly random poses and looks: image, target, weight, each (n, channel, k, j, i)."""
    patches = []
    for sample in samples:
        # Target and weight ride along as further channels of the image, so that they stay soft; what the patch is
        # centered on is told by a mask alone.
        stack = np.concatenate([sample.image, sample.target, sample.weight[None]])
        structure = sample.target[0] < 0.5
        patch, _ = random_patch(stack, structure, 2, spec.patch, sample.spacing, LIGHT, generator)
        patches.append(patch)
    stack, channels = torch.stack(patches), len(spec.channels)
    return random_looks(stack[:, :channels], LIGHT, generator), stack[:, channels:-1], stack[:, -1:]


def _resume(
    path: Path, mine: dict[str, Any], module: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
) -> tuple[list[float], float]:
    """Losses and seconds of the run that was interrupted; nothing if there was none for the same case."""
    if not path.exists():
        return [], 0.0
    state = torch.load(path, map_location=device, weights_only=True)
    if state["about"] != mine:
        return [], 0.0
    module.load_state_dict(state["weights"])
    optimizer.load_state_dict(state["optimizer"])
    return list(state["losses"]), float(state["spent"])
