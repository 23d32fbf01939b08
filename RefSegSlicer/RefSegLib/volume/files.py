"""Names of image files, and writing them whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import SimpleITK as sitk

from RefSegLib.durable import sync_folder
from RefSegLib.errors import BadInput

VOLUMES = (".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
FLAT = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


def suffix_of(path: Path) -> str:
    """The recognized ending of a file's name, lower case; "" if there is none."""
    name = path.name.lower()
    return next((suffix for suffix in (*VOLUMES, *FLAT) if name.endswith(suffix)), "")


def case_name(path: Path) -> str:
    """The name of a file without the ending that tells its format; of a folder, its name."""
    suffix = suffix_of(path)
    return path.name[: -len(suffix)] if suffix else path.name


def image_files(folder: Path) -> list[Path]:
    """Recognized image files directly in a folder, sorted, hidden ones left out. Raises BadInput without a folder."""
    if not folder.is_dir():
        raise BadInput(f"There is no folder '{folder}'.")
    return sorted(f for f in folder.iterdir() if f.is_file() and suffix_of(f) and not f.name.startswith("."))


def write_whole(image: sitk.Image, path: Path) -> None:
    """Write an image beside its place, then move it there. Raises BadInput, with the reason, if it cannot be."""
    suffix = suffix_of(path)
    if not suffix or suffix in (".jpg", ".jpeg"):
        raise BadInput(
            f"'{path.name}' cannot be written: the ending of its name does not tell a lossless image format. "
            f"Use one of {', '.join((*VOLUMES, '.png', '.tif'))}."
        )
    partial = path.with_name(f".{os.getpid()}.partial{suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        quietly(lambda: sitk.WriteImage(image, str(partial), suffix != ".mhd"))
        if suffix in (".mhd", ".nhdr"):  # header and voxels are two files that name each other
            partial.unlink(missing_ok=True)
            sitk.WriteImage(image, str(path))
            return
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        why = error.strerror if isinstance(error, OSError) else "the disk may be full or write-protected"
        raise BadInput(f"'{path}' could not be written: {why}. Choose another place or free some room.") from error
    finally:
        partial.unlink(missing_ok=True)


def quietly(action: Callable):
    """Run something of ITK without its warnings on the terminal; exceptions come through."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.GlobalWarningDisplayOff()
    try:
        return action()
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
