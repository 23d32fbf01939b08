"""One label's mask into the label map of all: other labels stay, but for what somebody pointed at."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from RefSegLib.volume.grid import Grid
from scipy import ndimage

from InteractiveLearningLib.frames import voxels_on
from InteractiveLearningLib.prompts import Click, ObliqueOutline, Outline, Prompt, Scribble
from InteractiveLearningLib.scene import LabelResult, Region, on_slice

Bounds = tuple[tuple[int, int, int], tuple[int, int, int]]
# An outline that covers another label by this share of itself takes that label over in the slices next to it, too.
TAKES_OVER = 0.1


def taken_over(
    prompt: Prompt, labels: npt.NDArray, result: LabelResult, value: int, grid: Grid
) -> npt.NDArray[np.bool_]:
    """Voxels of other labels in the region of `result` that a prompt moves to label `value`, by pointing at them.

    An outline takes what it covers; a positive click or scribble inside another label takes what of that label the new
    mask reaches from there. Nothing else ever touches another label.
    """
    region, mask = result.region, result.mask
    old = labels[region]
    foreign = (old != 0) & (old != value) & mask
    taken = np.zeros(old.shape, bool)
    if isinstance(prompt, Outline):
        at = on_slice(prompt.axis, prompt.index - region[prompt.axis].start)
        taken[at] = foreign[at]
        covered = np.bincount(old[at][taken[at]]) if taken.any() else np.zeros(0)
        opened = np.nonzero(covered > TAKES_OVER * np.count_nonzero(mask[at]))[0]
        seeds = taken.copy()
    elif isinstance(prompt, ObliqueOutline):
        part = grid.crop([s.start for s in region], [s.stop for s in region])
        at, drawn = voxels_on(prompt.plane, 0, prompt.mask, part)
        taken[at] = foreign[at] & drawn
        opened = np.unique(old[taken])
        seeds = taken.copy()
    elif isinstance(prompt, Click | Scribble) and prompt.positive:
        points = (prompt.point,) if isinstance(prompt, Click) else prompt.points
        voxels = np.rint(grid.to_index(points)).astype(int) - [s.start for s in region]
        seeds = np.zeros(old.shape, bool)
        seeds[tuple(voxels.T)] = True
        opened = np.unique(old[seeds & foreign])
    else:
        return taken
    for other in opened:
        parts, _ = ndimage.label(foreign & (old == other))
        reached = np.unique(parts[seeds & (parts > 0)])
        taken |= np.isin(parts, reached)
    return taken


def disputed(result: LabelResult, others: Iterable[LabelResult]) -> npt.NDArray[np.bool_]:
    """Where another label that was spoken about too is more probable: a label keeps off there, even if it is free yet.

    Otherwise, of two neighbors outlined in the same slices, the first would fill what belongs to the second.
    """
    found = np.zeros(result.mask.shape, bool)
    for other in others:
        shared = [
            slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(result.region, other.region, strict=True)
        ]
        if any(s.start >= s.stop for s in shared):
            continue
        here, there = (
            tuple(slice(s.start - r.start, s.stop - r.start) for s, r in zip(shared, region, strict=True))
            for region in (result.region, other.region)
        )
        found[here] |= other.mask[there] & (other.probability[there] > result.probability[here])
    return found & (result.confidence < 1)


def difference(old: npt.NDArray, new: npt.NDArray, region: Region) -> tuple[Region, Bounds | None]:
    """The box inside `region` in which two arrays differ, as slices and as (lower, upper)."""
    boxes = ndimage.find_objects((old != new).astype(np.uint8)) if old.size else []
    if not boxes:
        return (slice(0, 0),) * 3, None
    inner = tuple(slice(r.start + b.start, r.start + b.stop) for r, b in zip(region, boxes[0], strict=True))
    return inner, bounds_of(inner)


def bounds_of(region: Region) -> Bounds | None:
    """(lower, upper) of a box of slices, upper exclusive; None if it is empty."""
    if any(s.start == s.stop for s in region):
        return None
    return tuple(s.start for s in region), tuple(s.stop for s in region)
