"""Files that are either whole or not there, whatever is killed when."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from RefSegLib.errors import RefSegError


def write_durably(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file so that after a return it survives a crash and before it nobody sees a part of it.

    Raises OSError (a full disk among them) with nothing left behind.
    """
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        sync_folder(path.parent.parent)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def written_whole(file: Path) -> Iterator[BinaryIO]:
    """A stream to write a file to that people have named; it is there once the block has ended well, and whole.

    Raises RefSegError, with nothing left behind, if it cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=file.parent) as room:
            partial = Path(room) / file.name
            with partial.open("wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(file)
        sync_folder(file.parent)
    except OSError as error:
        raise RefSegError(f"'{file}' could not be written: {error.strerror}. Choose another place.") from error


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder durable. Windows needs no such call and has none."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
