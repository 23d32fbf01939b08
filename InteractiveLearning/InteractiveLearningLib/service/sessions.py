"""Sessions of the service: who has which, which are in memory, and how they come back.

    home/service/sessions/USER/ID/       a session's folder (session.py), volume.id, and name: what its client calls it

A session in memory is leased: every request renews the lease. One whose client has gone, or that nobody has used for
long, leaves the memory; its log is on the disk and the next request restores it from there.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy.typing as npt
import psutil
from RefSegLib.durable import write_durably
from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.volume.volume import Volume

from InteractiveLearningLib.desk import certain
from InteractiveLearningLib.prompts import from_dict
from InteractiveLearningLib.service.jobs import Full, Missing
from InteractiveLearningLib.service.turns import Turns
from InteractiveLearningLib.service.wire import SessionMessage, label_map
from InteractiveLearningLib.session import Session

log = logging.getLogger(__name__)

LEASE = 60.0  # seconds without any sign of the client
IDLE = 1800.0  # seconds without a request but signs of life
BUSY = 5.0  # seconds after its last request for which a session is kept from others
OPEN, OPEN_PER_USER = 16, 4  # in memory
KEPT_PER_USER = 64  # on the disk
KEPT_SECONDS = 7 * 86400.0
MOST_VALUES = 2**29  # outputs x voxels: 512 x 512 x 300 with five structures
# Of all sessions in memory: half of this machine's, and whatever one alone takes.
HELD_BYTES = psutil.virtual_memory().total // 2


@dataclass
class _Entry:
    user: str
    id: str
    folder: Path
    session: Session | None = None
    size: int = 0
    alive: float = field(default_factory=time.monotonic)
    used: float = field(default_factory=time.monotonic)
    revision: int = 0
    gone: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class Sessions:
    """The sessions of all users under `home`."""

    def __init__(self, home: Path, turns: Turns) -> None:
        self._folder, self._turns = home / "service" / "sessions", turns
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._guard = threading.Lock()

    def create(self, user: str, about: SessionMessage, volume: Volume) -> tuple[str, bool]:
        """Begin a session; returns its id, and whether one of that name goes on. Raises BadInput, or Full if too many
        are open."""
        known = self._named(user, about.name)
        if known is not None:
            return known, True
        if (len(about.labels) + 1) * prod(volume.grid.shape) > MOST_VALUES:
            raise BadInput("The image is too large to be annotated with so many structures at once. Crop it first.")
        if len(list((self._folder / user).glob("*"))) >= KEPT_PER_USER:
            raise Full(f"{KEPT_PER_USER} of your sessions are kept already. Accept or discard some first.", 60)
        identifier = uuid.uuid4().hex
        entry = _Entry(user, identifier, self._folder / user / identifier)
        entry.size = _size(volume, 0 if about.mask is None else len(about.labels) + 1)
        with entry.lock:
            self._admit(entry)
            try:
                entry.folder.mkdir(parents=True, mode=0o700)
                write_durably(entry.folder / "volume.id", about.volume.encode())
                write_durably(entry.folder / "name", (about.name or "").encode())
                earlier = [from_dict(prompt.model_dump()) for prompt in about.earlier]
                with self._turns.interactive():
                    entry.session = Session.create(
                        entry.folder,
                        volume,
                        about.labels,
                        None if about.mask is None else certain(*_mask(about, volume)),
                        channel=about.channel,
                        earlier=earlier,
                    )
            except BaseException:
                self._drop(entry)
                raise
        return identifier, False

    @contextmanager
    def use(self, user: str, identifier: str, *, changes: bool = False) -> Iterator[tuple[Session, _Entry]]:
        """The session, restored from its log if it has to be; nobody else has it meanwhile. changes: counts up its
        revision when all went well. Raises Missing for one that is not there or not this user's."""
        entry = self._entry(user, identifier)
        with entry.lock:
            if entry.gone:
                raise Missing("This session is over.")
            entry.alive = entry.used = time.monotonic()
            with self._turns.interactive():
                if entry.session is None:
                    self._admit(entry)
                    entry.session = Session.open(entry.folder)
                    entry.size = entry.size or _size(entry.session.volume, len(entry.session.structures) + 1)
                    entry.revision = len(entry.session.export_log()) - 1  # what it was: all but its beginning
                try:
                    yield entry.session, entry
                except RefSegError:
                    raise
                except Exception:
                    self._close(entry)  # whatever state it is in: the log has the last good one
                    raise
                if changes:
                    entry.revision += 1

    def alive(self, user: str, identifier: str) -> None:
        """The client is still there. Raises Missing."""
        self._entry(user, identifier).alive = time.monotonic()

    def discard(self, user: str, identifier: str) -> None:
        """End a session and remove everything of it. Raises Missing."""
        entry = self._entry(user, identifier)
        with entry.lock:
            self._drop(entry)

    def of(self, user: str) -> list[dict[str, Any]]:
        """A user's sessions, oldest first."""
        found = []
        for folder in sorted((self._folder / user).glob("*"), key=lambda f: f.stat().st_mtime):
            with suppress(OSError):
                lines = (folder / "session.jsonl").read_bytes().count(b"\n")
                volume = (folder / "volume.id").read_text()
                found.append({"id": folder.name, "prompts": max(lines - 1, 0), "volume": volume})
        return found

    def open(self) -> int:
        """How many are in memory."""
        return sum(entry.session is not None for entry in list(self._entries.values()))

    def sweep(self) -> None:
        """Let go of sessions without a client or in disuse, remove what was abandoned long ago."""
        now = time.monotonic()
        for entry in list(self._entries.values()):
            if (now - entry.alive > LEASE or now - entry.used > IDLE) and entry.lock.acquire(blocking=False):
                self._close(entry)
                entry.lock.release()
        for folder in self._folder.glob("*/*"):
            with suppress(OSError, Missing):
                begun = folder / "session.jsonl"
                if not begun.exists() and time.time() - folder.stat().st_mtime > LEASE:
                    shutil.rmtree(folder)  # left by a service that was killed before the first line
                elif begun.exists() and time.time() - begun.stat().st_mtime > KEPT_SECONDS:
                    self.discard(folder.parent.name, folder.name)

    def close(self) -> None:
        """Let go of all."""
        for entry in list(self._entries.values()):
            with entry.lock:
                self._close(entry)

    def _named(self, user: str, name: str | None) -> str | None:
        """The session that its client calls so; by it a client goes on that was cut off before it knew the id."""
        for folder in (self._folder / user).glob("*") if name else ():
            with suppress(OSError):
                if (folder / "name").read_text() == name and (folder / "session.jsonl").is_file():
                    return folder.name
        return None

    def _entry(self, user: str, identifier: str) -> _Entry:
        with self._guard:
            entry = self._entries.get((user, identifier))
            if entry is None:
                folder = self._folder / user / identifier
                if not (folder / "session.jsonl").is_file():
                    raise Missing("There is no such session (any more). Begin it again.")
                entry = self._entries[user, identifier] = _Entry(user, identifier, folder)
            return entry

    def _admit(self, entry: _Entry) -> None:
        """Make room in memory for a session: the longest unused go first, but none that was used a moment ago.

        Whoever comes back to one that went waits for its log to be replayed (a tenth of a second for a small case),
        which is better than to be sent away: with leases alone, 8 clients in half an hour were, 104 times.
        """
        with self._guard:
            self._entries[entry.user, entry.id] = entry
            held = [e for e in self._entries.values() if e.session is not None and e is not entry]
            for most, those in (
                (OPEN_PER_USER, [e for e in held if e.user == entry.user]),
                (OPEN, held),
            ):
                still = [e for e in those if e.session is not None]
                for old in sorted(still, key=lambda e: e.used):
                    if len(still) < most and _fits(entry, still):
                        break
                    idle = time.monotonic() - old.used > BUSY or most == OPEN_PER_USER
                    if idle and old.lock.acquire(blocking=False):
                        self._close(old)
                        still.remove(old)
                        old.lock.release()
                if len(still) >= most or not _fits(entry, still):
                    if not (entry.folder / "session.jsonl").exists():
                        self._entries.pop((entry.user, entry.id), None)
                    raise Full("As many sessions as the server can hold are open. Try again soon.", 10)

    def _close(self, entry: _Entry) -> None:
        if entry.session is not None:
            entry.session.close()
            entry.session = None

    def _drop(self, entry: _Entry) -> None:
        self._close(entry)
        entry.gone = True
        # What makes it a session goes first: killed in the middle, it must not come back without its arrays.
        with suppress(OSError):
            (entry.folder / "session.jsonl").unlink(missing_ok=True)
        shutil.rmtree(entry.folder, ignore_errors=True)
        with self._guard:
            self._entries.pop((entry.user, entry.id), None)


def _size(volume: Volume, outputs: int) -> int:
    """Bytes of a session in memory: image, probabilities with and without limits, label maps."""
    return volume.array.nbytes + (2 * outputs + 4) * prod(volume.grid.shape)


def _fits(entry: _Entry, others: list[_Entry]) -> bool:
    return not others or sum(e.size for e in others) + entry.size <= HELD_BYTES


def _mask(about: SessionMessage, volume: Volume) -> tuple[npt.NDArray, list[int]]:
    return label_map(about.mask, volume.grid).array, [label.value for label in about.labels]
