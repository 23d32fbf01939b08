"""One volume from a folder of DICOM files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from RefSegLib.errors import BadInput
from RefSegLib.volume.files import quietly

_DESCRIPTION, _PHOTOMETRIC = "0008|103e", "0028|0004"
# Scanners write positions with rounding; a missing slice is a jump of a whole slice.
_UNEVEN = 0.02


def read_series(folder: Path, series: str | None = None) -> sitk.Image:
    """The image of the one series in `folder`, or of the one whose description contains `series`.

    Rescale slope and intercept are applied. Raises BadInput if there is none, more than one, or slices are missing.
    """
    identifiers = quietly(lambda: sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)))
    if not identifiers:
        raise BadInput(f"'{folder}' holds no DICOM images. Give the folder that holds the files of one series.")
    files = {i: sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), i) for i in identifiers}
    names = {i: _tag(files[i][0], _DESCRIPTION) or "without description" for i in identifiers}
    wanted = [i for i in identifiers if series is None or series.lower() in names[i].lower()]
    if len(wanted) != 1:
        listed = "; ".join(f"'{names[i]}' ({len(files[i])} files)" for i in identifiers)
        raise BadInput(
            f"'{folder}' holds {len(identifiers)} series: {listed}. "
            "Name the one to use, or move it to a folder of its own."
        )
    return _read(folder, files[wanted[0]])


def _read(folder: Path, files: tuple[str, ...]) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(files)
    reader.MetaDataDictionaryArrayUpdateOn()
    try:
        image = quietly(reader.Execute) if len(files) > 1 else quietly(lambda: sitk.ReadImage(files[0]))
    except RuntimeError as error:
        raise BadInput(
            f"The DICOM series in '{folder}' cannot be read: a file is damaged or of another kind."
        ) from error
    if len(files) > 1:
        _check_spacing(folder, files)
    photometric = _tag(files[0], _PHOTOMETRIC)
    if photometric == "MONOCHROME1":  # low values are white: turn it, as every viewer does
        array = sitk.GetArrayFromImage(image)
        turned = sitk.GetImageFromArray(
            (int(array.max()) + int(array.min()) - array.astype(np.int64)).astype(array.dtype)
        )
        turned.CopyInformation(image)
        return turned
    if image.GetDimension() == 4:
        raise BadInput(f"The DICOM series in '{folder}' runs over time (4D). Choose one frame of it.")
    return image


def _check_spacing(folder: Path, files: tuple[str, ...]) -> None:
    """Raise BadInput if the distances between neighboring slices differ: a slice is missing or there twice."""
    positions, normal = [], None
    for file in files:
        position, orientation = _tag(file, "0020|0032"), _tag(file, "0020|0037")
        if not position or not orientation:
            return  # not every kind of DICOM image says where it lies; then there is nothing to check
        row = np.array(orientation.split("\\"), float)
        normal = np.cross(row[:3], row[3:]) if normal is None else normal
        positions.append(float(np.array(position.split("\\"), float) @ normal))
    gaps = np.abs(np.diff(positions))
    if np.abs(gaps - np.median(gaps)).max() > max(_UNEVEN * float(np.median(gaps)), 0.02):
        worst = int(np.abs(gaps - np.median(gaps)).argmax())
        raise BadInput(
            f"The slices of the DICOM series in '{folder}' are not evenly spaced: {np.median(gaps):.2f} mm apart, but "
            f"{gaps[worst]:.2f} mm between slices {worst + 1} and {worst + 2}. Is one missing, or are two series mixed?"
        )


def _tag(file: str, tag: str) -> str:
    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    reader.LoadPrivateTagsOff()
    quietly(reader.ReadImageInformation)
    return reader.GetMetaData(tag).strip() if reader.HasMetaDataKey(tag) else ""
