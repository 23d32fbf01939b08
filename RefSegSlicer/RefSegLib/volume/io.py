"""Reading images and masks, and writing them, with their geometry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from RefSegLib.errors import BadInput
from RefSegLib.models.spec import Label
from RefSegLib.volume.dicom import read_series, read_single
from RefSegLib.volume.files import FLAT, case_name, image_files, is_whole, suffix_of, write_whole
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.resample import grid_of, storable, to_sitk
from RefSegLib.volume.segmentation_file import merged_layers, named_segments
from RefSegLib.volume.volume import LabelMap, Volume

__all__ = ["case_name", "image_files", "read_image", "read_labels", "write_image", "write_labels"]

# What flat formats hold per channel; formats for volumes hold everything.
_FLAT_TYPES = {".png": ("uint8", "uint16"), ".bmp": ("uint8",)}
_TIFF_TYPES = ("uint8", "int8", "uint16", "int16", "float32")

WHITE = 255  # how painting programs and most public sets save the one structure of a flat mask


def read_image(path: Path | str, series: str | None = None) -> Volume:
    """An image from a NIfTI, NRRD, MetaImage, DICOM, PNG, JPEG, TIFF or BMP file, or a folder of one DICOM series.

    series: the description (or a part of it, or the number) of the DICOM series to take, where a folder holds several.
    Color files come as three channels, opacity is left out. Flat files lie on a planar grid of one slice. ITK reads
    NaN in NIfTI files as 0.

    Raises BadInput for anything that is not one whole three-dimensional or flat image of real numbers.
    """
    path = Path(path)
    image = read_series(path, series) if path.is_dir() else _read(path)
    if "complex" in image.GetPixelIDTypeAsString():
        raise BadInput(f"'{path}' holds complex numbers. Save their magnitude as an image first.")
    array = sitk.GetArrayFromImage(image)
    array = _channels_first(array[None] if image.GetDimension() == 2 else array)
    if suffix_of(path) in FLAT and len(array) in (2, 4):
        array = array[:-1]  # opacity
    # ITK makes three channels of a gray BMP file.
    return Volume(array[:1] if suffix_of(path) == ".bmp" and _is_gray(array) else array, _grid(image))


def read_labels(path: Path | str) -> LabelMap:
    """A mask: whole numbers from 0 to 65535, as uint8 or uint16.

    A segmentation of Slicer with several layers is merged if no segments overlap: segments keep their values where
    these are all different, else they are numbered in their order. A PNG of black and white (255) is label 1 on 0.
    Raises BadInput for fractions, negative numbers, overlapping segments, or anything read_image refuses.
    """
    path = Path(path)
    if path.is_dir():
        raise BadInput(f"'{path}' is a folder; a mask is one file.")
    image = _read(path)
    array = sitk.GetArrayFromImage(image)
    values = array[None] if image.GetDimension() == 2 else array
    if values.ndim == 4:
        colors = _channels_first(values)[:3]
        flat = suffix_of(path) in FLAT and _is_gray(colors)  # a mask that a painting program saved as a color image
        values = colors[0] if flat else merged_layers(path, image, values)
    if values.dtype.kind == "f" and not np.array_equal(values, np.round(values)):
        raise BadInput(f"'{path}' is no mask: it holds fractions. A mask holds whole numbers, one per structure.")
    if values.dtype.kind not in "fiu":
        raise BadInput(f"'{path}' is no mask: it holds complex numbers.")
    low, high = values.min(), values.max()
    if low < 0 or high > 65535:
        raise BadInput(f"'{path}' is no mask: its values run from {low:g} to {high:g}; 0 to 65535 are possible.")
    if suffix_of(path) in FLAT and high == WHITE and np.isin(values, (0, WHITE)).all():
        values = values // WHITE
    if values.dtype not in (np.uint8, np.uint16):
        values = values.astype(np.uint8 if high < 256 else np.uint16)
    return LabelMap(values, _grid(image))


def write_image(volume: Volume, path: Path | str) -> None:
    """Write an image, every voxel and its geometry. Raises BadInput if the place or the format cannot take it."""
    path = Path(path)
    array = volume.array[0] if volume.channels == 1 else np.moveaxis(volume.array, 0, -1)
    write_whole(_image(array, volume.grid, path, volume.channels > 1), path)


def write_labels(labels: LabelMap, path: Path | str, names: Sequence[Label] = ()) -> None:
    """Write a mask. As `.seg.nrrd`, Slicer finds segments with the names, colors and codes of `names` in it,
    empty ones too; values without a name become "Segment_N". Other formats hold the numbers alone.

    Raises BadInput if the place or the format cannot take it.
    """
    path = Path(path)
    high = int(labels.array.max(initial=0))
    if high > 65535:
        raise BadInput(f"A mask holds numbers up to 65535, and this one {high}; '{path}' was not written.")
    array = labels.array.astype(np.uint8 if high < 256 else np.uint16, copy=False)
    if suffix_of(path) == ".seg.nrrd":
        write_whole(named_segments(to_sitk(array, labels.grid), array, names), path)
    else:
        write_whole(_image(array, labels.grid, path), path)


def _read(path: Path) -> sitk.Image:
    """The image of one file, two- or three-dimensional."""
    if not path.exists():
        raise BadInput(f"There is no file '{path}'.")
    try:
        image = read_single(path)
        if is_whole(path):
            return image
    except RuntimeError as error:
        if "orthonormal" in str(error):
            raise BadInput(
                f"The axes of '{path}' are not perpendicular (a sheared or damaged header). Load it in Slicer and "
                "save it again, or resample it to a straight grid."
            ) from error
        raise BadInput(f"'{path}' cannot be read: it is damaged, cut short, or no image file we know.") from error
    raise BadInput(f"'{path}' is damaged or cut short: a part of its voxels is missing. Copy or export it again.")


def _channels_first(array: npt.NDArray) -> npt.NDArray:
    """(k, j, i) or (k, j, i, channel) to (channel, k, j, i)."""
    return array[None] if array.ndim == 3 else np.ascontiguousarray(np.moveaxis(array, -1, 0))


def _is_gray(array: npt.NDArray) -> bool:
    """Whether (channel, k, j, i) are the three equal colors of a gray image."""
    return len(array) == 3 and bool((array[:1] == array[1:]).all())


def _grid(image: sitk.Image) -> Grid:
    if image.GetDimension() == 3:
        return grid_of(image)
    grid = grid_of(sitk.JoinSeries(image))
    return Grid(grid.shape, grid.spacing, grid.direction, grid.origin, planar=True)


def _image(array: npt.NDArray, grid: Grid, path: Path, vector: bool = False) -> sitk.Image:
    """The SimpleITK image of an array (k, j, i) or (k, j, i, channel); flat if the grid or the format is."""
    suffix = suffix_of(path)
    array = storable(array)
    if suffix in FLAT:
        if grid.shape[0] > 1:
            raise BadInput(f"'{path}' cannot be written: {suffix} holds one slice, not {grid.shape[0]}. Use .nii.gz.")
        if array.dtype.name not in _FLAT_TYPES.get(suffix, _TIFF_TYPES):
            raise BadInput(f"'{path}' cannot be written: {suffix} does not hold {array.dtype} values. Use .nii.gz.")
        if vector and array.shape[-1] != 3:
            raise BadInput(f"'{path}' cannot be written: {suffix} holds 1 or 3 channels, not {array.shape[-1]}.")
    elif not grid.planar:
        if not vector:
            return to_sitk(array, grid)
        return sitk.Compose([to_sitk(array[..., channel], grid) for channel in range(array.shape[-1])])
    image = sitk.GetImageFromArray(array[0], isVector=vector)
    image.SetSpacing(grid.spacing[:0:-1])
    if grid.planar:  # any other slice lies in space, which a flat file cannot tell
        image.SetOrigin(grid.origin[:2])
        image.SetDirection(np.asarray(grid.direction)[:0:-1, :2].T.ravel())
    return image
