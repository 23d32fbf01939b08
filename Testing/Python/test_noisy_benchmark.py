"""The benchmark of wrong masks tests on true ones, shows what it measured, and names what it has not."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import noisy_arms
import noisy_tables
from noisy_arms import CLEAN, PLAIN, Job, jobs


@pytest.fixture
def two_dozen_lungs(monkeypatch):
    """Patients of every role, with two discs for lungs."""
    from RefSegLib.training.split import split_of
    from xray_data import Picture

    rng = np.random.default_rng(0)
    mask = np.hypot(*(np.mgrid[:48, :48] - 24)) < 14
    pictures = [
        Picture(f"JP{n:03d}", (mask + rng.normal(0, 0.1, (48, 48))).astype(np.float32), mask) for n in range(24)
    ]
    assert {split_of(p.name) for p in pictures} == {"train", "validation", "test"}
    monkeypatch.setattr(noisy_arms, "lungs", lambda site, size: pictures)
    monkeypatch.setitem(noisy_arms.EPOCHS, "lungs", 2)


def test_masks_that_train_and_validate_are_wrong_and_those_that_test_are_not(two_dozen_lungs):
    job = Job("lungs", 0.5, "mixed", PLAIN)
    for role in ("train", "validation"):
        data = noisy_arms.pictures(job, role)
        wrong = sum(
            (given[0] > 0).tobytes() != truth.tobytes() for given, truth in zip(data.given, data.truth, strict=True)
        )
        assert wrong == round(0.5 * len(data.names))
    test = noisy_arms.pictures(job, "test")
    assert all(np.array_equal(given[0] > 0, truth) for given, truth in zip(test.given, test.truth, strict=True))


def test_an_arm_measures_what_the_tables_show_and_the_rest_is_named(two_dozen_lungs, tmp_path):
    results = tmp_path / "results.jsonl"
    for job in (Job("lungs", 0.0, "mixed", CLEAN), Job("lungs", 0.5, "mixed", "both")):
        with results.open("a") as file:
            file.write(json.dumps({"key": job.key} | noisy_arms.run(job)) + "\n")
    with results.open("a") as file:
        file.write('{"key": "half a li')
    found = noisy_tables.read(results)
    assert len(found) == 2
    text = noisy_tables.tables(found)
    assert f"| both | {100 * found[job.key]['test']:.1f} |\n" in text
    assert "| plain | not measured |\n" in text
    assert "lungs 50% mixed, plain, seed 0" in text.split("Not finished: ")[1] and "Vessels" not in text


def test_the_set_of_few_images_has_few_that_train_and_all_others(two_dozen_lungs, monkeypatch):
    monkeypatch.setattr(noisy_arms, "FEWER", 5)
    few, all_ = (
        {role: noisy_arms.pictures(Job(name, 0.5, "too small", PLAIN), role) for role in ("train", "test")}
        for name in (noisy_arms.FEW, "lungs")
    )
    assert len(few["train"].names) == 5 < len(all_["train"].names)
    assert few["test"].names == all_["test"].names
    assert sum(one.changed.any() for one in few["train"].noise) == round(0.5 * 5)
    assert {one.kind for one in all_["train"].noise} == {"", "erosion", "missing"}


def test_every_arm_is_planned_once():
    keys = [job.key for job in jobs()]
    assert len(keys) == len(set(keys))
