"""A file of JSON lines that only grows: a line that was appended is on the disk, whatever is killed when.

A writer that is killed leaves half a line at most; readers pass over it and the next writer begins a new one.
(eventlog.py is for what must also show that nobody changed it.)
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from RefSegLib.durable import sync_folder
from RefSegLib.errors import RefSegError


class LineLog:
    """The lines at `path`. Any number of threads and processes append."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(f"{path}.lock")

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Nobody else appends in here; appending in here is fine. The system frees the lock when a process dies."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except OSError as error:
            raise self._failed(error) from error
        try:
            yield
        finally:
            self._lock.release()

    def append(self, line: dict[str, Any]) -> None:
        """Add a line and wait until it is on the disk. Raises RefSegError, with nothing kept, if it cannot be."""
        with self.turn():
            try:
                with self.path.open("a+b", buffering=0) as file:
                    self._write(file, json.dumps(line).encode() + b"\n")
                sync_folder(self.path.parent)
            except OSError as error:
                raise self._failed(error) from error

    def lines(self) -> list[dict[str, Any]]:
        """All whole lines, oldest first."""
        found = []
        for line in self.path.read_bytes().splitlines() if self.path.exists() else []:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    @staticmethod
    def _write(file: Any, content: bytes) -> None:
        start = file.seek(0, os.SEEK_END)
        if start:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                content = b"\n" + content
        try:
            written = file.write(content)
            if written != len(content):
                raise OSError(f"only {written} of {len(content)} bytes could be written")
            os.fsync(file.fileno())
        except OSError:
            file.truncate(start)
            raise

    def _failed(self, error: OSError) -> RefSegError:
        why = error.strerror or str(error)
        return RefSegError(
            f"{self.path} could not be written: {why}. Nothing was changed; free some room and try again."
        )
