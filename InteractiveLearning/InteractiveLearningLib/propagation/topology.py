"""Parts of a structure that an outlined slice shows and the next outlined slice does not.

Fusing signed distances makes such a part vanish as fast as the rest of the structure is far away, whatever its size. A
part without a counterpart ends between the two slices, so it is taken out of both and tapers off like an end; so does
a hole that closes. Mean Dice of 69 structures with several parts in CT and MR (automatic labels), k = 2, 3, 5: +.003,
+.004, 0; all vertebrae of a CT together +.10 at k = 2. Hippocampus and heart, of one part each, do not change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from InteractiveLearningLib.propagation.stack import Array, Stack, signed_distance

Mask = npt.NDArray[np.bool_]
# A part has a counterpart if at least this share of it, carried to the other slice, meets the structure there.
SHARED = 0.02


@dataclass(frozen=True)
class Part:
    """value: signed distance (h, w) of a part in slice `source`; hole: it is missing from the structure there."""

    value: Array
    source: int
    hole: bool


@dataclass(frozen=True)
class Gap:
    """Between two outlined slices: signed distances of what they share, {slice: (h, w)}, and the parts of one alone."""

    shared: Mapping[int, Array]
    lone: tuple[Part, ...]


def gap_between(
    stack: Stack, outlined: Mapping[int, Mask], ends: tuple[int, int], spacing: tuple[float, float]
) -> Gap | None:
    """What the two outlined slices `ends` have in common and what not; None if they share everything (or nothing)."""
    parts = {n: (_parts(outlined[n]), _holes(outlined[n])) for n in ends}
    if all(len(whole) == 1 and not holes for whole, holes in parts.values()):
        return None
    shared, lone = {}, []
    for here, there in (ends, ends[::-1]):
        mask, (whole, holes) = outlined[here].copy(), parts[here]
        other = stack.warp(outlined[there].astype(np.float32), there, here) > 0.5
        for part, hole in [(p, False) for p in whole] + [(p, True) for p in holes]:
            if (part & (other ^ hole)).sum() < SHARED * part.sum():
                mask[part] = hole
                lone.append(Part(signed_distance(part, spacing), here, hole))
        shared[here] = mask
    if not lone or not all(mask.any() for mask in shared.values()):
        return None
    return Gap({n: signed_distance(mask, spacing) for n, mask in shared.items()}, tuple(lone))


def _parts(mask: Mask) -> list[Mask]:
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return [labels == n for n in range(1, count)]


def _holes(mask: Mask) -> list[Mask]:
    count, labels = cv2.connectedComponents(np.pad(~mask, 1, constant_values=True).astype(np.uint8), connectivity=4)
    return [labels[1:-1, 1:-1] == n for n in range(1, count) if n != labels[0, 0]]
