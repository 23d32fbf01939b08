"""One volume from a folder of DICOM files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from RefSegLib.errors import BadInput
from RefSegLib.volume.files import quietly

_DESCRIPTION, _NUMBER, _MODALITY = "0008|103e", "0020|0011", "0008|0060"
_POSITION, _ORIENTATION, _CLASS = "0020|0032", "0020|0037", "0008|0016"
# Scanners write positions with rounding; a missing slice is a jump of a whole slice.
_UNEVEN = 0.02
# mm that the last slice may lie aside of where the normal of the first one leads. Rounding stays far below it.
_ASIDE = 0.1


@dataclass(frozen=True)
class _Series:
    """The files of one series, sorted by position; what people call it."""

    name: str
    number: str
    files: tuple[str, ...]

    def __str__(self) -> str:
        number = f"number {self.number}, " if self.number else ""
        return f"'{self.name}' ({number}{len(self.files)} file{'s' if len(self.files) > 1 else ''})"


def read_series(folder: Path, series: str | None = None) -> sitk.Image:
    """The image of the one series in `folder`, or of the one that `series` names by its description or number.

    Rescale slope and intercept are applied and MONOCHROME1 is turned (by ITK), so that high values are bright.
    Two-dimensional if it is one radiograph without a place in the patient.
    Raises BadInput if there is none or more than one, if slices are missing, there twice, turned against each other,
    or sheared by a tilted gantry.
    """
    found = _series_in(folder)
    if not found:
        raise BadInput(f"'{folder}' holds no DICOM images. Give the folder that holds the files of one series.")
    wanted = found if series is None else _named(found, series)
    if len(wanted) != 1:
        problem = f"holds {len(found)} series" if series is None else f"holds {len(wanted)} series called '{series}'"
        listed = "; ".join(map(str, found))
        raise BadInput(
            f"'{folder}' {problem}, not one. There are: {listed}. "
            "Name the one to use by its description or number, or move it to a folder of its own."
        )
    files = wanted[0].files
    try:
        return read_single(Path(files[0])) if len(files) == 1 else _read(folder, files)
    except RuntimeError as error:
        raise BadInput(
            f"The DICOM series {wanted[0]} in '{folder}' cannot be read: a file is damaged, or they differ in size."
        ) from error


def read_single(file: Path) -> sitk.Image:
    """The image of one file, DICOM or any other that ITK knows. Raises BadInput for 4D, RuntimeError if unreadable."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    quietly(reader.ReadImageInformation)
    size = reader.GetSize()
    if any(n > 1 for n in size[3:]):
        raise BadInput(
            f"'{file}' is a series of {size[3]} images over time (4D). Save the frame to be segmented "
            "as a volume of its own, for example with Slicer's Sequences module."
        )
    if reader.HasMetaDataKey(_CLASS):
        if reader.HasMetaDataKey(_MODALITY) and reader.GetMetaData(_MODALITY).strip() == "SEG":
            raise BadInput(f"'{file}' is a DICOM segmentation. Load it in Slicer and save it as .seg.nrrd.")
        if size[2:] == (1,) and not reader.HasMetaDataKey(_POSITION):
            reader.SetExtractSize([*size[:2], 0])  # a radiograph lies nowhere in the patient
    if len(size) > 3:  # a fourth axis of one frame, as some NIfTI writers add
        reader.SetExtractSize([*size[:3], *[0] * (len(size) - 3)])
    return quietly(reader.Execute)


def _series_in(folder: Path) -> list[_Series]:
    """Series of images in a folder; reports, plans and segmentations that lie beside them are left out."""
    try:
        identifiers = quietly(lambda: sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)))
    except RuntimeError as error:
        raise BadInput(f"'{folder}' holds a DICOM file that is damaged. Copy the intact ones elsewhere.") from error
    found = []
    for identifier in identifiers:
        files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), identifier)
        reader = sitk.ImageFileReader()
        reader.SetFileName(files[0])
        try:
            quietly(reader.ReadImageInformation)
        except RuntimeError:
            continue  # no pixels in it
        name, number, kind = (
            reader.GetMetaData(tag).strip() if reader.HasMetaDataKey(tag) else ""
            for tag in (_DESCRIPTION, _NUMBER, _MODALITY)
        )
        if kind != "SEG":
            found.append(_Series(name or "without description", number, files))
    return sorted(found, key=lambda s: (s.number.zfill(12), s.name))


def _named(found: list[_Series], wanted: str) -> list[_Series]:
    """Series of exactly that description, else of that number, else with it in their description."""
    wanted = wanted.strip().lower()
    ways: tuple[Callable[[_Series], bool], ...] = (
        lambda s: s.name.lower() == wanted,
        lambda s: s.number == wanted,
        lambda s: wanted in s.name.lower(),
    )
    return next((hits for way in ways if (hits := [s for s in found if way(s)])), [])


def _read(folder: Path, files: tuple[str, ...]) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(files)
    reader.MetaDataDictionaryArrayUpdateOn()
    image = quietly(reader.Execute)
    if image.GetDimension() != 3 or image.GetDepth() != len(files):
        raise BadInput(f"The DICOM series in '{folder}' runs over time (4D). Choose one frame of it.")
    # Not every kind of DICOM image says where it lies; then there is nothing to check.
    if all(reader.HasMetaDataKey(n, tag) for n in range(len(files)) for tag in (_POSITION, _ORIENTATION)):
        numbers = [
            [[float(x) for x in reader.GetMetaData(n, tag).split("\\")] for n in range(len(files))]
            for tag in (_POSITION, _ORIENTATION)
        ]
        _check_places(folder, *map(np.asarray, numbers))
    return image


def _check_places(folder: Path, positions: npt.NDArray, orientations: npt.NDArray) -> None:
    """Raise BadInput unless slices lie parallel, evenly, and each right above the other.

    positions (n, 3), orientations (n, 6): as in the files. ITK stacks slices without looking at any of this.
    """
    where = f"The slices of the DICOM series in '{folder}'"
    if np.abs(orientations - orientations[0]).max() > 1e-3:
        raise BadInput(f"{where} are turned against each other, like those of a localizer. Choose another series.")
    normal = np.cross(orientations[0, :3], orientations[0, 3:])
    gaps = np.abs(np.diff(positions @ normal))
    typical, worst = float(np.median(gaps)), int(np.abs(gaps - np.median(gaps)).argmax())
    if gaps.min() < 0.01:
        raise BadInput(
            f"{where} lie several at one place: images over time (4D), of several echoes, or copies. "
            "Move those of one image to a folder of their own."
        )
    if abs(gaps[worst] - typical) > max(_UNEVEN * typical, 0.02):
        raise BadInput(
            f"{where} are not evenly spaced: {typical:.2f} mm apart, but {gaps[worst]:.2f} mm between slices "
            f"{worst + 1} and {worst + 2}. Is one missing or damaged, or are two series mixed?"
        )
    steps = positions - positions[0]
    aside = np.linalg.norm(steps - np.outer(steps @ normal, normal), axis=1).max()
    if aside > _ASIDE:
        raise BadInput(
            f"{where} do not lie right above each other ({aside:.1f} mm aside): the gantry was tilted. "
            "Load the series in Slicer, which straightens it, and save the volume."
        )
