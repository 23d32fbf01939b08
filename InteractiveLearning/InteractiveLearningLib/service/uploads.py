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
from typing import BinaryIO

import numpy as np
from pydantic import ValidationError
from RefSegLib.durable import write_durably
from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import Volume

from InteractiveLearningLib.service.jobs import Full, Missing
from InteractiveLearningLib.service.wire import VolumeMessage, head_bytes, unpacked

LARGEST = 2**30  # bytes of voxels: 512 x 512 x 2000 of int16
PER_USER = 4 * 2**30  # bytes on the disk, with those that were announced and are to come
MOST_WHOLE, MOST_PARTS = 256, 32  # volumes of a user
BUSY_SECONDS = 60.0  # an upload is under way so long after its last chunk
MOST_CHANNELS = 16
KEPT_SECONDS = 24 * 3600.0
PART_SECONDS = 3600.0
_GONE = "This volume is not here (any more). Send it again."


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
        self._locks = [threading.Lock() for _ in range(256)]
        self._rooms = [threading.Lock() for _ in range(256)]

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
        with self._lock(user, about.id), _room():
            path = self._path(user, about.id)
            if path.exists():
                os.utime(path)
                return path.stat().st_size, True
            part, said = _part(path)
            if said.exists() and said.read_bytes() == about.model_dump_json().encode():
                return part.stat().st_size if part.exists() else 0, False
            # One at a time makes room for a user: two would both take the same room for free.
            with self._rooms[hash(user) % 256]:
                part.unlink(missing_ok=True)
                said.unlink(missing_ok=True)
                self._clear(user, about.packed)
                said.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                write_durably(said, about.model_dump_json().encode(), mode=0o600)
            return 0, False

    def add(self, user: str, identifier: str, offset: int, chunk: bytes) -> tuple[int, bool]:
        """Take the bytes from `offset` on. The last ones are verified: BadInput, and the upload is gone, if wrong."""
        with self._lock(user, identifier), _room():
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
            with part.open("ab") as file:
                file.write(chunk)
            os.utime(said)
            received += len(chunk)
            if received < about.packed:
                return received, False
            try:
                _check(about, part)
            except BadInput:
                self._discard(path)
                raise
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
            with suppress(FileNotFoundError):
                return file.stat().st_size, whole
        if said.exists():
            return 0, False
        raise Missing(_GONE)

    def load(self, user: str, identifier: str) -> Volume:
        """The volume. Raises Missing if it is not complete or was cleared away."""
        path = self._path(user, identifier)
        try:
            about = VolumeMessage.model_validate_json(path.with_suffix(".json").read_bytes())
            with path.open("rb") as stream:
                os.utime(path)
                array = unpacked(stream, about.shape, about.dtype)
        except (FileNotFoundError, ValidationError) as error:
            raise Missing(_GONE) from error
        except BadInput as error:
            self._discard(path)
            raise Missing("This volume was damaged on the server's disk. Send it again.") from error
        return Volume(array, Grid.from_dict(about.grid.model_dump()))

    def stream(self, user: str, identifier: str) -> tuple[VolumeMessage, BinaryIO]:
        """What a whole volume is, and its zlib stream, to be closed. Raises Missing as `load` does."""
        path = self._path(user, identifier)
        try:
            about = VolumeMessage.model_validate_json(path.with_suffix(".json").read_bytes())
            os.utime(path)
            return about, path.open("rb")
        except (FileNotFoundError, ValidationError) as error:
            raise Missing(_GONE) from error

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
        """Make room for one more of a user, of `wanted` bytes: what was left longest ago goes first, half-sent ones
        before whole ones. Raises Full if that does not suffice."""
        now, whole, parts = time.time(), [], []
        for file in (self._folder / user).glob("*.json"):
            with suppress(OSError, ValidationError):  # another one may have gone meanwhile
                if file.name.endswith(".part.json"):
                    path = file.with_name(file.name.removesuffix(".part.json"))
                    announced = VolumeMessage.model_validate_json(file.read_bytes()).packed
                    parts.append((file.stat().st_mtime, announced, path))
                else:
                    path = file.with_suffix("")
                    about = path.stat()
                    whole.append((about.st_mtime, about.st_size, path))
        parts.sort()
        whole.sort()
        used = sum(size for _, size, _ in parts + whole)
        while parts and (len(parts) >= MOST_PARTS or (used + wanted > PER_USER and now - parts[0][0] > BUSY_SECONDS)):
            used -= self._given_up(parts.pop(0))
        while whole and (len(whole) >= MOST_WHOLE or used + wanted > PER_USER):
            used -= self._given_up(whole.pop(0))
        if used + wanted > PER_USER:
            raise Full("Too many of your volumes are on their way at once. Let them come to their end first.", 30)

    def _given_up(self, found: tuple[float, int, Path]) -> int:
        self._discard(found[2])
        return found[1]

    def _discard(self, path: Path) -> None:
        for file in (path, path.with_suffix(".json"), *_part(path)):
            file.unlink(missing_ok=True)

    def _path(self, user: str, identifier: str) -> Path:
        return self._folder / user / identifier

    def _lock(self, user: str, identifier: str) -> threading.Lock:
        return self._locks[hash((user, identifier)) % 256]


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
    """Turns a disk that is full into DiskFull, and a file that another request has given up into Missing."""
    try:
        yield
    except FileNotFoundError as error:
        raise Missing(_GONE) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise DiskFull("The disk of the server is full; nothing was kept. Ask for room, then try again.") from error
