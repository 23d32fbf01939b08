"""Reading images and masks, and writing them, with their geometry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from RefSegLib.errors import BadInput
from RefSegLib.models.spec import Label
from RefSegLib.volume.dicom import read_series
from RefSegLib.volume.files import case_name, image_files, quietly, suffix_of, write_whole
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.resample import grid_of, to_sitk
from RefSegLib.volume.segmentation_file import named_segments
from RefSegLib.volume.volume import LabelMap, Volume

__all__ = ["case_name", "image_files", "read_image", "read_labels", "write_image", "write_labels"]


def read_image(path: Path | str, series: str | None = None) -> Volume:
    """An image from a NIfTI, NRRD, MetaImage, PNG, JPEG, TIFF or BMP file, or from a folder of one DICOM series.

    series: part of the description of the DICOM series to take, where a folder holds several. Color files come as
    three channels. Flat files lie on a planar grid of one slice.

    Raises BadInput for anything that is not one three-dimensional or flat image.
    """
    path = Path(path)
    image = read_series(path, series) if path.is_dir() else _read(path)
    array = sitk.GetArrayFromImage(image)
    if image.GetDimension() == 2:
        image = sitk.JoinSeries(image)
        return Volume(_channels_first(array[None]), _planar(image))
    return Volume(_channels_first(array), grid_of(image))


def read_labels(path: Path | str) -> LabelMap:
    """A mask: whole numbers from 0 up. A segmentation of Slicer with several layers is merged if none overlap.

    Raises BadInput for fractions, negative numbers, overlapping segments, or anything read_image refuses.
    """
    path = Path(path)
    image = _read(path)
    array = sitk.GetArrayFromImage(image)
    layers = [array[None]] if image.GetNumberOfComponentsPerPixel() == 1 else np.moveaxis(array, -1, 0)
    layers = [layer.reshape((1, *layer.shape[-2:])) if image.GetDimension() == 2 else layer for layer in layers]
    if len(layers) > 1:
        layers = [_merged(path, image, layers)]
    values = layers[0].reshape(layers[0].shape[-3:])
    grid = _planar(sitk.JoinSeries(image)) if image.GetDimension() == 2 else grid_of(image)
    if values.dtype.kind == "f" and not np.array_equal(values, np.round(values)):
        raise BadInput(f"'{path}' is no mask: it holds fractions. A mask holds whole numbers, one per structure.")
    low, high = values.min(), values.max()
    if low < 0 or high > 65535:
        raise BadInput(f"'{path}' is no mask: its values run from {low} to {high}; 0 to 65535 are possible.")
    return LabelMap(values.astype(np.uint8 if high < 256 else np.uint16), grid)


def write_image(volume: Volume, path: Path | str) -> None:
    """Write an image, every voxel and its geometry. Raises BadInput if the place or the format cannot take it."""
    array = volume.array[0] if volume.channels == 1 else np.moveaxis(volume.array, 0, -1)
    write_whole(_image(array, volume.grid, volume.channels > 1), Path(path))


def write_labels(labels: LabelMap, path: Path | str, names: Sequence[Label] = ()) -> None:
    """Write a mask. As `.seg.nrrd`, Slicer finds segments with the names, colors and codes of `names` in it,
    empty ones too; values without a name become "Segment_N". Other formats hold the numbers alone.

    Raises BadInput if the place or the format cannot take it.
    """
    path = Path(path)
    array = labels.array if labels.array.max(initial=0) > 255 else labels.array.astype(np.uint8)
    image = _image(array, labels.grid, False)
    if suffix_of(path) == ".seg.nrrd":
        image = named_segments(to_sitk(array, labels.grid), array, names)
    write_whole(image, path)


def _read(path: Path) -> sitk.Image:
    if not path.exists():
        raise BadInput(f"There is no file '{path}'.")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        quietly(reader.ReadImageInformation)
        dimensions = reader.GetDimension()
        if dimensions > 3 and any(n > 1 for n in reader.GetSize()[3:]):
            raise BadInput(
                f"'{path}' is a series of {reader.GetSize()[3]} images over time (4D). Save the frame to be segmented "
                "as a volume of its own, for example with Slicer's Sequences module."
            )
        if dimensions > 3:  # a fourth axis of one frame, as some NIfTI writers add
            reader.SetExtractSize([*reader.GetSize()[:3], *[0] * (dimensions - 3)])
        return quietly(reader.Execute)
    except RuntimeError as error:
        if "orthonormal" in str(error):
            raise BadInput(
                f"The axes of '{path}' are not perpendicular (a sheared or damaged header). Load it in Slicer and "
                "save it again, or resample it to a straight grid."
            ) from error
        raise BadInput(f"'{path}' cannot be read: it is damaged, cut short, or no image file we know.") from error


def _channels_first(array: npt.NDArray) -> npt.NDArray:
    """(k, j, i) or (k, j, i, channel) to (channel, k, j, i); an opacity channel is left out."""
    if array.ndim == 3:
        return array[None]
    return np.ascontiguousarray(np.moveaxis(array[..., : 3 if array.shape[-1] == 4 else None], -1, 0))


def _planar(image: sitk.Image) -> Grid:
    grid = grid_of(image)
    return Grid(grid.shape, grid.spacing, grid.direction, grid.origin, planar=True)


def _image(array: npt.NDArray, grid: Grid, vector: bool) -> sitk.Image:
    """The SimpleITK image of an array (k, j, i) or (k, j, i, channel); flat if the grid is."""
    if not grid.planar:
        if not vector:
            return to_sitk(array, grid)
        return sitk.Compose([to_sitk(array[..., channel], grid) for channel in range(array.shape[-1])])
    image = sitk.GetImageFromArray(np.ascontiguousarray(array[0]), isVector=vector)
    image.SetSpacing(grid.spacing[:0:-1])
    image.SetOrigin(grid.origin[:2])
    return image


def _merged(path: Path, image: sitk.Image, layers: Sequence[npt.NDArray]) -> npt.NDArray:
    """One label map of several layers, segments numbered in their order. Raises BadInput if any two overlap."""
    merged = np.zeros(layers[0].shape, np.uint16)
    number = 0
    while image.HasMetaDataKey(f"Segment{number}_LabelValue"):
        layer = layers[int(image.GetMetaData(f"Segment{number}_Layer"))]
        inside = layer == int(image.GetMetaData(f"Segment{number}_LabelValue"))
        if merged[inside].any():
            name = image.GetMetaData(f"Segment{number}_Name")
            raise BadInput(f"'{path}' holds overlapping segments ('{name}' lies over another); separate them first.")
        number += 1
        merged[inside] = number
    if not number:
        raise BadInput(f"'{path}' has {len(layers)} values per voxel; a mask has one.")
    return merged
