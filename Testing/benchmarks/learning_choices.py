"""How one case is best learnt: settings tried on the stream of bench_learning, scored on validation patients alone.

    python Testing/benchmarks/learning_choices.py hippocampus|heart FILE NAME=VALUE ...

The cases are annotated once, with the start model; each is learnt from the version before it, without a gate; those
that the gate would keep for itself (see `learners`) are not learnt. One line of JSON per run goes to FILE: settings,
Dice on validation patients on the way and at the end. full=1: with full masks.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from InteractiveLearningLib.learning import LearningSettings, learn
from InteractiveLearningLib.replay import ReplayStore
from InteractiveLearningLib.stream import annotated
from learning_data import Set, active, load_set, start_model
from RefSegLib.inference.segmenter import load_segmenter
from RefSegLib.models.networks import restored_segmenter
from RefSegLib.models.store import ModelStore
from RefSegLib.quality.metrics import dice
from RefSegLib.training.segmenter import predict


def accepted_cases(wanted: Set, budget: int) -> list[str]:
    """The stream, annotated with the start model and kept in a replay store; the ids in their order."""
    home = wanted.folder / f"annotated-{budget}"
    done = home / "ids.json"
    if not done.exists():
        version = active(start_model(wanted), wanted)
        replay, segmenter, ids, rows = ReplayStore(home), load_segmenter(version), [], []
        for case in wanted.stream:
            row, made = annotated(version, segmenter, case, budget)
            ids += [replay.accept(accepted) for accepted in made]
            rows.append(row)
        (home / "rows.json").write_text(json.dumps(rows))
        done.write_text(json.dumps(ids))
    return json.loads(done.read_text())


def learners(count: int) -> list[int]:
    """Who of a stream trains where the gate keeps 6 patients from the beginning, every other one, and then one in 5."""
    return [n for n in range(count) if (n % 2 == 0 if n < 12 else n % 5 != 0)]


def score(module: torch.nn.Module, wanted: Set, count: int = 18) -> float:
    """Mean Dice over labels and the first validation cases, on what the network sees."""
    module.eval()
    values = []
    for sample in wanted.samples(wanted.validation[:count]):
        found = predict(module, np.array(sample.image), wanted.spec)
        values += [dice(found == v, sample.labels == v) for v in range(1, wanted.spec.outputs)]
    return round(float(np.mean(values)), 4)


def run(wanted: Set, changes: dict[str, float]) -> dict:
    """Learn the stream with some settings."""
    changes = dict(changes)
    budget = 0 if changes.pop("full", 0) else 3
    settings = replace(LearningSettings(), **changes)
    replay = ReplayStore(wanted.folder / f"annotated-{budget}")
    ids = accepted_cases(wanted, budget)
    train = learners(len(ids))
    cases = {n: replay.load(ids[n]) for n in train}
    rng, started, scores = np.random.default_rng(0), time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        store = ModelStore(folder)
        start = active(start_model(wanted), wanted)
        version = store.add(start.spec, start.segmenter())
        for turn, n in enumerate(train):
            known = train[:turn]
            chosen = rng.permutation(known)[: int(settings.capacity)] if known else []
            learnt = learn(
                version, (ids[n], cases[n]), [cases[m] for m in chosen], settings, Path(folder) / "c", lambda _: None
            )
            version = store.add(start.spec, learnt.weights)
            if turn % 6 == 5 or turn == len(train) - 1:
                scores.append(score(restored_segmenter(version), wanted))
        first = score(restored_segmenter(start), wanted)
    return {"start": first, "scores": scores, "seconds": round(time.monotonic() - started)}


if __name__ == "__main__":
    name, file, *rest = sys.argv[1:]
    changes = {key: float(value) for key, value in (pair.split("=") for pair in rest)}
    for key in ("iterations", "capacity", "patience", "batch", "warm_up"):
        if key in changes:
            changes[key] = int(changes[key])
    found = run(load_set(name), changes)
    with Path(file).open("a") as out:
        out.write(json.dumps({"set": name} | changes | found) + "\n")
