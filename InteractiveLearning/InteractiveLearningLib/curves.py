"""A closed smooth curve through a few clicks on the border of a structure -> the outline of that slice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from RefSegLib.errors import BadInput
from RefSegLib.volume.grid import Grid

from InteractiveLearningLib.frames import plane_through
from InteractiveLearningLib.prompts import ObliqueOutline, Outline, Point
from InteractiveLearningLib.slices import outline_through

# Points of one curve may lie this far (voxels) off the slice they belong to: a click is made between voxels.
IN_SLICE = 0.51
# So much finer than the smallest voxel is the plane of an oblique curve, so that its border is not frayed.
FINER = 2


def outline_of(grid: Grid, points: Sequence[Point], label: int) -> Outline | ObliqueOutline:
    """The inside of the curve through points (LPS mm) in one plane, be it a slice of the image or an oblique one.

    Raises BadInput below three different points, if they lie on one line, or outside the image.
    """
    places = grid.to_index(points).reshape(-1, 3)
    if len(places) < 3:
        raise BadInput("A closed curve needs at least three different points on the border.")
    if (places.max(axis=0) < -0.5).any() or (places.min(axis=0) > np.asarray(grid.shape) - 0.5).any():
        raise BadInput("The curve lies outside the image; draw it inside.")
    spread = np.ptp(places, axis=0)
    axis = int(spread.argmin())
    index = round(float(places[:, axis].mean()))
    if np.abs(places[:, axis] - index).max() <= IN_SLICE:
        others = [a for a in range(3) if a != axis]
        shape = tuple(grid.shape[a] for a in others)
        index = min(max(index, 0), grid.shape[axis] - 1)
        return Outline.on(grid, axis, index, outline_through(places[:, others], shape), label)
    plane = plane_through(points, min(grid.spacing) / FINER)
    flat = plane.to_index(points).reshape(-1, 3)
    if np.ptp(flat[:, 2]) < 1e-3:
        raise BadInput("All points of the curve lie on one line; set some of them on the other side of the structure.")
    return ObliqueOutline(outline_through(flat[:, 1:], plane.shape[1:]), label, plane)
