"""A stream of cases: segment, outline a few slices, accept, learn, publish what is better, then the next case.

The outlines are copied from a reference mask by a robot. It picks slices as a person would be sent to them, without
looking at the reference: first where the model is least sure, then where the proxy mask and the model disagree most
(the residual of Tian, Chen, Gao 2023, arXiv 2312.06072).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from RefSegLib.errors import BadInput
from RefSegLib.inference.predict import RegionResult, segment
from RefSegLib.inference.segmenter import load_segmenter
from RefSegLib.models.spec import SegmenterSpec
from RefSegLib.models.store import ModelStore
from RefSegLib.progress import SILENT, Progress
from RefSegLib.quality.metrics import dice
from RefSegLib.training.cases import Case
from RefSegLib.volume.io import read_image, read_labels
from RefSegLib.volume.resample import resample_labels, resample_volume
from RefSegLib.volume.volume import LabelMap, Volume
from scipy import ndimage

from InteractiveLearningLib.accepted import AcceptedCase
from InteractiveLearningLib.learner import Learner
from InteractiveLearningLib.learning import LearningSettings
from InteractiveLearningLib.propagation import FlowCache, propagate
from InteractiveLearningLib.replay import ReplayStore

# A slice next to one that was drawn tells little new.
APART = 2
# Slices that show none of the structure yet may be asked for this far beyond its ends: "nothing here" is an answer.
BEYOND = 2


@dataclass(frozen=True)
class Annotation:
    """labels, confidence: on the grid that was annotated; slices: indices along axis; effort: mm drawn; share: of what
    outlining every slice would have taken."""

    labels: npt.NDArray[np.uint16]
    confidence: npt.NDArray[np.float32]
    axis: int
    slices: tuple[int, ...]
    effort: float
    share: float


def run_stream(
    store: ModelStore,
    model: str,
    cases: Sequence[Case],
    *,
    order: str = "hash",
    limit: int | None = None,
    budget: int = 3,
    settings: LearningSettings | None = None,
    replay: ReplayStore | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Go through cases with the active version of a model; returns the report.

    order: "hash", or a file with one case name a line. limit: how many cases. budget: slices outlined per case; 0
    accepts the full reference masks instead. replay: where accepted cases go, by default the store's own.
    The report: {"cases": [{"case", "version", "before", "after", "effort_mm", "effort_share", "verdicts", "seconds"}],
    "summary"}; before and after are Dice by label on the grid the network sees; before is measured with a version that
    has not seen the case. Raises BadInput for an order that names unknown cases.
    """
    replay = replay or ReplayStore(store.home)
    learner = Learner(store.home, model, settings)
    rows = []
    try:
        chosen = ordered(cases, order)[:limit]
        for number, case in enumerate(chosen):
            part = progress.part(number / len(chosen), (number + 1) / len(chosen))
            rows.append(_one_case(store, model, case, budget, replay, learner, part))
    finally:
        learner.close()
    return {"model": model, "budget": budget, "cases": rows, "summary": _summary(rows, store.active(model))}


def ordered(cases: Sequence[Case], order: str) -> list[Case]:
    """Cases in the order of the hash of their names, or of a file with one name a line."""
    if order == "hash":
        return sorted(cases, key=lambda case: hashlib.sha256(case.name.encode()).digest())
    file = Path(order)
    if not file.is_file():
        raise BadInput(f"'{order}' is neither 'hash' nor a file with one case name a line.")
    known = {case.name: case for case in cases}
    names = [line.strip() for line in file.read_text().splitlines() if line.strip()]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise BadInput(f"'{order}' names {len(unknown)} cases that are not there, the first is '{unknown[0]}'.")
    return [known[name] for name in names]


def annotate_region(
    image: npt.NDArray,
    truth: npt.NDArray[np.unsignedinteger],
    probabilities: npt.NDArray[np.float32],
    spacing: Sequence[float],
    budget: int,
) -> Annotation:
    """Outline `budget` slices after the reference and spread them over one region.

    image, truth: (k, j, i); probabilities: (outputs, k, j, i) of the model, which the outlines correct.
    """
    found = probabilities.argmax(0)
    axis = _axis(found, spacing)
    residual = (1 - probabilities.max(0)).astype(np.float32)
    labels, confidence, cache = found, np.zeros(found.shape, np.float32), FlowCache()
    drawn: list[int] = []
    for _ in range(min(budget, truth.shape[axis])):
        drawn.append(_next(residual, (labels > 0) | (found > 0), axis, drawn))
        proxies = [
            propagate(
                image,
                axis,
                {n: np.take(truth, n, axis) == value for n in drawn},
                spacing=spacing,
                cache=cache,
                prior=probabilities[value],
            )
            for value in range(1, len(probabilities))
        ]
        soft = np.stack([proxy.probability for proxy in proxies])
        labels = np.where(soft.max(0) > 0.5, soft.argmax(0) + 1, 0)
        sure = np.stack([proxy.confidence for proxy in proxies])
        own = np.take_along_axis(sure, np.maximum(labels - 1, 0)[None], 0)[0]
        confidence = np.where(labels > 0, own, sure.min(0)).astype(np.float32)
        residual = np.abs(soft - probabilities[1:]).sum(0)
    lengths = _lengths(truth, axis, spacing)
    effort, whole = float(lengths[drawn].sum()), float(lengths.sum())
    return Annotation(
        labels.astype(np.uint16), confidence, axis, tuple(drawn), effort, effort / whole if whole else 0.0
    )


