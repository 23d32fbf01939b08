"""`refseg annotate`: a robot corrects the model's masks of many cases, and every interaction is scored."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from RefSegLib.engine import Engine
from RefSegLib.errors import BadInput
from RefSegLib.inference.predict import RegionResult
from RefSegLib.models.store import ModelVersion
from RefSegLib.progress import SILENT, Progress
from RefSegLib.training.cases import Case
from RefSegLib.volume.io import read_image, read_labels
from RefSegLib.volume.resample import resample_labels, resample_volume
from RefSegLib.volume.volume import LabelMap, Volume

from InteractiveLearningLib.annotator import Kind, Progression, annotate
from InteractiveLearningLib.session import Session


def annotate_cases(
    version: ModelVersion,
    cases: Sequence[Case],
    *,
    prompts: str,
    budget: int,
    device: str = "auto",
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Correct every case with at most `budget` interactions of the kind `prompts` ("clicks" or "slices").

    Returns {"cases": [{"case", "side", "dice": [{label: value}, ...], "done", "boundary_pixels", "interactions",
    "seconds"}], "summary": {"mean_dice": one per interaction}}; the first entry of `dice` is the model alone. A case
    without anything left to correct keeps its last Dice in the mean. Raises BadInput for other prompts or no cases.
    """
    if prompts not in get_args(Kind):
        raise BadInput(f"There are no prompts '{prompts}'; the robot gives {' or '.join(get_args(Kind))}.")
    if not cases:
        raise BadInput("There are no cases to annotate.")
    engine, rows = Engine(version, device), []
    for number, case in enumerate(cases):
        part = progress.part(number / len(cases), (number + 1) / len(cases))
        part(0.0, case.name)
        volume, truth = read_image(case.image), read_labels(case.labels)
        found = engine.segment(volume, reflect=False, progress=Progress(cancelled=part.cancelled))
        for region in found.regions:
            started = time.perf_counter()
            gone = _annotated(volume, truth, region, engine, prompts, budget)
            if gone is not None:
                seconds = round(time.perf_counter() - started, 3)
                rows.append(_row(case, region, gone, engine) | {"seconds": seconds})
    return {"prompts": prompts, "budget": budget, "cases": rows, "summary": _summary(rows, prompts, budget)}


def _annotated(
    volume: Volume, truth: LabelMap, region: RegionResult, engine: Engine, prompts: Kind, budget: int
) -> Progression | None:
    """How the annotation of one region went; None if the truth shows nothing there."""
    grid, offset, spec = region.region.grid, region.region.offset, engine.segmenter.spec
    if region.probabilities is None:
        raise BadInput(f"A region of {grid.shape} voxels is too large to be annotated at once.")
    wanted = resample_labels(truth, grid).array.astype(np.int64) - offset
    wanted[(wanted < 0) | (wanted >= spec.outputs)] = 0
    if not wanted.any():
        return None
    image = resample_volume(volume, grid)
    with (
        tempfile.TemporaryDirectory(prefix="refseg-") as folder,
        Session.create(Path(folder) / "session", image, spec.labels, region.probabilities) as session,
    ):
        return annotate(LabelMap(wanted.astype(np.uint16), grid), session, budget, prompts=prompts)


def _row(case: Case, region: RegionResult, gone: Progression, engine: Engine) -> dict[str, Any]:
    names = {label.value: label.name for label in engine.segmenter.spec.labels}
    return {
        "case": case.name,
        "side": region.region.side,
        "dice": [{names[value]: round(dice, 4) for value, dice in step.items()} for step in gone.dice],
        "done": gone.said,
        "boundary_pixels": gone.effort.boundary_pixels,
        "interactions": gone.effort.interactions,
    }


def _summary(rows: list[dict[str, Any]], prompts: str, budget: int) -> dict[str, Any]:
    steps = budget + (2 if prompts == "slices" else 1)
    curves = [[float(np.mean(list(step.values()))) for step in row["dice"]] for row in rows]
    padded = [curve + [curve[-1]] * (steps - len(curve)) for curve in curves]
    mean = np.round(np.mean(padded, axis=0), 4).tolist() if padded else []
    return {"regions": len(rows), "mean_dice": mean}
