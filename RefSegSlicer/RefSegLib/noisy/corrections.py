"""What training learns from instead of the masks it was given, renewed as the network gets better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from monai.inferers import sliding_window_inference
from torch import nn

from RefSegLib.models.spec import SegmenterSpec
from RefSegLib.noisy import images, pixels
from RefSegLib.noisy.raters import RatedSample, votes
from RefSegLib.progress import SILENT, Progress
from RefSegLib.training.fit import fast_precision
from RefSegLib.training.uncertainty import mean_probabilities

Level = Literal["pixel", "image", "both"]
Floats = npt.NDArray[np.float32]

PASSES = 4


@dataclass(frozen=True)
class Correction:
    """What is believed of one sample. target: (outputs, k, j, i) float16, summing to 1; weight: (k, j, i) float16;
    disagreement: (raters, 2), what each whole mask has too much and misses, by what the network sees; off: (raters,),
    how far that is from what good masks do; suspected: (raters,) bool; trust: (raters,), how much it counts."""

    target: npt.NDArray[np.float16]
    weight: npt.NDArray[np.float16]
    disagreement: Floats
    off: Floats
    suspected: npt.NDArray[np.bool_]
    trust: Floats


def seen_by(module: nn.Module, sample: RatedSample, spec: SegmenterSpec, passes: int = PASSES) -> Floats:
    """The mean of `passes` predictions of a whole sample: (outputs, k, j, i) float32."""
    device = next(module.parameters()).device

    def predictor(patches: torch.Tensor) -> torch.Tensor:
        with fast_precision(device):
            return mean_probabilities(module, patches, passes=passes)

    with torch.no_grad():
        found = sliding_window_inference(
            torch.from_numpy(np.array(sample.image))[None].to(device),
            spec.patch,
            4,
            predictor,
            overlap=0.25,
            mode="gaussian",
            padding_mode="replicate",
        )
    return found[0].float().cpu().numpy()


def as_given(sample: RatedSample, outputs: int) -> Correction:
    """The masks as they are: the vote of the raters, everything trusted."""
    raters = len(sample.given)
    shape = sample.given.shape[1:]
    return Correction(
        votes(sample.given, outputs).astype(np.float16),
        np.ones(shape, np.float16),
        np.zeros((raters, 2), np.float32),
        np.zeros(raters, np.float32),
        np.zeros(raters, bool),
        np.ones(raters, np.float32),
    )


def corrected(
    module: nn.Module,
    samples: Sequence[RatedSample],
    spec: SegmenterSpec,
    level: Level,
    progress: Progress = SILENT,
) -> list[Correction]:
    """What `module` makes believe of each sample, at the level of pixels, of whole masks, or both.

    pixel: one table of errors for all masks; image: the masks as they are, each weighed as a whole; both: a table of
    errors for each mask, which says the less, the less the whole mask is trusted, and a weight. Where it cannot be told
    which masks are good (images.distances), all are believed as they are.
    """
    seen = []
    for number, sample in enumerate(samples):
        progress(number / max(len(samples), 1), f"looking at {sample.name}")
        seen.append(seen_by(module, sample, spec))
    points = [images.disagreement(s, sample.given) for s, sample in zip(seen, samples, strict=True)]
    off, limit = images.distances(np.concatenate(points))
    if not math.isfinite(limit):
        return [as_given(sample, spec.outputs) for sample in samples]
    raters = np.cumsum([len(sample.given) for sample in samples])[:-1]
    whole = [(values, values > limit, images.trust_of(values, limit)) for values in np.split(off, raters)]
    trust = [values[-1] for values in whole]
    if level == "image":
        targets = [_trusted(sample, own, spec.outputs) for sample, own in zip(samples, trust, strict=True)]
        weights = [np.full(t.shape[1:], own.max(), np.float32) for t, own in zip(targets, trust, strict=True)]
    else:
        targets = _targets(seen, samples, spec.outputs, trust if level == "both" else None)
        weights = [_confidence(t, own if level == "both" else None) for t, own in zip(targets, trust, strict=True)]
    return [
        Correction(target.astype(np.float16), weight.astype(np.float16), values, *about)
        for target, weight, values, about in zip(targets, weights, points, whole, strict=True)
    ]


def _trusted(sample: RatedSample, trust: Floats, outputs: int) -> Floats:
    """The vote of the raters, each as far as trusted."""
    share = trust / trust.sum()
    return sum(s * votes(labels[None], outputs) for s, labels in zip(share, sample.given, strict=True))


def _confidence(target: Floats, trust: Floats | None) -> Floats:
    """How much a voxel counts: by how sure its target is, and by how far its masks are trusted: what is believed of a
    bad mask is mostly what the network said itself, and learning that only confirms it (lungs with half of the masks
    wrong: no better than plain training when such masks counted half)."""
    sure = target.max(0)
    return sure if trust is None else sure * trust.max()


def _targets(
    seen: Sequence[Floats], samples: Sequence[RatedSample], outputs: int, trust: Sequence[Floats] | None
) -> list[Floats]:
    """Targets and tables in turns. trust: each mask has a table of its own, drawn towards that of all, and as far as
    the whole mask is not trusted, towards one that says nothing: lungs with half of the masks wrong, found with
    precision .87 and recall .82 instead of .95 and .52. None: one table for all masks."""
    near = [pixels.neighborhood(sample.given, s) for s, sample in zip(seen, samples, strict=True)]
    first = pixels.first_table(outputs)
    common, counts = first, [np.zeros((len(sample.given), outputs, outputs), np.float32) for sample in samples]
    for _ in range(pixels.ROUNDS):
        if trust is None:
            tables = [np.repeat(common[None], len(sample.given), 0) for sample in samples]
        else:
            tables = [
                far[:, None, None] * pixels.table_of(own, common) + (1 - far[:, None, None]) / outputs
                for own, far in zip(counts, trust, strict=True)
            ]
        targets = [
            pixels.target_of(s, sample.given, table) for s, sample, table in zip(seen, samples, tables, strict=True)
        ]
        counts = [pixels.counted(t, sample.given, n) for t, sample, n in zip(targets, samples, near, strict=True)]
        common = pixels.table_of(sum(c.sum(0) for c in counts), first)
    return targets


def save(folder: Path, corrections: Sequence[Correction]) -> list[Correction]:
    """The same, their arrays written to a folder and mapped from there, so that large sets fit into memory."""
    folder.mkdir(parents=True, exist_ok=True)
    mapped = []
    for number, one in enumerate(corrections):
        arrays = []
        for what in ("target", "weight"):
            file = folder / f"{number}.{what}.npy"
            file.unlink(missing_ok=True)  # the old one may still be mapped
            np.save(file, getattr(one, what))
            arrays.append(np.load(file, mmap_mode="r"))
        mapped.append(replace(one, target=arrays[0], weight=arrays[1]))
    return mapped
