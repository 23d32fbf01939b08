"""Carry outlined slices through a stack of slices and fuse what arrives from both sides.

It is interpolation of shapes (signed distances), but in registered space.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from InteractiveLearningLib.propagation.stack import FAR, Array, Stack
from InteractiveLearningLib.propagation.topology import Gap

# How fast trust falls with the difference (0..1) between the carried and the actual picture. 0.05 to 0.15 are alike.
DIFFERENCE = 0.12
# A part that only one of two outlined slices shows has vanished after this share of the way to the other one. 0.5 and 1
# were worse by .002 and .001 Dice.
VANISHES = 0.7


@dataclass(frozen=True)
class Chained:
    """The fused stack. value, difference: (n, h, w); distance: (n,) slices to the nearest annotated one."""

    value: Array
    difference: Array
    distance: npt.NDArray[np.int64]

    def only(self, row: int) -> Chained:
        """One of the slices, as a stack of one."""
        at = slice(row, row + 1)
        return Chained(self.value[at], self.difference[at], self.distance[at])


def chain(
    stack: Stack,
    values: Mapping[int, Array],
    targets: Iterable[int],
    *,
    ends: tuple[float | None, float | None] = (None, None),
    empty: Collection[int] = (),
    reach: float | None = None,
    gap_of: Callable[[tuple[int, int]], Gap | None] = lambda ends: None,
) -> Chained:
    """Fuse the arrays `values` {slice: (h, w)}, signed distances or corrections of them, at the slices `targets`.

    ends: where the structure vanishes on either side. Beyond the outermost outlines it shrinks towards there like the
    end of an ellipsoid; None: it does not shrink. empty: slices known not to show the structure; nothing is carried
    past them, and it shrinks towards them. reach: slices after which a correction has faded to 60 %; None: what
    arrives counts in full however far it came. gap_of: which parts two neighboring outlined slices do not share.
    """
    known = sorted(values)
    value, difference, distance = [], [], []
    for target in targets:
        near = _sources(known, empty, target)
        gap = gap_of((near[0], near[1])) if len(near) == 2 else None
        shapes = gap.shared if gap else values
        total, fused, apart = np.float32(1e-12), np.float32(0), np.float32(0)
        for source in near:
            away = abs(target - source)
            arrived = stack.warp(shapes[source], source, target)
            if len(near) == 1 and away:
                arrived = arrived - _shrinking(values[source], source, _end_beyond(source, target, ends, empty), target)
            if reach is not None:
                arrived = arrived * np.float32(np.exp(-0.5 * (away / reach) ** 2))
            differs = stack.difference(source, target) if away else np.zeros_like(arrived)
            share = np.float32(1 - away / (near[-1] - near[0])) if len(near) == 2 else np.float32(1)
            weight = share * np.exp(-differs / np.float32(DIFFERENCE)) + np.float32(1e-6)
            total, fused, apart = total + weight, fused + weight * arrived, apart + weight * differs
        result = (
            fused / total if near else np.full(stack.pictures.shape[1:], 0 if reach is not None else -FAR, np.float32)
        )
        for part in gap.lone if gap else ():
            end = part.source + VANISHES * (near[0] + near[1] - 2 * part.source)
            tapered = stack.warp(part.value, part.source, target) - _shrinking(part.value, part.source, end, target)
            result = np.minimum(result, -tapered) if part.hole else np.maximum(result, tapered)
        value.append(result)
        difference.append(apart / total if near else np.zeros_like(result))
        distance.append(min(abs(target - n) for n in (*known, *empty)))
    return Chained(np.stack(value), np.stack(difference), np.asarray(distance))


def _sources(known: list[int], empty: Collection[int], target: int) -> list[int]:
    """The outlined slices next to `target` on either side (or itself) with no empty slice in between."""
    below, above = [n for n in known if n <= target][-1:], [n for n in known if n >= target][:1]
    return sorted(n for n in {*below, *above} if not any(min(n, target) <= e <= max(n, target) for e in empty))


def _end_beyond(
    source: int, target: int, ends: tuple[float | None, float | None], empty: Collection[int]
) -> float | None:
    """Where a structure that is outlined in `source` and not beyond ends on the side of `target`."""
    side = [e for e in empty if (e - source) * (target - source) > 0]
    side += [e for e in (ends[0] if target < source else ends[1],) if e is not None]
    return min(side, key=lambda e: abs(e - source)) if side else None


def _shrinking(value: Array, source: int, end: float | None, target: int) -> np.float32:
    """By how much a structure that vanishes at `end` has become thinner on the way there, in pixels."""
    if end is None:
        return np.float32(0)
    t = min(abs(target - source) / max(abs(end - source), 1e-6), 1.0)
    return np.float32(max(float(value.max()), 0.0) * (1 - (1 - t * t) ** 0.5))
