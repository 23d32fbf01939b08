"""Reflection: look at one's own mask through the image it implies, and choose the mask whose image fits best.

After RefSeg (Huang, Yang et al., MICCAI 2022): a mask is turned into a proxy image; where that disagrees with the
input, the mask is wrong. Here the agreement is first of all a judge between candidate masks, then, if the model's
calibration says that it helps, a goal to adjust the model by.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from RefSegLib.errors import is_out_of_memory
from RefSegLib.inference.segmenter import Segmenter
from RefSegLib.inference.tiling import infer
from RefSegLib.progress import SILENT, Progress
from RefSegLib.quality import estimate
from RefSegLib.quality.suspect import signs_of
from RefSegLib.reflection.adjust import adjust
from RefSegLib.reflection.candidates import IDENTITY
from RefSegLib.reflection.consensus import consensus_region
from RefSegLib.reflection.judge import Judge
from RefSegLib.reflection.looking import Looked, choose, look, mean_dice, score_of, similarity_of, way
from RefSegLib.reflection.settings import ReflectionSettings
from RefSegLib.synthesis.synthesizer import Synthesizer

# Dice between first and last mask below which the user is asked to look: two raters agree better than that.
LARGE_CHANGE = 0.8
# Estimated Dice of any label below which the user is asked to look.
POOR = 0.7

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Candidate:
    """One mask that was judged. similarity: how well it agrees with the image; terms: the parts of its score."""

    name: str
    score: float
    similarity: float
    terms: dict[str, float]


@dataclass(frozen=True)
class Reflection:
    """What came of reflecting on one region. Arrays lie on the working grid.

    probabilities: (outputs, k, j, i) of the mask that was kept; candidates: all that were judged, identity first;
    trace: score before each step of adjusting, empty without; accepted: whether the first mask was replaced;
    reason: a sentence for the user; suspect: (k, j, i) float32 in 0..1, how likely the label there is wrong;
    estimated_dice: per label value; estimated_interval: (low, high) that holds the truth nine times out of ten; both
    empty for a model without calibration; similarity_before, similarity_after: of first and kept mask;
    proxy: (k, j, i), the image the kept mask implies, None where there is none; changed: Dice between first and kept.
    """

    probabilities: Array
    candidates: list[Candidate]
    trace: list[float]
    accepted: bool
    reason: str
    suspect: Array
    estimated_dice: dict[int, float] = field(default_factory=dict)
    estimated_interval: dict[int, tuple[float, float]] = field(default_factory=dict)
    similarity_before: float | None = None
    similarity_after: float | None = None
    proxy: Array | None = None
    changed: float = 1.0


def reflect(
    array: Array,
    segmenter: Segmenter,
    synthesizer: Synthesizer | None,
    settings: ReflectionSettings | None = None,
    *,
    probabilities: Array | None = None,
    progress: Progress = SILENT,
) -> Reflection:
    """Reflect on the mask of one image (C, k, j, i), normalized, on the working grid.

    synthesizer: None if the model has none; then the first mask stands and the reason says so. settings: None for a
    model that was never calibrated. probabilities: (outputs, k, j, i) of the first mask, where they are known already.
    Where memory runs out the first mask stands, too. Raises Cancelled if the user asked to stop; the model is never
    changed.
    """
    settings = settings or ReflectionSettings()
    if probabilities is None:
        probabilities = infer(segmenter, array, progress.part(0.0, 0.1))
    first = Looked(IDENTITY, probabilities, exact=True)
    if synthesizer is None:
        return _unjudged(
            first, settings, "Reflection is not available: this model has no synthesizer. First mask kept."
        )
    try:
        return _reflected(first, array, segmenter, synthesizer, settings, progress)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    # Out here the error is forgotten, and with it everything that filled the memory.
    return _unjudged(
        first,
        settings,
        "Memory ran out while reflecting; first mask kept. Close other programs, or choose a smaller region.",
    )


def _reflected(
    first: Looked,
    array: Array,
    segmenter: Segmenter,
    synthesizer: Synthesizer,
    settings: ReflectionSettings,
    progress: Progress,
) -> Reflection:
    progress(0.1, "Comparing the mask with the image")
    if (early := _early(first, array, synthesizer, settings)) is not None:
        return early
    looked = look(first, array, segmenter, settings, progress.part(0.15, 0.7))
    region = consensus_region((candidate.foreground() for candidate in looked), segmenter.spec.dimensions == 2)
    if not region.any():
        nothing = _unjudged(first, settings, "Nothing to reflect on: no structure was found. Please check the image.")
        if settings.estimate is None:
            return nothing
        labels = settings.estimate.labels
        return replace(
            nothing, estimated_dice=dict.fromkeys(labels, 0.0), estimated_interval=dict.fromkeys(labels, (0.0, 0.0))
        )
    judge = Judge(array, region, synthesizer)
    for number, candidate in enumerate(looked):
        progress(0.7 + 0.1 * number / len(looked), f"Judging candidates: {candidate.name}")
        candidate.verdict = judge(candidate.probabilities)
    chosen = choose(looked, settings)
    best, trace = chosen, []
    if settings.steps:
        seen, network = way(chosen.name, array, segmenter, settings)
        moved, trace = adjust(seen, network, judge, settings, progress.part(0.8, 1.0))
        if moved is not None:
            adjusted = Looked("adjusted", moved)
            adjusted.verdict = judge(moved)
            looked.append(adjusted)
            best = max(chosen, adjusted, key=lambda c: score_of(c, settings))
    progress(1.0, "Reflected")
    return _result(looked, best, trace, settings)


def judge_alone(first: Looked, array: Array, synthesizer: Synthesizer) -> Judge | None:
    """A judge whose region is that of the first mask alone: good enough to see that all is well, never to choose."""
    region = consensus_region([first.foreground()], synthesizer.spec.dimensions == 2)
    return Judge(array, region, synthesizer) if region.any() else None


def _early(first: Looked, array: Array, synthesizer: Synthesizer, settings: ReflectionSettings) -> Reflection | None:
    """The result for a first mask that is as good as those of the validation patients, else None."""
    if settings.early is None or first.least_confidence < settings.early.confidence:
        return None
    judge = judge_alone(first, array, synthesizer)
    if judge is None:
        return None
    first.verdict = judge(first.probabilities)
    if similarity_of(first, settings) < settings.early.score:
        return None
    return _result([first], first, [], settings)


def _result(looked: list[Looked], best: Looked, trace: list[float], settings: ReflectionSettings) -> Reflection:
    first = looked[0]
    probabilities = best.probabilities
    others = [candidate.labels for candidate in looked if candidate is not best and candidate.name != "adjusted"]
    alone = len(looked) == 1
    signs = signs_of(probabilities, others, best.verdict.local)
    estimator = settings.estimate_first if alone else settings.estimate
    estimated, interval = {}, {}
    if estimator is not None:
        features = estimate.features(
            probabilities, others, best.verdict.ssim, best.verdict.correlation, best.verdict.local
        )
        estimated, interval = estimator(features), estimator.interval(features)
    changed = mean_dice(first.labels, best.labels, len(probabilities)) if best is not first else 1.0
    return Reflection(
        probabilities=probabilities,
        candidates=[_candidate(candidate, settings) for candidate in looked],
        trace=trace,
        accepted=best is not first,
        reason=_reason(looked, best, changed, min(estimated.values(), default=1.0), settings),
        suspect=(settings.suspect_first if alone else settings.suspect)(signs),
        estimated_dice=estimated,
        estimated_interval=interval,
        similarity_before=similarity_of(first, settings),
        similarity_after=similarity_of(best, settings),
        proxy=best.verdict.proxy,
        changed=changed,
    )


def _candidate(candidate: Looked, settings: ReflectionSettings) -> Candidate:
    terms = {"ssim": candidate.verdict.ssim, "correlation": candidate.verdict.correlation}
    terms["confidence"] = candidate.confidence
    return Candidate(candidate.name, score_of(candidate, settings), similarity_of(candidate, settings), terms)


def _unjudged(first: Looked, settings: ReflectionSettings, reason: str) -> Reflection:
    """The first mask as it is."""
    probabilities = first.probabilities
    signs = signs_of(probabilities, [], np.ones(probabilities.shape[1:], np.float32))
    return Reflection(probabilities, [], [], False, reason, settings.suspect_first(signs))


def _reason(looked: list[Looked], best: Looked, changed: float, estimated: float, settings: ReflectionSettings) -> str:
    first, similarity = looked[0], similarity_of(best, settings)
    before, after = score_of(first, settings), score_of(best, settings)
    if len(looked) == 1:
        text = f"The first mask agrees well with the image ({similarity:.2f}); kept."
    elif best is first:
        nearest = max(score_of(candidate, settings) for candidate in looked[1:])
        why = f"no other candidate scores higher by more than {settings.margin:.3f}"
        if nearest - before > settings.margin:
            why = "it agrees with the image, and what scores higher is quite another mask"
        text = f"First mask kept: {why} (first {before:.3f}, best other {nearest:.3f})."
    else:
        text = f"Mask replaced ({best.name}): its score is {after:.3f}, that of the first mask {before:.3f}."
        if changed < LARGE_CHANGE:
            text += f" It changed a lot (Dice {changed:.2f} with the first); please check."
    if settings.known is not None and similarity < settings.known:
        text += (
            f" The image does not look like those the model knows (agreement {similarity:.2f}, expected at least "
            f"{settings.known:.2f}): wrong kind of image or wrong place? Please check."
        )
    elif estimated < POOR:
        text += f" The mask is probably poor (estimated Dice {estimated:.2f}); please check."
    return text
