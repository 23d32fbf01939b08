"""Teaching reflection about a model: on its validation patients, as they are and as other scanners would show them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import numpy.typing as npt

from RefSegLib.errors import BadInput
from RefSegLib.inference.segmenter import Segmenter
from RefSegLib.progress import SILENT, Progress
from RefSegLib.quality import estimate
from RefSegLib.quality.suspect import fit_suspect
from RefSegLib.reflection.candidates import NAMES, named, quantile_curve
from RefSegLib.reflection.conditions import Condition, condition_of, shown
from RefSegLib.reflection.settings import EarlyExit, ReflectionSettings
from RefSegLib.reflection.shortlist import shortlist
from RefSegLib.reflection.statistics import SHARES, has_batch_norm
from RefSegLib.synthesis.synthesizer import Synthesizer
from RefSegLib.training.cases import Sample

HARM = 0.02  # Dice below the first mask that counts as harm
MOST_HARMED = 0.02  # share of cases
NEVER = 9.0  # a margin that no candidate beats: scores lie within -1..3
ADJUST_GAIN = 0.002  # mean Dice that adjusting must add to be worth twice the time
MOST_ADJUSTED = 30  # conditions on which adjusting is tried
MOST_POOLED = 60  # conditions on which every candidate there is is tried


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

    Each sample is seen as it is and under `shifts_per_case` shifts of seeded kind and severity. On some of them all
    candidates there are are tried, and a short list is learned; on all of them, with that list, everything else. The
    margin is the one with the largest gain in Dice among those that make at most 2 % of the conditions worse by more
    than 0.02; if no gain remains, nothing will ever be replaced. Adjusting is switched on only if it adds on these
    patients. `report` in the result holds what was found, and how every choice was made.

    Raises BadInput if there is no sample with a structure in it, Cancelled if the user asked to stop.
    """
    cases = [case for case in cases if np.any(case.labels)]
    if not cases:
        raise BadInput("None of the validation images holds a structure; reflection cannot be calibrated on them.")
    curve = np.mean([quantile_curve(np.asarray(case.image)) for case in cases], axis=0)
    shares = (0.0, *SHARES) if has_batch_norm(segmenter) else (0.0,)
    settings = ReflectionSettings(
        candidates=tuple(named(name, share) for share in shares for name in NAMES),
        reference=tuple(tuple(row) for row in np.round(curve, 5).tolist()),
    )
    rng = np.random.default_rng(seed)
    total = len(cases) * (1 + shifts_per_case)

    def looked_at(
        settings: ReflectionSettings, progress: Progress, *, every: int = 1, pool: bool = False, adjusted: int = 0
    ) -> list[Condition]:
        found = []
        for number, image in enumerate(shown(cases, segmenter.spec, shifts_per_case, seed)):
            if number % every == 0:
                progress(number / total, f"Calibrating reflection: image {number + 1} of {total}")
                adjusting = adjusted > 0 and number % adjusted == 0
                found.append(condition_of(image, segmenter, synthesizer, settings, rng, pool=pool, adjusting=adjusting))
        return [condition for condition in found if condition is not None]

    # A number without a common factor with the images per case, so that every case and shift has its turn.
    every = max(1, round(total / MOST_POOLED))
    while every > 1 and np.gcd(every, 1 + shifts_per_case) > 1:
        every += 1
    pooled = looked_at(settings, progress.part(0.0, 0.5), every=every, pool=True)
    if not pooled:
        raise BadInput("The model finds nothing in any validation image; reflection cannot be calibrated on it.")
    names = shortlist(pooled, weighed(pooled, settings))
    settings = settings.model_copy(update={"candidates": names})
    conditions = looked_at(settings, progress.part(0.5, 1.0), adjusted=max(1, total // MOST_ADJUSTED))
    return decide(conditions, settings)


def weighed(conditions: Sequence[Condition], settings: ReflectionSettings) -> ReflectionSettings:
    """`settings` with the weights of the score and the margin that gain most without doing harm."""
    first = np.array([c.dices[0] for c in conditions])
    best = None
    for ssim_weight, correlation_weight, confidence_weight in product((0.0, 1.0), (0.0, 1.0), (0.0, 0.5, 1.0)):
        if not ssim_weight and not correlation_weight:
            continue
        tried = settings.model_copy(
            update={
                "ssim_weight": ssim_weight,
                "correlation_weight": correlation_weight,
                "confidence_weight": confidence_weight,
            }
        )
        for margin in np.arange(0.0, 0.2001, 0.0025):
            kept = np.array([c.dices[c.choice(tried, margin)] for c in conditions])
            gain, harmed = float((kept - first).mean()), float((kept < first - HARM).mean())
            if harmed <= MOST_HARMED and gain > 0 and (best is None or gain > best[0] + 1e-5):
                best = (gain, tried.model_copy(update={"margin": round(float(margin), 4)}))
    return best[1] if best else settings.model_copy(update={"margin": NEVER})


def decide(conditions: Sequence[Condition], settings: ReflectionSettings) -> ReflectionSettings:
    """Margin, weights, early exit, adjusting, estimators and suspect maps from what was seen."""
    if not conditions:
        raise BadInput("The model finds nothing in any validation image; reflection cannot be calibrated on it.")
    first = np.array([c.dices[0] for c in conditions])
    is_shifted = np.array([c.shifted for c in conditions])
    settings = weighed(conditions, settings)
    choices = [c.choice(settings, settings.margin) for c in conditions]
    kept = np.array([c.dices[choice] for c, choice in zip(conditions, choices, strict=True)])
    similar = [settings.similarity(c.ssim[n], c.correlation[n]) for c, n in zip(conditions, choices, strict=True)]
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
    good = np.array(similar)[kept >= 0.7]
    if len(good):
        # A tenth below the worst that still gave a good mask: 0.19 for the shipped hippocampus model, with which a
        # heart, a lung, a brain, noise and a hippocampus upside down or turned scored 0.01 to 0.18.
        updates["known"] = round(float(good.min() - 0.1 * abs(good.min())), 4)
    truth = [c.by_label[n] for c, n in zip(conditions, choices, strict=True)]
    updates["estimate"] = estimate.fit_estimator(
        [c.features[n] for c, n in zip(conditions, choices, strict=True)], truth, [c.patient for c in conditions]
    )
    seen = [c for c in conditions if c.first_features is not None]
    if seen:
        updates["estimate_first"] = estimate.fit_estimator(
            [c.first_features for c in seen], [c.by_label[0] for c in seen], [c.patient for c in seen]
        )
    wrong = np.concatenate([c.wrong for c in conditions])
    if wrong.any() and not wrong.all():
        updates["suspect"] = fit_suspect(np.concatenate([c.signs for c in conditions], 1), wrong)
        updates["suspect_first"] = fit_suspect(np.concatenate([c.first_signs for c in conditions], 1), wrong)
    updates["report"] = {name: round(value, 4) for name, value in report.items()}
    return settings.model_copy(update=updates)


def _early_exit(
    conditions: Sequence[Condition],
    settings: ReflectionSettings,
    first: npt.NDArray[np.float64],
    kept: npt.NDArray[np.float64],
    report: dict[str, float],
) -> EarlyExit | None:
    """Thresholds that most clean images pass, while hardly a rescue is missed: at most 1 % of conditions, 0.001 of mean
    Dice. One threshold for both signs' quantiles let 23 % of clean hearts pass where two of their own let 55 %."""
    alone = np.array([settings.similarity(*c.alone) if c.alone else -NEVER for c in conditions])
    confidence = np.array([c.least_confidence for c in conditions])
    clean = np.array([not c.shifted for c in conditions])
    if not clean.any():
        return None
    best: tuple[float, EarlyExit] | None = None
    quantiles = np.arange(0.0, 0.95, 0.05)
    for score, sure in product(np.quantile(alone[clean], quantiles), np.quantile(confidence[clean], quantiles)):
        exit_ = EarlyExit(score=round(float(score), 4), confidence=round(float(sure), 4))
        leaves = (alone >= exit_.score) & (confidence >= exit_.confidence)
        missed = np.where(leaves, kept - first, 0.0)
        if (missed > HARM).mean() > 0.01 or missed.mean() > 0.001:
            continue
        passing = float(leaves[clean].mean() + 0.3 * leaves.mean())
        if best is None or passing > best[0]:
            best = (passing, exit_)
            report["early_clean"] = float(leaves[clean].mean())
            report["early_shifted"] = float(leaves[~clean].mean()) if not clean.all() else 0.0
    return best[1] if best else None
