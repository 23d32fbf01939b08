"""The arrays of the replay store: one compressed file each, named by the hash of its content."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

import blosc2
import numpy as np
import numpy.typing as npt
from RefSegLib.durable import write_durably


class ArrayFiles:
    """Files ab/abcd… under a folder. Only who holds the write lock of the index may keep or sweep."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """Where the array of that name is, or would be."""
        return self.folder / name[:2] / name

    def keep(self, content: bytes) -> str:
        """Have the content on the disk once; returns its name."""
        name = hashlib.sha256(content).hexdigest()
        # A file that is there but damaged is written anew: whoever accepts a case again repairs it.
        if self.read(name) is None:
            write_durably(self.path(name), content)
        return name

    def read(self, name: str) -> bytes | None:
        """The content, or None if the file is gone or does not match its name."""
        try:
            content = self.path(name).read_bytes()
        except FileNotFoundError:
            return None
        return content if hashlib.sha256(content).hexdigest() == name else None

    def sweep(self, named: Collection[str]) -> None:
        """Remove every file that is not named, what killed writers left among them."""
        for path in self.folder.glob("*/*"):
            if path.name not in named:
                path.unlink(missing_ok=True)

    def remove(self, names: Collection[str]) -> list[str]:
        """Remove the files of these names, where they are; returns the names."""
        for name in sorted(names):
            self.path(name).unlink(missing_ok=True)
        return sorted(names)

    def any(self) -> bool:
        """Whether there is a file at all."""
        return next(self.folder.glob("*/*"), None) is not None


def packed(array: npt.NDArray) -> bytes:
    """A self-describing compressed copy; the same bytes for the same array."""
    parameters = blosc2.CParams(codec=blosc2.Codec.ZSTD, clevel=5, nthreads=1)
    return blosc2.asarray(np.ascontiguousarray(array), cparams=parameters).to_cframe()


def unpacked(content: bytes) -> npt.NDArray:
    """The array of which `packed` made the content."""
    return blosc2.ndarray_from_cframe(content)[:]
