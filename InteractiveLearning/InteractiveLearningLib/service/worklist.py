"""The images that a site wants annotated: a folder of the server, and who works on which of them.

    home/service/worklist.json     what was decided, and who has what until when

A case is known by a keyed hash of its place in the folder; nothing of the wire ever gets into a path. Whoever takes a
case has it for half an hour, and for longer while their program says so: two people never annotate the same one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from RefSegLib.durable import write_durably
from RefSegLib.errors import BadInput, RefSegError

from InteractiveLearningLib.service.client import sendable
from InteractiveLearningLib.service.jobs import Missing
from InteractiveLearningLib.service.patients import patient_key
from InteractiveLearningLib.service.uploads import Uploads
from InteractiveLearningLib.service.wire import CHUNK, VolumeMessage, pack_volume, volume_head, volume_id
from InteractiveLearningLib.worklist import FolderCase, cases_in, patient_at

LEASE = 1800.0  # seconds for which a case is kept for whoever took it last
LISTED = 10.0  # seconds for which the folder is not looked through again
Asked = Literal["take", "leave", "accepted", "rejected", "skipped"]


class StateMessage(BaseModel):
    """What becomes of a case: it is taken, left to others as it was, or done with."""

    model_config = ConfigDict(extra="forbid")
    state: Asked


class Taken(RefSegError):
    """Somebody else has the case, or the caller has not taken it."""


class _Mark(BaseModel):
    """state of a case; by: who took or decided it; until: when it is free again (seconds since 1970)."""

    model_config = ConfigDict(extra="forbid")
    state: Literal["todo", "accepted", "rejected", "skipped"] = "todo"
    by: str = ""
    until: float = 0.0


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    marks: dict[str, _Mark] = {}


@dataclass(frozen=True)
class Worked:
    """A case as one user sees it. by: who has it, or decided it; held: it is somebody's now; mine: the user's own."""

    id: str
    name: str
    state: str
    by: str
    held: bool
    mine: bool


class ServedWorklist:
    """The images under `folder`, of a service whose store is `home`. Safe with many threads.

    Raises BadInput if there is no such folder, RefSegError if what was decided cannot be read or written.
    """

    def __init__(self, home: Path, folder: Path) -> None:
        self._path, self._folder = home / "service" / "worklist.json", folder
        self._key = patient_key(home, "worklist").encode()
        self._lock = threading.Lock()
        self._cases: dict[str, FolderCase] = {}
        self._listed = -LISTED
        self._marks = self._read()
        self._look()

    def cases(self, user: str) -> list[Worked]:
        """All cases, in the order of the folder."""
        with self._lock:
            self._look()
            return [self._worked(identifier, user) for identifier in self._cases]

    def take(self, user: str, identifier: str) -> tuple[Worked, bool]:
        """Have a case for a while, or for a while longer; True if it was not the user's before.

        Raises Taken if somebody else has it, Missing if there is none.
        """
        with self._lock:
            self._find(identifier)
            mark, now = self._marks.get(identifier, _Mark()), time.time()
            if mark.until > now and mark.by != user:
                raise Taken(f"{mark.by} works on this case. Take another one.")
            new = mark.until <= now
            self._put(identifier, _Mark(state=mark.state, by=user, until=now + LEASE))
            return self._worked(identifier, user), new

    def decide(self, user: str, identifier: str, state: str) -> Worked:
        """What became of a case, which is free afterwards; "leave": it stays what it was. Raises Taken if the user has
        not taken it, and Missing."""
        self.check(user, identifier)
        with self._lock:
            state = self._marks[identifier].state if state == "leave" else state
            self._put(identifier, _Mark(state=state, by=user))
            return self._worked(identifier, user)

    def check(self, user: str, identifier: str) -> None:
        """Raise Taken unless the user has the case, Missing if there is none."""
        with self._lock:
            self._find(identifier)
            mark = self._marks.get(identifier, _Mark())
            if mark.by != user or mark.until <= time.time():
                raise Taken("Take this case first, so that nobody else works on it.")

    def patient(self, identifier: str) -> str:
        """The patient of a case, as far as it tells. Reads a header."""
        return patient_at(self._case(identifier))

    def packed(self, identifier: str, user: str, uploads: Uploads) -> tuple[VolumeMessage, BinaryIO]:
        """The image of a case as it travels: what it is, and its zlib stream on the disk, to be closed.

        It is then among the user's uploads, too, so that it need not come back for a session or a mask.
        Raises BadInput for a file that is no image, or too large to travel; Missing.
        """
        from RefSegLib.volume.io import read_image

        case = self._case(identifier)
        try:
            volume = sendable(read_image(case.path))
        except BadInput as error:  # its sentence names the file where it lies on the server
            raise BadInput(str(error).replace(str(case.path), case.name)) from error
        about = {"id": volume_id(volume), **volume_head(volume)}
        for _ in range(2):  # half of it may have come from another program, whose zlib packs otherwise
            try:
                return _kept(uploads, user, volume, about)
            except BadInput as error:
                failure = error
        raise failure

    def _case(self, identifier: str) -> FolderCase:
        with self._lock:
            return self._find(identifier)

    def _find(self, identifier: str) -> FolderCase:
        self._look()
        if identifier not in self._cases:
            raise Missing("There is no such case in the worklist (any more).")
        return self._cases[identifier]

    def _worked(self, identifier: str, user: str) -> Worked:
        mark = self._marks.get(identifier, _Mark())
        held = mark.until > time.time()
        by = mark.by if held or mark.state != "todo" else ""
        return Worked(identifier, self._cases[identifier].name, mark.state, by, held, held and mark.by == user)

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._listed >= LISTED:
            self._cases = {self._id(case): case for case in cases_in(self._folder)}
            self._listed = now

    def _id(self, case: FolderCase) -> str:
        return hmac.new(self._key, case.key.encode(), hashlib.sha256).hexdigest()[:32]

    def _read(self) -> dict[str, _Mark]:
        try:
            return _File.model_validate_json(self._path.read_bytes()).marks
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError) as error:
            raise RefSegError(
                f"What was decided in the worklist cannot be read: '{self._path}' is damaged. Restore it from a "
                "backup, or remove it to begin anew."
            ) from error

    def _put(self, identifier: str, mark: _Mark) -> None:
        marks = {**self._marks, identifier: mark}
        write_durably(self._path, json.dumps({"marks": {k: m.model_dump() for k, m in marks.items()}}).encode(), 0o600)
        self._marks = marks


def _kept(uploads: Uploads, user: str, volume: Any, about: dict[str, Any]) -> tuple[VolumeMessage, BinaryIO]:
    try:
        return uploads.stream(user, about["id"])
    except Missing:
        packed = pack_volume(volume)
    received, whole = uploads.begin(user, VolumeMessage(packed=len(packed), **about))
    while not whole:
        received, whole = uploads.add(user, about["id"], received, packed[received : received + CHUNK])
    return uploads.stream(user, about["id"])
