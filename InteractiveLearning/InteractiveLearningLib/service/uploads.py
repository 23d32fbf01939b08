"""Volumes that clients have sent: kept by their content, received in pieces, never trusted before they are whole.

    home/service/volumes/USER/ID          the zlib stream, verified, named by the hash of the volume
    home/service/volumes/USER/ID.json     what it is
    home/service/volumes/USER/ID.part     what has come so far (and ID.part.json)

USER is the name of an account (checked by accounts.py), ID is 64 hex digits: nothing else of the wire gets into a path.
"""

from __future__ import annotations

import errno
import os
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from math import prod
from pathlib import Path

import numpy as np
from pydantic import ValidationError
from RefSegLib.durable import write_durably
from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import Volume

from InteractiveLearningLib.service.jobs import Full, Missing
from InteractiveLearningLib.service.wire import VolumeMessage, head_bytes, unpacked

LARGEST = 2**30  # bytes of voxels: 512 x 512 x 2000 of int16
PER_USER = 4 * 2**30  # bytes on the disk
MOST_CHANNELS = 16
KEPT_SECONDS = 24 * 3600.0
PART_SECONDS = 3600.0


class Elsewhere(RefSegError):
    """A chunk does not begin where the last one ended; `received` is where that was."""

    def __init__(self, received: int) -> None:
        super().__init__(f"{received} bytes of this volume have come so far. Go on from there.")
        self.received = received


class DiskFull(RefSegError):
    """There is no room on the server's disk; nothing was kept."""


