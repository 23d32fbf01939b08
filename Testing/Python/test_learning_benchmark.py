"""The benchmark of continual learning goes on where it was killed, case by case, and its tables say what it kept."""

import sys
from pathlib import Path

import pytest
from InteractiveLearningLib.learner import Learner
from InteractiveLearningLib.replay import ReplayStore
from RefSegLib.training.cases import pair_cases
from RefSegLib.volume.io import write_image, write_labels

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import learning_arms
import learning_data
import learning_tables
from tiny_learning import SPEC, an_image

KILLED = RuntimeError("killed")


@pytest.fixture
def balls(tmp_path, monkeypatch):
    for seed in range(6):
        image, labels = an_image(seed)
        for folder, write, what in (("images", write_image, image), ("labels", write_labels, labels)):
            (tmp_path / folder).mkdir(exist_ok=True)
            write(what, tmp_path / folder / f"head{seed}.nii.gz")
    cases = pair_cases(tmp_path / "images", tmp_path / "labels")
    monkeypatch.setattr(learning_data, "OUT", tmp_path / "out")
    monkeypatch.setattr(learning_tables, "OUT", tmp_path / "out")
    monkeypatch.setitem(learning_arms.SETTINGS, "balls", {"rate": 0.01, "iterations": 3})
    monkeypatch.setattr(learning_arms, "VALIDATION_PATIENTS", 1)
    test = cases[5:]
    return learning_data.Set(SPEC, cases[:1], cases[1:4], cases[4:5], test, [c.name for c in test], (1, 1))


def killed_at(turn: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The learner of the `turn`-th case raises before it learns."""
    work, turns = Learner.work, []

    def until(self, *args):
        turns.append(1)
        if len(turns) == turn:
            self.close()
            raise KILLED
        return work(self, *args)

    monkeypatch.setattr(Learner, "work", until)


def test_an_arm_that_was_killed_goes_on_with_the_case_it_was_at(balls, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        killed_at(2, patch)
        learning_arms.run_arm(balls, "full system")
    folder = learning_arms.arm_folder(balls, "full system")
    assert [row["case"] for row in learning_arms.rows(folder)] == ["head1"]
    assert not learning_arms.finished(balls, "full system")
    learning_arms.run_arm(balls, "full system")
    rows = learning_arms.rows(folder)
    assert [row["case"] for row in rows] == ["head1", "head2", "head3"]
    assert [row["role"] for row in rows] == ["train", "validation", "train"]
    replay = ReplayStore(folder / "home")
    assert [c.id for c in replay.cases(SPEC.name)] == [row["id"] for row in rows], "nothing was accepted twice"
    replay.close()
    assert learning_arms.finished(balls, "full system")


def test_tables_tell_every_arm_its_verdicts_and_what_is_missing(balls):
    learning_arms.run_arm(balls, "full masks")
    learning_arms.run_offline(balls)
    text = learning_tables.tables([balls])
    assert "Not finished: full system (0 of 3 cases), no replay (0 of 3 cases)" in text
    row = next(line for line in text.splitlines() if line.startswith("| full masks | 0."))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    offline = float(text.split("Offline: ")[1].split(" ")[0])
    live, newest = float(cells[2]), float(cells[3])
    assert float(cells[4]) == pytest.approx(100 * (live - offline), abs=0.02)
    assert float(cells[5]) == pytest.approx(100 * (newest - offline), abs=0.02)
    gate = next(line for line in text.splitlines() if line.startswith("| full masks |") and " of " in line)
    counts = [int(cell) for cell in gate.split("|")[2:6]]
    assert sum(counts) >= 2, "two cases train, and each has a verdict"
