"""Where a structure ends when nobody said so."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from InteractiveLearningLib.propagation.cleanup import NEAR, Evidence
from InteractiveLearningLib.propagation.stack import Array, Stack

Mask = npt.NDArray[np.bool_]
# The structure is taken to end where its contrast to its surroundings, in terms of the evidence, falls below this
# share of the contrast in the outlined slices. Against the evidence inside alone (30 training volumes each, k = 3):
# hippocampus .860 -> .870, myocardium .897 -> .905, RV .916 -> .920; at random places, 20 volumes each, .836 -> .858,
# .870 -> .896, .866 -> .876. To expect half a gap beyond the outermost outline gives up to .026 more with even places
# and takes .02 to .25 with random ones: not done.
FADED = 0.35
# With less contrast than this in the outlined slices the pictures say nothing about the ends.
SPEAKS = 0.2


def fading_ends(
    stack: Stack, distances: Mapping[int, Array], evidence: Evidence, spacing: tuple[float, float, float]
) -> tuple[int, int]:
    """First and last slice (inclusive) that still support the outermost outlines.

    distances: signed distances (h, w) of the outlined slices. spacing: mm along n, h, w. An empty outline is an end by
    itself. Where pictures say nothing, half a gap is left beyond the outermost outlines, beyond a single one as much
    as the radius of what it shows.
    """
    filled = [n for n in sorted(distances) if (distances[n] > 0).any()]
    if not filled:
        return min(distances), max(distances)
    outlined = dict.fromkeys(distances)
    contrast = float(np.mean([_contrast(distances[n], evidence, outlined, n) for n in filled]))
    gap = max(np.diff(filled)) if len(filled) > 1 else None
    area = max(float((distances[n] > 0).sum()) for n in filled) * spacing[1] * spacing[2]
    silent = max(round(gap / 2 if gap else (area / np.pi) ** 0.5 / spacing[0]), 1)
    ends = []
    for outermost, step in ((filled[0], -1), (filled[-1], 1)):
        beyond = [n for n in distances if (n - outermost) * step > 0]
        edge = 0 if step < 0 else len(stack.pictures) - 1
        last = min(beyond, key=lambda n: abs(n - outermost)) - step if beyond else edge
        if not beyond and contrast < SPEAKS:
            last = outermost + step * min(silent, abs(edge - outermost))
        elif not beyond:
            for n in range(outermost + step, edge + step, step):
                carried = stack.warp(distances[outermost], outermost, n)
                if _contrast(carried, evidence, outlined, n) < FADED * contrast:
                    last = n - step
                    break
        ends.append(last)
    return ends[0], ends[1]


def _contrast(distance: Array, evidence: Evidence, outlined: Mapping[int, None], n: int) -> float:
    inside, around = distance > 0, (distance <= 0) & (distance > -NEAR)
    found = evidence.at(range(n, n + 1), outlined)[0]
    return float(found[inside].mean() - found[around].mean()) if inside.any() and around.any() else -np.inf
