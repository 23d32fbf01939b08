"""One propagation in its box, refined in the way that predicts left-out outlines best."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from RefSegLib.quality.metrics import dice

from InteractiveLearningLib.propagation.chain import DIFFERENCE, Chained, chain
from InteractiveLearningLib.propagation.cleanup import Evidence, relax, softness
from InteractiveLearningLib.propagation.correction import Correction
from InteractiveLearningLib.propagation.ends import fading_ends
from InteractiveLearningLib.propagation.estimate import LeftOut, whole_dice
from InteractiveLearningLib.propagation.flow import FlowCache
from InteractiveLearningLib.propagation.stack import Array, Stack, signed_distance
from InteractiveLearningLib.propagation.topology import Gap, gap_between

Mask = npt.NDArray[np.bool_]
Span = tuple[int, int]

# The last slice that shows a structure still shows some of it: it vanishes somewhat later. Where slices are thick, a
# structure is rather cut off than tapered: it vanishes as many slices after the limit as a slice is thicker than a
# pixel is wide, at most 8. Against always 3 slices (24 training volumes each): hippocampus .892 -> .895, RV
# .956 -> .957 (k = 3), LV .934 -> .950 (k = 1).
MOST_BEYOND = 8
# Fused signed distances come out too thin: between outlines twice as much is missing as too much. So much is added to
# the log-odds there (k = 3: hippocampus .889 -> .895), and everywhere if there is one outline alone (k = 1:
# hippocampus .802 -> .817, RV .898 -> .901).
BETWEEN = 0.15
ALONE = 0.2
EVIDENCE = 0.3
LEAVE_ONE_OUT_FROM = 3
# Ways to refine, and by how much each has to predict left-out slices better than what is used without that test to
# replace it: "mixed" with a model, else "intensity", the best on average over training patients. Smoothing pays on CT
# (k = 3, 69 structures of automatic labels: .830 -> .833); leaving out the intensities pays nowhere. Carrying straight
# on without registration is for pictures that cannot be registered: with .005 it was chosen too often (.833 -> .830).
# Falling back to it only where carried and actual pictures differ was worse everywhere (k = 3, nine structures: .876
# instead of .917).
METHODS = {"intensity": 0.005, "smooth": 0.005, "unregistered": 0.05}
# With a model, of slices chosen where it is in doubt: with .005 after five outlines .933 instead of .942 (14 validation
# hippocampi) and .953 instead of .956 (12 validation hearts).
AHEAD_OF_MIXED = 0.05


class Refinement:
    """Slices along the first axis: pictures (n, h, w) of bytes, outlined {slice: (h, w)}, prior (n, h, w) or None.

    limits: first and last slice with the structure, or None. spacing: mm along n, h, w. reach: in mm.
    """

    def __init__(
        self,
        pictures: npt.NDArray[np.uint8],
        cache: FlowCache,
        outlined: dict[int, Mask],
        limits: Span | None,
        spacing: tuple[float, float, float],
        prior: Array | None,
        reach: float,
    ) -> None:
        self.outlined, self.spacing, self.given = dict(sorted(outlined.items())), spacing, limits
        self.count = len(pictures)
        self.stacks = {registered: Stack(pictures, cache, registered=registered) for registered in (True, False)}
        self.distances = {n: signed_distance(mask, spacing[1:]) for n, mask in outlined.items()}
        self.evidence = Evidence(pictures, self.distances)
        self.beyond = min(max(spacing[0] / min(spacing[1:]), 1), MOST_BEYOND)
        self.gaps: dict[tuple[bool, Span], Gap | None] = {}
        self.correction = None
        if prior is not None:
            away = max(reach / spacing[0], 0.5)
            self.correction = Correction(self.stacks[True], prior, self.outlined, self.distances, spacing[1:], away)
        self.limits = limits or fading_ends(self.stacks[True], self.distances, self.evidence, spacing)

    def best(self, method: str | None) -> tuple[Array, Array, str, float | None]:
        """Probability and confidence (n, h, w) of the refinement that predicts left-out slices best, and how well."""
        filled = [n for n, mask in self.outlined.items() if mask.any()]
        usual = "intensity" if self.correction is None else "mixed" if filled else "model"
        chosen = method or usual
        left_out = {}
        if method is None and len(filled) >= LEAVE_ONE_OUT_FROM:
            left_out = {n: self._left_out(n) for n in filled}
            scores = {m: float(np.mean([found[m] for found in left_out.values()])) for m in left_out[filled[0]]}
            chosen = max(scores, key=lambda m: scores[m] - (0 if m == usual else self._ahead(m)))
        probability, difference, distance = self._whole(chosen)
        near = (1 / (1 + distance / np.float32(8)))[:, None, None].astype(np.float32)
        margin = np.abs(2 * probability - 1)
        confidence = near * np.exp(-difference / np.float32(2 * DIFFERENCE)) * margin
        estimate = None
        if left_out:
            tried = [LeftOut(found[chosen], *self._seen(n)) for n, found in left_out.items()]
            estimate = whole_dice(tried, distance, (probability > 0.5).sum(axis=(1, 2)))
        return probability, confidence.astype(np.float32), chosen, estimate

    def _ahead(self, method: str) -> float:
        return METHODS[method] if self.correction is None else AHEAD_OF_MIXED

    def _seen(self, left: int) -> tuple[int, int]:
        return min(abs(left - n) for n in self.outlined if n != left), int(self.outlined[left].sum())

    def _left_out(self, left: int) -> dict[str, float]:
        """Dice with which slice `left` is predicted from the other annotated ones, by method."""
        rest = [n for n in self.outlined if n != left]
        # Smoothing needs neighbors; two on either side stand for the whole stack.
        around, alone = range(max(left - 2, 0), min(left + 3, self.count)), range(left, left + 1)
        row = left - around[0]
        carried = self._chained(rest, around, registered=True)
        straight = self._chained(rest, alone, registered=False)
        predicted = {
            "intensity": self._refined("intensity", rest, alone, carried.only(row))[0],
            "smooth": self._refined("smooth", rest, around, carried)[row],
            "unregistered": self._refined("unregistered", rest, alone, straight)[0],
        }
        if self.correction is not None:
            predicted["mixed"] = self._refined("mixed", rest, around, carried)[row]
            predicted["model"] = self._corrected(rest, alone)[0][0]
        return {method: dice(found > 0.5, self.outlined[left]) for method, found in predicted.items()}

    def _whole(self, method: str) -> tuple[Array, Array, npt.NDArray]:
        """Probability, difference (n, h, w) and distance (n,) of the whole stack."""
        outlined = list(self.outlined)
        if method == "model":
            return self._corrected(outlined, range(self.count))
        # Outside of the limits is nothing, and nothing has to be carried there; without limits the model may go on.
        span = range(max(min(self.limits[0], *outlined), 0), min(max(self.limits[1], *outlined) + 1, self.count))
        if method == "mixed" and self.given is None:
            span = range(self.count)
        chained = self._chained(outlined, span, registered=method != "unregistered")
        shape = (self.count, *chained.value.shape[1:])
        probability, difference = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        probability[span.start : span.stop] = self._refined(method, outlined, span, chained)
        difference[span.start : span.stop] = chained.difference
        return probability, difference, _away(outlined, range(self.count))

    def _chained(self, outlined: list[int], targets: range, *, registered: bool) -> Chained:
        values = {n: self.distances[n] for n in outlined if self.outlined[n].any()}
        return chain(
            self.stacks[registered],
            values,
            targets,
            ends=(self.limits[0] - self.beyond, self.limits[1] + self.beyond),
            empty=[n for n in outlined if n not in values],
            gap_of=lambda span: self._gap(registered, span),
        )

    def _gap(self, registered: bool, span: Span) -> Gap | None:
        if (registered, span) not in self.gaps:
            self.gaps[registered, span] = gap_between(self.stacks[registered], self.outlined, span, self.spacing[1:])
        return self.gaps[registered, span]

    def _refined(self, method: str, outlined: list[int], targets: range, chained: Chained) -> Array:
        unary = chained.value / softness(chained.distance)[:, None, None].astype(np.float32)
        if method != "unregistered":
            filled = [n for n in outlined if self.outlined[n].any()]
            for row, n in enumerate(targets):
                if len(filled) == 1 and n not in filled:
                    unary[row] += np.float32(ALONE)
                elif filled and filled[0] < n < filled[-1] and n not in filled:
                    unary[row] += np.float32(BETWEEN)
            unary += np.float32(EVIDENCE) * self.evidence.at(targets, dict.fromkeys(outlined))
        if method == "smooth":
            probability = self._smoothed(unary, targets)
        else:
            if method == "mixed":
                unary = self.correction.mixed(outlined, targets, chained, unary)
            probability = 1 / (1 + np.exp(-np.clip(unary, -30, 30)))
        return self._within(probability, targets)

    def _smoothed(self, unary: Array, targets: range) -> Array:
        """Relaxed where anything is open; far outside nothing changes, and it would take most of the time."""
        pictures = self.stacks[True].pictures[targets.start : targets.stop]
        probability = np.zeros_like(unary)
        found = np.nonzero((unary > -4).any(axis=0))
        if found[0].size:
            window = (slice(None), *(slice(max(int(a.min()) - 3, 0), int(a.max()) + 4) for a in found))
            probability[window] = relax(np.ascontiguousarray(unary[window]), pictures[window], self.spacing)
        return probability

    def _corrected(self, outlined: list[int], targets: range) -> tuple[Array, Array, npt.NDArray]:
        value, difference = self.correction.model(outlined, targets)
        probability = 1 / (1 + np.exp(-np.clip(value, -30, 30)))
        return self._within(probability, targets), difference, _away(outlined, targets)

    def _within(self, probability: Array, targets: range) -> Array:
        """Nothing outside the limits; with a model and no limits, the model itself knows where it ends."""
        if self.given is not None or self.correction is None:
            for row, n in enumerate(targets):
                if not self.limits[0] <= n <= self.limits[1] and n not in self.outlined:
                    probability[row] = 0
        return probability.astype(np.float32, copy=False)


def _away(outlined: list[int], targets: range) -> npt.NDArray[np.int64]:
    return np.asarray([min(abs(n - m) for m in outlined) for n in targets])
