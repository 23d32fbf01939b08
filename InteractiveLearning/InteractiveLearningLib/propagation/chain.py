"""Carry outlined slices through a stack of slices, along registrations from neighbor to neighbor.

The maps are composed and the signed distance is warped once; warping a mask again and again would blur it away. What
arrives from both sides is fused: interpolation of shapes, but in registered space.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from InteractiveLearningLib.propagation.flow import FlowCache

Array = npt.NDArray[np.float32]
# How fast trust falls with the difference (0..1) between the carried and the actual picture.
DIFFERENCE = 0.08
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


@dataclass(frozen=True)
class Chained:
    """The fused stack. value, difference: (n, h, w); distance: (n,) slices to the nearest annotated one."""

    value: Array
    difference: Array
    distance: npt.NDArray[np.int64]


class Stack:
    """Slices (n, h, w) of bytes with the maps between them.

    Maps depend on the pictures alone and are kept for as long as the stack lives, for all labels and left-out slices.
    """

    def __init__(self, pictures: npt.NDArray[np.uint8], cache: FlowCache) -> None:
        self.pictures = pictures
        self.cache = cache
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
        way = self.map(source, target)
        return cv2.remap(array, way, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def difference(self, source: int, target: int) -> Array:
        """How much the picture of `source`, carried to `target`, differs from the one there: (h, w) in 0..1."""
        if (source, target) not in self._differences:
            carried = self.warp(self.pictures[source].astype(np.float32), source, target)
            apart = np.abs(carried - self.pictures[target]) / np.float32(255)
            self._differences[source, target] = cv2.GaussianBlur(apart, (0, 0), 1.0)
        return self._differences[source, target]


def chain(
    stack: Stack,
    values: Mapping[int, Array],
    targets: Iterable[int],
    *,
    ends: tuple[float | None, float | None] = (None, None),
    empty: Collection[int] = (),
    reach: float | None = None,
) -> Chained:
    """Fuse the arrays `values` {slice: (h, w)}, signed distances or corrections of them, at the slices `targets`.

    ends: where the structure vanishes on either side. Beyond the outermost outlines it shrinks towards there like the
    end of an ellipsoid; None: it does not shrink. empty: slices known not to show the structure; nothing is carried
    past them, and it shrinks towards them. reach: slices after which a correction has faded to 60 %; None: what
    arrives counts in full however far it came.
    """
    known = sorted(values)
    value, difference, distance = [], [], []
    for target in targets:
        near = _sources(known, empty, target)
        total, fused, apart = np.float32(1e-12), np.float32(0), np.float32(0)
        for source in near:
            gap = abs(target - source)
            arrived = stack.warp(values[source], source, target) if gap else values[source]
            if len(near) == 1 and gap:
                arrived = arrived - _shrinking(values[source], source, target, ends, empty)
            if reach is not None:
                arrived = arrived * np.float32(np.exp(-0.5 * (gap / reach) ** 2))
            differs = stack.difference(source, target) if gap else np.zeros_like(arrived)
            share = np.float32(1 - gap / (near[-1] - near[0])) if len(near) == 2 else np.float32(1)
            weight = share * np.exp(-differs / np.float32(DIFFERENCE)) + np.float32(1e-6)
            total, fused, apart = total + weight, fused + weight * arrived, apart + weight * differs
        nothing = np.full(stack.pictures.shape[1:], 0 if reach is not None else -FAR, np.float32)
        value.append(fused / total if near else nothing)
        difference.append(apart / total if near else np.zeros_like(nothing))
        distance.append(min(abs(target - n) for n in (*known, *empty)))
    return Chained(np.stack(value), np.stack(difference), np.asarray(distance))


def _sources(known: list[int], empty: Collection[int], target: int) -> list[int]:
    """The outlined slices next to `target` on either side (or itself) with no empty slice in between."""
    below, above = [n for n in known if n <= target][-1:], [n for n in known if n >= target][:1]
    return sorted(n for n in {*below, *above} if not any(min(n, target) <= e <= max(n, target) for e in empty))


def _shrinking(
    value: Array, source: int, target: int, ends: tuple[float | None, float | None], empty: Collection[int]
) -> np.float32:
    """By how much a structure that ends on one side has become thinner, in pixels."""
    side = [e for e in empty if (e - source) * (target - source) > 0]
    side += [e for e in (ends[0] if target < source else ends[1],) if e is not None]
    if not side:
        return np.float32(0)
    t = min(abs(target - source) / max(min(abs(e - source) for e in side), 1e-6), 1.0)
    return np.float32(max(float(value.max()), 0.0) * (1 - (1 - t * t) ** 0.5))
