"""A stack of slices with the maps between them, along registrations from neighbor to neighbor.

The maps are composed and what is carried is warped once; warping a mask again and again would blur it away.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from InteractiveLearningLib.propagation.flow import FlowCache

Array = npt.NDArray[np.float32]
FAR = 30.0


def signed_distance(mask: npt.NDArray[np.bool_], spacing: tuple[float, float]) -> Array:
    """Distance to the border of a mask (h, w), positive inside, in units of the smaller spacing, within +-30."""
    if not mask.any():
        return np.full(mask.shape, -FAR, np.float32)
    padded = np.pad(mask, 1, mode="edge")
    unit = np.asarray(spacing) / min(spacing)
    if unit.max() < 1.01:  # as good as isotropic, where OpenCV is ten times faster
        outside, inside = (
            cv2.distanceTransform(m.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
            for m in (~padded, padded)
        )
    else:
        outside, inside = (ndimage.distance_transform_edt(m, sampling=unit)[1:-1, 1:-1] for m in (~padded, padded))
    if mask.all():
        inside = np.full(mask.shape, FAR)
    return np.clip(np.where(mask, inside - 0.5, 0.5 - outside), -FAR, FAR).astype(np.float32)


class Stack:
    """Slices (n, h, w) of bytes with the maps between them.

    Maps depend on the pictures alone and are kept for as long as the stack lives, for all labels and left-out slices.
    registered: whether slices are registered at all; if not, everything is carried straight along the axis.
    """

    def __init__(self, pictures: npt.NDArray[np.uint8], cache: FlowCache, *, registered: bool = True) -> None:
        self.pictures = pictures
        self.cache = cache
        self.registered = registered
        height, width = pictures.shape[1:]
        self._here = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
        self._maps: dict[tuple[int, int], Array] = {}
        self._differences: dict[tuple[int, int], Array] = {}

    def map(self, source: int, target: int) -> Array:
        """Where the pixels of slice `target` lie in slice `source`: (h, w, 2), x and y."""
        step = 1 if target > source else -1
        at = target
        while at != source and (source, at) not in self._maps:
            at -= step
        reached = self._maps.get((source, at), self._here)
        while at != target:
            at += step
            flow = self.cache.between(self.pictures[at], self.pictures[at - step])
            reached = cv2.remap(reached, self._here + flow, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            self._maps[source, at] = reached
        return reached

    def warp(self, array: Array, source: int, target: int) -> Array:
        """An array (h, w) that belongs to slice `source`, as seen from slice `target`."""
        if source == target or not self.registered:
            return array
        way = self.map(source, target)
        return cv2.remap(array, way, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def difference(self, source: int, target: int) -> Array:
        """How much the picture of `source`, carried to `target`, differs from the one there: (h, w) in 0..1."""
        if (source, target) not in self._differences:
            carried = self.warp(self.pictures[source].astype(np.float32), source, target)
            apart = np.abs(carried - self.pictures[target]) / np.float32(255)
            self._differences[source, target] = cv2.GaussianBlur(apart, (0, 0), 1.0)
        return self._differences[source, target]
