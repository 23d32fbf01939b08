"""Oblique slices: a frame is a grid of its own, turned so that its first axis looks along the view's normal.

Slices of a frame are worked on as slices of the image are; what comes out is brought back to the voxels of the image.
A frame is a function of the image's grid and the normal alone, so that a log replayed anywhere finds the same one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from RefSegLib.volume.grid import Grid
from scipy import ndimage

Mask = npt.NDArray[np.bool_]
Point = tuple[float, float, float]
# A view that leans by less than this (degrees) against an axis of the image is taken to look along it: its slice
# leaves the image's own by less than half a voxel over 30.
UPRIGHT = 1.0


def view_of(grid: Grid, axis: int | None, normal: Point | None) -> int | Grid | None:
    """The array axis a view looks along, the frame of an oblique one, or None if nobody knows."""
    if normal is None:
        return axis
    along = np.abs(np.asarray(grid.direction) @ np.asarray(normal))
    if along.max() >= np.cos(np.radians(UPRIGHT)):
        return int(along.argmax())
    return frame_of(grid, normal)


def frame_of(grid: Grid, normal: Point) -> Grid:
    """The frame that covers an image and looks along `normal` (LPS unit vector); voxels as the smallest of the image.

    Its other two axes run as near as can be to the image's own. The middle of the image lies on a voxel of the frame.
    """
    first = np.asarray(normal, float)
    along = np.abs(np.asarray(grid.direction) @ first)
    second = np.asarray(grid.direction[int(along.argmin())])
    second = second - (second @ first) * first
    second /= np.linalg.norm(second)
    direction = np.stack([first, second, np.cross(first, second)])
    step = min(grid.spacing)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in grid.shape])).reshape(3, -1).T
    middle = grid.to_world((np.asarray(grid.shape) - 1) / 2)
    reach = np.ceil(np.abs((grid.to_world(corners) - middle) @ direction.T).max(axis=0) / step).astype(int)
    origin = middle - direction.T @ (reach * step)
    return Grid(tuple(2 * reach + 1), (step,) * 3, tuple(map(tuple, direction)), tuple(origin))


def sample_slice(array: npt.NDArray, grid: Grid, frame: Grid, index: int, *, nearest: bool = False) -> npt.NDArray:
    """Slice `index` of a frame through an array (k, j, i) on `grid`: (h, w); linear unless `nearest`.

    Outside the array its nearest voxel is repeated if linear, and 0 stands there if `nearest`.
    """
    coordinates = np.moveaxis(grid.to_index(_places(frame, index)), -1, 0)
    if nearest:
        return ndimage.map_coordinates(array, coordinates, order=0, mode="constant", cval=0)
    return ndimage.map_coordinates(array, coordinates, output=np.float32, order=1, mode="nearest")


def mask_on(mask: Mask, plane: Grid, frame: Grid) -> tuple[int, Mask]:
    """A mask (h, w) on the plane (1, h, w) of an oblique slice, as number and mask of the frame's slice next to it."""
    middle = plane.to_world((0, (mask.shape[0] - 1) / 2, (mask.shape[1] - 1) / 2))
    index = round(min(max(float(frame.to_index(middle)[0]), 0), frame.shape[0] - 1))
    return index, _looked_up(mask, plane, _places(frame, index))


def frame_box(frame: Grid, part: Grid) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(lower, upper) of the box of a frame that a part of the image lies in."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in part.shape])).reshape(3, -1).T
    places = frame.to_index(part.to_world(corners))
    lower = np.maximum(np.floor(places.min(axis=0)).astype(int), 0)
    upper = np.minimum(np.ceil(places.max(axis=0)).astype(int) + 1, frame.shape)
    return lower, upper


def voxels_on(frame: Grid, index: int, mask: Mask, part: Grid) -> tuple[tuple[npt.NDArray, ...], Mask]:
    """The voxels of a part of the image in slice `index` of a frame or plane, and what `mask` (h, w) says of them.

    A voxel lies in the slice if its middle is no farther from it than half the smallest side of a voxel.
    """
    turn = np.asarray(part.direction).T * np.asarray(part.spacing)
    along = np.asarray(frame.direction[0]) @ turn / frame.spacing[0]
    start = frame.to_index(part.origin)[0]
    depth = start + sum(
        a * np.arange(n).reshape([-1 if b == axis else 1 for b in range(3)])
        for axis, (a, n) in enumerate(zip(along, part.shape, strict=True))
    )
    at = np.nonzero(np.abs(depth - index) * frame.spacing[0] <= min(part.spacing) / 2)
    return at, _looked_up(mask, frame, part.to_world(np.stack(at, axis=-1)))


def plane_through(points: Sequence[Point], spacing: float, margin: int = 3) -> Grid:
    """The plane (1, h, w) that points (LPS mm) lie in as nearly as can be, with pixels of `spacing` mm around them."""
    places = np.asarray(points, float)
    middle = places.mean(axis=0)
    _, _, axes = np.linalg.svd(places - middle)
    normal, second = axes[2], axes[0]
    direction = np.stack([normal, second, np.cross(normal, second)])
    flat = (places - middle) @ direction[1:].T / spacing
    lower, upper = np.floor(flat.min(axis=0)) - margin, np.ceil(flat.max(axis=0)) + margin
    origin = middle + direction[1:].T @ (lower * spacing)
    shape = (1, *(int(n) for n in upper - lower + 1))
    return Grid(shape, (spacing,) * 3, tuple(map(tuple, direction)), tuple(origin))


def _places(frame: Grid, index: int) -> npt.NDArray[np.float64]:
    """LPS mm of the pixels of a slice: (h, w, 3)."""
    rows, columns = np.meshgrid(np.arange(frame.shape[1]), np.arange(frame.shape[2]), indexing="ij")
    return frame.to_world(np.stack([np.full(rows.shape, index), rows, columns], axis=-1))


def _looked_up(mask: Mask, plane: Grid, places: npt.NDArray[np.float64]) -> Mask:
    """What a mask (h, w) whose pixels lie on the last two axes of `plane` says at places (..., 3) in LPS mm."""
    pixels = np.rint(plane.to_index(places)[..., 1:]).astype(int)
    inside = ((pixels >= 0) & (pixels < mask.shape)).all(axis=-1)
    found = np.zeros(pixels.shape[:-1], bool)
    found[inside] = mask[tuple(pixels[inside].T)]
    return found
