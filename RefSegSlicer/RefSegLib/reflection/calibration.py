"""Teaching reflection about a model: on its validation patients, as they are and as other scanners would show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from RefSegLib.errors import BadInput
from RefSegLib.inference.segmenter import Segmenter
from RefSegLib.inference.tiling import infer
from RefSegLib.models.spec import SegmenterSpec
from RefSegLib.progress import SILENT, Progress
from RefSegLib.quality import estimate, shifts
from RefSegLib.quality.metrics import dice
from RefSegLib.quality.suspect import fit_suspect, signs_of
from RefSegLib.reflection.adjust import adjust
from RefSegLib.reflection.candidates import IDENTITY, quantile_curve
from RefSegLib.reflection.consensus import consensus_region
from RefSegLib.reflection.judge import Judge
from RefSegLib.reflection.reflect import Looked, choose, confidence_of, judge_alone, look, score_of
from RefSegLib.reflection.settings import EarlyExit, ReflectionSettings
from RefSegLib.synthesis.synthesizer import Synthesizer
from RefSegLib.training.cases import Sample
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import Volume

HARM = 0.02  # Dice below the first mask that counts as harm
MOST_HARMED = 0.02  # share of cases
NEVER = 9.0  # a margin that no candidate beats: scores lie within -1..2
ADJUST_GAIN = 0.002  # mean Dice that adjusting must add to be worth twice the time
MOST_ADJUSTED = 30  # conditions on which adjusting is tried
VOXELS = 3000  # per condition, from which the suspect map is learned


@dataclass
class Condition:
    """One validation image under one shift, looked at by all candidates.

    scores, dices: per candidate, identity first (dices: mean over labels); alone: score of the first mask in its own
    region; by_label: per candidate, Dice of each label; first_signs, signs, wrong...: samples for the suspect map.
    """

    shifted: bool
    names: list[str]
    ssim: npt.NDArray[np.float64]
    correlation: npt.NDArray[np.float64]
    by_label: list[dict[int, float]]
    confidence: float
    alone: tuple[float, float] | None
    first_features: dict[int, tuple[float, ...]] | None
    features: list[dict[int, tuple[float, ...]]]
    first_signs: npt.NDArray[np.float32]
    signs: npt.NDArray[np.float32]
    wrong: npt.NDArray[np.bool_]
    adjusted: list[float] | None = None
    dices: npt.NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.dices = np.array([np.mean(list(by.values())) for by in self.by_label])


def calibrate(
    cases: Sequence[Sample],
    segmenter: Segmenter,
    synthesizer: Synthesizer,
    *,
    seed: int = 0,
    shifts_per_case: int = 4,
    progress: Progress = SILENT,
) -> ReflectionSettings:
    """What `reflect` should know about this model, from samples of validation patients and named shifts of them.

    Each sample is seen as it is and under `shifts_per_case` shifts of seeded kind and severity. The margin is the one
    with the largest gain in Dice among those that make at most 2 % of the conditions worse by more than 0.02; if no
    gain remains, nothing will ever be replaced. Adjusting is switched on only if it adds on these patients. `report`
    in the result holds what was found, and how every choice was made.

    Raises BadInput if there is no sample with a structure in it, Cancelled if the user asked to stop.
    """
    cases = [case for case in cases if np.any(case.labels)]
    if not cases:
        raise BadInput("None of the validation images holds a structure; reflection cannot be calibrated on them.")
    curve = np.mean([quantile_curve(np.asarray(case.image)) for case in cases], axis=0)
    settings = ReflectionSettings(reference=tuple(tuple(row) for row in np.round(curve, 5).tolist()))
    rng = np.random.default_rng(seed)
    names = [
        name
        for _ in range(-(-len(cases) * shifts_per_case // len(shifts.NAMES)))
        for name in rng.permutation(shifts.NAMES)
    ]
    conditions: list[Condition] = []
    every = max(1, len(cases) * (1 + shifts_per_case) // MOST_ADJUSTED)
    for number, case in enumerate(cases):
        for which in range(1 + shifts_per_case):
            count = len(conditions)
            total = len(cases) * (1 + shifts_per_case)
            progress(count / total, f"Calibrating reflection: image {number + 1} of {len(cases)}")
            array = np.asarray(case.image, np.float32)
            if which:
                severity = int(rng.integers(1, 6))
                array = shifted(case, names.pop(), severity, int(rng.integers(2**31)), segmenter.spec)
            condition = _condition(
                array, np.asarray(case.labels), segmenter, synthesizer, settings, bool(which), rng, count % every == 0
            )
            if condition is not None:
                conditions.append(condition)
    return decide(conditions, settings)


def shifted(case: Sample, name: str, severity: int, seed: int, spec: SegmenterSpec) -> npt.NDArray[np.float32]:
    """The image of a sample under a shift, normalized again: (C, k, j, i)."""
    grid = Grid(case.labels.shape, case.spacing)
    changed = shifts.shift(Volume(np.asarray(case.image, np.float32), grid), name, severity, seed).array
    if spec.normalization.kind == "window":
        return np.clip(changed, 0.0, 1.0)
    return spec.normalization(changed)


def _condition(
    array: npt.NDArray[np.float32],
    truth: npt.NDArray[np.integer],
    segmenter: Segmenter,
    synthesizer: Synthesizer,
    settings: ReflectionSettings,
    is_shifted: bool,
    rng: np.random.Generator,
    adjusting: bool,
) -> Condition | None:
    """One image looked at by all candidates; None where no candidate finds anything (reflection says so then)."""
    first = Looked(IDENTITY, array, infer(segmenter, array))
    looked = look(first, segmenter, settings)
    region = consensus_region(candidate.foreground() for candidate in looked)
    if not region.any():
        return None
    judge = Judge(array, region, synthesizer)
    labels = [candidate.labels for candidate in looked]
    features = []
    for number, candidate in enumerate(looked):
        candidate.verdict = verdict = judge(candidate.probabilities)
        others = labels[:number] + labels[number + 1 :]
        features.append(estimate.features(candidate.probabilities, others, verdict.ssim, verdict.correlation))
    outputs = len(first.probabilities)
    by_label = [{v: dice(found == v, truth == v) for v in range(1, outputs)} for found in labels]
    alone = judge_alone(first, synthesizer)
    verdict = alone(first.probabilities) if alone is not None else None
    pool = np.flatnonzero(region | (np.max(labels, axis=0) > 0))
    sample = rng.choice(pool, min(VOXELS, len(pool)), replace=False)
    local = np.ones(truth.shape, np.float32) if verdict is None else verdict.local
    first_signs = signs_of(first.probabilities, [], local).reshape(3, -1)[:, sample]
    signs = signs_of(first.probabilities, labels[1:], looked[0].verdict.local).reshape(3, -1)[:, sample]
    adjusted = None
    if adjusting:
        chosen = choose(looked, settings)
        moved, _ = adjust(chosen.array, segmenter, judge, settings.model_copy(update={"steps": 5}))
        if moved is not None:
            final = Looked("adjusted", chosen.array, moved, judge(moved))
            kept = max(chosen, final, key=lambda candidate: score_of(candidate, settings))
            adjusted = [
                float(np.mean([dice(candidate.labels == v, truth == v) for v in range(1, outputs)]))
                for candidate in (chosen, kept)
            ]
    return Condition(
        shifted=is_shifted,
        names=[candidate.name for candidate in looked],
        ssim=np.array([candidate.verdict.ssim for candidate in looked]),
        correlation=np.array([candidate.verdict.correlation for candidate in looked]),
        by_label=by_label,
        confidence=confidence_of(first.probabilities),
        alone=None if verdict is None else (verdict.ssim, verdict.correlation),
        first_features=None
        if verdict is None
        else estimate.features(first.probabilities, [], verdict.ssim, verdict.correlation),
        features=features,
        first_signs=first_signs,
        signs=signs,
        wrong=(labels[0] != truth).ravel()[sample],
        adjusted=adjusted,
    )


def decide(conditions: Sequence[Condition], settings: ReflectionSettings) -> ReflectionSettings:
    """Weights, margin, early exit, adjusting, estimators and suspect maps from what was seen."""
    if not conditions:
        raise BadInput("The model finds nothing in any validation image; reflection cannot be calibrated on it.")
    first = np.array([c.dices[0] for c in conditions])
    is_shifted = np.array([c.shifted for c in conditions])
    best = None
    for ssim_weight, correlation_weight in ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0)):
        weighed = settings.model_copy(update={"ssim_weight": ssim_weight, "correlation_weight": correlation_weight})
        for margin in np.arange(0.0, 0.2001, 0.0025):
            kept = np.array([c.dices[_choice(c, weighed, margin)] for c in conditions])
            gain, harmed = float((kept - first).mean()), float((kept < first - HARM).mean())
            # Both terms together unless one alone is clearly better: two look at different things.
            worth = gain - (0.0 if ssim_weight and correlation_weight else 0.001)
            if harmed <= MOST_HARMED and gain > 0 and (best is None or worth > best[0] + 1e-5):
                best = (worth, weighed.model_copy(update={"margin": round(float(margin), 4)}))
    settings = best[1] if best else settings.model_copy(update={"margin": NEVER})
    choices = [_choice(c, settings, settings.margin) for c in conditions]
    kept = np.array([c.dices[choice] for c, choice in zip(conditions, choices, strict=True)])
    scores = np.array([settings.score(c.ssim[n], c.correlation[n]) for c, n in zip(conditions, choices, strict=True)])
    oracle = np.array([c.dices.max() for c in conditions])
    tried = np.array([c.adjusted for c in conditions if c.adjusted is not None])
    report = {"conditions": len(conditions), "harmed": float((kept < first - HARM).mean())}
    report |= {"helped": float((kept > first + HARM).mean())}
    for name, which in (("clean", ~is_shifted), ("shifted", is_shifted)):
        if which.any():
            report |= {f"{name}_none": float(first[which].mean()), f"{name}_select": float(kept[which].mean())}
            report[f"{name}_oracle"] = float(oracle[which].mean())
    updates: dict = {"early": _early_exit(conditions, settings, first, kept, report)}
    if len(tried):
        before, after = tried.mean(0)
        report |= {"adjust_tried": len(tried), "adjust_before": float(before), "adjust_after": float(after)}
        report["adjust_harmed"] = float((tried[:, 1] < tried[:, 0] - HARM).mean())
        if after - before >= ADJUST_GAIN and report["adjust_harmed"] <= MOST_HARMED:
            updates["steps"] = 5
    good = scores[kept >= 0.7]
    if len(good):
        # A tenth below the worst that still gave a good mask: 0.19 for the shipped hippocampus model, with which a
        # heart, a lung, a brain, noise and a hippocampus upside down or turned scored 0.01 to 0.18.
        updates["known"] = round(float(good.min() - 0.1 * abs(good.min())), 4)
    truth = [c.by_label[n] for c, n in zip(conditions, choices, strict=True)]
    updates["estimate"] = estimate.fit_estimator(
        [c.features[n] for c, n in zip(conditions, choices, strict=True)], truth
    )
    seen = [c for c in conditions if c.first_features is not None]
    updates["estimate_first"] = estimate.fit_estimator([c.first_features for c in seen], [c.by_label[0] for c in seen])
    wrong = np.concatenate([c.wrong for c in conditions])
    if wrong.any() and not wrong.all():
        updates["suspect"] = fit_suspect(np.concatenate([c.signs for c in conditions], 1), wrong)
        updates["suspect_first"] = fit_suspect(np.concatenate([c.first_signs for c in conditions], 1), wrong)
    updates["report"] = {name: round(value, 4) for name, value in report.items()}
    return settings.model_copy(update=updates)


def _choice(condition: Condition, settings: ReflectionSettings, margin: float) -> int:
    scores = settings.ssim_weight * condition.ssim + settings.correlation_weight * condition.correlation
    best = int(np.argmax(scores))
    return best if scores[best] - scores[0] > margin else 0


def _early_exit(
    conditions: Sequence[Condition],
    settings: ReflectionSettings,
    first: npt.NDArray[np.float64],
    kept: npt.NDArray[np.float64],
    report: dict[str, float],
) -> EarlyExit | None:
    """The lowest thresholds under which hardly a rescue is missed: at most 1 % of conditions, 0.001 of mean Dice."""
    alone = np.array([settings.score(*c.alone) if c.alone else -NEVER for c in conditions])
    confidence = np.array([c.confidence for c in conditions])
    clean = np.array([not c.shifted for c in conditions])
    if not clean.any():
        return None
    for quantile in (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        exit_ = EarlyExit(
            score=round(float(np.quantile(alone[clean], quantile)), 4),
            confidence=round(float(np.quantile(confidence[clean], quantile)), 4),
        )
        leaves = (alone >= exit_.score) & (confidence >= exit_.confidence)
        missed = np.where(leaves, kept - first, 0.0)
        if (missed > HARM).mean() <= 0.01 and missed.mean() <= 0.001:
            report["early_clean"] = float(leaves[clean].mean())
            report["early_shifted"] = float(leaves[~clean].mean()) if not clean.all() else 0.0
            return exit_
    return None
