"""Where to look first: the connected regions of a map of doubt, by how much of the mask is at stake in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

# Voxels below are not worth a look of their own: their labels are more likely right than wrong.
THRESHOLD = 0.5
MOST = 10


@dataclass(frozen=True)
class Place:
    """One region in doubt. index: k, j, i of its voxel nearest to its middle; milliliters: its volume; doubt: its mean,
    0..1; structure: name of the label it is about, empty where there is no label at all."""

    index: tuple[int, int, int]
    milliliters: float
    doubt: float
    structure: str


def find_places(
    suspect: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    names: Mapping[int, str],
    spacing: Sequence[float],
    *,
    threshold: float = THRESHOLD,
    most: int = MOST,
) -> list[Place]:
    """The regions of `suspect` (k, j, i), 0..1, above a threshold; the one with most at stake (doubt x volume) first.

    labels: (k, j, i) label values; names: by value; spacing: mm along k, j, i. A region is about the label that most of
    its voxels have, or, where none has any, the label nearest to its middle in mm.
    """
    doubtful = suspect > threshold
    box = _box(doubtful)
    if box is None:
        return []
    regions, count = ndimage.label(doubtful[box], np.ones((3, 3, 3)))
    sums = ndimage.sum_labels(suspect[box], regions, np.arange(1, count + 1))
    largest = np.argsort(-sums, kind="stable")[:most]
    pieces = ndimage.find_objects(regions)
    corner, size = np.array([s.start for s in box]), np.asarray(spacing, float)
    labeled = None
    found = []
    for number in largest.tolist():
        piece = pieces[number]
        inside = np.argwhere(regions[piece] == number + 1) + [s.start for s in piece] + corner
        middle = inside[(((inside - inside.mean(axis=0)) * size) ** 2).sum(axis=1).argmin()]
        values = labels[tuple(inside.T)]
        values = values[values > 0]
        if len(values):
            value = int(np.bincount(values).argmax())
        else:
            labeled = np.argwhere(labels) if labeled is None else labeled
            value = _nearest(labels, labeled, middle, size)
        volume = len(inside) * float(np.prod(size)) / 1000
        index = tuple(middle.tolist())
        found.append(Place(index, volume, float(sums[number]) / len(inside), names.get(value, "")))
    return found


def _nearest(labels, labeled, middle, size) -> int:
    """The label nearest to a voxel; 0 where there is none."""
    if not len(labeled):
        return 0
    return int(labels[tuple(labeled[(((labeled - middle) * size) ** 2).sum(axis=1).argmin()])])


def _box(mask: npt.NDArray[np.bool_]) -> tuple[slice, slice, slice] | None:
    """The smallest box around what is true."""
    ranges = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return None if not len(ranges[0]) else tuple(slice(int(r[0]), int(r[-1]) + 1) for r in ranges)
