"""What a learner keeps of a case beside the replay store: its checkpoint, and scores in verdicts and in its status.

    home/learner/NAME.checkpoint   weights in the middle of learning: of the case and of those replayed with it
    home/learner/NAME.trusted      nobody was forgotten since that learning began

Forgetting a patient removes both. A learner at work may write its checkpoint once more; without the second file nobody
goes on from it, and whoever opens the store removes it.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from RefSegLib.durable import write_durably
from RefSegLib.errors import RefSegError
from RefSegLib.models.store import ModelStore

from InteractiveLearningLib.verdicts import VerdictLog


def begin_learning(home: Path, model: str) -> None:
    """To be called before a learner reads the cases it will learn from: its checkpoint counts until `end_learning`."""
    if not _trusted(home, model).exists():
        write_durably(_trusted(home, model), b"")


def end_learning(home: Path, model: str) -> None:
    """Remove the checkpoint: what it was for is done, or must not be."""
    _checkpoint(home, model).unlink(missing_ok=True)
    _trusted(home, model).unlink(missing_ok=True)


def remove_untrusted(home: Path) -> None:
    """Remove the checkpoints that a learner wrote after somebody had been forgotten."""
    for checkpoint in (home / "learner").glob("*.checkpoint"):
        if not checkpoint.with_suffix(".trusted").exists():
            checkpoint.unlink(missing_ok=True)


def remove_checkpoints(home: Path) -> None:
    """Remove all checkpoints: which cases were replayed is not in them, and one may no longer be learnt from."""
    folder = home / "learner"
    for file in (*folder.glob("*.trusted"), *folder.glob("*.checkpoint")):
        end_learning(home, file.stem)
    for half in folder.glob("*.checkpoint.*.tmp"):  # of a killed learner
        half.unlink(missing_ok=True)


def remove_traces(home: Path, patients: Collection[str], cases: Collection[str]) -> None:
    """Remove what learners keep of these patients (keyed hashes) and cases (ids); the rows must be gone already.

    Verdicts stay, without the scores of these cases.
    """
    remove_checkpoints(home)
    folder = home / "learner"
    for file in (folder / "verdicts").glob("*.jsonl"):
        _without_scores(VerdictLog(home, file.stem), patients, cases)
    for file in folder.glob("*.json"):
        status = json.loads(file.read_bytes())
        if status.get("verdict") and status["verdict"].get("scores"):
            status["verdict"]["scores"] = []
            write_durably(file, json.dumps(status).encode())


def versions_from(home: Path, cases: Collection[str]) -> list[str]:
    """NAME@NUMBER of the versions that learnt from one of the cases, those that grew out of them, and damaged ones."""
    if not cases:
        return []
    store, found = ModelStore(home), []
    for name in (f"{model}@{version}" for model in store.names() for version in store.versions(model)):
        try:
            manifest = store.load(*name.split("@")).manifest
            learnt = not set(cases).isdisjoint(manifest.data.get("cases", ())) or manifest.parent in found
        except RefSegError:
            learnt = True  # nobody can say, so it is named
        if learnt:
            found.append(name)
    return found


def _without_scores(log: VerdictLog, patients: Collection[str], cases: Collection[str]) -> None:
    with log.turn():
        lines, found = log.lines(), False
        for line in lines:
            scores = line.get("verdict", {}).get("scores", [])
            kept = [s for s in scores if s["patient"] not in patients and s["case"] not in cases]
            if len(kept) < len(scores):
                line["verdict"]["scores"], found = kept, True
        if found:
            write_durably(log.path, b"".join(json.dumps(line).encode() + b"\n" for line in lines))


def _checkpoint(home: Path, model: str) -> Path:
    return home / "learner" / f"{model}.checkpoint"


def _trusted(home: Path, model: str) -> Path:
    return home / "learner" / f"{model}.trusted"
