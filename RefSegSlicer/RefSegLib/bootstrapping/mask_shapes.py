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
    """The ellipse fitted to the convex hull of the largest part of a mask (j, i), for structures known to be ellipses:
    what is missing on one side is filled in. A mask with a hull of fewer than five corners comes back as it is."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.convexHull(max(outlines, key=cv2.contourArea)) if outlines else ()
    if len(hull) < 5:
        return mask
    drawn = np.zeros(mask.shape, np.uint8)
    cv2.ellipse(drawn, cv2.fitEllipse(hull), 1, -1)
    return drawn.astype(bool)
