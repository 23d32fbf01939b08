"""How much a voxel of an accepted case is believed: by the confidence of the proxy mask, by its distance to what a
person drew, and more where a person drew.

The distance follows Tian, Chen, Gao 2023 (arXiv 2312.06072), whose weight is 1 / (1 + slices to the nearest annotated
one); here it is counted in mm, so that thick slices are as far apart as they are.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from InteractiveLearningLib.accepted import AcceptedCase

# Far from every outline the confidence is 0; some weight keeps the model from inventing structures there.
LEAST = 0.1


def voxel_weights(
    case: AcceptedCase, *, confidence: bool = True, reach: float = 0.0, emphasis: float = 0.0
) -> npt.NDArray[np.float32]:
    """Weight of every voxel (k, j, i) of a case on its own grid, float32; 1 everywhere for a full mask.

    confidence: follow the confidence of the proxy mask, never below LEAST. reach: mm from the nearest annotated slice
    at which a voxel counts half, 0: distance does not count. emphasis: how much more a drawn voxel of a proxy counts.
    """
    weights = np.ones(case.labels.array.shape, np.float32)
    if case.confidence is None:
        return weights
    if confidence:
        weights *= np.maximum(case.confidence, LEAST)
    if reach and case.annotated:
        weights /= 1 + distance(case) / reach
    return weights * (1 + emphasis * case.drawn().astype(np.float32))


def distance(case: AcceptedCase) -> npt.NDArray[np.float32]:
    """Distance in mm of every voxel (k, j, i) from the nearest annotated slice; infinite where nothing was drawn."""
    shape = case.labels.array.shape
    nearest = np.full(shape, np.inf, np.float32)
    for axis, index in case.annotated:
        along = np.abs(np.arange(shape[axis]) - index) * case.image.grid.spacing[axis]
        nearest = np.minimum(nearest, along.reshape([-1 if a == axis else 1 for a in range(3)]))
    return nearest
