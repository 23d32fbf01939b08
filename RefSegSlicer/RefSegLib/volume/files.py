"""Names of image files, whether they are whole, and writing them whole or not at all."""

from __future__ import annotations

import gzip
import math
import os
import tempfile
import zlib
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


def is_whole(path: Path) -> bool:
    """Whether a file is as long, and as intact, as its format can tell.

    Only where ITK itself does not say so: it reads a shortened NIfTI, BMP or JPEG file without a word and puts zeros
    or gray in place of what is missing, and writes such NIfTI and BMP files to a full disk, again without a word.
    """
    suffix = suffix_of(path)
    if suffix in (".nii", ".nii.gz"):
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        quietly(reader.ReadImageInformation)
        header = {key: float(reader.GetMetaData(key)) for key in reader.GetMetaDataKeys() if _is_size(key)}
        voxels = math.prod(max(header[f"dim[{axis}]"], 1) for axis in range(1, int(header["dim[0]"]) + 1))
        return _length(path) >= header["vox_offset"] + voxels * header["bitpix"] / 8
    size = path.stat().st_size
    with path.open("rb") as file:
        if suffix == ".bmp":
            return size >= max(int.from_bytes(file.read(6)[2:], "little"), 1)
        if suffix in (".jpg", ".jpeg"):
            file.seek(max(0, size - 4096))  # some cameras add something behind the end mark
            return b"\xff\xd9" in file.read()
    return True


def write_whole(image: sitk.Image, path: Path) -> None:
    """Write an image beside its place, then move it there. Raises BadInput, with the reason, if it cannot be."""
    suffix = suffix_of(path)
    if not suffix or suffix in (".jpg", ".jpeg"):
        raise BadInput(
            f"'{path.name}' cannot be written: the ending of its name does not tell a lossless image format. "
            f"Use one of {', '.join((*VOLUMES, '.png', '.tif'))}."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=path.parent) as folder:
            partial = Path(folder) / path.name
            quietly(lambda: sitk.WriteImage(image, str(partial), True))
            if not is_whole(partial):
                raise RuntimeError
            # Some formats are a header and a file of voxels: the header comes last, as it names the other.
            for file in sorted(Path(folder).iterdir(), key=lambda file: file == partial):
                with file.open("r+b") as stream:
                    os.fsync(stream.fileno())
                file.replace(path.parent / file.name)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        why = error.strerror if isinstance(error, OSError) else "the disk may be full or write-protected"
        raise BadInput(f"'{path}' could not be written: {why}. Choose another place or free some room.") from error


def quietly(action: Callable):
    """Run something of ITK without its warnings on the terminal; exceptions come through."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.GlobalWarningDisplayOff()
    try:
        return action()
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def _is_size(key: str) -> bool:
    return key.startswith("dim[") or key in ("vox_offset", "bitpix")


def _length(path: Path) -> float:
    """Bytes of a file once unpacked; 0 if it cannot be unpacked to its end."""
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            return path.stat().st_size
    try:
        with gzip.open(path) as file:
            return sum(len(chunk) for chunk in iter(lambda: file.read(1 << 20), b""))
    except (EOFError, OSError, zlib.error):
        return 0
