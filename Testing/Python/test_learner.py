"""The learner learns accepted cases, publishes what is better, and resumes where it was stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from InteractiveLearningLib.learner import Learner, read_status
from InteractiveLearningLib.learning import LearningSettings, _finished, learn, samples_of
from InteractiveLearningLib.replay import ReplayStore
from RefSegLib.errors import Cancelled, RefSegError
from RefSegLib.inference.segmenter import load_segmenter
from RefSegLib.models.spec import Network, Region, TemplateBox
from RefSegLib.models.store import ModelStore
from RefSegLib.progress import Progress
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import LabelMap

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from tiny_learning import SPEC, a_ball_case, an_image, an_untrained_version

FAST = LearningSettings(iterations=40, rate=0.02, patience=200, checkpoint=5)


def unheard(loss: float) -> None:
    assert np.isfinite(loss)


def accept(home: Path, count: int, first: int = 0, **changes) -> list[str]:
    replay = ReplayStore(home)
    return [replay.accept(a_ball_case(f"p{n}", n, **changes)) for n in range(first, first + count)]


def test_a_stream_of_cases_makes_a_better_model_live(tmp_path):
    start = an_untrained_version(tmp_path)
    accept(tmp_path, 4)
    learner = Learner(tmp_path, "balls", FAST)
    verdicts = learner.work()
    assert [v.outcome for v in verdicts].count("published") >= 1 and verdicts[0].after > verdicts[0].before + 0.2
    store = ModelStore(tmp_path)
    live = store.load("balls", store.active("balls"))
    assert live.version != start.version and live.manifest.parent is not None
    mine, parents = live.synthesizer(), start.synthesizer()
    assert mine.keys() == parents.keys() and all(np.array_equal(mine[name], parents[name]) for name in mine)
    trained = {c.id for c in ReplayStore(tmp_path).cases("balls", "train")}
    assert set(live.manifest.data["cases"]) <= trained and live.manifest.data["case"] in trained
    assert learner.work() == [] and learner.pending() == []
    learner.close()


def test_a_validation_case_is_never_learnt_from(tmp_path):
    an_untrained_version(tmp_path)
    accept(tmp_path, 2)
    learner = Learner(tmp_path, "balls", replace(FAST, iterations=2))
    train, validation = (ReplayStore(tmp_path).cases("balls", role)[0] for role in ("train", "validation"))
    assert [c.id for c in learner.pending()] == [train.id]
    verdicts = learner.work()
    assert [v.case for v in verdicts] == [train.id] and verdicts[0].missing == 1
    assert validation.id not in {c for v in ModelStore(tmp_path).versions("balls") for c in used(tmp_path, v)}
    learner.close()


def used(home: Path, version: str) -> list[str]:
    return ModelStore(home).load("balls", version).manifest.data.get("cases", [])


def test_a_candidate_that_waited_is_judged_once_enough_patients_validate(tmp_path):
    an_untrained_version(tmp_path)
    accept(tmp_path, 3)
    learner = Learner(tmp_path, "balls", FAST)
    waited = learner.work()
    assert [v.outcome for v in waited] == ["waiting", "waiting"]
    accept(tmp_path, 1, first=3)
    judged = learner.work()
    assert [v.outcome for v in judged] == ["published"] and judged[0].candidate == waited[-1].candidate
    learner.close()


def test_after_a_rollback_learning_goes_on_from_what_a_person_chose(tmp_path):
    start = an_untrained_version(tmp_path)
    accept(tmp_path, 4)
    learner = Learner(tmp_path, "balls", FAST)
    learner.work()
    store = ModelStore(tmp_path)
    # Published or close behind, what was learned last is gone on from; which of the two depends on rounding.
    assert learner._head().version != start.version
    store.activate("balls", start.version)
    assert learner._head().version == start.version
    learner.close()


def test_drawn_slices_are_taken_as_they_are_and_the_rest_is_mixed_with_what_the_model_said(tmp_path):
    segmenter = load_segmenter(an_untrained_version(tmp_path))
    confidence = np.full((16, 16, 16), 0.5, np.float32)
    case = a_ball_case("p", 1, confidence=confidence, annotated=((0, 8),))
    (sample,) = samples_of(case, SPEC, segmenter, FAST)
    hot = np.moveaxis(np.eye(3)[case.labels.array], -1, 0)
    np.testing.assert_allclose(sample.target[:, 8], hot[:, 8], atol=1e-6)
    elsewhere = np.delete(sample.target - 0.7 * hot, 8, axis=1)
    assert elsewhere.min() >= -1e-6 and elsewhere.max() <= 0.3 + 1e-5 and elsewhere.std() > 0.01
    np.testing.assert_allclose(sample.target.sum(0), 1, atol=1e-4)
    assert (sample.weight[8] == 1.0).all() and (np.delete(sample.weight, 8, 0) == 0.5).all()
    (full,) = samples_of(a_ball_case("p", 1), SPEC, segmenter, FAST)
    np.testing.assert_allclose(full.target, hot, atol=1e-6)


def test_a_case_on_an_oblique_grid_is_learnt_where_it_lies(tmp_path, a_grid):
    segmenter = load_segmenter(an_untrained_version(tmp_path))
    image, labels = an_image(3, Grid((18, 18, 18), (1, 1, 1), a_grid.direction, a_grid.origin))
    (sample,) = samples_of(a_ball_case("p", 0, image=image, labels=labels), SPEC, segmenter, FAST)
    found, values = sample.target.argmax(0), sample.image[0]
    assert 0.9 < (found > 0).sum() / (labels.array > 0).sum() < 1.1
    assert values[found == 1].mean() > values[found == 2].mean() + 0.1 > values[found == 0].mean() + 0.2


def test_padding_around_the_image_teaches_nothing(tmp_path):
    image, labels = an_image(3)
    region = labels.grid.crop((-4, 0, 0), (12, 16, 16))
    small = a_ball_case("p", 0, image=image, labels=labels)
    box = TemplateBox(lower=(0, 0, 0), upper=(1, 1, 1))
    spec = SPEC.model_copy(update={"region": Region(kind="template", template="t", boxes=(box,), whole_below=1.0)})
    segmenter = load_segmenter(an_untrained_version(tmp_path))
    with pytest.MonkeyPatch.context() as patch:
        from InteractiveLearningLib import learning

        patch.setattr(learning, "find_regions", lambda image, spec: [learning.RegionOfInterest(region)])
        (sample,) = samples_of(small, spec, segmenter, FAST)
    assert (sample.weight[:4] == 0).all() and (sample.weight[5:] > 0).all()


def test_half_a_step_is_the_mean_of_the_version_before_and_what_was_learnt(tmp_path):
    version, case = an_untrained_version(tmp_path), ("x", a_ball_case("p", 1))
    whole, half = (
        learn(version, case, [], replace(FAST, iterations=3, step=step), tmp_path / f"{step}", unheard).weights
        for step in (1.0, 0.5)
    )
    before = version.segmenter()
    assert any(np.abs(whole[name] - before[name]).max() > 1e-4 for name in before)
    for name in before:
        np.testing.assert_allclose(half[name], (before[name] + whole[name]) / 2, atol=1e-6)


def test_the_share_says_how_much_of_what_is_seen_is_new(tmp_path):
    version = an_untrained_version(tmp_path)
    new, old = a_ball_case("new", 1), a_ball_case("old", 2)
    only_old, only_new, alone = (
        learn(version, ("x", new), replayed, replace(FAST, iterations=3, share=share), tmp_path / f"{n}", unheard)
        for n, (share, replayed) in enumerate(((0.0, [old]), (1.0, [old]), (0.0, [])))
    )
    assert only_new.losses == alone.losses, "without earlier cases everything is new"
    assert only_old.losses != only_new.losses


def test_a_full_mask_is_learnt_as_it_is_and_a_proxy_mixed_with_the_model(tmp_path):
    case = a_ball_case("p", 1, confidence=np.ones((16, 16, 16), np.float32), annotated=((0, 8),))
    hot = np.moveaxis(np.eye(3)[case.labels.array], -1, 0)
    (alone,) = samples_of(case, SPEC, None, FAST)
    np.testing.assert_allclose(alone.target, hot, atol=1e-6)
    (mixed,) = samples_of(case, SPEC, load_segmenter(an_untrained_version(tmp_path)), FAST)
    assert np.abs(mixed.target - hot).max() > 0.1


def test_with_doubt_a_proxy_counts_less_where_the_model_is_sure_of_something_else(tmp_path):
    case = a_ball_case("p", 1, confidence=np.ones((16, 16, 16), np.float32), annotated=((0, 8),))

    class Empty:
        """A model that is sure there is nothing."""

        spec = SPEC

        def logits(self, patches):
            found = np.zeros((len(patches), 3, *patches.shape[2:]), np.float32)
            found[:, 0] = 8
            return found

    (plain,) = samples_of(case, SPEC, Empty(), FAST)
    (doubted,) = samples_of(case, SPEC, Empty(), replace(FAST, doubt=True))
    structure = case.labels.array > 0
    drawn = np.zeros_like(structure)
    drawn[8] = True
    assert np.array_equal(doubted.weight[drawn], plain.weight[drawn])
    assert (doubted.weight[structure & ~drawn] < 0.6 * plain.weight[structure & ~drawn]).all()
    assert (doubted.weight[~structure & ~drawn] > 0.9 * plain.weight[~structure & ~drawn]).all()
    np.testing.assert_allclose(doubted.target, plain.target)
    (full,) = samples_of(a_ball_case("p", 1), SPEC, Empty(), replace(FAST, doubt=True))
    assert (full.weight == 1).all()


def test_a_version_records_how_it_was_learnt(tmp_path):
    an_untrained_version(tmp_path)
    (identifier,) = accept(tmp_path, 1)
    learner = Learner(tmp_path, "balls", FAST)
    (verdict,) = learner.work()
    learner.close()
    manifest = ModelStore(tmp_path).load("balls", verdict.candidate).manifest
    first, last = manifest.settings["loss"]
    assert manifest.settings["done"] == 40 and manifest.settings["rate"] == FAST.rate and last < first
    assert manifest.data == {"case": identifier, "cases": [identifier]} and manifest.parent == "balls@1"


def test_batch_statistics_stay_those_of_training(tmp_path):
    spec = SPEC.model_copy(
        update={"network": Network(name="unet", arguments={"filters": [4, 8, 8], "norm": "batch"}), "name": "bn"}
    )
    version = an_untrained_version(tmp_path, spec=spec)
    learnt = learn(
        version, ("x", a_ball_case("p", 1, model="bn")), [], replace(FAST, iterations=3), tmp_path / "c", unheard
    )
    before = version.segmenter()
    running = [name for name in before if "running_" in name]
    assert running and all(np.array_equal(before[name], learnt.weights[name]) for name in running)
    assert any(not np.array_equal(before[name], learnt.weights[name]) for name in before)


def test_learning_that_was_stopped_goes_on_where_it_was(tmp_path):
    version, case = an_untrained_version(tmp_path), ("x", a_ball_case("p", 1))
    heard: list[float] = []
    with pytest.raises(Cancelled):
        learn(version, case, [], FAST, tmp_path / "c", heard.append, Progress(cancelled=lambda: len(heard) == 12))
    again: list[float] = []
    learnt = learn(version, case, [], FAST, tmp_path / "c", again.append)
    assert again[:12] == heard and len(learnt.losses) == 40
    other: list[float] = []
    learn(version, ("y", case[1]), [], replace(FAST, iterations=3), tmp_path / "c", other.append)
    assert len(other) == 3


def test_learning_stops_when_the_loss_no_longer_falls_or_time_is_up():
    settings = LearningSettings(iterations=1000, patience=20, warm_up=0, seconds=60)
    falling = list(np.linspace(2, 1, 100))
    assert not _finished(falling, 1, settings)
    assert _finished([*falling, *[1.0] * 40], 1, settings)
    assert _finished(falling, 61, settings) and not _finished([], 61, settings)
    assert _finished([1.0] * 1000, 1, replace(settings, patience=600))


def test_a_case_outside_of_what_the_model_labels_is_skipped_with_a_reason(tmp_path):
    an_untrained_version(tmp_path)
    labels = an_image(0)[1]
    other = LabelMap(np.where(labels.array > 0, 3, 0).astype(np.uint8), labels.grid)
    accept(tmp_path, 1, labels=other, label_names=("a", "b", "c"))
    learner = Learner(tmp_path, "balls", FAST)
    (verdict,) = learner.work()
    assert verdict.outcome == "skipped" and "no label" in verdict.reason and learner.work() == []
    learner.close()


def test_a_damaged_case_is_skipped_and_the_next_one_learnt(tmp_path):
    an_untrained_version(tmp_path)
    first, _, third = accept(tmp_path, 3)
    for file in ReplayStore(tmp_path).files(first):
        file.write_bytes(b"damaged")
    learner = Learner(tmp_path, "balls", replace(FAST, iterations=2))
    verdicts = learner.work()
    assert [(v.case, v.outcome) for v in verdicts] == [(first, "skipped"), (third, "waiting")]
    assert f"case {first} is damaged" in verdicts[0].reason
    learner.close()


def test_forgetting_a_patient_names_the_versions_that_learnt_from_it_and_their_children(tmp_path):
    start = an_untrained_version(tmp_path)
    accept(tmp_path, 3)
    learner = Learner(tmp_path, "balls", replace(FAST, iterations=2))
    made = [f"balls@{v.candidate}" for v in learner.work()]
    assert ReplayStore(tmp_path).forget("p0") == made
    assert f"balls@{start.version}" not in made
    learner.close()


def test_a_case_forgotten_while_it_is_learnt_leaves_no_version(tmp_path):
    start = an_untrained_version(tmp_path)
    accept(tmp_path, 1)
    learner, replay = Learner(tmp_path, "balls", FAST), ReplayStore(tmp_path)
    gone: list[list[str]] = []
    listening = Progress(lambda fraction, message: gone or gone.append(replay.forget("p0")))
    assert learner.work(listening) == [] and gone == [[]]
    assert ModelStore(tmp_path).versions("balls") == [start.version] and not learner.checkpoint.exists()
    learner.close()


def test_two_learners_of_one_model_do_not_work_at_once(tmp_path):
    an_untrained_version(tmp_path)
    first = Learner(tmp_path, "balls")
    with pytest.raises(RefSegError, match="already at work"):
        Learner(tmp_path, "balls")
    first.close()
    Learner(tmp_path, "balls").close()


def a_process(home: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "InteractiveLearningLib.learner", "--store", str(home), "--model", "balls", *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def test_the_process_leaves_on_sigterm_and_goes_on_from_its_checkpoint(tmp_path):
    an_untrained_version(tmp_path)
    accept(tmp_path, 1)
    process = a_process(tmp_path, "--iterations", "100000", "--seconds", "600")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and ((status := read_status(tmp_path, "balls")) is None or status.iteration < 25):
        time.sleep(0.05)
    assert status is not None and status.state == "learning" and status.pid == process.pid
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    state = torch.load(tmp_path / "learner" / "balls.checkpoint", weights_only=True)
    assert len(state["losses"]) >= 20 and ModelStore(tmp_path).versions("balls") == ["1"]


def test_the_process_says_in_one_line_what_a_person_can_mend(tmp_path):
    process = a_process(tmp_path, "--once")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2 and "balls" in said and "Traceback" not in said


def test_the_status_is_whole_json_for_panels(tmp_path):
    an_untrained_version(tmp_path)
    accept(tmp_path, 1)
    learner = Learner(tmp_path, "balls", replace(FAST, iterations=3))
    (verdict,) = learner.work()
    learner.close()
    status = json.loads((tmp_path / "learner" / "balls.json").read_text())
    assert status["iteration"] == 3 and len(status["losses"]) == 3 and status["verdict"]["outcome"] == "waiting"
    assert verdict.reason == status["message"]
