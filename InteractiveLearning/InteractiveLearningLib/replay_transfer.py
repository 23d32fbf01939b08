"""Accepted cases in one file, for another store: what the file holds, how it is written, and how it is read.

A zip archive whose parts are stored as they are: index.json (cases, and the role of every patient), seal (HMAC-SHA256
of index.json under a secret of the site) and arrays/HASH. No key leaves its store.
"""

from __future__ import annotations

import hashlib
import hmac
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, Json, StringConstraints, ValidationError
from RefSegLib.durable import written_whole
from RefSegLib.errors import BadInput
from RefSegLib.volume.grid import Grid
from sqlalchemy import select

from InteractiveLearningLib.accepted import LONGEST_SITE, Role
from InteractiveLearningLib.replay import ReplayStore
from InteractiveLearningLib.replay_index import CaseRow, PastRow, PatientRow
from InteractiveLearningLib.replay_room import make_room

INDEX, SEAL, FOLDER = "index.json", "seal", "arrays/"
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Identifier = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


@dataclass(frozen=True)
class Imported:
    """What an import did: cases added, cases that were here already, patients whose role here differs and was kept."""

    added: int
    known: int
    roles_kept: int


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class MovedCase(_Entry):
    """A row of the index, without its number, which every store gives anew."""

    id: Identifier
    model: str
    patient_key: Hash
    accepted_at: str
    image: Hash
    labels: Hash
    confidence: Hash | None
    details: str
    consent: bool
    site: Annotated[str, Field(max_length=LONGEST_SITE)]


class Moved(_Entry):
    """Everything of a store but its arrays and its keys. past: cases that are gone, by the hash of their patient."""

    format: Literal[1] = 1
    keys: list[str]
    patients: dict[Hash, Role]
    cases: list[MovedCase]
    past: dict[Identifier, Hash]

    def arrays(self) -> set[str]:
        """Names of the arrays of all cases."""
        return {name for c in self.cases for name in (c.image, c.labels, c.confidence) if name}


class _Details(BaseModel):
    grid: dict
    label_names: list[str]
    annotated: list[tuple[int, int]]
    effort: float | None
    region: bool
    structures: list[str] | None = None


class _Sound(BaseModel):
    """What a case must hold beyond the types of its entries for the store to read it back."""

    accepted_at: datetime
    details: Json[_Details]


def export_cases(store: ReplayStore, file: str | Path) -> int:
    """Write all cases with the roles of all patients to one file; returns the number of cases.

    Raises DamagedCase, naming the case, if one cannot be read, and RefSegError if the file cannot be written; no file
    is written then.
    """
    with store.reading() as db:
        rows = list(db.scalars(select(CaseRow).order_by(CaseRow.number)))
        patients = {row.key: row.role for row in db.scalars(select(PatientRow).order_by(PatientRow.key))}
        past = {row.id: row.patient_key for row in db.scalars(select(PastRow).order_by(PastRow.id))}
    cases = [MovedCase(**{name: getattr(row, name) for name in MovedCase.model_fields}) for row in rows]
    owner = {name: row.id for row in rows for name in row.arrays()}
    moved = Moved(keys=store.keys.fingerprints(), patients=patients, cases=cases, past=past)
    _write(Path(file), moved, store.keys.secret, lambda name: store.content(name, owner[name], "array"))
    return len(cases)


def import_cases(store: ReplayStore, file: str | Path) -> Imported:
    """Add the cases of an exported file that are not here yet, with their arrays and the roles of their patients.

    What is known here stays as it is: a role that was drawn, a consent. Only between stores with the same keys of
    patients: under another key the same patient could land on both sides of the validation, and could not be forgotten.
    Raises BadInput, with nothing changed, for a file that is cut off, changed, or of another key.
    """
    with _opened(Path(file), store) as (moved, read):
        with store.adding() as db:
            roles = {row.key: row.role for row in db.scalars(select(PatientRow))}
            here = set(db.scalars(select(CaseRow.id)))
            gone = {row.id: row for row in db.scalars(select(PastRow))}
            db.add_all(PatientRow(key=key, role=role) for key, role in moved.patients.items() if key not in roles)
            db.flush()
            new = [case for case in moved.cases if case.id not in here]
            for case in new:
                row = CaseRow(**case.model_dump())
                for name in sorted(row.arrays()):
                    store.contents.keep(read(name))
                if case.id in gone:
                    db.delete(gone.pop(case.id))
                db.add(row)
                db.flush()  # numbers in the order of the file
            past = {id: key for id, key in moved.past.items() if id not in gone and id not in here}
            db.add_all(PastRow(id=id, patient_key=key) for id, key in past.items())
            db.flush()
            unnamed = make_room(db, store.home, *{case.model for case in new})
        store.remove_unnamed(unnamed)
    kept = sum(roles.get(key, role) != role for key, role in moved.patients.items())
    return Imported(len(new), len(moved.cases) - len(new), kept)


