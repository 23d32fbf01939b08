"""Candidates: the same image seen in several ways, each with the mask that the model gives then."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from RefSegLib.inference.segmenter import Segmenter
from RefSegLib.inference.tiling import infer
from RefSegLib.progress import SILENT, Progress
from RefSegLib.quality.estimate import expected_dice
from RefSegLib.quality.metrics import dice
from RefSegLib.reflection.candidates import IDENTITY, named, parts_of, transformed
from RefSegLib.reflection.judge import Verdict
from RefSegLib.reflection.settings import ReflectionSettings
from RefSegLib.reflection.statistics import MixedStatistics

# Mean Dice with the first mask. Without this a small model of lungs, calibrated on five patients, took what it saw in
# the inverted X-ray for better: .890 fell to .344 in another hospital, now .885. At .6 hippocampi under a bias field
# lose 3 points, at .5 nothing.
AGREES = 0.5

Array = npt.NDArray[np.float32]


class Looked:
    """A candidate while it is looked at.

    outputs: how many the network has; labels: (k, j, i) uint16, the label of every voxel; confidence, least_confidence:
    Dice that the mask expects of its labels under its own probabilities, mean and lowest. Probabilities are kept in
    half precision: there are several candidates. Converted by torch: numpy takes 20 ms for a million numbers, as long
    as a small network for a slice.
    """

    def __init__(self, name: str, probabilities: Array, *, exact: bool = False) -> None:
        self.name = name
        self.verdict: Verdict | None = None
        self.outputs = len(probabilities)
        tensor = torch.from_numpy(np.ascontiguousarray(probabilities, np.float32))
        self.labels = tensor.argmax(0).numpy().astype(np.uint16)
        self._kept = tensor if exact else tensor.half()
        per_label = [
            expected_dice(probability, self.labels == value)
            for value, probability in enumerate(tensor.numpy())
            if value
        ]
        self.confidence, self.least_confidence = float(np.mean(per_label)), min(per_label)

    @property
    def probabilities(self) -> Array:
        """(outputs, k, j, i) float32; rounded to half precision, unless exact."""
        return self._kept.float().numpy()

    def foreground(self) -> Array:
        """Probability of any structure (k, j, i) float32."""
        return 1 - self._kept[0].float().numpy()


def look(
    first: Looked, array: Array, segmenter: Segmenter, settings: ReflectionSettings, progress: Progress = SILENT
) -> list[Looked]:
    """All candidates of `settings` for an image (C, k, j, i), normalized; the first mask, known already, first."""
    names = [name for name in settings.candidates if name != IDENTITY]
    wanted: dict[str, list[float]] = {}
    for name in names:
        transform, share = parts_of(name)
        wanted.setdefault(transform, []).append(share)
    looked: dict[str, Looked] = {}
    for transform, shares in wanted.items():  # each made once, and the statistics of its image measured once
        seen = transformed(array, transform, segmenter.spec, settings.reference)
        statistics = None
        for share in shares:
            name = named(transform, share)
            part = progress.part(len(looked) / len(names), (len(looked) + 1) / len(names))
            part(0.0, f"Looking again: {name}")
            if share and statistics is None:
                statistics = MixedStatistics(segmenter, seen, part)
            if share == 1 and statistics.whole is not None:
                probabilities = statistics.whole
            else:
                probabilities = infer(statistics.network(share) if share else segmenter, seen, part)
            looked[name] = Looked(name, probabilities)
    return [first, *(looked[name] for name in names)]


def way(name: str, array: Array, segmenter: Segmenter, settings: ReflectionSettings) -> tuple[Array, Segmenter]:
    """The image (C, k, j, i) and the network of one candidate."""
    transform, share = parts_of(name)
    seen = transformed(array, transform, segmenter.spec, settings.reference)
    return seen, MixedStatistics(segmenter, seen).network(share) if share else segmenter


def similarity_of(candidate: Looked, settings: ReflectionSettings) -> float:
    """How well a judged candidate agrees with the image."""
    return settings.similarity(candidate.verdict.ssim, candidate.verdict.correlation)


def score_of(candidate: Looked, settings: ReflectionSettings) -> float:
    """What candidates are chosen by; one whose numbers broke down is never chosen."""
    score = similarity_of(candidate, settings) + settings.confidence_weight * candidate.confidence
    return score if np.isfinite(score) else -np.inf


def choose(looked: list[Looked], settings: ReflectionSettings) -> Looked:
    """The candidate that fits best, if it beats the first by the margin.

    Where the first mask agrees with the image as well as the masks of images the model knows, nothing but a mask AGREES
    of which is the same may take its place.
    """
    first = looked[0]
    if settings.known is not None and similarity_of(first, settings) >= settings.known:
        looked = [c for c in looked if c is first or mean_dice(c.labels, first.labels, first.outputs) >= AGREES]
    best = max(looked, key=lambda candidate: score_of(candidate, settings))
    return best if score_of(best, settings) - score_of(first, settings) > settings.margin else first


def mean_dice(a: npt.NDArray[np.integer], b: npt.NDArray[np.integer], outputs: int) -> float:
    """Mean Dice over the labels 1.. of two label arrays."""
    return float(np.mean([dice(a == value, b == value) for value in range(1, outputs)]))
