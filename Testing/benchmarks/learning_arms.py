"""One arm of bench_learning: a stream through the product's own path, case by case, each step kept on the disk."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from InteractiveLearningLib.learner import Learner
from InteractiveLearningLib.learning import LearningSettings
from InteractiveLearningLib.replay import ReplayStore
from InteractiveLearningLib.stream import annotated, told
from InteractiveLearningLib.verdicts import VerdictLog
from learning_data import Set, active, start_model, trained
from RefSegLib.durable import write_durably
from RefSegLib.inference.segmenter import Segmenter, TorchSegmenter, load_segmenter
from RefSegLib.inference.tiling import infer
from RefSegLib.models.networks import restored_segmenter
from RefSegLib.models.store import ModelStore, ModelVersion
from RefSegLib.quality.metrics import dice
from RefSegLib.training.cases import Case
from RefSegLib.training.train import arrays

SLICES = 3
# From six patients on the gate's test can say anything at all; a site would ask for at least that many.
VALIDATION_PATIENTS = 6
# A fixed key draws the same patients for validation in every arm.
KEY = hashlib.sha256(b"bench-learning").digest()
# How a beginning network learns; chosen on validation patients by learning_choices.py, see docs/learning-tables.md.
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "hippocampus": {"rate": 2e-3, "iterations": 40, "share": 0.25, "step": 0.5},
    "heart": {"rate": 1e-3, "iterations": 60, "batch": 6, "share": 0.25, "step": 0.5},
}


@dataclass(frozen=True)
class Arm:
    """What an arm does differently. slices: outlined per case, 0: the full mask is accepted."""

    slices: int = SLICES
    changes: Mapping[str, Any] = field(default_factory=dict)


ARMS = {
    "full system": Arm(),
    "full masks": Arm(slices=0),
    "no replay": Arm(changes={"capacity": 0}),
    "capacity 4": Arm(changes={"capacity": 4}),
    "no label smoothing": Arm(changes={"trust": 1.0}),
    "no confidence weights": Arm(changes={"confidence": False}),
    "capacity 64": Arm(changes={"capacity": 64}),
    "doubt": Arm(changes={"doubt": True}),
}
OFFLINE = "offline"


class Tester:
    """Dice on the test patients, on the grid the network sees (of the hippocampus those are the image's own voxels);
    every version is measured once."""

    def __init__(self, wanted: Set, file: Path) -> None:
        self.file, self.known = file, json.loads(file.read_text()) if file.exists() else {}
        self._wanted = wanted

    def __call__(self, version: ModelVersion) -> None:
        """Measure a version: {version: {case: [Dice of label 1, ...]}} in the file."""
        if version.version in self.known:
            return
        # Through torch: a conversion to OpenVINO takes as long as all test images together.
        segmenter = TorchSegmenter(version.spec, restored_segmenter(version))
        scores = {}
        for case in self._wanted.test:
            (sample,) = self._wanted.samples([case])
            found = infer(segmenter, np.array(sample.image)).argmax(0)
            scores[case.name] = [round(dice(found == v, sample.labels == v), 5) for v in range(1, version.spec.outputs)]
        self.known[version.version] = scores
        write_durably(self.file, json.dumps(self.known).encode())


@lru_cache(maxsize=1)
def converted(home: Path, model: str, number: str) -> tuple[ModelVersion, Segmenter]:
    """The live version made ready; kept while it stays live, as the service does."""
    version = ModelStore(home).load(model, number)
    return version, load_segmenter(version)


def run_arm(wanted: Set, name: str) -> None:
    """Go through the stream, or on with it."""
    arm, folder = ARMS[name], arm_folder(wanted, name)
    home, model = folder / "home", wanted.spec.name
    if not home.exists():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(start_model(wanted), folder / "copy")
        (folder / "copy" / "service").mkdir()
        write_durably(folder / "copy" / "service" / "patient.key", KEY, mode=0o600)
        (folder / "copy").rename(home)
    kind = model.removesuffix("-stream")
    settings = LearningSettings(**(dict(SETTINGS[kind]) | dict(arm.changes)))
    store, replay = ModelStore(home), ReplayStore(home, validation_patients=VALIDATION_PATIENTS)
    learner, tester = Learner(home, model, settings), Tester(wanted, folder / "tests.json")
    tester(active(home, wanted))
    done = rows(folder)
    for case in wanted.stream[len(done) :]:
        row = _learnt(case, arm, folder, store, replay, learner)
        newest = store.load(model, store.versions(model)[-1])
        for version in (active(home, wanted), newest):
            tester(version)
        row |= {"live": store.active(model), "newest": newest.version}
        done.append(row)
        write_durably(folder / "rows.json", json.dumps(done).encode())
    learner.close()
    replay.close()


def _learnt(
    case: Case, arm: Arm, folder: Path, store: ModelStore, replay: ReplayStore, learner: Learner
) -> dict[str, Any]:
    """Annotate a case, accept it, learn; after a kill, only what was not done yet."""
    pending, identifier = folder / "pending.json", hashlib.sha256(case.name.encode()).hexdigest()[:32]
    row = json.loads(pending.read_text()) if pending.exists() else {}
    known = identifier in {c.id for c in replay.cases(learner.model)}
    if row.get("case") != case.name or not known:
        started = time.monotonic()
        live = converted(store.home, learner.model, store.active(learner.model))
        row, accepted = annotated(*live, case, arm.slices)
        row["annotation_seconds"] = round(time.monotonic() - started, 2)
        write_durably(pending, json.dumps(row).encode())
        for made in accepted:
            replay.accept(made, identifier)
    started = time.monotonic()
    row["verdicts"] = [told(verdict) for verdict in learner.work()]
    row["seconds"] = round(time.monotonic() - started, 2)
    info = next((c for c in replay.cases(learner.model) if c.id == identifier), None)
    return row | {"id": identifier, "role": info.role if info else None}


def run_offline(wanted: Set) -> None:
    """Train the start model on the cases the stream trained on, all at once, with full masks; the cases that the gate
    kept choose the epoch. Who is which is read from the arm with full masks."""
    folder = arm_folder(wanted, OFFLINE)
    folder.mkdir(parents=True, exist_ok=True)
    home = folder / "home"
    store, name = ModelStore(home), wanted.spec.name
    if name not in store.names():
        roles = {row["case"]: row["role"] for row in rows(arm_folder(wanted, "full masks"))}
        cases = {role: [c for c in wanted.stream if roles[c.name] == role] for role in ("train", "validation")}
        module = restored_segmenter(active(start_model(wanted), wanted))
        started = time.monotonic()
        trained(module, wanted, cases["train"], cases["validation"], wanted.epochs[1], folder / "fit.checkpoint")
        told = {"train": len(cases["train"]), "validation": len(cases["validation"])}
        settings = {"epochs": wanted.epochs[1], "seconds": round(time.monotonic() - started)}
        version = store.add(wanted.spec, arrays(module), data=told, settings=settings)
        store.activate(name, version.version)
    Tester(wanted, folder / "tests.json")(active(home, wanted))


def arm_folder(wanted: Set, name: str) -> Path:
    """Where an arm keeps everything."""
    return wanted.folder / "arms" / name.replace(" ", "-")


def rows(folder: Path) -> list[dict[str, Any]]:
    """What is known of the cases an arm has done."""
    file = folder / "rows.json"
    return json.loads(file.read_text()) if file.exists() else []


def finished(wanted: Set, name: str) -> bool:
    """Whether an arm is done."""
    folder = arm_folder(wanted, name)
    if name == OFFLINE:
        return (folder / "tests.json").exists()
    return len(rows(folder)) == len(wanted.stream)


def mean_dice(scores: Mapping[str, list[float]], names: list[str] | None = None) -> float:
    """Mean over labels and cases, of some cases or all."""
    return float(np.mean([scores[name] for name in names or scores]))


def verdicts(wanted: Set, name: str) -> list[Any]:
    """All verdicts of an arm, in their order."""
    return VerdictLog(arm_folder(wanted, name) / "home", wanted.spec.name).verdicts()
