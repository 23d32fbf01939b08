"""A file of events that only grows: what was acknowledged is on the disk, whatever is killed when.

One JSON object a line: `seq` 0, 1, 2, ...; `time`, UTC; `event`; `check`, a hash over the line and the check of the
line before, so that a change anywhere in the middle is seen. A last line that was torn by a kill was never acknowledged
and is dropped.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import datetime, timezone
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock
from RefSegLib.durable import sync_folder
from RefSegLib.errors import RefSegError

try:
    import fcntl
except ImportError:  # Windows, where two programs on one session are not kept apart
    fcntl = None


class DamagedLog(RefSegError):
    """A line that cannot have been written like this. number: 1, 2, ...; last: no line follows it."""

    def __init__(self, path: Path, number: int, why: str, last: bool) -> None:
        super().__init__(
            f"The log {path} is damaged in line {number}, which {why}. Restore it from a backup, or move that line and "
            "all after it out of the file to go on from there."
        )
        self.number, self.last = number, last


class EventLog:
    """The log at `path`, created if it is not there. One process at a time (a lock that dies with the process).

    shared: any number of threads and processes append, in turns. Each reads what the others appended since, so that an
        append costs nothing for the lines before; `events` stays empty (see read_log). A last line that is complete
        and wrong counts as damage too: somebody may have changed it after it was acknowledged.
    Raises RefSegError if another process has it open, or if anything but its last line is damaged (DamagedLog).
    """

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        self.path = path
        self.events: list[dict[str, Any]] = []
        self._shared = shared
        self._seq, self._check, self._end = 0, "", 0
        fresh = not path.exists()
        self._file = path.open("ab+", buffering=0)
        self._turn = FileLock(f"{path}.lock") if shared else nullcontext()
        try:
            if not shared:
                self._lock()
            with self._turn:
                self._catch_up()
        except BaseException:
            self._file.close()
            raise
        if fresh:
            sync_folder(path.parent)

    def append(self, event: dict[str, Any]) -> None:
        """Write one event; it is on the disk when this returns. Raises RefSegError, with nothing kept, if it cannot."""
        with self._turn:
            if self._shared:
                self._catch_up()
            self._append(event)

    def _append(self, event: dict[str, Any]) -> None:
        content = {
            "seq": self._seq,
            "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "event": event,
        }
        check = _check(self._check, content)
        line = json.dumps(content | {"check": check}, separators=(",", ":")).encode() + b"\n"
        start = self._file.seek(0, os.SEEK_END)
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError(errno.ENOSPC, f"only {written} of {len(line)} bytes could be written")
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(start)
            raise RefSegError(
                f"The last step could not be saved in {self.path} and was not made: {error}. "
                "Free some disk space and repeat it; everything before is safe."
            ) from error
        self._passed(content, check, len(line))

    def close(self) -> None:
        """Close the file and let go of the lock."""
        self._file.close()

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RefSegError(
                f"The session in {self.path.parent} is open in another program. Close it there."
            ) from error

    def _catch_up(self) -> None:
        """Read what is new since, and cut off what a kill has torn."""
        size = self._file.seek(0, os.SEEK_END)
        if self._end and (size < self._end or not self._in_place()):
            raise RefSegError(f"The log {self.path} was cut or replaced while it was in use. Start this program again.")
        self._file.seek(self._end)
        try:
            for content, check, length in _lines(self.path, BytesIO(self._file.read()), self._seq, self._check):
                self._passed(content, check, length)
        except DamagedLog as damage:
            if self._shared or not damage.last:
                raise
        if self._end != size:
            self._file.truncate(self._end)
            os.fsync(self._file.fileno())

    def _in_place(self) -> bool:
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False

    def _passed(self, content: dict[str, Any], check: str, length: int) -> None:
        if not self._shared:
            self.events.append(content)
        self._seq, self._check, self._end = self._seq + 1, check, self._end + length


def read_log(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """(seq, time and event; check) of every whole line. Changes nothing. Raises DamagedLog at the first wrong line."""
    with path.open("rb") as file:
        for content, check, _ in _lines(path, file, 0, ""):
            yield content, check


def _lines(path: Path, file: BinaryIO, seq: int, check: str) -> Iterator[tuple[dict[str, Any], str, int]]:
    """Content, check and length of the lines from where `file` stands up to its end or a torn line."""
    for line in file:
        if not line.endswith(b"\n"):
            return
        content, why = _parsed(line, seq, check)
        if why:
            raise DamagedLog(path, seq + 1, why, last=not file.read(1))
        check = content.pop("check")
        yield content, check, len(line)
        seq += 1


def _check(before: str, content: dict[str, Any]) -> str:
    text = json.dumps(content, separators=(",", ":"))
    return hashlib.sha256((before + text).encode()).hexdigest()[:32]


def _parsed(line: bytes, seq: int, before: str) -> tuple[dict[str, Any], str]:
    """The line, and what is wrong with it in words or an empty string."""
    try:
        content = json.loads(line)
        check = content.pop("check")
        found = content.get("seq")
    except (ValueError, KeyError, AttributeError, TypeError):
        return {}, "is no entry"
    if found != seq:
        return {}, f"has the number {found} instead of {seq}: lines were removed, added or exchanged"
    # The bytes are compared, too: JSON lets spaces and doubled names through that the hash would not see.
    whole = content | {"check": check}
    if check != _check(before, content) or line != json.dumps(whole, separators=(",", ":")).encode() + b"\n":
        return {}, "does not match its hash: it or the line before was changed"
    return whole, ""