def _write(file: Path, moved: Moved, secret: bytes, read: Callable[[str], bytes]) -> None:
    index = moved.model_dump_json().encode()
    with written_whole(file) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(INDEX, index)
        archive.writestr(SEAL, _seal(secret, index))
        for name in sorted(moved.arrays()):
            archive.writestr(FOLDER + name, read(name))


@contextmanager
def _opened(file: Path, store: ReplayStore) -> Iterator[tuple[Moved, Callable[[str], bytes]]]:
    """What the file holds and a function that reads one array, after all of it has been checked."""
    try:
        archive = zipfile.ZipFile(file)
    except FileNotFoundError as error:
        raise BadInput(f"There is no file '{file}'.") from error
    except OSError as error:
        raise BadInput(f"'{file}' cannot be read: {error.strerror}.") from error
    except zipfile.BadZipFile as error:
        raise _refused(file, "it is no archive, or its end is missing") from error

    def read(name: str) -> bytes:
        # Not left to whoever writes the store: it would take a file that cannot be read for a disk that is full.
        try:
            return archive.read(name)
        except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
            raise _refused(file, "a part of it is missing or damaged") from error
        except OSError as error:
            raise BadInput(f"'{file}' cannot be read: {error.strerror}. Nothing was changed.") from error

    with archive:
        moved = _checked(archive.infolist(), read, file, store)
        yield moved, lambda name: read(FOLDER + name)


def _checked(parts: list[zipfile.ZipInfo], read: Callable[[str], bytes], file: Path, store: ReplayStore) -> Moved:
    names = [part.filename for part in parts]
    if INDEX not in names or SEAL not in names:
        raise _refused(file, "it is no export of accepted cases")
    if any(part.compress_type != zipfile.ZIP_STORED or part.flag_bits & 1 for part in parts):
        raise _refused(file, "its parts are not stored as they are")
    index = read(INDEX)
    try:
        moved = Moved.model_validate_json(index)
        for case in moved.cases:
            Grid.from_dict(_Sound(accepted_at=case.accepted_at, details=case.details).details.grid)
    except (ValidationError, BadInput, KeyError, TypeError, ValueError) as error:
        raise _refused(file, f"its {INDEX} cannot be understood; it may come from a newer RefSeg") from error
    if not set(moved.keys) <= set(store.keys.fingerprints()):
        raise BadInput(
            f"'{file}' was exported from a store with other keys of patients, so its patients could not be recognized "
            "here, neither to keep them on one side of the validation nor to forget them. Import it into a store that "
            "began with a copy of that store's folder service (and of replay/patient.key, if it has one). Nothing was "
            "changed."
        )
    if not hmac.compare_digest(_seal(store.keys.secret, index).encode(), read(SEAL)):
        raise _refused(file, f"its {INDEX} does not match its seal")
    wanted = {FOLDER + name for name in moved.arrays()} | {INDEX, SEAL}
    if len(names) != len(wanted) or set(names) != wanted:
        raise _refused(file, "it lacks parts, or has parts that belong to no case")
    if not {case.patient_key for case in moved.cases} | set(moved.past.values()) <= moved.patients.keys():
        raise _refused(file, "it does not give the role of every patient")
    if len({case.id for case in moved.cases}) < len(moved.cases):
        raise _refused(file, "it holds a case twice")
    for name in moved.arrays():
        if hashlib.sha256(read(FOLDER + name)).hexdigest() != name:
            raise _refused(file, f"the array {name} does not match its hash")
    return moved


def _seal(secret: bytes, index: bytes) -> str:
    return hmac.new(secret, index, hashlib.sha256).hexdigest()


def _refused(file: Path, why: str) -> BadInput:
    return BadInput(f"'{file}' cannot be imported: {why}. Export it again; nothing was changed.")
