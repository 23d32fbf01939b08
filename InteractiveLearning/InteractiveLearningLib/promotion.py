"""Candidate against champion on the frozen validation cases: only what is better goes live.

A patient validates or trains, drawn at the first case and never redrawn (replay.py), so no candidate has seen what it
is judged on. Both versions are run the same way, on the same cases, against what an annotator accepted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from RefSegLib.errors import RefSegError
from RefSegLib.inference.predict import prepare, segment
from RefSegLib.inference.segmenter import Segmenter, load_segmenter
from RefSegLib.inference.tiling import infer
from RefSegLib.models.store import ModelStore, ModelVersion
from RefSegLib.progress import SILENT, Progress
from RefSegLib.quality.metrics import dice
from scipy.stats import wilcoxon

from InteractiveLearningLib.accepted import AcceptedCase, CaseInfo
from InteractiveLearningLib.replay import DamagedCase, ReplayStore
from InteractiveLearningLib.verdicts import CaseScore, Verdict, VerdictLog, carry_out

MARGIN = 0.01
ALPHA = 0.05
# With five pairs the smallest p a one-sided signed-rank test can give is 1/32; from six on (1/64) it can say something.
PAIRS = 6
# One patient says little of a site: the margin is less than what single patients differ by.
SITE_PATIENTS = 2


def promote(
    store: ModelStore,
    replay: ReplayStore,
    candidate: ModelVersion,
    *,
    case: str | None = None,
    margin: float = MARGIN,
    progress: Progress = SILENT,
) -> Verdict:
    """Judge a candidate against the active version of its model, write the verdict down, activate it if it is better.

    Better means: the mean Dice over labels and patients rises, no label and no site of at least two patients loses more
    than `margin`, and from six patients on a one-sided signed-rank test over patients (Wilcoxon) gives p < 0.05. While
    the validation set is too small nothing is published. What grew out of a version that reviewers rejected is refused,
    and so is what was compared with a version that is no longer the active one.
    case: id of the case whose learning made the candidate, for the record.
    """
    log = VerdictLog(store.home, candidate.name)
    champion = store.load(candidate.name, store.active(candidate.name))
    about = {"model": candidate.name, "case": case, "candidate": candidate.version, "champion": champion.version}
    if (rejected := _rejected_ancestor(store, log, candidate, champion)) is not None:
        what = "was" if rejected == candidate.version else f"grew out of version {rejected}, which was"
        reason = f"Refused: version {candidate.version} {what} rejected by reviewers. What it learnt is learnt again."
        verdict = Verdict("refused", reason, **(about | {"case": None}))
        log.add(verdict)
        return verdict
    cases = [c for c in replay.cases(candidate.name, "validation") if c.consent]
    missing = replay.validation_patients - len({c.patient for c in cases})
    if missing > 0:
        people = "one more patient is" if missing == 1 else f"{missing} more patients are"
        verdict = Verdict(
            "waiting", f"Nothing is published yet: {people} needed for validation.", missing=missing, **about
        )
        log.add(verdict)
        return verdict
    scores, damaged = _scores(log, replay, cases, champion, candidate, progress)
    if not scores:
        raise RefSegError(
            f"None of the {damaged} validation cases can be read; restore the replay store from a backup."
        )
    verdict = _judge(scores, margin, damaged, about)
    with log.turn():  # reviewers may have rejected the champion while this was measured
        carry_out(store, log)
        if (active := store.active(candidate.name)) != champion.version:
            reason = f"Refused: version {active} was made the active one while this was compared with version "
            reason += f"{champion.version}. What it learnt is learnt again."
            verdict = replace(verdict, outcome="refused", reason=reason, case=None)
        # Who was forgotten while this was measured does not come back by the scores.
        present = {c.id for c in replay.cases(candidate.name, "validation")}
        verdict = replace(verdict, scores=tuple(s for s in verdict.scores if s.case in present))
        log.add(verdict)
        carry_out(store, log)
    return verdict


def predict_case(case: AcceptedCase, segmenter: Segmenter, progress: Progress = SILENT) -> npt.NDArray[np.integer]:
    """Label values (k, j, i) on the grid of an accepted case."""
    if case.region:
        return infer(segmenter, prepare(case.image, case.image.grid, segmenter.spec), progress).argmax(0)
    return segment(case.image, segmenter, progress=progress).labels.array


def score_case(case: AcceptedCase, segmenter: Segmenter, progress: Progress = SILENT) -> dict[str, float]:
    """Dice by label name; of a proxy mask only on the slices a person drew.

    Between those a proxy follows the version that was live when it was made: hippocampus masks corrected on three
    slices gave that version a Dice of 0.94 where the truth gave 0.89, and every candidate looked worse for differing.
    Labels that are not in what was drawn are left out: they may not have been annotated.
    """
    drawn = case.drawn()
    if not (case.labels.array[drawn] > 0).any():  # clicks alone: there is nothing better than the mask itself
        drawn[:] = True
    found, truth = predict_case(case, segmenter, progress)[drawn], case.labels.array[drawn]
    named = enumerate(case.label_names, start=1)
    return {name: dice(found == value, truth == value) for value, name in named if (truth == value).any()}


def _scores(
    log: VerdictLog,
    replay: ReplayStore,
    cases: list[CaseInfo],
    champion: ModelVersion,
    candidate: ModelVersion,
    progress: Progress,
) -> tuple[list[CaseScore], int]:
    known, segmenters, scores, damaged = log.scores(), {}, [], 0
    for done, info in enumerate(cases):
        part = progress.part(done / len(cases), (done + 1) / len(cases))
        try:
            case = replay.load(info.id)
        except DamagedCase:
            damaged += 1
            continue
        measured = []
        for version in (champion, candidate):
            part(0.5 * len(measured), f"Validating version {version.version}: case {done + 1} of {len(cases)}")
            if (version.version, info.id) not in known:
                if version.version not in segmenters:
                    segmenters[version.version] = load_segmenter(version)
                known[version.version, info.id] = score_case(
                    case, segmenters[version.version], Progress(cancelled=part.cancelled)
                )
            measured.append(known[version.version, info.id])
        scores.append(CaseScore(info.id, info.patient, *measured, site=info.site))
    return scores, damaged


def _rejected_ancestor(
    store: ModelStore, log: VerdictLog, candidate: ModelVersion, champion: ModelVersion
) -> str | None:
    """The version that reviewers rejected among a candidate and what it grew out of since the champion."""
    rejected = {v.candidate for v in log.verdicts() if v.outcome == "rolled_back"}
    while rejected and candidate.version != champion.version:
        if candidate.version in rejected:
            return candidate.version
        name, _, version = (candidate.manifest.parent or "").partition("@")
        if name != candidate.name or version not in store.versions(name):
            break
        candidate = store.load(name, version)
    return None


def _judge(scores: list[CaseScore], margin: float, damaged: int, about: dict[str, str | None]) -> Verdict:
    """The rule itself, on numbers alone."""
    patients = sorted({s.patient for s in scores})
    labels = sorted({label for s in scores for label in s.champion})
    table = _table(scores, labels)
    by_label = np.nanmean(table, axis=1)
    before, after = (float(v) for v in by_label.mean(axis=1))
    structures = {label: (float(b), float(a)) for label, b, a in zip(labels, *by_label, strict=True)}
    sites, unjudged = _sites(scores, labels)
    pairs = np.nanmean(table, axis=2)
    tested = len(patients) >= PAIRS and bool((pairs[1] != pairs[0]).any())
    p_value = float(wilcoxon(pairs[1], pairs[0], alternative="greater").pvalue) if tested else None
    numbers = f"mean Dice {before:.4f} → {after:.4f} on {_counted(len(patients))}"
    losses = [
        f"{name} loses {b - a:.4f}"
        for name, (b, a) in [*structures.items(), *((_named(site), pair) for site, pair in sites.items())]
        if a - b < -margin
    ]
    if after <= before:
        outcome, reason = "refused", f"Refused: {numbers} is no gain."
    elif losses:
        outcome, reason = "refused", f"Refused: {numbers}, but {_listed(losses)}, more than {margin:g}."
    elif p_value is not None and p_value >= ALPHA:
        outcome, reason = "refused", f"Refused: {numbers} may be chance (signed-rank test, p = {p_value:.3f})."
    elif p_value is not None:
        outcome, reason = "published", f"Published: {numbers} (signed-rank test, p = {p_value:.3f})."
    else:
        few = f"fewer than {PAIRS} patients, so by the mean alone, without a test"
        outcome, reason = "published", f"Published: {numbers} ({few})."
    if unjudged:
        names = _listed([_named(site) for site in unjudged])
        reason += f" Not judged, for {_counted(1)} is too few: {names}."
    if damaged:
        reason += f" {damaged} damaged validation cases were left out."
    measured = {"before": before, "after": after, "p": p_value, "structures": structures, "sites": sites}
    return Verdict(outcome, reason, scores=tuple(scores), **measured, **about)


def _table(scores: list[CaseScore], labels: Sequence[str]) -> npt.NDArray[np.float64]:
    """Dice (version, patient, label): mean over the cases of a patient; NaN where a patient has no such label."""
    patients = sorted({s.patient for s in scores})
    table = np.full((2, len(patients), len(labels)), np.nan)
    for p, patient in enumerate(patients):
        for n, label in enumerate(labels):
            own = [
                (s.champion[label], s.candidate[label]) for s in scores if s.patient == patient and label in s.champion
            ]
            if own:
                table[:, p, n] = np.mean(own, axis=0)
    return table


def _sites(scores: list[CaseScore], labels: Sequence[str]) -> tuple[dict[str, tuple[float, float]], list[str]]:
    """Mean Dice before and after by site, taken like the mean over all; and the sites with too few patients for it."""
    judged, unjudged = {}, []
    for site in sorted({s.site for s in scores}):
        own = [s for s in scores if s.site == site]
        if len({s.patient for s in own}) < SITE_PATIENTS:
            unjudged.append(site)
            continue
        present = [label for label in labels if any(label in s.champion for s in own)]
        before, after = np.nanmean(_table(own, present), axis=1).mean(axis=1)
        judged[site] = (float(before), float(after))
    return judged, [site for site in unjudged if site]


def _named(site: str) -> str:
    return f"site '{site}'" if site else "what has no site"


def _counted(patients: int) -> str:
    return "1 validation patient" if patients == 1 else f"{patients} validation patients"


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
