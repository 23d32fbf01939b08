"""The sections of learning and of kept cases, driven by events as a person would, with real services and learners."""

import json
import shutil
import time
from pathlib import Path

import psutil
import pytest
import slicer
from benchmarks.tiny_learning import a_ball_case, an_untrained_version
from InteractiveLearningLib.learner import Learner
from InteractiveLearningLib.learning import LearningSettings
from InteractiveLearningLib.replay import ReplayStore
from InteractiveLearningLib.service.accounts import Accounts, Role
from InteractiveLearningLib.service.local import LocalService
from InteractiveLearningLib.service.site import SiteService
from InteractiveLearningLib.verdicts import VerdictLog
from RefSegLib.models.store import ModelStore
from running_service import RunningService

pytest_plugins = ("slicer_standin.fixtures", "learning_panel")
pytestmark = pytest.mark.usefixtures("an_empty_scene", "no_swallowed_exceptions", "hurried_learners")


def pid_of(home):
    """The service that runs on a store; None if none does."""
    try:
        return json.loads((home / "service" / "local.json").read_bytes())["pid"]
    except (OSError, ValueError):
        return None


def ended(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def soon(true, seconds=120):
    """Wait until something is true, without letting the application run."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture(scope="module")
def a_learnt_home(tmp_path_factory):
    """A store in which four cases were accepted and learnt."""
    home = tmp_path_factory.mktemp("learnt")
    an_untrained_version(home)
    replay = ReplayStore(home)
    for n, site in enumerate(("north", "north", "", "south")):
        replay.accept(a_ball_case(f"p{n}", n, site=site))
    replay.close()
    learner = Learner(home, "balls", LearningSettings(iterations=40, rate=0.02, patience=200))
    learner.work()
    learner.close()
    return home


@pytest.fixture
def home(a_learnt_home, tmp_path):
    """The same store, to be changed."""
    return Path(shutil.copytree(a_learnt_home, tmp_path / "home"))


def test_what_was_accepted_is_learnt_and_judged_while_the_panel_tells_even_if_the_service_is_killed(
    opened, tmp_path, an_empty_scene
):
    an_untrained_version(tmp_path)
    replay = ReplayStore(tmp_path)
    for n in range(2):
        replay.accept(a_ball_case(f"p{n}", n))
    replay.close()
    panel = opened(LocalService(tmp_path)).show(learning=False)
    ui, logic = panel.ui, panel.logic
    logic.startLearner("balls")
    panel.until(lambda: logic.state)
    killed = pid_of(tmp_path)
    psutil.Process(killed).kill()
    panel.until(lambda: pid_of(tmp_path) not in (None, killed))  # folded, but there is something to learn
    panel.show()
    panel.until(lambda: ui.learnerLabel.text.startswith("Learning case 1 of 1: iteration "))
    assert "before the cases of 1 more patient are kept for validation" in ui.waitingLabel.text
    panel.until(lambda: ui.learnerProgress.value > 0 and ui.plotButton.enabled)
    ui.plotButton.click()
    (chart,) = slicer.util.getNodesByClass("vtkMRMLPlotChartNode")
    (series,) = slicer.util.getNodesByClass("vtkMRMLPlotSeriesNode")
    assert series.GetName() == "case at hand" and chart.GetTitle() == "Loss while balls learns"
    panel.picture("learning-panel-1-learning")
    assert not ui.rollBackButton.enabled and "No other version" in ui.rollBackButton.toolTip
    panel.until(lambda: "Nothing is left to learn. Cases that were learnt: 1." in ui.learnerLabel.text)
    panel.until(lambda: len(panel.rows("versionsTable")) == 2)
    assert [row[0] for row in panel.rows("versionsTable")] == ["2", "1"]
    assert [row[3] for row in panel.rows("versionsTable")] == ["not judged yet", "active"]
    assert [series.GetName() for series in slicer.util.getNodesByClass("vtkMRMLPlotSeriesNode")] == ["version 2"]
    ui.versionsTable.selectRow(0)
    assert "Nothing is published yet: one more patient is needed" in ui.detailsText.plainText
    panel.picture("learning-panel-2-waiting")
    pid = pid_of(tmp_path)
    panel.close()
    soon(lambda: ended(pid))
    assert pid_of(tmp_path) is None


def test_versions_are_shown_with_scores_and_reasons_one_is_chosen_and_rolled_back_from(opened, home):
    panel = opened(LocalService(home)).show()
    ui, store = panel.ui, ModelStore(home)
    verdicts = {verdict.candidate: verdict for verdict in VerdictLog(home, "balls").verdicts()}
    panel.until(lambda: panel.rows("versionsTable"))
    versions, active = store.versions("balls")[::-1], store.active("balls")
    assert [row[0] for row in panel.rows("versionsTable")] == versions
    for number, _made, score, state in panel.rows("versionsTable"):
        verdict = verdicts.get(number)
        assert state == ("active" if number == active else verdict.outcome if verdict else "added")
        if verdict is not None:
            assert score == f"{verdict.after:.3f} ({verdict.after - verdict.before:+.3f})"
    assert not ui.useButton.enabled and ui.useButton.toolTip == "Select a version."
    row = versions.index(active)
    ui.versionsTable.selectRow(row)
    assert verdicts[active].reason in ui.detailsText.plainText
    for name, (before, after) in verdicts[active].structures.items():
        assert f"{name}: {before:.3f} → {after:.3f}" in ui.detailsText.plainText
    assert not ui.useButton.enabled and "active already" in ui.useButton.toolTip
    ui.plotButton.click()
    (series,) = slicer.util.getNodesByClass("vtkMRMLPlotSeriesNode")
    assert series.GetName() == f"version {active}" and series.GetTableNode().GetTable().GetNumberOfRows() == 40
    panel.picture("learning-panel-3-versions")
    assert ui.rollBackButton.enabled and "Return to version" in ui.rollBackButton.toolTip
    other = len(versions) - 1 if row != len(versions) - 1 else 0
    ui.versionsTable.selectRow(other)
    assert ui.useButton.enabled
    ui.useButton.click()
    assert not ui.useButton.enabled and not ui.rollBackButton.enabled and "Wait" in ui.useButton.toolTip
    panel.until(lambda: panel.told)
    assert panel.told == [f"Version {versions[other]} is active now."] and store.active("balls") == versions[other]
    panel.until(lambda: panel.rows("versionsTable")[other][3] == "active")
    assert ui.versionsTable.currentRow() == other, "what was selected stays"
    panel.until(lambda: ui.rollBackButton.enabled)
    assert f"version {active}" in ui.rollBackButton.toolTip
    ui.rollBackButton.click()
    panel.until(lambda: len(panel.told) == 2)
    assert panel.told[1] == f"Version {active} is active again." and store.active("balls") == active
    slicer.mrmlScene.Clear(0)
    panel.learning.update()
    assert not ui.plotButton.checked, "the plot went with the scene"
    ui.plotButton.click()
    panel.learning.exit()
    assert not ui.plotButton.checked and not slicer.util.getNodesByClass("vtkMRMLPlotChartNode")


def test_somebody_who_was_faster_is_not_rolled_back(opened, home):
    panel = opened(LocalService(home)).show()
    panel.until(lambda: panel.ui.rollBackButton.enabled)
    store, version = ModelStore(home), ModelStore(home).load("balls")
    other = store.add(version.spec, version.segmenter()).version  # neither the one in use nor the one before
    panel.logic.watched.clear()  # nothing is heard of it
    panel.until(lambda: panel.logic._look is None)
    store.activate("balls", other)
    panel.ui.rollBackButton.click()
    panel.until(lambda: panel.told)
    assert "Somebody else was faster" in panel.told[0] and store.active("balls") == other


def test_what_is_kept_is_shown_checked_and_a_patient_is_forgotten_after_a_second_press(opened, home, monkeypatch):
    from InteractiveLearningSlicerLib import kept_cases

    monkeypatch.setattr(kept_cases, "HASTE_SECONDS", 1e9)
    panel = opened(LocalService(home)).show(learning=False, kept=True)
    ui, store = panel.keptUi, ReplayStore(home)
    panel.until(lambda: panel.rows("keptTable"))
    train = len(store.cases("balls", "train"))
    assert f"Kept to learn from: {train} (patients: {train})" in ui.keptLabel.text
    assert "no limit" in ui.keptLabel.text and ui.damagedLabel.isHidden()
    assert {row[0] for row in panel.rows("keptTable")} == {
        "all",
        "bright",
        "dim",
        "site north",
        "site south",
        "without a site",
    }
    panel.picture("replay-panel-1-kept")
    taught = store.cases("balls", "train")[0]
    (patient,) = (f"p{n}" for n in range(4) if store.patient_key(f"p{n}") == taught.patient)
    broken = store.cases("balls", "validation")[0]
    store.files(broken.id)[0].write_bytes(b"x")
    ui.checkButton.click()
    assert not ui.checkButton.enabled and "Checking" in ui.checkButton.text
    panel.until(lambda: panel.told)
    assert "Damaged: 1" in ui.damagedLabel.text and broken.id[:8] in ui.damagedLabel.text
    assert not ui.forgetButton.enabled and "Write the name" in ui.forgetButton.toolTip
    ui.forgetEdit.text = patient
    panel.until(lambda: ui.forgetButton.enabled)
    ui.forgetButton.click()
    assert "Press again to confirm" in ui.forgetLabel.text and ui.forgetButton.text == "Forget for good"
    panel.picture("replay-panel-2-asked")
    ui.forgetButton.click()
    assert not panel.logic.acting, "a double click is no confirmation"
    ui.forgetEdit.text = patient + "x"
    assert ui.forgetButton.text == "Forget this patient" and ui.forgetLabel.text == ""
    monkeypatch.setattr(kept_cases, "CONFIRM_SECONDS", -1.0)
    ui.forgetButton.click()
    panel.replay.poll()
    assert ui.forgetLabel.text == "" and ui.forgetButton.text == "Forget this patient", "time is up"
    monkeypatch.setattr(kept_cases, "CONFIRM_SECONDS", 1e9)
    monkeypatch.setattr(kept_cases, "HASTE_SECONDS", 0.0)
    for name in (patient + "x", patient):
        ui.forgetEdit.text = name
        ui.forgetButton.click()
        ui.forgetButton.click()
        assert panel.logic.acting and not ui.forgetButton.enabled
        panel.until(lambda: not panel.logic.acting)
        if name != patient:
            assert "No case of this patient is kept" in ui.forgetLabel.text and len(store.cases("balls")) == 4
    assert taught.id not in {case.id for case in store.cases("balls")} and ui.forgetEdit.text == ""
    assert "Removed for good: 1 case." in ui.forgetLabel.text and "balls@2" in ui.forgetLabel.text
    panel.until(lambda: f"Kept to learn from: {train - 1} " in ui.keptLabel.text)
    panel.picture("replay-panel-3-forgotten")
    ui.forgetEdit.text = "somebody"
    panel.replay.close()
    assert ui.forgetEdit.text == ui.forgetLabel.text == "", "no name stays in the panel"
    store.close()


def test_at_a_site_everybody_sees_but_not_everybody_may(opened, home):
    accounts = Accounts(home)
    accounts.add("ann", Role.ANNOTATOR)
    running = RunningService(home).start()
    try:
        panel = opened(SiteService(running.url, accounts.give_token("ann"))).show(kept=True)
        ui, kept = panel.ui, panel.keptUi
        panel.until(lambda: panel.rows("versionsTable") and panel.rows("keptTable"))
        ui.versionsTable.selectRow(len(panel.rows("versionsTable")) - 1)
        kept.forgetEdit.text = "p0"
        for button in (ui.rollBackButton, ui.useButton, kept.forgetButton, kept.checkButton):
            assert not button.enabled and "As annotator you may not" in button.toolTip, button.name
        panel.picture("learning-panel-4-annotator")
        failed = []
        panel.logic.forget("p0").failed.connect(failed.append)
        panel.until(lambda: failed)
        assert "As annotator you may not forget" in str(failed[0])
        assert len(ReplayStore(home).cases("balls")) == 4
        panel.service.connected()._transport.patience = 0
        running.kill()
        panel.logic.refresh("balls")
        panel.until(lambda: panel.logic.trouble)
        assert "Nothing answers at" in ui.learnerLabel.text and panel.rows("versionsTable"), "what was known stays"
    finally:
        if running.process.poll() is None:
            running.end()


def test_a_python_that_cannot_learn_is_told_where_the_learner_would_be(opened, home):
    panel = opened(LocalService(home, "/no/python")).show()
    panel.until(lambda: "could not be started" in panel.ui.learnerLabel.text)
    assert "is kept" in panel.ui.learnerLabel.text and not panel.ui.rollBackButton.enabled
    panel.logic.startLearner("balls")
    failed = []
    panel.logic.failed.connect(failed.append)
    panel.until(lambda: failed)
    panel.picture("learning-panel-5-trouble")


def test_nothing_is_asked_while_nothing_is_shown(opened, home):
    panel = opened(LocalService(home)).show(learning=False)
    waited = []
    for _ in range(20):
        panel.until(lambda: waited.append(1) or True)
    panel.show(kept=True)
    panel.learning.exit()
    panel.replay.exit()
    panel.until(lambda: True)
    assert panel.logic.model == "balls" and not panel.logic.state and pid_of(home) is None
    assert not panel.service.asked


def test_without_a_model_the_panel_says_so_and_nothing_can_be_pressed(opened):
    panel = opened(None, "").show(kept=True)
    assert panel.ui.learnerLabel.text == "Choose a model." == panel.keptUi.keptLabel.text
    for button in (panel.ui.rollBackButton, panel.ui.useButton, panel.ui.plotButton, panel.keptUi.forgetButton):
        assert not button.enabled and len(button.toolTip) > 8
    panel.picture("learning-panel-6-empty")


STATE = {
    "status": None,
    "running": False,
    "held": False,
    "trouble": None,
    "cases": 5,
    "pending": 0,
    "missing": 0,
    "newest": "4",
}
LEARNING = {"state": "learning", "iteration": 40, "iterations": 150}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "Nothing is left to learn. Cases that were learnt: 5."),
        ({"running": True, "status": {"state": "idle"}}, "Nothing is left to learn. Cases that were learnt: 5."),
        ({"cases": 0}, "Nothing has been accepted for this model yet."),
        ({"pending": 2}, "Accepted cases that wait: 2. Learning begins by itself."),
        ({"pending": 3, "running": True}, "The learner starts."),
        (
            {"pending": 3, "running": True, "status": LEARNING},
            "Learning case 3 of 5: iteration 40 of at most 150.",
        ),
        (
            {"pending": 3, "running": True, "status": LEARNING | {"iteration": 0}},
            "Learning case 3 of 5: preparing.",
        ),
        (
            {"pending": 3, "running": True, "held": True, "status": LEARNING},
            "Learning is held for a moment: somebody is working with an image.",
        ),
        (
            {"pending": 1, "running": True, "status": {"state": "validating"}},
            "Version 4 is compared with the active one.",
        ),
        (
            {"pending": 1, "trouble": "The disk is full."},
            "Learning could not go on: The disk is full. It is tried again by itself.",
        ),
    ],
)
def test_what_the_learner_does_is_said_in_a_sentence(changes, said):
    from InteractiveLearningSlicerLib import learning_words

    assert learning_words.learner(STATE | changes, "", "") == said


def test_cases_that_could_not_be_learnt_are_told_with_the_reason():
    from InteractiveLearningSlicerLib import learning_words

    verdicts = [{"outcome": "skipped", "reason": f"Case {n} holds no label."} for n in range(2)]
    told = learning_words.waiting(STATE | {"verdicts": verdicts, "missing": 2})
    assert told.startswith("Cases that could not be learnt: 2. The last of them: Case 1 holds no label.")
    assert "before the cases of 2 more patients are kept for validation" in told
    assert "Cases that wait: 2." in learning_words.waiting(STATE | {"running": True, "pending": 3})
    assert learning_words.waiting({}) == ""


def test_sizes_and_long_lists_are_short_for_people():
    from InteractiveLearningSlicerLib import learning_words

    sizes = [learning_words.size(count) for count in (0, 1500, 999_499, 12_345_678, 5 * 10**9)]
    assert sizes == ["0 kB", "1.5 kB", "999 kB", "12.3 MB", "5 GB"]
    many = [{"case": f"{n:032x}", "accepted": "2026-01-02T03:04:05+00:00"} for n in range(50)]
    assert learning_words.lost([]) == "" and " and 30 more" in learning_words.lost(many)
    result = {"cases": 2, "versions": [f"balls@{n}" for n in range(1, 50)]}
    told = learning_words.forgotten(result, "balls", "3")
    assert " and 29 more" in told and "Version 3 is active and among them" in told
    assert "No version had learnt" in learning_words.forgotten({"cases": 2, "versions": []}, "balls", "3")
