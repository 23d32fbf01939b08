"""A stream of cases: segment, outline a few slices, accept, learn, publish what is better, then the next case.

A robot plays the annotator (annotator.py); everything else is what a person at the workstation sets in motion.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from RefSegLib.errors import BadInput
from RefSegLib.inference.predict import RegionResult, segment
from RefSegLib.inference.segmenter import Segmenter, load_segmenter
from RefSegLib.models.spec import SegmenterSpec
from RefSegLib.models.store import ModelStore, ModelVersion
from RefSegLib.progress import SILENT, Progress
from RefSegLib.quality.metrics import dice
from RefSegLib.training.cases import Case
from RefSegLib.volume.io import read_image, read_labels
from RefSegLib.volume.resample import resample_labels, resample_volume
from RefSegLib.volume.volume import LabelMap, Volume
from scipy import ndimage

from InteractiveLearningLib.accepted import AcceptedCase
from InteractiveLearningLib.annotator import annotate
from InteractiveLearningLib.learner import Learner
from InteractiveLearningLib.learning import LearningSettings
from InteractiveLearningLib.outcome import border
from InteractiveLearningLib.replay import ReplayStore
from InteractiveLearningLib.session import Session
from InteractiveLearningLib.verdicts import Verdict


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
    The report: {"cases": [{"case", "version", "before", "after", "boundary_pixels", "effort_share", "verdicts",
    "seconds"}], "summary"}. before, after: Dice by label on the grid the network sees, of the model alone (a version
    that has not learnt the case) and of what was accepted. effort_share: border pixels drawn against outlining every
    slice (the paper's measure). Raises BadInput for an order that names unknown cases.
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


def annotated(
    version: ModelVersion, segmenter: Segmenter, case: Case, budget: int, progress: Progress = SILENT
) -> tuple[dict[str, Any], list[AcceptedCase]]:
    """A case segmented by a version and corrected by the robot: its row of the report so far, and what is accepted of
    it, one for each region that holds a label. budget 0: the reference is accepted as it is."""
    volume, truth = read_image(case.image), read_labels(case.labels)
    row: dict[str, Any] = {"case": case.name, "version": version.version, "before": {}, "after": {}}
    borders: list[tuple[int, int]] = []
    accepted = []
    for result in segment(volume, segmenter, progress=Progress(cancelled=progress.cancelled)).regions:
        made = _accepted(volume, truth, result, version.spec, budget, row, borders)
        if made is not None:
            accepted.append(replace(made, model=version.name, patient=case.patient))
    drawn, full = np.sum(borders, axis=0).tolist() if borders else (0, 0)
    row["boundary_pixels"], row["effort_share"] = drawn, round(drawn / full, 4) if full else None
    return row, accepted


def _one_case(
    store: ModelStore, model: str, case: Case, budget: int, replay: ReplayStore, learner: Learner, progress: Progress
) -> dict[str, Any]:
    started = time.monotonic()
    progress(0.0, f"{case.name}: segmenting")
    version = store.load(model)
    row, accepted = annotated(version, load_segmenter(version), case, budget, progress)
    for made in accepted:
        row["id"] = replay.accept(made)
    progress(0.2, f"{case.name}: learning")
    row["verdicts"] = [told(verdict) for verdict in learner.work(progress.part(0.2, 1.0))]
    row["seconds"] = round(time.monotonic() - started, 1)
    return row


def told(verdict: Verdict) -> dict[str, Any]:
    """What a report says of a verdict."""
    return {
        "outcome": verdict.outcome,
        "reason": verdict.reason,
        "candidate": verdict.candidate,
        "before": verdict.before,
        "after": verdict.after,
    }


def _accepted(
    volume: Volume,
    truth: LabelMap,
    result: RegionResult,
    spec: SegmenterSpec,
    budget: int,
    row: dict[str, Any],
    borders: list[tuple[int, int]],
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
    reference = LabelMap(wanted.astype(np.uint16), grid)
    full = _border_pixels(reference)
    if budget:
        with (
            tempfile.TemporaryDirectory(prefix="refseg-") as folder,
            Session.create(Path(folder) / "session", image, spec.labels, result.probabilities) as session,
        ):
            annotate(reference, session, budget, prompts="slices")
            made = session.accepted()
        labels, confidence, annotated = made.labels, made.confidence, made.annotated
        drawn, effort = made.boundary_pixels, made.effort
    else:
        labels, confidence, annotated, drawn, effort = reference, None, (), full, None
    borders.append((drawn, full))
    for label in spec.labels:
        truly = wanted == label.value
        if truly.any():
            row["before"][side + label.name] = dice(result.probabilities.argmax(0) == label.value, truly)
            row["after"][side + label.name] = dice(labels.array == label.value, truly)
    if not labels.array.any():
        return None
    names = tuple(label.name for label in spec.labels)
    return AcceptedCase("", image, labels, "", names, confidence, annotated, effort, region=True)


def _border_pixels(labels: LabelMap) -> int:
    """What outlining every slice of every label would take, along the axis the robot outlines."""
    values = [int(v) for v in np.unique(labels.array) if v]
    axis = longest_axis(labels, values)
    slices = np.moveaxis(labels.array, axis, 0)
    return sum(int(np.count_nonzero(border(plane == value))) for plane in slices for value in values)


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


def longest_axis(truth: LabelMap, labels: Sequence[int]) -> int:
    """The axis to outline slices along: that of thicker slices, else that along which the labels are longest."""
    spacing = np.asarray(truth.grid.spacing)
    if spacing.max() > 2 * np.median(spacing):
        return int(spacing.argmax())
    box = ndimage.find_objects(np.isin(truth.array, labels).astype(np.uint8))[0]
    return int(np.argmax([(s.stop - s.start) * m for s, m in zip(box, spacing, strict=True)]))
