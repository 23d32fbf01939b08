"""Which candidates are worth their time: a short list, learned from shifted validation images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from RefSegLib.reflection.candidates import parts_of
from RefSegLib.reflection.conditions import Condition
from RefSegLib.reflection.settings import ReflectionSettings

# In inferences. Whatever is looked at is also drawn; statistics are measured in a pass that itself gives the candidate
# with nothing but them.
BUDGET = 5.0
WORTH = 0.001  # mean Dice that one more candidate has to add, per unit of cost
FEWEST = 2  # candidates beside the first: where they disagree the mask is in doubt, even if none is ever taken
HARM = 0.02


def shortlist(conditions: Sequence[Condition], settings: ReflectionSettings) -> tuple[str, ...]:
    """Names of candidates, identity first: greedily whichever adds most Dice for its cost, FEWEST to BUDGET.

    conditions: looked at by the whole pool, the same candidates in each. One is taken when it beats the first
    mask by the margin of `settings`; choices that make cases worse by over 0.02 count twice.
    """
    names = conditions[0].names
    dices = np.stack([c.dices for c in conditions])
    scores = np.stack([c.scores(settings) for c in conditions])
    chosen = [0]
    reached = _worth(dices, scores, chosen, settings.margin)
    while True:
        best = None
        for number in range(1, len(names)):
            cost = _cost([names[n] for n in [*chosen, number]]) - _cost([names[n] for n in chosen])
            if number in chosen or _cost([names[n] for n in [*chosen, number]]) > BUDGET:
                continue
            # Beside another share of the same transform, the image's own statistics cost nothing but the drawing.
            gain = (_worth(dices, scores, [*chosen, number], settings.margin) - reached) / max(cost, 0.5)
            if (gain > WORTH or len(chosen) <= FEWEST) and (best is None or gain > best[0]):
                best = (gain, number)
        if best is None:
            return tuple(names[n] for n in chosen)
        chosen.append(best[1])
        reached = _worth(dices, scores, chosen, settings.margin)


def _cost(names: Sequence[str]) -> float:
    """In inferences, the first mask apart."""
    parts = {parts_of(name) for name in names[1:]}
    return len([1 for _, share in parts if share < 1]) + len({transform for transform, share in parts if share})


def _worth(dices: npt.NDArray, scores: npt.NDArray, chosen: Sequence[int], margin: float) -> float:
    some = scores[:, chosen]
    best = some.argmax(1)
    best = np.where(some[np.arange(len(some)), best] - some[:, 0] > margin, best, 0)
    gain = dices[np.arange(len(dices)), np.array(chosen)[best]] - dices[:, 0]
    return float((gain + np.where(gain < -HARM, gain, 0.0)).mean())