class Uploads:
    """The volumes of all users under `home`. Raises DiskFull whenever the disk does not take more."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "service" / "volumes"
        self._locks: dict[tuple[str, str], threading.Lock] = {}
        self._guard = threading.Lock()

    def begin(self, user: str, about: VolumeMessage) -> tuple[int, bool]:
        """Announce a volume; returns (bytes received so far, whether it is complete). Raises BadInput, Full."""
        channels, *shape = about.shape
        size = prod(about.shape) * np.dtype(about.dtype).itemsize
        if not 1 <= channels <= MOST_CHANNELS or size > LARGEST:
            raise BadInput(
                f"A volume of {' x '.join(map(str, about.shape))} values of type {about.dtype} cannot be sent: at most "
                f"{MOST_CHANNELS} channels and {LARGEST // 2**20} MB. Crop it first."
            )
        if tuple(shape) != about.grid.shape or not 0 < about.packed <= size + size // 1000 + 1024:
            raise BadInput("What the volume is said to be does not fit together. Send it again.")
        Grid.from_dict(about.grid.model_dump())
        with self._lock(user, about.id):
            path = self._path(user, about.id)
            if path.exists():
                os.utime(path)
                return path.stat().st_size, True
            part, said = _part(path)
            if said.exists() and said.read_bytes() == about.model_dump_json().encode():
                return part.stat().st_size if part.exists() else 0, False
            self._clear(user, about.packed)
            part.unlink(missing_ok=True)
            with _room():
                write_durably(said, about.model_dump_json().encode(), mode=0o600)
            return 0, False

    def add(self, user: str, identifier: str, offset: int, chunk: bytes) -> tuple[int, bool]:
        """Take the bytes from `offset` on. The last ones are verified: BadInput, and the upload is gone, if wrong."""
        with self._lock(user, identifier):
            path = self._path(user, identifier)
            if path.exists():
                return path.stat().st_size, True
            part, said = _part(path)
            if not said.exists():
                raise Missing("This volume was not announced, or not for a long time. Send it from the beginning.")
            about = VolumeMessage.model_validate_json(said.read_bytes())
            received = part.stat().st_size if part.exists() else 0
            if offset != received:
                raise Elsewhere(received)
            if received + len(chunk) > about.packed:
                self._discard(path)
                raise BadInput("More came of this volume than was announced. Send it again.")
            with _room(), part.open("ab") as file:
                file.write(chunk)
            received += len(chunk)
            if received < about.packed:
                return received, False
            try:
                _check(about, part)
            except BadInput:
                self._discard(path)
                raise
            with _room():
                write_durably(path.with_suffix(".json"), said.read_bytes(), mode=0o600)
            part.chmod(0o600)
            part.replace(path)
            said.unlink(missing_ok=True)
            return received, True

    def state(self, user: str, identifier: str) -> tuple[int, bool]:
        """(bytes received, complete). Raises Missing for a volume nobody announced."""
        path = self._path(user, identifier)
        part, said = _part(path)
        for file, whole in ((path, True), (part, False)):
            if file.exists():
                return file.stat().st_size, whole
        if said.exists():
            return 0, False
        raise Missing("This volume is not here (any more). Send it again.")

    def load(self, user: str, identifier: str) -> Volume:
        """The volume. Raises Missing if it is not complete or was cleared away."""
        path = self._path(user, identifier)
        try:
            about = VolumeMessage.model_validate_json(path.with_suffix(".json").read_bytes())
            content = path.read_bytes()
            os.utime(path)
        except (FileNotFoundError, ValidationError) as error:
            raise Missing("This volume is not here (any more). Send it again.") from error
        try:
            array = unpacked(content, about.shape, about.dtype)
        except BadInput as error:
            self._discard(path)
            raise Missing("This volume was damaged on the server's disk. Send it again.") from error
        return Volume(array, Grid.from_dict(about.grid.model_dump()))

    def sweep(self) -> None:
        """Remove what nobody has used for a day, and what never became whole."""
        now = time.time()
        for path in self._folder.glob("*/*"):
            limit = PART_SECONDS if ".part" in path.name or path.suffix == ".tmp" else KEPT_SECONDS
            with suppress(OSError):
                if path.suffix == ".json" and ".part" not in path.name:
                    if not path.with_suffix("").exists() and now - path.stat().st_mtime > PART_SECONDS:
                        path.unlink()
                elif now - path.stat().st_mtime > limit:
                    path.unlink()

    def _clear(self, user: str, wanted: int) -> None:
        """Make room for `wanted` bytes of a user: what was used longest ago goes first. Raises Full if that fails."""
        own = [p for p in (self._folder / user).glob("*") if p.suffix not in (".json", ".tmp")]
        used = sum(p.stat().st_size for p in own if p.exists())
        for path in sorted((p for p in own if p.suffix != ".part"), key=lambda p: p.stat().st_mtime):
            if used + wanted <= PER_USER:
                return
            used -= path.stat().st_size
            self._discard(path)
        if used + wanted > PER_USER:
            raise Full("Too many of your volumes are on their way at once. Let them come to their end first.", 30)

    def _discard(self, path: Path) -> None:
        for file in (path, path.with_suffix(".json"), *_part(path)):
            file.unlink(missing_ok=True)

    def _path(self, user: str, identifier: str) -> Path:
        return self._folder / user / identifier

    def _lock(self, user: str, identifier: str) -> threading.Lock:
        with self._guard:
            if len(self._locks) > 10_000:
                self._locks = {key: lock for key, lock in self._locks.items() if lock.locked()}
            return self._locks.setdefault((user, identifier), threading.Lock())


def _part(path: Path) -> tuple[Path, Path]:
    return path.with_suffix(".part"), path.with_suffix(".part.json")


def _check(about: VolumeMessage, file: Path) -> None:
    """Raise BadInput unless the stream is the volume it was announced as. A megabyte at a time, whatever it claims."""
    digest = sha256(head_bytes(about.model_dump(include={"dtype", "grid", "shape"}, mode="json")))
    left, unpacker = prod(about.shape) * np.dtype(about.dtype).itemsize, zlib.decompressobj()
    try:
        with file.open("rb") as stream:
            while left >= 0 and not unpacker.eof:
                content = unpacker.unconsumed_tail or stream.read(2**20)
                raw = unpacker.decompress(content, 2**20)
                if not content and not raw:
                    break
                digest.update(raw)
                left -= len(raw)
            whole = unpacker.eof and not unpacker.unused_data and not stream.read(1)
    except zlib.error:
        whole = False
    if left or not whole or digest.hexdigest() != about.id:
        raise BadInput("The volume does not match its hash: it was damaged on its way. Send it again.")


@contextmanager
def _room() -> Iterator[None]:
    """Turns a disk that is full into DiskFull."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise DiskFull("The disk of the server is full; nothing was kept. Ask for room, then try again.") from error
