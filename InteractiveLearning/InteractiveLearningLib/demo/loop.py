"""Four cases as a stream: segment, reflect, correct, accept, learn, publish or refuse, and segment again."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from RefSegLib.engine import Engine
from RefSegLib.errors import RefSegError
from RefSegLib.inference.predict import RegionResult, Segmentation
from RefSegLib.models.spec import Label
from RefSegLib.models.store import ModelStore
from RefSegLib.progress import Progress
from RefSegLib.quality.metrics import dice
from RefSegLib.volume.io import write_labels
from RefSegLib.volume.resample import resample_array, resample_volume
from RefSegLib.volume.volume import LabelMap

from InteractiveLearningLib.accepted import AcceptedCase
from InteractiveLearningLib.annotator import Annotator
from InteractiveLearningLib.demo.heads import ANTERIOR, POSTERIOR, Head
from InteractiveLearningLib.learner import read_status
from InteractiveLearningLib.prompts import Prompt, name_of
from InteractiveLearningLib.replay import ReplayStore
from InteractiveLearningLib.session import Session
from InteractiveLearningLib.verdicts import Verdict, VerdictLog

MODEL = "hippocampus"
OUTLINES = 4  # slices drawn, all labels in each; from three on the proxy mask's Dice is estimated
CLICKS = 2
LEARN_SECONDS = 75.0


@dataclass
class Case:
    """One hippocampus of one head, and what happened to it."""

    head: Head
    side: str
    region: RegionResult
    truth: npt.NDArray[np.uint8]
    image: npt.NDArray[np.float32]
    version: str
    interactions: list[dict[str, Any]] = field(default_factory=list)
    residual: npt.NDArray[np.float32] | None = None
    axis: int = 0
    asked: list[int] = field(default_factory=list)
    annotated: npt.NDArray[np.uint8] | None = None
    estimated: dict[str, float | None] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    again: dict[str, float] = field(default_factory=dict)
    again_version: str = ""
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.head.name} {self.side}"

    @property
    def found(self) -> npt.NDArray[np.intp]:
        """Labels of the model (k, j, i) on the region's grid."""
        return self.region.probabilities.argmax(0)


def scores(found: npt.NDArray, truth: npt.NDArray) -> dict[str, float]:
    """Dice of the whole hippocampus and of its two parts."""
    return {
        "whole": dice(found > 0, truth > 0),
        "anterior": dice(found == ANTERIOR, truth == ANTERIOR),
        "posterior": dice(found == POSTERIOR, truth == POSTERIOR),
    }


