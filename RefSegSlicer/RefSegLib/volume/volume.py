"""Images and label maps: voxels together with their grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from RefSegLib.errors import BadInput
from RefSegLib.volume.grid import Grid


@dataclass(frozen=True)
class Volume:
    """An image. array: (channel, k, j, i), any real type, shared and not to be written to; grid: where it lies."""

    array: npt.NDArray
    grid: Grid

    def __post_init__(self) -> None:
        if self.array.ndim == 3:
            object.__setattr__(self, "array", self.array[None])
        if self.array.ndim != 4 or self.array.shape[1:] != self.grid.shape:
            raise BadInput(f"Voxels of shape {self.array.shape} do not fit a grid of {self.grid.shape}.")

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.array.shape[0]

    def check(self, what: str = "The image") -> None:
        """Raise BadInput, saying why, if the voxels cannot be segmented."""
        bad = int(np.count_nonzero(~np.isfinite(self.array))) if self.array.dtype.kind == "f" else 0
        if bad:
            raise BadInput(
                f"{what} holds {bad} voxels that are not numbers (NaN or infinite). "
                "Replace them first, for example by the value of the background."
            )
        for channel in range(self.channels):
            if self.array[channel].min() == self.array[channel].max():
                raise BadInput(f"{what} has the same value in every voxel; there is nothing to segment in it.")


@dataclass(frozen=True)
class LabelMap:
    """A mask. array: (k, j, i) unsigned integers, 0 is background; grid: where it lies."""

    array: npt.NDArray[np.unsignedinteger]
    grid: Grid

    def __post_init__(self) -> None:
        if self.array.shape != self.grid.shape:
            raise BadInput(f"A label map of shape {self.array.shape} does not fit a grid of {self.grid.shape}.")
        if self.array.dtype.kind != "u":
            raise BadInput(f"A label map holds whole numbers from 0 up, not {self.array.dtype}.")
