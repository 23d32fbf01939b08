"""Slice masks -> three-dimensional proxy mask with a confidence per voxel, by registration of slices.

Method 3 of the product (Tian, Chen, Gao, arXiv 2312.06072), with its nearest-slice SyN replaced by chained optical flow
fused from both sides: 0.917 instead of 0.898 mean Dice from three slices over nine structures, in milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from RefSegLib.errors import BadInput

from InteractiveLearningLib.propagation.flow import FlowCache, to_bytes
from InteractiveLearningLib.propagation.refine import Refinement
from InteractiveLearningLib.propagation.stack import Array

Mask = npt.NDArray[np.bool_]
Box = tuple[slice, slice, slice]

# Room around what is outlined, and the raster boxes snap to, so that a new outline rarely moves the box (and with it
# the normalization, and with that every registration).
MARGIN = 20
RASTER = 16
# Without limits nothing is looked for farther away from the outermost outline than this.
FARTHEST = 64
# How far, in mm, what was wrong with a model's mask in one slice is wrong in the next ones too.
CORRECTION_REACH = 2.0


@dataclass(frozen=True)
class ProxyMask:
    """mask: bool (k, j, i); probability, confidence: float32 of the same shape in 0..1.

    confidence: distance to the annotated slices x agreement of the pictures x margin of the decision; 1 on annotated
    slices, 0 where nothing was propagated to. estimated_dice: of the whole mask, from how well every annotated slice
    is predicted by the others (see estimate.py); None below 3 slices.
    method: which refinement was chosen. box: outside of it nothing was computed.
    """

    mask: Mask
    probability: Array
    confidence: Array
    estimated_dice: float | None
    method: str = "intensity"
    box: Box = (slice(None), slice(None), slice(None))


def box_around(
    shape: Sequence[int], axis: int, outlined: Mapping[int, Mask], limits: tuple[int, int] | None, margin: int = MARGIN
) -> Box:
    """The part of a volume (k, j, i) that matters for these outlines, on a raster so that it seldom changes.

    limits: first and last slice with the structure, or None.
    """
    drawn = np.logical_or.reduce([np.asarray(m, bool) for m in outlined.values()])
    lower, upper = (limits[0], limits[1]) if limits else (min(outlined) - FARTHEST, max(outlined) + FARTHEST)
    found = np.nonzero(drawn)
    spans = [
        (int(a.min()) - margin, int(a.max()) + margin + 1) if a.size else (0, n)
        for a, n in zip(found, drawn.shape, strict=True)
    ]
    spans.insert(axis, (min(lower, *outlined) - 1, max(upper, *outlined) + 2))
    raster = [RASTER] * 3
    raster[axis] = 1 if limits else RASTER
    return tuple(
        slice(max(low // r * r, 0), min(-(-high // r) * r, n))
        for (low, high), r, n in zip(spans, raster, shape, strict=True)
    )


def propagate(
    image: npt.NDArray,
    axis: int,
    slices: Mapping[int, Mask],
    *,
    limits: tuple[int, int] | None = None,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    cache: FlowCache | None = None,
    prior: Array | None = None,
    reach: float = CORRECTION_REACH,
    method: str | None = None,
    box: Box | None = None,
) -> ProxyMask:
    """Spread masks of a few slices over the volume.

    image: (k, j, i), one channel. axis: the array axis the slices are numbered along. slices: {index: bool mask} of
    the other two axes in array order; an empty mask says that the structure is not there. They come back as drawn.
    limits: first and last slice that show the structure. Without them the mask ends where the pictures stop to support
    it, which is worse: RV 0.87 instead of 0.96, hippocampus 0.86 instead of 0.89 (k = 3, 24 training volumes each).
    spacing: mm along k, j, i. cache: flows kept from earlier calls.
    prior: a model's probability (k, j, i) of the structure. Then the outlines correct it: what was wrong in a slice is
    carried to its neighbors and fades over `reach` mm; whether the prior or the outlines alone serve better is decided
    by the same leave-one-out test. method: one of refine.METHODS, or "model" (with a prior), instead of the choice of
    that test. box: where to compute, for several structures on one set of flows; see box_around.

    Raises BadInput if nothing is outlined, a mask has the wrong shape, or an index lies outside the image.
    """
    outlined = _checked(image, axis, slices, limits)
    box = box or box_around(image.shape, axis, outlined, limits)
    if prior is not None:
        box = _around_prior(box, axis, prior, limits)
    part = np.ascontiguousarray(np.moveaxis(image[box], axis, 0))
    first = box[axis].start or 0
    plane = tuple(b for a, b in enumerate(box) if a != axis)
    order = [axis, *[a for a in range(3) if a != axis]]
    work = Refinement(
        to_bytes(part),
        cache or FlowCache(),
        {n - first: mask[plane] for n, mask in outlined.items()},
        None if limits is None else (limits[0] - first, limits[1] - first),
        tuple(float(spacing[a]) for a in order),
        None if prior is None else np.ascontiguousarray(np.moveaxis(prior[box], axis, 0)),
        reach,
    )
    probability, confidence, method, estimate = work.best(method)
    results = []
    for values in (probability, confidence):
        whole = np.zeros(image.shape, np.float32)
        whole[box] = np.moveaxis(values, 0, axis)
        results.append(whole)
    for n, mask in outlined.items():
        at = tuple(n if a == axis else slice(None) for a in range(3))
        results[0][at], results[1][at] = mask, 1.0
    return ProxyMask(results[0] > 0.5, results[0], results[1], estimate, method, box)


def fuse(proxies: Sequence[ProxyMask]) -> ProxyMask:
    """One proxy from several axes: probabilities averaged with the confidences as weights.

    Annotated slices stay exact: where one of the proxies is certain (confidence 1), only certain ones count.
    """
    if len(proxies) == 1:
        return proxies[0]
    weights = [p.confidence + np.float32(1e-6) for p in proxies]
    certain = [p.confidence >= 1 for p in proxies]
    anywhere = np.logical_or.reduce(certain)
    for weight, sure in zip(weights, certain, strict=True):
        weight[anywhere & ~sure] = 0
    total = sum(weights)
    probability = sum(w * p.probability for w, p in zip(weights, proxies, strict=True)) / total
    confidence = np.maximum.reduce([p.confidence for p in proxies])
    known = [p.estimated_dice for p in proxies if p.estimated_dice is not None]
    methods = " and ".join(dict.fromkeys(p.method for p in proxies))
    box = tuple(slice(min(p.box[a].start for p in proxies), max(p.box[a].stop for p in proxies)) for a in range(3))
    return ProxyMask(probability > 0.5, probability, confidence, float(np.mean(known)) if known else None, methods, box)


def _checked(
    image: npt.NDArray, axis: int, slices: Mapping[int, Mask], limits: tuple[int, int] | None
) -> dict[int, Mask]:
    if image.ndim != 3 or axis not in (0, 1, 2):
        raise BadInput(f"Slices are propagated through one channel (k, j, i), not through {image.ndim} axes.")
    if not slices:
        raise BadInput("Nothing is outlined yet; outline at least one slice of the structure.")
    plane = tuple(n for a, n in enumerate(image.shape) if a != axis)
    for n, mask in slices.items():
        if not 0 <= n < image.shape[axis]:
            raise BadInput(f"The outlined slice {n} lies outside the image ({image.shape[axis]} slices).")
        if np.shape(mask) != plane:
            raise BadInput(f"An outline of {np.shape(mask)} pixels does not fit a slice of {plane}.")
    if limits and limits[0] > limits[1]:
        raise BadInput(f"The lower limit {limits[0]} lies above the upper limit {limits[1]}.")
    return {int(n): np.asarray(mask, bool) for n, mask in slices.items()}


def _around_prior(box: Box, axis: int, prior: Array, limits: tuple[int, int] | None) -> Box:
    """A box that also holds what the model sees of the structure (within the limits, if there are any)."""
    within = [slice(None)] * 3
    if limits:
        within[axis] = slice(limits[0], limits[1] + 1)
    seen = prior[tuple(within)] > 0.5
    result = []
    for a, b in enumerate(box):
        others = tuple(o for o in range(3) if o != a)
        at = np.nonzero(seen.any(axis=others))[0] + (within[a].start or 0)
        low, high = (int(at[0]) - 2, int(at[-1]) + 3) if at.size else (b.start, b.stop)
        low, high = min(low, b.start), max(high, b.stop)
        result.append(slice(max(low // RASTER * RASTER, 0), min(-(-high // RASTER) * RASTER, prior.shape[a])))
    return tuple(result)
