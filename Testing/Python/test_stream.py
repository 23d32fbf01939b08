"""Case after case: segmented, outlined on a few slices, accepted, learnt, published."""

import sys
from pathlib import Path

import numpy as np
import pytest
from InteractiveLearningLib.learning import LearningSettings
from InteractiveLearningLib.replay import ReplayStore
from InteractiveLearningLib.stream import ordered, run_stream
from RefSegLib.errors import BadInput
from RefSegLib.models.store import ModelStore
from RefSegLib.training.cases import pair_cases
from RefSegLib.volume.io import write_image, write_labels

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from tiny_learning import NAMES, an_image, an_untrained_version


@pytest.fixture
def cases(tmp_path):
    for seed in range(5):
        image, labels = an_image(seed)
        for folder, write, what in (("images", write_image, image), ("labels", write_labels, labels)):
            (tmp_path / folder).mkdir(exist_ok=True)
            write(what, tmp_path / folder / f"head{seed}.nii.gz")
    return pair_cases(tmp_path / "images", tmp_path / "labels")


def test_a_stream_makes_a_random_network_useful(cases, tmp_path):
    home = tmp_path / "home"
    start = an_untrained_version(home)
    replay = ReplayStore(home, validation_patients=1)
    settings = LearningSettings(iterations=40, rate=0.02, patience=200)
    report = run_stream(ModelStore(home), "balls", cases, limit=2, budget=0, settings=settings, replay=replay)
    first, second = report["cases"]
    assert [first["case"], second["case"]] == [case.name for case in ordered(cases, "hash")[:2]]
    assert first["version"] == start.version and report["summary"]["active"] != start.version
    assert first["before"].keys() == set(NAMES)
    assert all(value == 1.0 for value in first["after"].values()), "the full mask was accepted"
    assert [verdict["outcome"] for verdict in first["verdicts"]] == ["waiting"], "nobody validates yet"
    (verdict,) = second["verdicts"]
    assert verdict["outcome"] == "published" and verdict["after"] > verdict["before"] + 0.3
    assert report["summary"]["verdicts"] == {"published": 1, "refused": 0, "waiting": 1, "skipped": 0}


def test_a_few_outlines_correct_the_model_and_cost_less_than_all(cases, tmp_path):
    an_untrained_version(tmp_path / "home")
    settings = LearningSettings(iterations=1)
    report = run_stream(ModelStore(tmp_path / "home"), "balls", cases, limit=1, budget=3, settings=settings)
    (row,) = report["cases"]
    assert min(row["after"].values()) > max(row["before"].values()) and 0 < row["effort_share"] < 1
    (info,) = ReplayStore(tmp_path / "home").cases("balls")
    kept = ReplayStore(tmp_path / "home").load(info.id)
    assert len(info.annotated) == 3 and kept.region
    for axis, index in info.annotated:
        assert (np.take(kept.confidence, index, axis) == 1).all()


def test_an_order_is_by_hash_or_by_file_and_names_what_is_unknown(cases, tmp_path):
    names = [case.name for case in ordered(cases, "hash")]
    assert sorted(names) == [case.name for case in cases] and names != sorted(names)
    file = tmp_path / "order.txt"
    file.write_text("head3\n\nhead1\n")
    assert [case.name for case in ordered(cases, str(file))] == ["head3", "head1"]
    file.write_text("head3\nhead9\n")
    with pytest.raises(BadInput, match="head9"):
        ordered(cases, str(file))
    with pytest.raises(BadInput, match="neither"):
        ordered(cases, "sideways")
