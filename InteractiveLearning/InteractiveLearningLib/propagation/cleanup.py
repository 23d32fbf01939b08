"""Let the intensities of the annotated slices correct a propagated shape.

What intensities inside and outside look like is learnt from the annotated slices of this very case. Whether it helps
depends on the structure (it pays on CT, costs on small structures in T1), so the caller tries and keeps the better.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Array = npt.NDArray[np.float32]
BINS = 64
NEAR = 6


def softness(distance: npt.NDArray) -> npt.NDArray:
    """How uncertain (in pixels) a border is this many slices away from an annotated one."""
    return 0.6 + 0.25 * np.minimum(distance, 8)


def intensity_evidence(
    pictures: npt.NDArray[np.uint8], outlined: dict[int, npt.NDArray[np.bool_]], targets: range
) -> Array:
    """Log-likelihood ratio, inside against outside, at the slices `targets` of `pictures`: (n, h, w), within +-3.

    outlined: masks (h, w) of annotated slices. Outside is what lies within 6 pixels of the structure (12 was worse):
    farther away other things may look like it without meaning anything.
    """
    inside, outside = np.zeros(BINS), np.zeros(BINS)
    for n, mask in outlined.items():
        if not mask.any():
            continue
        bins = pictures[n] // (256 // BINS)
        near = ndimage.distance_transform_edt(~mask) <= NEAR
        inside += np.bincount(bins[mask], minlength=BINS)
        outside += np.bincount(bins[near & ~mask], minlength=BINS)
    if not inside.sum() or not outside.sum():
        return np.zeros((len(targets), *pictures.shape[1:]), np.float32)
    smooth = [ndimage.gaussian_filter1d(h / h.sum(), 2.0, mode="nearest") + 1e-3 / BINS for h in (inside, outside)]
    table = np.clip(np.log(smooth[0] / smooth[1]), -3, 3).astype(np.float32)
    evidence = table[pictures[targets.start : targets.stop] // (256 // BINS)]
    return ndimage.gaussian_filter(evidence, (0, 0.6, 0.6))


def relax(unary: Array, pictures: npt.NDArray[np.uint8], spacing: tuple[float, float, float], steps: int = 80) -> Array:
    """The probability (n, h, w) that minimizes total variation, cheaper across edges of the image, minus unary * p.

    A convex relaxation of the graph cut, solved by the primal-dual method of Chambolle and Pock (JMIV 2011). Equal to
    max-flow within 0.003 Dice where it was compared. spacing: mm along n, h, w.
    """
    image = pictures.astype(np.float32) / 255
    steps_between = [np.diff(image, axis=a) for a in range(3)]
    contrast = max(float(np.mean(steps_between[1] ** 2) + np.mean(steps_between[2] ** 2)), 1e-6)
    weights = []
    for axis, change in enumerate(steps_between):
        closeness = min(spacing[1:]) / spacing[axis]
        weights.append((1.2 * closeness * np.exp(-(change**2) / contrast)).astype(np.float32))
    dual = [np.zeros_like(w) for w in weights]
    primal = np.float32(1) / (1 + np.exp(-unary))
    ahead = primal.copy()
    rate = np.float32(1 / 12**0.5)
    for _ in range(steps):
        pull = unary.copy()
        for axis in range(3):
            dual[axis] += rate * np.diff(ahead, axis=axis)
            np.minimum(dual[axis], weights[axis], out=dual[axis])
            np.maximum(dual[axis], -weights[axis], out=dual[axis])
            first = [slice(None)] * 3
            last = [slice(None)] * 3
            first[axis], last[axis] = slice(0, -1), slice(1, None)
            pull[tuple(first)] += dual[axis]
            pull[tuple(last)] -= dual[axis]
        before = primal
        primal = np.clip(primal + rate * pull, 0, 1)
        ahead = 2 * primal - before
    return primal
