"""Arrays as compressed files named by the hash of their content."""

from __future__ import annotations

import hashlib
from pathlib import Path

import blosc2
import numpy as np
import numpy.typing as npt
from RefSegLib.durable import write_durably
from RefSegLib.errors import RefSegError


def keep_array(folder: Path, array: npt.NDArray) -> str:
    """Store an array under folder/arrays; returns its name. Raises OSError with nothing left behind."""
    parameters = blosc2.CParams(codec=blosc2.Codec.ZSTD, clevel=3, nthreads=1)
    content = blosc2.asarray(np.ascontiguousarray(array), cparams=parameters).to_cframe()
    name = hashlib.sha256(content).hexdigest()
    write_durably(folder / "arrays" / name, content)
    return name


def load_array(folder: Path, name: str) -> npt.NDArray:
    """The array of that name. Raises RefSegError if it is missing or not what it was."""
    path = folder / "arrays" / name
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != name:
        raise RefSegError(
            f"{path} is missing or damaged; the session cannot be opened without it. Restore it from a backup."
        )
    return blosc2.ndarray_from_cframe(content)[:]