class Loop:
    """Runs the stream in a store of its own, under `out`."""

    def __init__(self, out: Path, store: Path | None) -> None:
        self.out = out
        home = store or out / "store"
        if store is None:
            shutil.rmtree(home, ignore_errors=True)  # the demonstration's own store: every run begins anew
        out.mkdir(parents=True, exist_ok=True)
        self.store = ModelStore(home)
        # Two heads are two patients: one teaches, one validates. A site would wait for more.
        self.replay = ReplayStore(self.store.home, validation_patients=1)

    def run(self, heads: Sequence[Head], progress: Progress) -> list[Case]:
        """The whole loop; masks are written as NAME.seg.nrrd and NAME-again.seg.nrrd."""
        cases: list[Case] = []
        share = 0.9 / max(len(heads), 1)
        for number, head in enumerate(heads):
            part = progress.part(number * share, (number + 1) * share)
            part(0.0, f"{head.name}: segmenting both hippocampi and reflecting")
            engine = Engine(self.store.load(MODEL))
            result = engine.segment(head.volume, progress=part.part(0.0, 0.1))
            corrected = result.labels.array.copy()
            for index, region in enumerate(result.regions):
                step = part.part(0.1 + 0.45 * index, 0.55 + 0.45 * index)
                case = self._case(head, region, engine, step)
                _put_back(case, region, corrected, head)
                cases.append(case)
            labels = LabelMap(corrected, head.volume.grid)
            write_labels(labels, self.out / f"{head.name}.seg.nrrd", result.names)
        self._again(heads, cases, progress.part(0.9, 1.0))
        return cases

    def _case(self, head: Head, region: RegionResult, engine: Engine, progress: Progress) -> Case:
        started = time.monotonic()
        grid = region.region.grid
        image = resample_volume(head.volume, grid)
        truth = head.truth(region.region.side, grid)
        case = Case(head, region.region.side, region, truth, image.array[0], engine.version.version)
        folder = self.store.home / "sessions" / case.name.replace(" ", "-")
        labels = engine.version.spec.labels
        with Session.create(folder, image, labels, region.probabilities) as session:
            self._annotate(case, session, labels, progress.part(0.0, 0.2))
            accepted = session.accepted()
        case.annotated = accepted.labels.array
        progress(0.2, f"{case.name}: accepted, kept in the replay store")
        self.replay.accept(
            AcceptedCase(
                MODEL,
                image,
                accepted.labels,
                head.name,
                tuple(label.name for label in labels),
                accepted.confidence,
                accepted.annotated,
                accepted.effort,
                region=True,
            )
        )
        case.verdicts = self._learn(case, progress.part(0.2, 1.0))
        case.seconds = time.monotonic() - started
        return case

    def _annotate(self, case: Case, session: Session, labels: Sequence[Label], progress: Progress) -> None:
        """The robot: clicks where the mask is most wrong, outlines the slices it is sent to."""
        robot = Annotator(LabelMap(case.truth, session.grid))
        values = [label.value for label in labels]

        def say(prompts: Sequence[Prompt], what: str, why: str) -> None:
            session.apply(prompts)
            dice = scores(session.labels().array, case.truth)
            case.interactions.append({"what": what, "why": why, "dice": dice})
            progress(len(case.interactions) / (1 + CLICKS + OUTLINES), case.name)

        case.interactions.append({"what": "model", "why": "", "dice": scores(case.found, case.truth)})
        for _ in range(CLICKS):
            click = robot.click(session.labels().array, values)
            if click is not None:
                what = name_of(click, session.structures[click.label].name)
                say([click], what, "in the middle of the largest error")
        case.axis = session.handiest_axis()
        for _ in range(OUTLINES):
            suspect = None if case.region.reflection is None else case.region.reflection.suspect
            suggestion = session.suggest(axis=case.axis, suspect=suspect)
            if isinstance(suggestion, str):
                break
            case.residual = suggestion.residual if case.residual is None else case.residual
            case.asked.append(suggestion.index)
            drawn = [robot.outline(value, case.axis, suggestion.index) for value in values]
            say(drawn, f"outlines of slice {suggestion.index}", suggestion.reason)
        for label in labels:
            case.estimated[label.name] = session.result(label.value).estimated_dice

    def _learn(self, case: Case, progress: Progress) -> list[Verdict]:
        """Let the learner, a process of its own, do what there is to do; returns its new verdicts."""
        log = VerdictLog(self.store.home, MODEL)
        before = len(log.verdicts())
        command = [sys.executable, "-m", "InteractiveLearningLib.learner", "--store", str(self.store.home)]
        command += ["--model", MODEL, "--once", "--seconds", str(LEARN_SECONDS)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            try:
                started = time.monotonic()
                while process.poll() is None:
                    status = read_status(self.store.home, MODEL)
                    message = status.message if status is not None else "starting"
                    progress(min((time.monotonic() - started) / (1.3 * LEARN_SECONDS), 1.0), f"{case.name}: {message}")
                    time.sleep(0.3)
            except BaseException:
                process.terminate()
                raise
            if process.returncode:
                raise RefSegError(f"The learner stopped: {process.stderr.read().strip().splitlines()[-1:]}")
        return log.verdicts()[before:]

    def _again(self, heads: Sequence[Head], cases: list[Case], progress: Progress) -> None:
        """Segment every head anew with the version that is active now."""
        engine = Engine(self.store.load(MODEL))
        for number, head in enumerate(heads):
            progress(number / len(heads), f"{head.name}: segmenting again with version {engine.version.version}")
            result: Segmentation = engine.segment(head.volume)
            write_labels(result.labels, self.out / f"{head.name}-again.seg.nrrd", result.names)
            for case in cases:
                for region in result.regions:
                    if case.head is head and case.side == region.region.side:
                        truth = head.truth(case.side, region.region.grid)
                        case.again = scores(region.probabilities.argmax(0), truth)
                        case.again_version = engine.version.version


def _put_back(case: Case, region: RegionResult, labels: npt.NDArray, head: Head) -> None:
    """Write the annotated labels of a region into the head's label map, on the head's own voxels."""
    grid, offset = region.region.grid, region.region.offset
    own = [ANTERIOR + offset, POSTERIOR + offset]
    found = resample_array(case.annotated, grid, head.volume.grid, nearest=True)
    labels[np.isin(labels, own)] = 0
    free = (found > 0) & (labels == 0)
    labels[free] = found[free] + offset