def _one_case(
    store: ModelStore, model: str, case: Case, budget: int, replay: ReplayStore, learner: Learner, progress: Progress
) -> dict[str, Any]:
    started = time.monotonic()
    progress(0.0, f"{case.name}: segmenting")
    volume, truth = read_image(case.image), read_labels(case.labels)
    version = store.load(model)
    segmenter = load_segmenter(version)
    row: dict[str, Any] = {"case": case.name, "version": version.version, "before": {}, "after": {}}
    lengths = []
    for result in segment(volume, segmenter, progress=Progress(cancelled=progress.cancelled)).regions:
        accepted = _accepted(volume, truth, result, version.spec, budget, row, lengths)
        if accepted is not None:
            row["id"] = replay.accept(replace(accepted, model=model, patient=case.patient))
    row["effort_mm"], whole = (round(float(v), 1) for v in np.sum(lengths, axis=0)) if lengths else (0.0, 0.0)
    row["effort_share"] = row["effort_mm"] / whole if whole else None
    progress(0.2, f"{case.name}: learning")
    row["verdicts"] = [
        {"outcome": v.outcome, "reason": v.reason, "candidate": v.candidate, "before": v.before, "after": v.after}
        for v in learner.work(progress.part(0.2, 1.0))
    ]
    row["seconds"] = round(time.monotonic() - started, 1)
    return row


def _accepted(
    volume: Volume,
    truth: LabelMap,
    result: RegionResult,
    spec: SegmenterSpec,
    budget: int,
    row: dict[str, Any],
    lengths: list[tuple[float, float]],
) -> AcceptedCase | None:
    """What is accepted of one region, on its working grid; its scores go into `row`. None if the reference is empty."""
    grid, offset = result.region.grid, result.region.offset
    if result.probabilities is None:
        raise BadInput(f"A region of {grid.shape} voxels is too large to be annotated at once; choose a smaller box.")
    wanted = resample_labels(truth, grid).array.astype(int) - offset
    wanted[(wanted < 0) | (wanted >= spec.outputs)] = 0
    if not wanted.any():
        return None
    image, side = resample_volume(volume, grid), f"{result.region.side} " if result.region.side else ""
    names = tuple(label.name for label in spec.labels)
    full = float(_lengths(wanted, _axis(result.probabilities.argmax(0), grid.spacing), grid.spacing).sum())
    if budget:
        made = annotate_region(image.array[0], wanted, result.probabilities, grid.spacing, budget)
        labels, confidence, effort = made.labels, made.confidence, made.effort
        annotated = tuple((made.axis, index) for index in made.slices)
    else:
        labels, confidence, effort, annotated = wanted.astype(np.uint16), None, full, ()
    lengths.append((effort, full))
    for value, name in enumerate(names, start=1):
        truly = wanted == value
        if truly.any():
            row["before"][side + name] = dice(result.probabilities.argmax(0) == value, truly)
            row["after"][side + name] = dice(labels == value, truly)
    if not labels.any():
        return None
    return AcceptedCase("", image, LabelMap(labels, grid), "", names, confidence, annotated, effort, region=True)


def _axis(found: npt.NDArray, spacing: Sequence[float]) -> int:
    """Thick slices are drawn on as they were made; otherwise those across the longest way of the structure."""
    if max(spacing) > 1.5 * min(spacing):
        return int(np.argmax(spacing))
    box = ndimage.find_objects((found > 0).astype(np.uint8))
    sizes = [s.stop - s.start for s in box[0]] if box else found.shape
    return int(np.argmax(np.asarray(sizes) * np.asarray(spacing)))


def _next(residual: npt.NDArray, seen: npt.NDArray, axis: int, drawn: Sequence[int]) -> int:
    """The slice with the largest residual among those that may show the structure and are not next to a drawn one."""
    across = tuple(a for a in range(3) if a != axis)
    scores = residual.sum(across).astype(float) + 1e-9
    shown = ndimage.binary_dilation(seen.any(across), iterations=BEYOND) if seen.any() else np.ones(len(scores), bool)
    scores[~shown] -= scores.max()  # still possible once nothing else is left
    for n in drawn:
        scores[max(n - APART + 1, 0) : n + APART] -= 2 * np.abs(scores).max() + 1
    scores[list(drawn)] = -np.inf
    return int(scores.argmax())


def _lengths(truth: npt.NDArray, axis: int, spacing: Sequence[float]) -> npt.NDArray[np.float64]:
    """Length in mm of the outlines of all structures in every slice (border pixels times the mean pixel size)."""
    cross = np.zeros((3, 3, 3), bool)
    cross[1, 1, 1] = True
    for a in range(3):
        if a != axis:
            cross[tuple(slice(None) if b == a else 1 for b in range(3))] = True
    total = np.zeros(truth.shape[axis])
    across = tuple(a for a in range(3) if a != axis)
    for value in np.unique(truth[truth > 0]):
        mask = truth == value
        total += (mask & ~ndimage.binary_erosion(mask, cross)).sum(across)
    return total * float(np.mean([spacing[a] for a in across]))


def _summary(rows: list[dict[str, Any]], active: str) -> dict[str, Any]:
    def mean(values: list[float]) -> float | None:
        return round(float(np.mean(values)), 4) if values else None

    outcomes = [verdict["outcome"] for row in rows for verdict in row["verdicts"]]
    return {
        "cases": len(rows),
        "before": mean([v for row in rows for v in row["before"].values()]),
        "after": mean([v for row in rows for v in row["after"].values()]),
        "effort_share": mean([row["effort_share"] for row in rows if row["effort_share"] is not None]),
        "verdicts": {outcome: outcomes.count(outcome) for outcome in ("published", "refused", "waiting", "skipped")},
        "active": active,
        "seconds": round(sum(row["seconds"] for row in rows), 1),
    }
