"""Who is who in the replay store: keyed hashes of patients, on one side of the validation each, for good.

The hash is the site's (service/patients.py). Stores of before had a key of their own, replay/patient.key. It is kept
and never written again: a patient found under the old hash is moved to the new one with the role drawn then.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from RefSegLib.errors import RefSegError
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from InteractiveLearningLib.accepted import Role
from InteractiveLearningLib.replay_index import CaseRow, PastRow, PatientRow, SettingRow
from InteractiveLearningLib.service.patients import patient_key

ONE_IN = 5


class PatientKeys:
    """The hashes of patients under `home`, under the keys that the index `db` saw first.

    Raises RefSegError if a key is lost or another one; none is made in place of a lost one.
    """

    def __init__(self, home: Path, db: Session) -> None:
        self.home = home
        site, old = home / "service" / "patient.key", home / "replay" / "patient.key"
        if db.get(SettingRow, "site key") is not None and not site.exists():
            raise _lost(site, "is missing")
        if db.get(SettingRow, "site key") is None and not old.exists() and db.scalar(select(PatientRow.key).limit(1)):
            raise _lost(old, "is missing")
        # Not the key itself, and nothing a patient's hash could be mistaken for.
        self.secret = hashlib.sha256(b"of the replay store" + patient_key(home, "replay store").encode()).digest()
        self._old = old.read_bytes() if old.exists() else None
        numbers = [int(fingerprint[:7], 16) for fingerprint in self.fingerprints()]
        for name, file, number in (("site key", site, numbers[0]), ("old key", old, (*numbers[1:], None)[0])):
            known = db.get(SettingRow, name)
            if known is None and number is not None:
                db.add(SettingRow(name=name, value=number))
            elif known is not None and known.value != number:
                raise _lost(file, "is missing" if number is None else "is not the one of this replay store")

    def of(self, patient: str) -> str:
        """The hash under which a patient is known here."""
        return patient_key(self.home, patient)

    def fingerprints(self) -> list[str]:
        """What tells the keys apart and gives none away: of the site's key, then of the store's old one if any."""
        secrets = (self.secret, self._old)
        return [hmac.new(s, b"fingerprint", hashlib.sha256).hexdigest() for s in secrets if s is not None]

    def known(self, db: Session, patient: str) -> tuple[str, PatientRow | None]:
        """The hash of a patient and the row, which is moved to that hash first if it is still under the old one."""
        key = self.of(patient)
        row = db.get(PatientRow, key)
        name = patient.strip().encode("utf-8", "surrogatepass")
        old = self._old and hmac.new(self._old, name, hashlib.sha256).hexdigest()
        before = db.get(PatientRow, old) if old else None
        if before is None:
            return key, row
        if row is None:
            row = PatientRow(key=key, role=before.role)
            db.add(row)
            db.flush()
        elif before.role == "train":
            # Two spellings of one id, on two sides: what was learnt from must not validate.
            row.role = "train"
        for table in (CaseRow, PastRow):
            db.execute(update(table).where(table.patient_key == old).values(patient_key=key))
        db.delete(before)
        db.flush()
        return key, row


def draw_role(db: Session, model: str, key: str) -> Role:
    """The side of a patient who is new: in turns until enough validate a model, then one in five, by the hash."""
    counted = func.count(func.distinct(PatientRow.key))
    query = select(PatientRow.role, counted).join(CaseRow).where(CaseRow.model == model).group_by(PatientRow.role)
    known = dict(db.execute(query).all())
    if known.get("validation", 0) < db.get_one(SettingRow, "validation_patients").value:
        return "validation" if known.get("train", 0) > known.get("validation", 0) else "train"
    return "validation" if int(key[:8], 16) % ONE_IN == 0 else "train"


def _lost(file: Path, what: str) -> RefSegError:
    return RefSegError(f"The key {file} {what}, so known patients cannot be recognized. Restore it from a backup.")
