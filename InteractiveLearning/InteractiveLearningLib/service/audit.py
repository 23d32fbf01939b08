"""The audit log: who did what to which case, version, patient or user, and when.

    home/service/audit.jsonl      one entry a line, hash-chained (eventlog.py)

Nothing but the fields of `About` can enter: no sentence, no file name, no name of a patient, no DICOM UID.
Whoever can write the file could also write a whole new chain, or cut off the newest entries. So print the head now and
then (`refseg audit head`) and keep it elsewhere; `verify(head)` finds both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from enum import Enum
from pathlib import Path

from RefSegLib.errors import BadInput, RefSegError

from InteractiveLearningLib.eventlog import EventLog, read_log

CONSOLE = "console"  # whoever sits at the machine and types commands; no user can have this name
GATE = "gate"  # what publishes and takes back by itself (promotion.py, reviews.py); nor this one
USER_NAME = re.compile(r"[a-z][a-z0-9._-]{0,31}")
_NOTHING = "0" * 32
_HEAD = re.compile(r"([0-9]{1,15}):([0-9a-f]{32})")


class Action(Enum):
    """What somebody may be allowed to do, and what is logged when done."""

    SEGMENT = "segment"
    ANNOTATE = "annotate"
    ACCEPT = "accept"
    REJECT = "reject"
    PUBLISH = "publish"
    ROLL_BACK = "roll back"
    FORGET = "forget"
    CONSENT = "consent"
    WITHDRAW_CONSENT = "withdraw consent"
    READ_AUDIT = "read audit"
    ADD_USER = "add user"
    REVOKE_USER = "revoke user"
    GIVE_TOKEN = "give token"
    REVOKE_TOKEN = "revoke token"


@dataclass(frozen=True)
class About:
    """What an entry is about. Raises BadInput for anything that is not of the form given here.

    case: id of a case in the replay store (32 hex digits). version: NAME@NUMBER of a model. patient: keyed hash
    (patients.patient_key, 64 hex digits). user: name of an account. token: its public id (12 hex digits).
    """

    case: str | None = None
    version: str | None = None
    patient: str | None = None
    user: str | None = None
    token: str | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not (isinstance(value, str) and _FORMS[field.name].fullmatch(value)):
                # The value itself is not repeated: it may be what must not be in any log.
                raise BadInput(f"The {field.name} of an audit entry has not the form of a {field.name}'s id.")


_FORMS = {
    "case": re.compile(r"[0-9a-f]{32}"),
    "version": re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}@[1-9][0-9]{0,8}"),
    "patient": re.compile(r"[0-9a-f]{64}"),
    "user": USER_NAME,
    "token": re.compile(r"[0-9a-f]{12}"),
}


@dataclass(frozen=True)
class Entry:
    """One entry; number counts from 1, time is UTC."""

    number: int
    time: datetime
    who: str
    action: Action
    about: About


class AuditLog:
    """The audit log under `home`. Any number of threads and processes append and read."""

    def __init__(self, home: str | Path) -> None:
        self.path = Path(home) / "service" / "audit.jsonl"
        self._log: EventLog | None = None

    def append(self, who: str, action: Action, about: About) -> None:
        """Write one entry; it is on the disk when this returns.

        Raises RefSegError if it cannot be written or the log is damaged: then what was to be logged must not be done.
        """
        if not (isinstance(who, str) and USER_NAME.fullmatch(who)):
            raise BadInput("Who did something must be named by the name of an account.")
        said = {name: value for name, value in asdict(about).items() if value is not None}
        try:
            if self._log is None:
                self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._log = EventLog(self.path, shared=True)
            self._log.append({"who": who, "action": Action(action).value, "about": said})
        except OSError as error:
            raise RefSegError(
                f"The audit log {self.path} could not be written, so nothing was done: {error.strerror}."
            ) from error

    def close(self) -> None:
        """Close the file; the next append opens it again."""
        if self._log is not None:
            self._log.close()
            self._log = None

    def entries(self) -> Iterator[Entry]:
        """All entries, oldest first. Raises RefSegError at the first damaged one."""
        for content, _ in self._read():
            event = content["event"]
            try:
                action, about = Action(event["action"]), About(**event["about"])
            except (ValueError, TypeError) as error:
                raise RefSegError(
                    f"The audit log {self.path} was written by a newer RefSeg. Update this one."
                ) from error
            yield Entry(content["seq"] + 1, datetime.fromisoformat(content["time"]), event["who"], action, about)

    def head(self) -> str:
        """NUMBER:HASH of the newest entry, the hash depending on all entries. Raises RefSegError for a damaged log."""
        number, check = 0, _NOTHING
        for content, newest in self._read():
            number, check = content["seq"] + 1, newest
        return f"{number}:{check}"

    def verify(self, head: str | None = None) -> int:
        """Read all; returns the number of entries. Changes nothing, a line torn by a kill included.

        head: what `head` gave at an earlier time; the log may have grown since.
        Raises RefSegError naming the first damaged entry, or saying that the log is not the one of that head.
        """
        number, wanted = _parsed_head(head)
        found, count = _NOTHING, 0
        for content, check in self._read():
            count = content["seq"] + 1
            if count == number:
                found = check
        if count < number:
            raise RefSegError(
                f"The audit log {self.path} was cut: it has {count} entries, and had {number} when its head was noted."
            )
        if wanted is not None and found != wanted:
            raise RefSegError(
                f"The audit log {self.path} is not the one whose head was noted: its first {number} entries were "
                "written anew or replaced."
            )
        return count

    def _read(self) -> Iterator[tuple[dict, str]]:
        try:
            yield from read_log(self.path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise RefSegError(f"The audit log {self.path} cannot be read: {error.strerror}.") from error


def _parsed_head(head: str | None) -> tuple[int, str | None]:
    if head is None:
        return 0, None
    match = _HEAD.fullmatch(head.strip())
    if match is None:
        raise BadInput(f"'{head}' is no head of an audit log. Give what `refseg audit head` has printed.")
    return int(match[1]), match[2]
