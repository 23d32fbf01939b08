"""Found masks made into what a structure can be: so many parts, no holes, an ellipse."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage


def cleaned(mask: npt.NDArray[np.bool_], parts: int) -> npt.NDArray[np.bool_]:
    """A mask (j, i) with its `parts` largest parts only and their holes filled."""
    count, numbered, found, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    if count > parts + 1:
        largest = 1 + np.argsort(found[1:, cv2.CC_STAT_AREA])[::-1][:parts]
        mask = np.isin(numbered, largest)
    return ndimage.binary_fill_holes(mask)


def as_ellipse(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The ellipse with the center, the second moments and the area of a mask (j, i), for structures known to be one.

    The area is kept: ellipses around convex hulls are larger than the masks, and round by round labels grew (optic
    discs lost 9 points in three rounds). A mask of fewer than five pixels comes back as it is.
    """
    places = np.argwhere(mask)
    if len(places) < 5:
        return mask
    spread = np.cov(places.T) + np.eye(2) / 12  # of the pixels themselves
    offsets = np.stack(np.indices(mask.shape), -1) - places.mean(0)
    distance = np.einsum("...a,ab,...b", offsets, np.linalg.inv(spread), offsets)
    return distance <= len(places) / (np.pi * np.sqrt(np.linalg.det(spread)))
