"""Let the intensities of the annotated slices correct a propagated shape.

What intensities inside and outside look like is learnt from the annotated slices of this very case. Whether it helps
depends on the structure (it pays on CT, costs on small structures in T1), so the caller tries and keeps the better.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

Array = npt.NDArray[np.float32]
BINS = 64
# Outside is what lies within so many pixels of the structure: farther away other things may look like it without
# meaning anything. 4 to 6 are alike; 9: RV .956 -> .955, 12 worse still.
NEAR = 5
# All but the last and all but the first along an axis: neighbors.
ENDS = slice(0, -1), slice(1, None)
# 25, 40 and 80 differ by less than .001 Dice.
STEPS = 40


def softness(distance: npt.NDArray) -> npt.NDArray:
    """How uncertain (in pixels) a border is this many slices away from an annotated one."""
    return 0.6 + 0.25 * np.minimum(distance, 8)


class Evidence:
    """What the intensities of the outlined slices say about other slices.

    pictures: (n, h, w). distances: signed distances (h, w), in pixels, of the outlined slices.
    """

    def __init__(self, pictures: npt.NDArray[np.uint8], distances: Mapping[int, Array]) -> None:
        self.bins = pictures // (256 // BINS)
        self.counts = {}
        for n, distance in distances.items():
            regions = distance > 0, (distance <= 0) & (distance > -NEAR)
            self.counts[n] = np.stack([np.bincount(self.bins[n][r], minlength=BINS) for r in regions])

    def at(self, targets: range, outlined: Mapping[int, object]) -> Array:
        """Log-likelihood ratio, inside against outside, learnt from `outlined`, at `targets`: (n, h, w), within +-3."""
        counts = np.sum([self.counts[n] for n in outlined if self.counts[n][0].any()], axis=0, dtype=float)
        if not np.all(counts.any(axis=-1)):
            return np.zeros((len(targets), *self.bins.shape[1:]), np.float32)
        inside, outside = (ndimage.gaussian_filter1d(c / c.sum(), 2.0, mode="nearest") + 1e-3 / BINS for c in counts)
        table = np.clip(np.log(inside / outside), -3, 3).astype(np.float32)
        return np.stack([cv2.GaussianBlur(table[self.bins[n]], (0, 0), 0.6) for n in targets])


def relax(unary: Array, pictures: npt.NDArray[np.uint8], spacing: tuple[float, float, float]) -> Array:
    """The probability (n, h, w) that minimizes total variation, cheaper across edges of the image, minus unary * p.

    A convex relaxation of the graph cut, solved by the primal-dual method of Chambolle and Pock (JMIV 2011). Equal to
    max-flow within 0.003 Dice where it was compared. spacing: mm along n, h, w.
    """
    image = pictures.astype(np.float32) / 255
    steps_between = [np.diff(image, axis=a) for a in range(3)]
    contrast = max(float(np.mean(steps_between[1] ** 2) + np.mean(steps_between[2] ** 2)), 1e-6)
    first, last = ([tuple(s if a == axis else slice(None) for a in range(3)) for axis in range(3)] for s in ENDS)
    weights = []
    for axis, change in enumerate(steps_between):
        closeness = min(spacing[1:]) / spacing[axis]
        weights.append((1.2 * closeness * np.exp(-(change**2) / contrast)).astype(np.float32))
    dual, room = [np.zeros_like(w) for w in weights], [np.empty_like(w) for w in weights]
    primal = np.float32(1) / (1 + np.exp(-unary))
    ahead, pull, before = primal.copy(), np.empty_like(primal), np.empty_like(primal)
    rate = np.float32(1 / 12**0.5)
    for _ in range(STEPS):
        np.copyto(pull, unary)
        for axis in range(3):
            change = np.subtract(ahead[last[axis]], ahead[first[axis]], out=room[axis])
            change *= rate
            dual[axis] += change
            np.minimum(dual[axis], weights[axis], out=dual[axis])
            np.maximum(dual[axis], -weights[axis], out=dual[axis])
            pull[first[axis]] += dual[axis]
            pull[last[axis]] -= dual[axis]
        np.copyto(before, primal)
        pull *= rate
        primal += pull
        np.minimum(primal, 1, out=primal)
        np.maximum(primal, 0, out=primal)
        np.multiply(primal, 2, out=ahead)
        ahead -= before
    return primal
