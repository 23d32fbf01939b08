"""What leaves the replay store by itself: training cases beyond its capacity, and those kept long enough.

Validation cases stay: the frozen validation set is not redrawn. So does the role of a patient whose cases all went, and
which cases were the patient's, so that `forget` can still name the versions that had learnt from them.
Rows go first and files after: a kill in between leaves files that no row names, which the next opening removes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from RefSegLib.errors import BadInput
from sqlalchemy import select
from sqlalchemy.orm import Session

from InteractiveLearningLib.replay_index import CaseRow, PastRow, PatientRow, SettingRow, said_plainly
from InteractiveLearningLib.reservoir import balanced_reservoir
from InteractiveLearningLib.verdicts import VerdictLog

if TYPE_CHECKING:
    from InteractiveLearningLib.replay import ReplayStore

CAPACITY = "capacity"
HIGHEST = 2**31 - 1


@dataclass(frozen=True)
class Retired:
    """What `retire` did: ids of the cases and names of the arrays that went, how many old validation cases stayed."""

    cases: tuple[str, ...]
    arrays: tuple[str, ...]
    kept: int


def capacity(store: ReplayStore) -> int | None:
    """How many training cases of a model the store keeps; None: all."""
    with store.reading() as db:
        setting = db.get(SettingRow, CAPACITY)
        return None if setting is None else setting.value


def set_capacity(store: ReplayStore, cases: int | None) -> int:
    """Keep at most that many training cases of every model from now on (None: all); returns how many went at once.

    Which stay is up to balanced_reservoir. A case that waits to be learnt from is not counted and always stays: a run
    of new ones must not push out what forgetting is prevented with. Raises BadInput for a number below 1.
    """
    if cases is not None and not 1 <= cases <= HIGHEST:
        raise BadInput("A capacity is a number of cases, at least 1.")
    with said_plainly(store.folder), store.writing() as db:
        setting = db.get(SettingRow, CAPACITY)
        if setting is not None:
            db.delete(setting)
            db.flush()
        if cases is not None:
            db.add(SettingRow(name=CAPACITY, value=cases))
            db.flush()
        before = len(db.scalars(select(CaseRow.id)).all())
        unnamed = make_room(db, store.home, *db.scalars(select(CaseRow.model).distinct()))
        gone = before - len(db.scalars(select(CaseRow.id)).all())
    store.remove_unnamed(unnamed)
    return gone


def make_room(db: Session, home: Path, *models: str) -> set[str]:
    """Remove the rows beyond the capacity, if one is set; returns the names of their arrays.

    What the reservoir over all that were learnt from leaves out goes; cases without consent get the room it leaves.
    """
    setting = db.get(SettingRow, CAPACITY)
    unnamed: set[str] = set()
    for model in models if setting is not None else ():
        training = select(CaseRow).join(PatientRow).where(CaseRow.model == model, PatientRow.role == "train")
        rows = list(db.scalars(training.order_by(CaseRow.number)))
        if len(rows) <= setting.value:
            continue
        learnt = {verdict.case for verdict in VerdictLog(home, model).verdicts()}
        able = {row.id: row for row in rows if row.consent and row.id in learnt}
        refused = [row for row in rows if not row.consent]
        stay = {case.id for case in balanced_reservoir([row.info() for row in able.values()], setting.value)}
        gone = [row for identifier, row in able.items() if identifier not in stay]
        gone += refused[: max(len(refused) - (setting.value - len(stay)), 0)]
        unnamed |= _drop(db, gone)
    return unnamed


def retire(store: ReplayStore, older_than_days: float) -> Retired:
    """Remove the training cases accepted longer ago than that, and the arrays that no other case uses.

    Raises BadInput for a number of days that is not above 0.
    """
    if not 0 < older_than_days < float("inf"):
        raise BadInput("Say after how many days training cases are to be removed: a number above 0.")
    try:
        before = datetime.now(timezone.utc) - timedelta(days=older_than_days)
    except OverflowError:
        return Retired((), (), 0)  # no case is older than the calendar
    old = select(CaseRow).where(CaseRow.accepted_at < before.isoformat(timespec="seconds")).order_by(CaseRow.number)
    with said_plainly(store.folder), store.writing() as db:
        found = list(db.scalars(old))
        gone = [row for row in found if row.patient.role == "train"]
        unnamed = _drop(db, gone)
    arrays = store.remove_unnamed(unnamed)
    return Retired(tuple(row.id for row in gone), tuple(arrays), len(found) - len(gone))


def _drop(db: Session, rows: Iterable[CaseRow]) -> set[str]:
    names: set[str] = set()
    for row in rows:
        names |= row.arrays()
        db.merge(PastRow(id=row.id, patient_key=row.patient_key))
        db.delete(row)
    db.flush()
    return names
