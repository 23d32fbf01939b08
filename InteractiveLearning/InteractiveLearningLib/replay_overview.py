"""What the replay store keeps for a model, in numbers: no name, no hash of a patient, no picture."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from sqlalchemy import select

from InteractiveLearningLib.replay import DamagedCase, ReplayStore
from InteractiveLearningLib.replay_index import CaseRow
from InteractiveLearningLib.replay_room import capacity

MOST_NAMES = 100  # of structures and of sites; those of the most cases
MOST_DAMAGED = 100
CHECK_SECONDS = 2.0


def kept(store: ReplayStore, model: str) -> dict[str, Any]:
    """What is kept for a model.

    train, validation: cases and patients of each side; without_consent: cases; structures, sites: [{name, train,
    validation}] in cases, by how many there are, a site without a name last; bytes on the disk; oldest, newest (ISO
    8601 or None); lost: cases of which a file is missing, as in `check`; capacity: training cases that are kept at
    most, None: all; validation_patients: that are needed before anything is published.
    """
    with store.reading() as db:
        rows = list(db.scalars(select(CaseRow).where(CaseRow.model == model).order_by(CaseRow.number)))
        cases = [row.info() for row in rows]
        files = {row.id: row.arrays() for row in rows}
    sizes = {name: _size(store, name) for names in files.values() for name in names}
    lost = [c for c in cases if any(sizes[name] is None for name in files[c.id])]
    sides = {}
    for role in ("train", "validation"):
        own = [case for case in cases if case.role == role]
        sides[role] = {"cases": len(own), "patients": len({case.patient for case in own})}
    return sides | {
        "without_consent": sum(not case.consent for case in cases),
        "structures": _counted((name, case.role) for case in cases for name in case.structures),
        "sites": _counted((case.site, case.role) for case in cases),
        "bytes": sum(size or 0 for size in sizes.values()),
        "oldest": cases[0].accepted_at if cases else None,
        "newest": cases[-1].accepted_at if cases else None,
        "lost": [{"case": case.id, "accepted": case.accepted_at} for case in lost[:MOST_DAMAGED]],
        "capacity": capacity(store),
        "validation_patients": store.validation_patients,
    }


def check(store: ReplayStore, model: str, after: int = 0) -> dict[str, Any]:
    """Read cases of a model to the last byte, from the one behind number `after` on, for two seconds or so.

    Returns checked (how many), left, after (where to go on; None at the end) and damaged: [{case, accepted, reason}].
    """
    until, damaged, checked = time.monotonic() + CHECK_SECONDS, [], 0
    with store.reading() as db:
        query = select(CaseRow).where(CaseRow.model == model, CaseRow.number > after).order_by(CaseRow.number)
        rows = list(db.scalars(query))
    for row in rows:
        if checked and time.monotonic() > until:
            break
        after, checked = row.number, checked + 1
        try:
            for what, name in (("image", row.image), ("mask", row.labels), ("confidence", row.confidence)):
                if name:
                    store.content(name, row.id, what)
        except DamagedCase as error:
            damaged.append({"case": row.id, "accepted": row.accepted_at, "reason": str(error)})
    left = len(rows) - checked
    return {"checked": checked, "left": left, "after": after if left else None, "damaged": damaged}


def _size(store: ReplayStore, name: str) -> int | None:
    try:
        return store.contents.path(name).stat().st_size
    except OSError:
        return None


def _counted(found: Any) -> list[dict[str, Any]]:
    counts = Counter(found)
    names = Counter()
    for (name, _), count in counts.items():
        names[name] += count
    shown = sorted(names, key=lambda name: (name == "", -names[name], name))[:MOST_NAMES]
    return [{"name": n, "train": counts[n, "train"], "validation": counts[n, "validation"]} for n in shown]
