"""The replay store: every accepted case, durable before the user is told so.

An index in SQLite and one file per array, named by the hash of its content:

    home/replay/index.sqlite      rows; write-ahead log, synchronous=FULL, deleted content is overwritten
    home/replay/arrays/ab/abcd…   one compressed array each, written under another name and renamed into place
    home/replay/patient.key       random key of the patient hashes, readable by its owner alone

A writer holds SQLite's own write lock from the first array to the commit. So a file that no row names while nobody
holds that lock belongs to a killed writer and can be removed; the operating system frees the lock of a killed process.

No patient name, no file name, no DICOM UID is stored: a patient is an HMAC-SHA256 under the key of this store.
The role of a patient, to train on or to validate with, is drawn at the first case and never redrawn.
"""

from __future__ import annotations

import hashlib
import heapq
import hmac
import json
import os
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import blosc2
import numpy as np
import numpy.typing as npt
from RefSegLib.durable import write_durably
from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import LabelMap, Volume
from sqlalchemy import func, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from InteractiveLearningLib.accepted import AcceptedCase, CaseInfo, Role
from InteractiveLearningLib.replay_index import CaseRow, PatientRow, SettingRow, Table, open_index

SCHEMA = 1
# Two patients are the fewest on which "better on all" means more than luck with one; sites should raise it.
VALIDATION_PATIENTS = 2
ONE_IN = 5
CONFIDENCE_STEPS = 255


class DamagedCase(RefSegError):
    """An accepted case that is gone from the store or does not match its hashes; the sentence names it."""


