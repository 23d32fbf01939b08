"""Where a structure ends when nobody said so."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from InteractiveLearningLib.propagation.chain import Array, Stack, chain
from InteractiveLearningLib.propagation.cleanup import intensity_evidence

Mask = npt.NDArray[np.bool_]
# The structure is taken to end where the evidence inside the carried mask falls below this share of what it was in
# the annotated slices.
FADED = 0.3


def fading_ends(stack: Stack, distances: dict[int, Array], outlined: dict[int, Mask]) -> tuple[int, int]:
    """First and last slice (inclusive) that still support the outermost outlines, by intensities in the carried mask.

    An empty outline is an end by itself.
    """
    filled = [n for n in sorted(outlined) if outlined[n].any()]
    if not filled:
        return min(outlined), max(outlined)
    ends = []
    for outermost, step in ((filled[0], -1), (filled[-1], 1)):
        beyond = [n for n in outlined if (n - outermost) * step > 0]
        if beyond:
            ends.append(min(beyond, key=lambda n: abs(n - outermost)) - step)
            continue
        stop = -1 if step < 0 else len(stack.pictures)
        ends.append(_follow(stack, distances[outermost], outlined, outermost, stop, step))
    return ends[0], ends[1]


def _follow(stack: Stack, distance: Array, outlined: dict[int, Mask], start: int, stop: int, step: int) -> int:
    def support(n: int, inside: Mask) -> float:
        evidence = intensity_evidence(stack.pictures, outlined, range(n, n + 1))[0]
        return float(evidence[inside].mean()) if inside.any() else -np.inf

    reference = np.mean([support(n, m) for n, m in outlined.items() if m.any()])
    last, weak = start, 0
    for n in range(start + step, stop, step):
        carried = chain(stack, {start: distance}, [n]).value[0] > 0
        weak = weak + 1 if support(n, carried) < FADED * reference else 0
        if weak == 2 or not carried.any():
            break
        last = n
    return last - step * weak if weak == 1 and last != start else last
