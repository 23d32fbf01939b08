"""Where proxy images are compared with the image: decided by all candidates together."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from scipy import ndimage

# Mean probability of any structure, as a share of the highest there is. Not of 1: under a strong shift most candidates
# find nothing, and 13 of 50 shifted hearts had no region at all.
LIKELY = 0.35
REACH = 3  # voxels around it


def consensus_region(foregrounds: Iterable[npt.NDArray[np.floating]], flat: bool = False) -> npt.NDArray[np.bool_]:
    """The region (k, j, i) where candidates, together, see a structure, and REACH voxels around it; may be empty.

    foregrounds: probability of any structure (k, j, i), one per candidate; flat: REACH within slices only. A region cut
    from the mask that is judged would be small where that mask collapsed, and agree with anything (measured: the score
    then ranks masks upside down).
    """
    total = None
    for foreground in foregrounds:
        total = foreground.astype(np.float32) if total is None else total + foreground
    highest = float(total.max())
    if highest < 0.5:
        return np.zeros(total.shape, bool)
    likely = total > LIKELY * highest
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