class ReplayStore:
    """Accepted cases under `home`. Any number of processes may open the same store.

    validation_patients: how many patients of a model the validation set needs before a verdict is given; kept in
        the store once given. Until then new patients of the model alternate train, validation, train, ...;
        afterwards one in five, by the keyed hash, is for validation.
    Raises RefSegError if the store is damaged, newer than this program, or its key is missing.
    """

    def __init__(self, home: str | Path, *, validation_patients: int | None = None) -> None:
        self.home = Path(home)
        self.folder = self.home / "replay"
        self.arrays = self.folder / "arrays"
        with _said_plainly(self.folder):
            self.arrays.mkdir(parents=True, exist_ok=True)
            self._engine = open_index(self.folder / "index.sqlite")
            with self._writing() as db:
                self._prepare(db, validation_patients)
                self._remove_orphans(db)

    def close(self) -> None:
        """Close the database files of this process."""
        self._engine.dispose()

    def accept(self, case: AcceptedCase) -> str:
        """Store a case; returns its id once all of it is on the disk. Raises BadInput if it cannot be learnt from."""
        case.check()
        confidence = None if case.confidence is None else np.rint(case.confidence * CONFIDENCE_STEPS).astype(np.uint8)
        packed = [None if a is None else _pack(a) for a in (case.image.array, case.labels.array, confidence)]
        key = self.patient_key(case.patient)
        details = {
            "grid": case.image.grid.to_dict(),
            "label_names": list(case.label_names),
            "annotated": [[int(axis), int(index)] for axis, index in case.annotated],
            "effort": None if case.effort is None else float(case.effort),
            "region": case.region,
        }
        row = CaseRow(
            id=uuid.uuid4().hex,
            model=case.model,
            patient_key=key,
            accepted_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            details=json.dumps(details),
            consent=case.consent,
        )
        with _said_plainly(self.folder), self._writing() as db:
            row.image, row.labels, row.confidence = (None if p is None else self._keep(p) for p in packed)
            if db.get(PatientRow, key) is None:
                db.add(PatientRow(key=key, role=self._draw_role(db, case.model, key)))
                db.flush()
            db.add(row)
        return row.id

    def cases(self, model: str, role: Role | None = None) -> list[CaseInfo]:
        """Cases of a model in the order of acceptance."""
        query = select(CaseRow).join(PatientRow).where(CaseRow.model == model).order_by(CaseRow.number)
        with Session(self._engine) as db:
            return [row.info() for row in db.scalars(query if role is None else query.where(PatientRow.role == role))]

    def sample(self, model: str, capacity: int, seed: int = 0, leave_out: Sequence[str] = ()) -> list[CaseInfo]:
        """At most `capacity` training cases with consent: a reservoir, uniform over all that were ever accepted.

        Every case has a fixed random number from the seed and its id, and the smallest stay (a reservoir by random
        priorities; Vitter 1985 gives the same distribution). So forgetting one patient redraws nobody else.
        """
        able = [c for c in self.cases(model, "train") if c.consent and c.id not in leave_out]
        return heapq.nsmallest(capacity, able, key=lambda c: hashlib.sha256(f"{seed}:{c.id}".encode()).digest())

    def load(self, identifier: str) -> AcceptedCase:
        """A case with its arrays, every hash checked. Raises DamagedCase, naming the case, if it is gone or damaged."""
        with Session(self._engine) as db:
            row = db.scalar(select(CaseRow).where(CaseRow.id == identifier))
            if row is None:
                raise DamagedCase(f"The case {identifier} is not in the replay store; it may have been forgotten.")
            info, details = row.info(), json.loads(row.details)
            names = row.image, row.labels, row.confidence
        parts = zip(("image", "mask", "confidence"), names, strict=True)
        image, labels, confidence = (None if n is None else self._read(n, identifier, what) for what, n in parts)
        grid = Grid.from_dict(details["grid"])
        return AcceptedCase(
            info.model,
            Volume(image, grid),
            LabelMap(labels, grid),
            info.patient,
            info.label_names,
            None if confidence is None else confidence.astype(np.float32) / CONFIDENCE_STEPS,
            info.annotated,
            info.effort,
            info.consent,
            details["region"],
        )

    def forget(self, patient: str) -> list[str]:
        """Remove every trace of a patient. Returns the model versions ("name@version") that had learnt from the cases.

        A version that grew out of such a version counts too. Rows are overwritten and the database is rewritten;
        files are unlinked (what a solid-state disk keeps of an unlinked file is beyond any program). A forgotten
        patient who is accepted again is new to the store, so the role is drawn again.
        """
        key = self.patient_key(patient)
        with _said_plainly(self.folder):
            with self._writing() as db:
                rows = list(db.scalars(select(CaseRow).where(CaseRow.patient_key == key)))
                learnt = self._versions_from({row.id for row in rows})
                for row in rows:
                    db.delete(row)
                db.flush()
                known = db.get(PatientRow, key)
                if known is not None:
                    db.delete(known)
            with self._writing() as db:
                self._remove_orphans(db)
            connection = self._engine.raw_connection()
            try:
                connection.cursor().execute("VACUUM")
                connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                connection.close()
        return learnt

    def damaged(self) -> dict[str, str]:
        """Read every case; returns id -> sentence for those that cannot be read."""
        with Session(self._engine) as db:
            identifiers = list(db.scalars(select(CaseRow.id).order_by(CaseRow.number)))
        found = {}
        for identifier in identifiers:
            try:
                self.load(identifier)
            except DamagedCase as error:
                found[identifier] = str(error)
        return found

    def files(self, identifier: str) -> list[Path]:
        """The files that hold the arrays of a case."""
        with Session(self._engine) as db:
            row = db.scalars(select(CaseRow).where(CaseRow.id == identifier)).one()
            return [self._path(name) for name in (row.image, row.labels, row.confidence) if name]

    @property
    def validation_patients(self) -> int:
        """How many validation patients a model needs before a verdict is given."""
        with Session(self._engine) as db:
            return db.get_one(SettingRow, "validation_patients").value

    def patient_key(self, patient: str) -> str:
        """The keyed hash under which a patient is known here."""
        return hmac.new(self._key, patient.strip().encode(), hashlib.sha256).hexdigest()

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        """A transaction that holds the write lock from its start, committed to the disk at the end."""
        writer = self._engine.execution_options(refseg_writing=True)
        with Session(writer, expire_on_commit=False) as db, db.begin():
            db.connection()  # takes the lock now; a session by itself would wait for its first statement
            yield db

    def _prepare(self, db: Session, validation_patients: int | None) -> None:
        found = db.execute(text("PRAGMA user_version")).scalar_one()
        if found > SCHEMA:
            raise RefSegError(f"The replay store in {self.folder} was written by a newer RefSeg. Update this one.")
        Table.metadata.create_all(db.connection())
        db.execute(text(f"PRAGMA user_version = {SCHEMA}"))
        setting = db.get(SettingRow, "validation_patients")
        if setting is None:
            setting = SettingRow(name="validation_patients", value=VALIDATION_PATIENTS)
            db.add(setting)
        if validation_patients is not None:
            if validation_patients < 1:
                raise BadInput("A validation set needs at least one patient.")
            setting.value = validation_patients
        path = self.folder / "patient.key"
        if not path.exists():
            if db.scalar(select(func.count()).select_from(PatientRow)):
                raise RefSegError(
                    f"The key {path} is missing, so known patients cannot be recognized. Restore it from a backup."
                )
            write_durably(path, os.urandom(32), mode=0o600)
        self._key = path.read_bytes()

    def _draw_role(self, db: Session, model: str, key: str) -> Role:
        counted = (
            select(PatientRow.role, func.count(func.distinct(PatientRow.key)))
            .join(CaseRow)
            .where(CaseRow.model == model)
        )
        known = dict(db.execute(counted.group_by(PatientRow.role)).all())
        if known.get("validation", 0) < db.get_one(SettingRow, "validation_patients").value:
            return "validation" if known.get("train", 0) > known.get("validation", 0) else "train"
        return "validation" if int(key[:8], 16) % ONE_IN == 0 else "train"

    def _path(self, name: str) -> Path:
        return self.arrays / name[:2] / name

    def _keep(self, content: bytes) -> str:
        name = hashlib.sha256(content).hexdigest()
        path = self._path(name)
        # A file that is there but damaged is written anew: whoever accepts a case again repairs it.
        if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != name:
            write_durably(path, content)
        return name

    def _read(self, name: str, identifier: str, what: str) -> npt.NDArray:
        path = self._path(name)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            content = b""
        if hashlib.sha256(content).hexdigest() != name:
            raise DamagedCase(
                f"The {what} of case {identifier} is damaged ({path} is missing or does not match its hash). "
                "Restore that file from a backup or accept the case again; the other cases are not affected."
            )
        return blosc2.ndarray_from_cframe(content)[:]

    def _remove_orphans(self, db: Session) -> None:
        columns = (CaseRow.image, CaseRow.labels, CaseRow.confidence)
        named = {name for column in columns for name in db.scalars(select(column).distinct())}
        for path in self.arrays.glob("*/*"):
            if path.name not in named:
                path.unlink(missing_ok=True)

    def _versions_from(self, cases: set[str]) -> list[str]:
        from RefSegLib.models.store import ModelStore

        if not cases:
            return []
        store, found = ModelStore(self.home), []
        for name in (f"{model}@{version}" for model in store.names() for version in store.versions(model)):
            try:
                manifest = store.load(*name.split("@")).manifest
                learnt = bool(cases & set(manifest.data.get("cases", ()))) or manifest.parent in found
            except RefSegError:
                learnt = True  # damaged: nobody can say, so it is named
            if learnt:
                found.append(name)
        return found


def _pack(array: npt.NDArray) -> bytes:
    """A self-describing compressed copy; the same bytes for the same array."""
    parameters = blosc2.CParams(codec=blosc2.Codec.ZSTD, clevel=5, nthreads=1)
    return blosc2.asarray(np.ascontiguousarray(array), cparams=parameters).to_cframe()


@contextmanager
def _said_plainly(folder: Path) -> Iterator[None]:
    """Turn what disk and database say into a sentence. Whatever failed, nothing of it was kept."""
    try:
        yield
    except (OperationalError, sqlite3.DatabaseError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        raise RefSegError(
            f"The replay store in {folder} could not be written, nothing was changed: {cause}."
        ) from error
