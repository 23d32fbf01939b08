"""Gate 0: does the score see that a mask is wrong? If not, reflection has nothing to go by on this structure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage, stats

from RefSegLib.progress import SILENT, Progress
from RefSegLib.reflection.consensus import consensus_region
from RefSegLib.reflection.judge import Judge
from RefSegLib.reflection.looking import mean_dice
from RefSegLib.reflection.settings import ReflectionSettings
from RefSegLib.synthesis.synthesizer import Synthesizer
from RefSegLib.training.cases import Sample

Labels = npt.NDArray[np.integer]


def corrupted(labels: Labels, rng: np.random.Generator) -> dict[str, Labels]:
    """Wrong versions of a true mask (k, j, i): too small, too large, moved, cut, a hole, a bump, labels swapped."""
    result = {}
    for size in (1, 2):
        result[f"grown {size}"] = _resized(labels, size)
        result[f"shrunk {size}"] = _resized(labels, -size)
    long_axes = [axis for axis, n in enumerate(labels.shape) if n > 4]
    for distance in (1, 2, 4):
        step = np.zeros(3, int)
        step[rng.choice(long_axes)] = distance * rng.choice((-1, 1))
        result[f"moved {distance}"] = ndimage.shift(labels, step, order=0)
    places = np.argwhere(labels > 0)
    for share in (0.2, 0.5):
        axis = max(long_axes, key=lambda a: float(np.ptp(places[:, a])))
        low, high = places[:, axis].min(), places[:, axis].max()
        cut = labels.copy()
        np.moveaxis(cut, axis, 0)[int(np.ceil(high + 1 - share * (high + 1 - low))) :] = 0
        result[f"cut by {share:.0%}"] = cut
    ball = ndimage.distance_transform_edt(_without(labels.shape, places[rng.integers(len(places))]))
    radius = max(2.0, (len(places) * 0.25) ** (1 / 3) * 0.62)  # a quarter of the structure
    result["hole"] = np.where(ball <= radius, 0, labels)
    edge = np.argwhere(_resized(labels, 3) != labels)
    bump = ndimage.distance_transform_edt(_without(labels.shape, edge[rng.integers(len(edge))]))
    result["bump"] = np.where((bump <= radius) & (labels == 0), labels[tuple(places[0])], labels)
    if labels.max() > 1:
        result["labels exchanged"] = np.where(labels > 0, labels % labels.max() + 1, 0)
    return {name: wrong.astype(labels.dtype) for name, wrong in result.items() if (wrong != labels).any()}


def _without(shape: tuple[int, ...], place: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    outside = np.ones(shape, bool)
    outside[tuple(place)] = False
    return outside


def _resized(labels: Labels, size: int) -> Labels:
    """Grown (each voxel takes the nearest label) or, if negative, shrunk by `size` voxels."""
    if size < 0:
        return np.where(ndimage.distance_transform_edt(labels > 0) > -size, labels, 0)
    distance, nearest = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    return np.where(distance <= size, labels[tuple(nearest)], 0)


def gate_zero(
    samples: Sequence[Sample],
    synthesizer: Synthesizer,
    settings: ReflectionSettings | None = None,
    *,
    seed: int = 0,
    progress: Progress = SILENT,
) -> dict[str, float | dict[str, float]]:
    """How the score ranks the true masks of `samples` and wrong ones, inside the region of all of them together.

    Returns {"below": share of wrong masks that score below the true one, "spearman": mean rank correlation of score
    and Dice within a case, "kinds": {kind of error: share below}}. Samples without a structure are left out.
    """
    settings = settings or ReflectionSettings()
    rng = np.random.default_rng(seed)
    below: dict[str, list[bool]] = {}
    correlations = []
    outputs = synthesizer.spec.outputs
    for number, sample in enumerate(samples):
        progress(number / len(samples), f"Gate 0: {sample.name}")
        truth = np.asarray(sample.labels)
        if not truth.any():
            continue
        masks = {"": truth} | corrupted(truth, rng)
        soft = {name: _soft(mask, outputs) for name, mask in masks.items()}
        region = consensus_region((1 - mask[0] for mask in soft.values()), synthesizer.spec.dimensions == 2)
        judge = Judge(np.asarray(sample.image), region, synthesizer)
        verdicts = {name: judge(mask) for name, mask in soft.items()}
        scores = {name: settings.similarity(v.ssim, v.correlation) for name, v in verdicts.items()}
        for name in masks:
            if name:
                below.setdefault(name, []).append(scores[name] < scores[""])
        agreement = [mean_dice(mask, truth, outputs) for mask in masks.values()]
        same = np.ptp(list(scores.values())) == 0  # a score that cannot tell masks apart ranks nothing
        correlations.append(0.0 if same else float(stats.spearmanr(list(scores.values()), agreement).statistic))
    return {
        "below": float(np.mean([value for values in below.values() for value in values])),
        "spearman": float(np.mean(correlations)),
        "kinds": {name: round(float(np.mean(values)), 3) for name, values in below.items()},
    }


def _soft(labels: Labels, outputs: int) -> npt.NDArray[np.float32]:
    """A mask as probabilities (outputs, k, j, i) with edges as soft as a segmenter's."""
    masks = np.stack([labels == value for value in range(outputs)]).astype(np.float32)
    return ndimage.uniform_filter(masks, [1, *(3 if n > 4 else 1 for n in labels.shape)], mode="nearest")
