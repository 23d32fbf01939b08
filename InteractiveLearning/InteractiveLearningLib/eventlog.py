"""A file of events that only grows: what was acknowledged is on the disk, whatever is killed when.

One JSON object a line: `seq` 0, 1, 2, ...; `time`, UTC; `event`; `check`, a hash over the line and the check of the
line before, so that a change anywhere in the middle is seen. A last line that was torn by a kill was never acknowledged
and is dropped.
"""

from __future__ import annotations

import hashlib
import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from RefSegLib.durable import sync_folder
from RefSegLib.errors import RefSegError

try:
    import fcntl
except ImportError:  # Windows, where two programs on one session are not kept apart
    fcntl = None


class EventLog:
    """The log at `path`, created if it is not there. One process at a time (a lock that dies with the process).

    Raises RefSegError if another process has it open, or if anything but its last line is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[dict[str, Any]] = []
        self._check = ""
        fresh = not path.exists()
        self._file = path.open("ab+", buffering=0)
        try:
            self._lock()
            end = self._read()
            if end != self._file.seek(0, os.SEEK_END):
                self._file.truncate(end)
                os.fsync(self._file.fileno())
        except BaseException:
            self._file.close()
            raise
        if fresh:
            sync_folder(path.parent)

    def append(self, event: dict[str, Any]) -> None:
        """Write one event; it is on the disk when this returns. Raises RefSegError, with nothing kept, if it cannot."""
        content = {
            "seq": len(self.events),
            "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "event": event,
        }
        check = _check(self._check, content)
        line = json.dumps(content | {"check": check}, separators=(",", ":")).encode() + b"\n"
        start = self._file.seek(0, os.SEEK_END)
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError(f"only {written} of {len(line)} bytes could be written")
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(start)
            raise RefSegError(
                f"The last step could not be saved in {self.path} and was not made: {error}. "
                "Free some disk space and repeat it; everything before is safe."
            ) from error
        self.events.append(content)
        self._check = check

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

    def _read(self) -> int:
        """Read all events; returns where the last good line ends."""
        self._file.seek(0)
        lines = self._file.read().split(b"\n")
        end = 0
        for number, line in enumerate(lines[:-1]):
            content = _parsed(line, number, self._check)
            if content is None:
                if number < len(lines) - 2 or lines[-1]:
                    raise RefSegError(
                        f"The session log {self.path} is damaged in line {number + 1}. Restore it from a backup, or "
                        "move that line and all after it out of the file to go on from there."
                    )
                break
            self._check = content.pop("check")
            self.events.append(content)
            end += len(line) + 1
        return end


def _check(before: str, content: dict[str, Any]) -> str:
    text = json.dumps(content, separators=(",", ":"))
    return hashlib.sha256((before + text).encode()).hexdigest()[:32]


def _parsed(line: bytes, number: int, before: str) -> dict[str, Any] | None:
    try:
        content = json.loads(line)
        check = content.pop("check")
    except (ValueError, KeyError, AttributeError):
        return None
    if content.get("seq") != number or check != _check(before, content):
        return None
    return content | {"check": check}
