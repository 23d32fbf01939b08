"""From one grid to another, through SimpleITK (identity transform in patient space)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import LabelMap, Volume


def to_sitk(array: npt.NDArray, grid: Grid) -> sitk.Image:
    """A SimpleITK image of one channel (k, j, i) on `grid`."""
    image = sitk.GetImageFromArray(storable(array))
    image.SetSpacing(grid.spacing[::-1])
    image.SetOrigin(grid.origin)
    image.SetDirection(tuple(np.asarray(grid.direction)[::-1].T.ravel()))
    return image


def storable(array: npt.NDArray) -> npt.NDArray:
    """The same values in a type that ITK knows: bool as uint8, float16 as float32, foreign byte order as the own."""
    known = {"b1": np.uint8, "f2": np.float32}.get(array.dtype.str[1:], array.dtype.newbyteorder("="))
    return np.ascontiguousarray(array, known)


def grid_of(image: sitk.Image) -> Grid:
    """The grid of a three-dimensional SimpleITK image."""
    direction = np.asarray(image.GetDirection()).reshape(3, 3).T[::-1]
    return Grid(image.GetSize()[::-1], image.GetSpacing()[::-1], direction, image.GetOrigin())


def resample_array(
    array: npt.NDArray, source: Grid, target: Grid, *, nearest: bool = False, outside: float = 0.0
) -> npt.NDArray:
    """Values of `array` (k, j, i on `source`) at the voxels of `target`; linear unless `nearest`.

    Returns the array itself where the grids agree, so that no voxel moves without need. Voxels of `target`
    outside `source` get `outside`.
    """
    if source.same_as(target):
        return array
    filter_ = sitk.ResampleImageFilter()
    filter_.SetReferenceImage(to_sitk(np.zeros((1, 1, 1), np.uint8), target.crop((0, 0, 0), (1, 1, 1))))
    filter_.SetSize(target.shape[::-1])
    filter_.SetInterpolator(sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear)
    filter_.SetDefaultPixelValue(float(outside))
    return sitk.GetArrayFromImage(filter_.Execute(to_sitk(array, source)))


def resample_volume(volume: Volume, target: Grid, *, outside: float | None = None) -> Volume:
    """The image on another grid, linearly, as float32. Outside the image stands its smallest value unless given."""
    if volume.grid.same_as(target):
        return Volume(volume.array.astype(np.float32, copy=False), target)
    channels = [
        resample_array(
            channel.astype(np.float32),
            volume.grid,
            target,
            outside=float(channel.min()) if outside is None else outside,
        )
        for channel in volume.array
    ]
    return Volume(np.stack(channels), target)


def resample_labels(labels: LabelMap, target: Grid) -> LabelMap:
    """The label map on another grid, nearest neighbor."""
    return LabelMap(resample_array(labels.array, labels.grid, target, nearest=True), target)
