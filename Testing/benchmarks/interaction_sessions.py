"""Parts "model" and "new" of bench_interaction: sessions of robot annotators, scored after every interaction.

model: the shipped hippocampus model and a heart model of ten patients are corrected. new: a structure no model knows.
An interaction is a click, the limits of all labels, or the outlines of all labels in a slice. Slices are asked for by
the session (guided), evenly placed (a session of its own for every number of slices), or drawn by lot (random). With a
model no limits are marked, the session chooses the plane of all three, and even and random slices lie between the
limits it proposes from the model; a new structure is outlined along the set's axis, between marked limits.
"""

from __future__ import annotations

import tempfile
import time
import zlib
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
from interaction_data import OUT, SETS, STRUCTURES, cases, ends, load, places
from interaction_model import found_by, heart_model
from InteractiveLearningLib.annotator import Annotator, annotate
from InteractiveLearningLib.planes import plane_name
from InteractiveLearningLib.prompts import Outline
from InteractiveLearningLib.session import Session
from RefSegLib.engine import Engine
from RefSegLib.models.spec import Label
from RefSegLib.models.store import ModelStore
from RefSegLib.quality.metrics import dice
from RefSegLib.volume.volume import LabelMap, Volume
from scipy import ndimage

BUDGET = 10
STEPS = (1, 3, 5, 10)
# How many outlines of a new structure, after its limits, are to be enough for Dice 0.90.
OUTLINES = {"hippocampus": 5, "RV": 3, "myocardium": 3, "LV": 3}
KINDS = (("clicks", False), ("clicks", True), ("guided", False), ("guided", True), ("even", False), ("random", False))


def tasks(split: str, limit: int | None) -> list[dict]:
    """What is to be computed: a task per case, kind of interaction and hand."""
    return [
        {"part": part, "split": split, "of": "ours", "folder": f, "case": name, "kind": kind, "imprecise": imprecise}
        for part in ("model", "new")
        for kind, imprecise in KINDS
        for f in SETS
        for name in cases(f, split, limit)
    ]


def run(task: dict) -> list[dict]:
    """One row with a model; one per structure without."""
    folder, how = task["folder"], (task["kind"], task["imprecise"], zlib.crc32(task["case"].encode()))
    volume, labels = load(folder, task["case"])
    axis, rows = SETS[folder].axis, []
    if task["part"] == "model":
        found = found_by(engine(folder), volume)
        present = [label for label in SETS[folder].segments if (labels.array == label.value).any()]
        return [{"structure": folder} | _played(volume, labels, SETS[folder].segments, present, found, None, *how)]
    for structure in (s for s in STRUCTURES if s in SETS[folder].structures):
        truth = np.isin(labels.array, SETS[folder].structures[structure])
        if truth.any():
            one = [Label(value=1, name=structure, color=(1, 0, 0))]
            map_ = LabelMap(truth.astype(np.uint16), labels.grid)
            budget = 1 + OUTLINES[structure]
            rows.append({"structure": structure} | _played(volume, map_, one, one, None, axis, *how, budget))
    return rows


@cache
def engine(folder: str) -> Engine:
    """The model of a set."""
    if folder == "acdc":
        return Engine(heart_model(), "cpu")
    store = ModelStore(OUT / "store")
    return Engine(store.load("hippocampus", store.active("hippocampus")), "cpu")


def _played(
    volume: Volume,
    truth: LabelMap,
    labels: Sequence[Label],
    present: Sequence[Label],
    found: npt.NDArray[np.float32] | None,
    axis: int | None,
    kind: str,
    imprecise: bool,
    seed: int,
    budget: int = BUDGET,
) -> dict:
    """One case played. dice: mean over labels, after each interaction (None: not measured), the first before any.

    drawn: pixels of border drawn until then. whole: those of all slices. slices: how many show the structure.
    """
    if kind == "clicks":
        budget = BUDGET
    seconds: list[float] = []
    curve: dict[int, float] = {}
    drawn: dict[int, int] = {}
    values = [label.value for label in present]
    marked = kind != "clicks" and axis is not None  # the limits, as the first interaction
    numbers = STEPS if found is not None else range(1, budget + 1)
    for number in numbers if kind == "even" else (budget,):
        with tempfile.TemporaryDirectory() as place, Session.create(place, volume, labels, found) as session:
            _timed(session, seconds)
            if kind in ("clicks", "guided"):
                prompts = "clicks" if kind == "clicks" else "slices"
                hand = {"imprecise": imprecise, "seed": seed, "axis": axis, "limits": marked}
                scores = annotate(truth, session, number - marked, prompts=prompts, **hand).mean
            else:
                robot = Annotator(truth, imprecise, seed)
                scores = _placed(session, robot, values, axis, kind, number - marked, seed)
            pixels = [_border(prompt.mask) for prompt in session.prompts() if isinstance(prompt, Outline)]
        # Slices placed for this number say nothing about fewer.
        measured = (0, *([1] if marked else []), len(scores) - 1) if kind == "even" else range(len(scores))
        for n in measured:
            curve[n], drawn[n] = scores[n], sum(pixels[: max(n - marked, 0) * len(values)])
    last = max(curve)
    along = session.handiest_axis() if axis is None else axis
    return {
        "dice": [curve.get(n) for n in range(last + 1)],
        "drawn": [drawn.get(n) for n in range(last + 1)],
        "whole": _whole(truth, values, along),
        "slices": _extent(truth, along),
        "plane": plane_name(volume.grid, along),
        "seconds": seconds,
    }


def _placed(
    session: Session, robot: Annotator, labels: list[int], axis: int | None, kind: str, count: int, seed: int
) -> list[float]:
    """Dice before and after each of `count` slices, even or by lot; without a model after the limits, too."""
    truth = robot.truth

    def score() -> float:
        shown = session.labels().array
        return float(np.mean([dice(shown == label, truth.array == label) for label in labels]))

    scores = [score()]
    if axis is None:
        axis = session.handiest_axis()
        proposed = [session.propose_limits(label, axis) for label in labels]
        spans = [limits.indices(session.grid) for limits in proposed if limits is not None]
        low, high = min(s[0] for s in spans), max(s[1] for s in spans)
    else:
        session.apply([robot.limits(label, axis) for label in labels])
        scores.append(score())
        low, high = ends(truth.array > 0, axis)
    chosen = places(low, high, count) if kind == "even" and count else []
    if kind == "random":
        chosen = np.random.default_rng(seed).permutation(np.arange(low, high + 1))[:count].tolist()
    for index in chosen:
        session.apply([robot.outline(label, axis, index) for label in labels])
        scores.append(score())
    return scores


def _timed(session: Session, seconds: list[float]) -> None:
    apply = session.apply

    def timed(prompt):
        start = time.perf_counter()
        changed = apply(prompt)
        seconds.append(time.perf_counter() - start)
        return changed

    session.apply = timed


def _whole(truth: LabelMap, values: Sequence[int], axis: int) -> int:
    """Pixels of border that outlining every slice of every label would draw."""
    slices = np.moveaxis(truth.array, axis, 0)
    return sum(_border(mask == value) for mask in slices for value in values)


def _border(mask: npt.NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(mask & ~ndimage.binary_erosion(mask)))


def _extent(truth: LabelMap, axis: int) -> int:
    low, high = ends(truth.array > 0, axis)
    return high - low + 1
