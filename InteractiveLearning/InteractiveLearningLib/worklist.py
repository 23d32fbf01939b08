"""Which images of a folder are annotated already, and which come next.

Nothing is ever written into the folder itself. What was decided about its cases is kept elsewhere, in a file named by
a hash of where the folder is; in it, cases are known by hashes of their file names, which often name patients.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from RefSegLib.durable import write_durably
from RefSegLib.errors import BadInput, RefSegError

State = Literal["todo", "accepted", "rejected", "skipped"]
STATES: tuple[State, ...] = get_args(State)
DEEP = 4  # folders inside each other: patient, study, series and one more
_LOOKED_AT = 8  # files of a folder until it is taken for one without DICOM images
_PATIENT = "0010|0020"


@dataclass(frozen=True)
class FolderCase:
    """One image. place: its path inside the folder, with slashes; name: for people; path: a file, or a folder with
    the DICOM files of one series."""

    place: str
    name: str
    path: Path

    @property
    def key(self) -> str:
        """By which the case is known, without telling its name: 32 hex digits."""
        return hashlib.sha256(self.place.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def cases_in(folder: Path) -> list[FolderCase]:
    """Image files directly in a folder, then the DICOM series in it and in folders inside it, each sorted by name.

    Masks (.seg.nrrd) and hidden files are left out. Raises BadInput if there is no such folder or it is not readable.
    """
    from RefSegLib.volume.io import case_name, image_files

    try:
        files = [file for file in image_files(folder) if not file.name.lower().endswith(".seg.nrrd")]
        found = [FolderCase(file.name, case_name(file), file) for file in files]
        for place, inside, names in os.walk(folder):
            parts = Path(place).relative_to(folder).parts
            inside[:] = sorted(name for name in inside if not name.startswith(".")) if len(parts) < DEEP else []
            if _holds_dicom(Path(place), names):
                name = " ".join(parts) or folder.resolve().name
                found.append(FolderCase("/".join(parts) or ".", name, Path(place)))
    except OSError as error:
        raise BadInput(f"The folder '{folder}' cannot be read: {error.strerror}. Choose another one.") from error
    return found


def patient_at(case: FolderCase) -> str:
    """The patient of a case: PatientID of a DICOM series, else as far as the file's name tells. Reads a header.

    "" if a DICOM series does not tell.
    """
    if not case.path.is_dir():
        from RefSegLib.training.split import patient_of

        return patient_of(case.name)
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    for file in _dicom_files(sorted(case.path.iterdir())):
        reader.SetFileName(str(file))
        try:
            reader.ReadImageInformation()
        except RuntimeError:  # no pixels in it
            continue
        return reader.GetMetaData(_PATIENT).strip(" \0") if reader.HasMetaDataKey(_PATIENT) else ""
    return ""


class Marks:
    """What was decided about the cases of one list, in a file under `home`; survives whatever is killed when.

    source: what the list is of, as a person's folder by its full path. Raises RefSegError if the file is damaged.
    """

    def __init__(self, home: Path, source: str) -> None:
        name = hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        self.path = Path(home) / f"{name}.json"
        self._states: dict[str, State] = _read(self.path)

    def state(self, key: str) -> State:
        """Of a case by its key; "todo" if nothing was decided."""
        return self._states.get(key, "todo")

    def set(self, key: str, state: State) -> None:
        """Keep what was decided. Raises RefSegError if it cannot be written; then all is as before."""
        changed = {**self._states, key: state}
        try:
            write_durably(self.path, json.dumps({"states": changed}).encode(), mode=0o600)
        except OSError as error:
            raise RefSegError(f"The worklist could not be kept in '{self.path.parent}': {error.strerror}.") from error
        self._states = changed


def _read(path: Path) -> dict[str, State]:
    try:
        states = json.loads(path.read_bytes())["states"]
        if not set(states.values()) <= set(STATES):
            raise ValueError
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RefSegError(
            f"What was decided in this worklist cannot be read: '{path}' is damaged. Remove that file to begin anew."
        ) from error
    return states


def _holds_dicom(folder: Path, names: list[str]) -> bool:
    return next(_dicom_files([folder / name for name in sorted(names)[:_LOOKED_AT]]), None) is not None


def _dicom_files(files: list[Path]) -> Iterator[Path]:
    """Of some files those that begin as DICOM files do."""
    for path in files:
        if path.name.startswith(".") or path.name.upper() == "DICOMDIR" or not path.is_file():
            continue
        with path.open("rb") as file:
            if file.read(132)[128:] == b"DICM":
                yield path
