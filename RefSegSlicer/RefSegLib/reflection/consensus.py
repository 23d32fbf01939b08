"""Where proxy images are compared with the image: decided by all candidates together."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from scipy import ndimage

LIKELY = 0.35  # mean probability of any structure
REACH = 3  # voxels around it


def consensus_region(foregrounds: Iterable[npt.NDArray[np.floating]], flat: bool = False) -> npt.NDArray[np.bool_]:
    """The region (k, j, i) where candidates, on average, see a structure, and REACH voxels around it; may be empty.

    foregrounds: probability of any structure (k, j, i), one per candidate; flat: REACH
    within slices only. A region cut from one candidate would be
    small where that candidate collapsed, and agree with anything (measured: the score then ranks masks upside down).
    """
    total, count = None, 0
    for foreground in foregrounds:
        total = foreground.astype(np.float32) if total is None else total + foreground
        count += 1
    likely = total > LIKELY * count
    if not likely.any():
        return likely
    # Dilation only inside the box it can reach: the rest of a large image costs nothing.
    box = grown_box(likely, REACH)
    ball = ndimage.generate_binary_structure(3, 1)
    if flat or likely.shape[0] == 1:
        ball = ball & (np.arange(3) == 1)[:, None, None]
    region = np.zeros_like(likely)
    region[box] = ndimage.binary_dilation(likely[box], ball, iterations=REACH)
    return region


def grown_box(mask: npt.NDArray[np.bool_], margin: int) -> tuple[slice, slice, slice]:
    """The smallest box around a mask (k, j, i), not empty, and `margin` voxels more where the array has them."""
    box = []
    for axis, size in enumerate(mask.shape):
        places = np.flatnonzero(mask.any(tuple(other for other in range(3) if other != axis)))
        box.append(slice(max(0, int(places[0]) - margin), min(size, int(places[-1]) + 1 + margin)))
    return tuple(box)
