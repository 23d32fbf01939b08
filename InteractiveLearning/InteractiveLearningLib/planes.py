"""The anatomical names of slices."""

from __future__ import annotations

import numpy as np
from RefSegLib.volume.grid import Grid

PLANES = ("sagittal", "coronal", "axial")


def plane_name(grid: Grid, axis: int) -> str:
    """The anatomical name of the slices along an array axis: that of the nearest plane."""
    return PLANES[int(np.abs(grid.direction[axis]).argmax())]
