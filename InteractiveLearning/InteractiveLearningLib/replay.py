"""The replay store: every accepted case, durable before the user is told so.

An index and one file per array, named by the hash of its content:

    home/replay/index.sqlite      rows; write-ahead log, synchronous=FULL, deleted content is overwritten
    home/replay/arrays/ab/abcd…   one compressed array each, written under another name and renamed into place
    home/replay/index.id          which index the arrays belong to, so that no other one sweeps them

The rows of a site can be in PostgreSQL instead (REFSEG_DATABASE), with home on a file system all its machines share.

A writer holds the write lock of the database from the first array to the commit. So a file that no row names while
nobody holds that lock belongs to a killed writer and can be removed; the lock of a killed process is freed.

No patient name, no file name, no DICOM UID is stored: a patient is a keyed hash (replay_patients.py). The role of a
patient, to train on or to validate with, is drawn at the first case and never redrawn.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import numpy.typing as npt
from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import LabelMap, Volume
from sqlalchemy import delete, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from InteractiveLearningLib.accepted import AcceptedCase, CaseInfo, Role
from InteractiveLearningLib.replay_arrays import ArrayFiles, packed, unpacked
from InteractiveLearningLib.replay_index import (
    CaseRow,
    PastRow,
    PatientRow,
    SettingRow,
    belong_together,
    open_index,
    overwrite_deleted,
    said_plainly,
    upgrade_index,
)
from InteractiveLearningLib.replay_patients import PatientKeys, draw_role
from InteractiveLearningLib.replay_room import make_room
from InteractiveLearningLib.replay_traces import remove_checkpoints, remove_traces, remove_untrusted, versions_from
from InteractiveLearningLib.reservoir import balanced_reservoir

# Two patients are the fewest on which "better on all" means more than luck with one; sites should raise it.
VALIDATION_PATIENTS = 2
CONFIDENCE_STEPS = 255


class DamagedCase(RefSegError):
    """An accepted case that is gone from the store or does not match its hashes; the sentence names it."""


class ReplayStore:
    """Accepted cases under `home`. Any number of processes may open the same store.

    validation_patients: how many patients of a model the validation set needs before a verdict is given; kept in
        the store once given. Until then new patients of the model alternate train, validation, train, ...;
        afterwards one in five, by the keyed hash, is for validation.
    database: URL of a PostgreSQL database for the index (default: REFSEG_DATABASE, else SQLite), see open_index.
    Raises RefSegError if the store is damaged, newer than this program, a key of its patients is missing, or index and
    arrays are not of the same store.
    """

    def __init__(
        self, home: str | Path, *, validation_patients: int | None = None, database: str | None = None
    ) -> None:
        self.home = Path(home)
        self.folder = self.home / "replay"
        self.arrays = self.folder / "arrays"
        self.contents = ArrayFiles(self.arrays)
        with said_plainly(self.folder):
            self.arrays.mkdir(parents=True, exist_ok=True)
            self._engine = open_index(self.folder / "index.sqlite", database)
            with self.writing() as db:
                upgrade_index(db)
                belong_together(db, self.folder, empty=not self.contents.any())
                self.keys = PatientKeys(self.home, db)
                self._set_validation_patients(db, validation_patients)
                self._remove_orphans(db)
            remove_untrusted(self.home)

    def close(self) -> None:
        """Close the database files of this process."""
        self._engine.dispose()

    def accept(self, case: AcceptedCase, identifier: str | None = None) -> str:
        """Store a case; returns its id once all of it is on the disk. Raises BadInput if it cannot be learnt from.

        identifier: 32 hex digits to be its id. If there is such a case, or was before it retired, nothing is stored:
        whoever never got the answer may ask again.
        Where a capacity is set, cases that were learnt from make room for it (replay_room.py).
        """
        case.check()
        confidence = None if case.confidence is None else np.rint(case.confidence * CONFIDENCE_STEPS).astype(np.uint8)
        contents = [None if a is None else packed(a) for a in (case.image.array, case.labels.array, confidence)]
        values = [int(value) for value in np.unique(case.labels.array) if value]
        details = {
            "grid": case.image.grid.to_dict(),
            "label_names": list(case.label_names),
            "annotated": [[int(axis), int(index)] for axis, index in case.annotated],
            "effort": None if case.effort is None else float(case.effort),
            "region": case.region,
            "structures": [case.label_names[value - 1] for value in values],
        }
        row = CaseRow(
            id=identifier or uuid.uuid4().hex,
            model=case.model,
            accepted_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            details=json.dumps(details),
            consent=case.consent,
            site=case.site.strip(),
        )
        with self.adding() as db:
            if db.scalar(select(CaseRow.id).where(CaseRow.id == row.id)) or db.get(PastRow, row.id):
                return row.id
            key, patient = self.keys.known(db, case.patient)
            if patient is None:
                db.add(PatientRow(key=key, role=draw_role(db, case.model, key)))
                db.flush()
            row.patient_key = key
            row.image, row.labels, row.confidence = (c if c is None else self.contents.keep(c) for c in contents)
            db.add(row)
            db.flush()
            unnamed = make_room(db, self.home, case.model)
        self.remove_unnamed(unnamed)
        return row.id

    def cases(self, model: str | None = None, role: Role | None = None) -> list[CaseInfo]:
        """Cases of a model, or of all, in the order of acceptance."""
        query = select(CaseRow).join(PatientRow).order_by(CaseRow.number)
        query = query if model is None else query.where(CaseRow.model == model)
        with self.reading() as db:
            return [row.info() for row in db.scalars(query if role is None else query.where(PatientRow.role == role))]

    def sample(self, model: str, capacity: int, seed: int = 0, leave_out: Sequence[str] = ()) -> list[CaseInfo]:
        """At most `capacity` training cases with consent, balanced over sites and structures: balanced_reservoir."""
        able = [c for c in self.cases(model, "train") if c.consent and c.id not in leave_out]
        return balanced_reservoir(able, capacity, seed)

    def load(self, identifier: str) -> AcceptedCase:
        """A case with its arrays, every hash checked. Raises DamagedCase, naming the case, if it is gone or damaged."""
        with self.reading() as db:
            row = db.scalar(select(CaseRow).where(CaseRow.id == identifier))
            if row is None:
                raise DamagedCase(f"The case {identifier} is not in the replay store; it may have been forgotten.")
            info, details = row.info(), json.loads(row.details)
        grid = Grid.from_dict(details["grid"])
        confidence = None if row.confidence is None else self._read(row.confidence, identifier, "confidence")
        return AcceptedCase(
            info.model,
            Volume(self._read(row.image, identifier, "image"), grid),
            LabelMap(self._read(row.labels, identifier, "mask"), grid),
            info.patient,
            info.label_names,
            None if confidence is None else (confidence / np.float32(CONFIDENCE_STEPS)).astype(np.float32),
            info.annotated,
            info.effort,
            info.consent,
            details["region"],
            info.site,
        )

    def set_consent(self, identifier: str, consent: bool) -> None:
        """Say whether a case may be learnt from, or validated with, from now on. Raises BadInput if it is not here."""
        with said_plainly(self.folder), self.writing() as db:
            row = db.scalar(select(CaseRow).where(CaseRow.id == identifier))
            if row is None:
                raise BadInput(f"There is no case {identifier} in the replay store. `refseg replay list --cases`.")
            row.consent = consent
        if not consent:
            remove_checkpoints(self.home)

    def may_be_learnt(self, identifiers: Collection[str]) -> bool:
        """False if the patient of one of the cases was forgotten, or its consent withdrawn."""
        with self.reading() as db:
            able = set(db.scalars(select(CaseRow.id).where(CaseRow.consent))) | set(db.scalars(select(PastRow.id)))
        return able >= set(identifiers)

    def about(self, patient: str) -> tuple[list[str], list[str]]:
        """Ids of the cases of a patient, also of those long retired, and the versions that had learnt from them.

        A version that grew out of such a version counts too, and so does one that is damaged: nobody can say.
        """
        with said_plainly(self.folder), self.writing() as db:
            key, _ = self.keys.known(db, patient)
            cases = self._of_patient(db, key)
        return cases, versions_from(self.home, set(cases))

    def forget(self, patient: str) -> list[str]:
        """Remove all of a patient; returns the versions (NAME@NUMBER) that had learnt from them, see about().

        Rows are overwritten and the database is rewritten; files are unlinked (what a solid-state disk keeps of an
        unlinked file is beyond any program). What a learner keeps goes too (replay_traces.py). A forgotten patient who
        is accepted again is new to the store, so the role is drawn again. Exports and backups are files of their own:
        whoever imports one from before brings the patient back.
        """
        with said_plainly(self.folder):
            with self.writing() as db:
                key, _ = self.keys.known(db, patient)
                cases = self._of_patient(db, key)
                learnt = versions_from(self.home, set(cases))
                for table in (CaseRow, PastRow):
                    db.execute(delete(table).where(table.patient_key == key))
                db.execute(delete(PatientRow).where(PatientRow.key == key))
            with self.writing() as db:
                self._remove_orphans(db)
            remove_traces(self.home, {key}, cases)
        overwrite_deleted(self._engine)
        return learnt

    def damaged(self) -> dict[str, str]:
        """Read every case; returns id -> sentence for those that cannot be read."""
        found = {}
        for case in self.cases():
            try:
                self.load(case.id)
            except DamagedCase as error:
                found[case.id] = str(error)
        return found

    def files(self, identifier: str) -> list[Path]:
        """The files that hold the arrays of a case."""
        with self.reading() as db:
            row = db.scalars(select(CaseRow).where(CaseRow.id == identifier)).one()
            return [self.contents.path(name) for name in (row.image, row.labels, row.confidence) if name]

    @property
    def validation_patients(self) -> int:
        """How many validation patients a model needs before a verdict is given."""
        with self.reading() as db:
            return db.get_one(SettingRow, "validation_patients").value

    def patient_key(self, patient: str) -> str:
        """The keyed hash under which a patient is known here."""
        return self.keys.of(patient)

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction that holds the write lock from its start, committed to the disk at the end."""
        writer = self._engine.execution_options(refseg_writing=True)
        with Session(writer, expire_on_commit=False) as db, db.begin():
            db.connection()  # takes the lock now; a session by itself would wait for its first statement
            yield db

    @contextmanager
    def adding(self) -> Iterator[Session]:
        """`writing`, and where it fails the arrays that were written meanwhile go: the disk may be full of them."""
        try:
            with said_plainly(self.folder), self.writing() as db:
                yield db
        except Exception:
            with suppress(DBAPIError, OSError), self.writing() as db:
                self._remove_orphans(db)
            raise

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that changes nothing."""
        try:
            with Session(self._engine, expire_on_commit=False) as db:
                yield db
        except DBAPIError as error:
            raise RefSegError(f"The index of the replay store could not be read: {error.orig}.") from error

    def remove_unnamed(self, names: Collection[str]) -> list[str]:
        """Remove those of these arrays that no case names any more; returns their names."""
        if not names:
            return []
        with said_plainly(self.folder), self.writing() as db:
            return self.contents.remove(set(names) - self._named(db))

    def content(self, name: str, identifier: str, what: str) -> bytes:
        """The compressed array of that name. Raises DamagedCase, naming the case it is of."""
        content = self.contents.read(name)
        if content is None:
            raise DamagedCase(
                f"The {what} of case {identifier} is damaged ({self.contents.path(name)} is missing or does not match "
                "its hash). Restore that file from a backup or accept the case again; the other cases are not "
                "affected."
            )
        return content

    def _read(self, name: str, identifier: str, what: str) -> npt.NDArray:
        return unpacked(self.content(name, identifier, what))

    def _set_validation_patients(self, db: Session, wanted: int | None) -> None:
        if wanted is not None and wanted < 1:
            raise BadInput("A validation set needs at least one patient.")
        setting = db.get(SettingRow, "validation_patients")
        if setting is None:
            db.add(SettingRow(name="validation_patients", value=wanted or VALIDATION_PATIENTS))
        elif wanted is not None:
            setting.value = wanted

    @staticmethod
    def _named(db: Session) -> set[str]:
        columns = (CaseRow.image, CaseRow.labels, CaseRow.confidence)
        return {name for column in columns for name in db.scalars(select(column).distinct()) if name}

    def _remove_orphans(self, db: Session) -> None:
        self.contents.sweep(self._named(db))

    @staticmethod
    def _of_patient(db: Session, key: str) -> list[str]:
        present = db.scalars(select(CaseRow.id).where(CaseRow.patient_key == key).order_by(CaseRow.number))
        return [*present, *db.scalars(select(PastRow.id).where(PastRow.patient_key == key))]
