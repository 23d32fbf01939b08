"""Both panels, driven by events as a person would, on the stand-in for Slicer; pictures of them for people."""

import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import shiboken6
import slicer
from InteractiveLearningSlicerLib.checks import addCase
from RefSegLib.errors import BadInput
from RefSegLib.jobs import Job, Segmented
from RefSegLib.models.spec import Label
from RefSegLib.volume.volume import LabelMap, Volume
from RefSegSlicerLib import mrml, packages
from RefSegSlicerLib.checks import FLIPPED, MOVE, addVolume
from slicer_standin import application

ROOT = Path(__file__).parents[2]
pytest_plugins = ("slicer_standin.fixtures",)
pytestmark = pytest.mark.usefixtures("an_empty_scene", "no_swallowed_exceptions")


@pytest.fixture(scope="module")
def a_home(tmp_path_factory):
    """A store with a tiny model of random weights."""
    from benchmarks.tiny_learning import an_untrained_version

    home = tmp_path_factory.mktemp("home")
    an_untrained_version(home)
    return home


@pytest.fixture
def settings(a_home, tmp_path, monkeypatch):
    """The application's settings name that store; sessions of other tests are out of sight."""
    monkeypatch.setattr(slicer.app, "temporaryPath", str(tmp_path))
    slicer.app.settings().setValue(packages.STORE_KEY, str(a_home))
    yield slicer.app.settings()
    slicer.app.settings().clear()


def opened(name):
    return application.open_module(name, ROOT / name)


def closed(widget):
    """Delete a panel now: Python would do so at any time, even while its selectors answer to the scene."""
    widget.cleanup()
    shiboken6.delete(widget.parent)


@pytest.fixture
def a_segmentation_panel(an_empty_scene, settings):
    """The panel of RefSeg Segmentation."""
    widget = opened("RefSegSlicer")
    yield widget
    closed(widget)


@pytest.fixture
def a_learning_panel(an_empty_scene, settings):
    """The panel of Interactive Learning."""
    widget = opened("InteractiveLearning")
    yield widget
    closed(widget)


def picture(widget, name):
    """What the panel looks like now, as a file for people."""
    folder = Path(os.environ.get("REFSEG_SCREENSHOTS", ROOT / "out" / "screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    widget.parent.resize(420, widget.parent.sizeHint().height())
    widget.parent.show()
    slicer.app.processEvents()
    assert widget.parent.grab().save(str(folder / f"{name}.png"))
    widget.parent.hide()


def until(true, seconds=60):
    """Let the application run until something is true."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        slicer.app.processEvents()
        time.sleep(0.01)
    assert true()


class Gate:
    """A runner whose job waits until it is let through, and then finds one label, in doubt at its border."""

    def __init__(self, error=None):
        self.open, self.error = threading.Event(), error

    def segment(self, volume, model, *, reflect=None, roi=None, suspect=False):
        self.asked = {"model": model, "reflect": reflect, "roi": roi}
        stopped = threading.Event()

        def work(report, cancelled):
            report(0.4, "Looking for the region")
            while not self.open.wait(0.01):
                if stopped.is_set():
                    raise BadInput("stopped")
            if self.error:
                raise self.error
            array = np.zeros(volume.grid.shape, np.uint8)
            array[3:6, 3:6, 3:6] = 1
            label = {"name": "bright", "milliliters": 1.25}
            names = (Label(value=1, name="bright", color=(1, 0, 0)),)
            labels = LabelMap(array, volume.grid)
            if not suspect:
                return Segmented(labels, names, {"images": [{"labels": [label], "regions": []}]})
            told = {"estimated_dice": {"1": 0.88}, "estimated_interval": {"1": [0.83, 0.92]}}
            said = "First mask kept: no other candidate scores higher by more than 0.020 (first 0.81, best other 0.80)."
            region = {"side": None, "labels": {"1": "bright"}, "reflection": told, "said": said}
            doubt = Volume(np.where(array, np.float32(0.2), np.float32(0.8)), volume.grid)
            return Segmented(labels, names, {"images": [{"labels": [label], "regions": [region]}]}, doubt)

        return Job(work, stopped.set)

    def close(self):
        """Nothing to end."""


# RefSeg Segmentation


def test_segment_can_be_pressed_only_with_a_volume_and_says_why(a_segmentation_panel, an_empty_scene):
    ui = a_segmentation_panel.ui
    assert not ui.segmentButton.enabled and ui.segmentButton.toolTip == "Choose a volume."
    assert ui.statusLabel.text == "Choose a volume."
    assert ui.modelSelector.currentText == "balls" and "bright, dim" in ui.modelLabel.text
    picture(a_segmentation_panel, "segmentation-1-start")
    ui.volumeSelector.setCurrentNode(addVolume(an_empty_scene, FLIPPED))
    assert ui.segmentButton.enabled and ui.statusLabel.text == ""
    assert not ui.cancelButton.enabled


def test_a_volume_is_segmented_with_progress_while_the_panel_lives(a_segmentation_panel, an_empty_scene):
    widget, ui = a_segmentation_panel, a_segmentation_panel.ui
    widget.logic.runner = Gate()
    ui.volumeSelector.setCurrentNode(addVolume(an_empty_scene, FLIPPED, parent=MOVE))
    ui.reflectBox.checked = False
    ui.segmentButton.click()
    until(lambda: ui.progressBar.value == 40)
    assert ui.statusLabel.text == "Looking for the region"
    assert ui.cancelButton.enabled and not ui.segmentButton.enabled and not ui.inputs.enabled
    assert widget.logic.runner.asked == {"model": "balls", "reflect": False, "roi": None}
    picture(widget, "segmentation-2-running")
    widget.logic.runner.open.set()
    until(lambda: widget.job is None)
    node = ui.outputSelector.currentNode()
    assert mrml.segmentArray(node, "RefSeg_bright", ui.volumeSelector.currentNode()).sum() == 27
    assert ui.statusLabel.text == "bright: 1.25 ml"
    assert ui.segmentButton.enabled and ui.inputs.enabled and not widget._timer.active
    picture(widget, "segmentation-3-done")


def test_what_reflection_found_is_told_and_shown(a_segmentation_panel, an_empty_scene):
    widget, ui = a_segmentation_panel, a_segmentation_panel.ui
    view = an_empty_scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    volume = addVolume(an_empty_scene, FLIPPED, parent=MOVE)
    view.SetBackgroundVolumeID(volume.GetID())
    ui.volumeSelector.setCurrentNode(volume)
    assert not ui.doubtBox.enabled and not ui.doubtBox.checked and "Segment the volume" in ui.doubtBox.toolTip
    widget.logic.runner = Gate()
    widget.logic.runner.open.set()
    counts = []
    for _ in range(2):
        ui.segmentButton.click()
        until(lambda: widget.job is None)
        counts.append(an_empty_scene.GetNumberOfNodes())
    assert counts[0] == counts[1]
    first, second = ui.statusLabel.text.splitlines()
    assert first == "bright: probably good, Dice 0.88 (0.83 to 0.92), 1.25 ml"
    assert second.startswith("Reflection: First mask kept")
    assert view.GetForegroundVolumeID() is None and ui.doubtBox.enabled
    ui.doubtBox.click()
    node = widget.logic.doubtNode(volume)
    assert view.GetForegroundVolumeID() == node.GetID() and "red" in ui.doubtBox.toolTip
    assert ui.statusLabel.text.startswith("bright: probably good")  # showing it says nothing new
    picture(widget, "segmentation-6-doubt")
    ui.segmentButton.click()
    until(lambda: widget.job is None)
    assert view.GetForegroundVolumeID() == node.GetID()
    ui.doubtBox.click()
    assert view.GetForegroundVolumeID() is None
    ui.doubtBox.click()
    ui.reflectBox.checked = False
    ui.segmentButton.click()
    until(lambda: widget.job is None)
    assert widget.logic.doubtNode(volume) is None and view.GetForegroundVolumeID() is None
    assert ui.statusLabel.text == "bright: 1.25 ml"


def test_cancel_stops_and_says_so(a_segmentation_panel, an_empty_scene):
    widget, ui = a_segmentation_panel, a_segmentation_panel.ui
    widget.logic.runner = Gate()
    ui.volumeSelector.setCurrentNode(addVolume(an_empty_scene, FLIPPED))
    ui.segmentButton.click()
    ui.cancelButton.click()
    assert widget.job is None and ui.statusLabel.text == "Cancelled." and ui.segmentButton.enabled
    assert ui.outputSelector.currentNode() is None


def test_errors_are_told_in_the_panel(a_segmentation_panel, an_empty_scene):
    widget, ui = a_segmentation_panel, a_segmentation_panel.ui
    widget.logic.runner = Gate(BadInput("The template does not match this image. Draw a region."))
    widget.logic.runner.open.set()
    ui.volumeSelector.setCurrentNode(addVolume(an_empty_scene, FLIPPED))
    ui.segmentButton.click()
    until(lambda: widget.job is None)
    assert ui.statusLabel.text == "The template does not match this image. Draw a region."
    ui.volumeSelector.setCurrentNode(addVolume(an_empty_scene, FLIPPED, np.ones(FLIPPED.shape, np.int16)))
    ui.segmentButton.click()
    assert widget.job is None and "same value in every voxel" in ui.statusLabel.text
    picture(widget, "segmentation-4-error")
    ui.volumeSelector.setCurrentNode(None)
    assert ui.statusLabel.text == "Choose a volume."


def test_the_real_engine_is_reached_through_the_panel(a_segmentation_panel, an_empty_scene):
    widget, ui = a_segmentation_panel, a_segmentation_panel.ui
    ui.volumeSelector.setCurrentNode(addVolume(an_empty_scene, FLIPPED, parent=MOVE))
    ui.reflectBox.checked = False
    ui.segmentButton.click()
    until(lambda: widget.job is None, 200)
    assert "bright: " in ui.statusLabel.text, ui.statusLabel.text
    assert ui.outputSelector.currentNode().GetSegmentation().GetNumberOfSegments() == 2


def test_closing_the_scene_in_the_middle_leaves_nothing_running(a_segmentation_panel, an_empty_scene):
    widget, ui = a_segmentation_panel, a_segmentation_panel.ui
    widget.logic.runner = Gate()
    threads = threading.active_count()
    ui.volumeSelector.setCurrentNode(addVolume(an_empty_scene, FLIPPED))
    ui.reflectBox.checked = False
    ui.segmentButton.click()
    an_empty_scene.Clear(0)
    assert widget.job is None and not widget._timer.active and threading.active_count() == threads
    assert ui.statusLabel.text == "Choose a volume." and not ui.segmentButton.enabled and ui.inputs.enabled
    assert ui.reflectBox.checked and ui.modelSelector.currentText == "balls"
    ui.volumeSelector.setCurrentNode(addVolume(an_empty_scene, FLIPPED))
    assert ui.segmentButton.enabled
    widget._parameterNode.reflect = False
    assert not ui.reflectBox.checked


def test_an_empty_store_and_missing_packages_are_explained(an_empty_scene, tmp_path, monkeypatch, settings):
    monkeypatch.setattr(packages, "missingPackages", lambda file: ["pydantic>=2.9"])
    widget = opened("RefSegSlicer")
    assert not widget.ui.installButton.isHidden() and "Press Install" in widget.ui.statusLabel.text
    assert "pydantic" in widget.ui.installButton.toolTip
    picture(widget, "segmentation-5-install")
    monkeypatch.undo()
    widget.ui.installButton.click()
    assert widget.ui.installButton.isHidden() and widget.ui.modelSelector.currentText == "balls"
    widget.cleanup()


def test_missing_packages_are_found_without_importing_them(tmp_path):
    file = tmp_path / "requirements.txt"
    file.write_text("# comment\nnumpy>=1.0\nno-such-package-at-all>=3\nnumpy>=999\n")
    assert packages.missingPackages(file) == ["no-such-package-at-all>=3", "numpy>=999"]


def test_slicer_without_its_own_installer_is_asked_through_pip_after_a_question(tmp_path, monkeypatch):
    import sys

    file = tmp_path / "requirements.txt"
    file.write_text("no-such-package-at-all>=3\n")
    asked, installed = [], []
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    monkeypatch.delattr(slicer, "packaging")
    monkeypatch.setattr(slicer.util, "pip_install", installed.append)
    assert not packages.installPackages(file, asked.append)
    assert not installed and "no-such-package-at-all" in asked[0]
    assert packages.installPackages(file, lambda question: True)
    assert installed == ['"no-such-package-at-all>=3"']


def test_a_python_of_the_settings_starts_without_slicers_libraries(settings, monkeypatch):
    assert packages.environment() is None
    settings.setValue(packages.PYTHON_KEY, "/opt/engine/bin/python")
    import qt

    before_slicer = qt.QProcessEnvironment()
    before_slicer.insert("PATH", "/usr/bin")
    monkeypatch.setattr(slicer.app, "startupEnvironment", lambda: before_slicer)
    assert packages.python() == "/opt/engine/bin/python" and packages.environment() == {"PATH": "/usr/bin"}


# Interactive Learning


def started(widget, scene):
    """A session that a person has begun."""
    volume, segmentation, inside = addCase(scene)
    volume.SetName("patient12_visit2")
    segmentation.GetSegmentation().GetSegment("ball").SetName("bright")
    widget.ui.volumeSelector.setCurrentNode(volume)
    widget.ui.segmentationSelector.setCurrentNode(segmentation)
    widget.ui.startButton.click()
    assert widget.logic.session is not None, widget.ui.statusLabel.text
    middle = tuple(np.argwhere(inside)[inside.sum() // 2].tolist())
    return volume, segmentation, middle


def test_a_session_needs_a_volume_and_segments_and_says_why(a_learning_panel, an_empty_scene):
    ui = a_learning_panel.ui
    assert not ui.startButton.enabled and ui.startButton.toolTip == "Choose a volume."
    assert not ui.corrections.enabled
    picture(a_learning_panel, "learning-1-start")
    ui.volumeSelector.setCurrentNode(addVolume(an_empty_scene, FLIPPED))
    assert "Choose or create a segmentation" in ui.startButton.toolTip
    ui.segmentationSelector.addNode()
    assert ui.startButton.enabled
    ui.startButton.click()
    assert "has no segments" in ui.statusLabel.text and a_learning_panel.logic.session is None


def placed():
    """The markup that the mouse sets down."""
    selection = slicer.app.applicationLogic().GetSelectionNode()
    return slicer.mrmlScene.GetNodeByID(selection.GetActivePlaceNodeID())


def test_clicks_undo_and_next_slice_through_the_panel(a_learning_panel, an_empty_scene):
    widget, ui = a_learning_panel, a_learning_panel.ui
    volume, segmentation, middle = started(widget, an_empty_scene)
    assert ui.patientEdit.text == "patient12"
    assert not ui.undoButton.enabled and not ui.inputs.enabled
    ui.pointsButton.click()
    interaction = slicer.app.applicationLogic().GetInteractionNode()
    assert interaction.GetCurrentInteractionMode() == interaction.Place and ui.pointsButton.checked
    placed().AddControlPointWorld(*mrml.worldFromIndex(middle, volume), "")
    slicer.app.processEvents()
    assert mrml.segmentArray(segmentation, "ball", volume)[middle]
    assert ui.undoButton.enabled and "positive click for bright" in ui.undoButton.toolTip
    ui.nextButton.click()
    assert len(ui.statusLabel.text) > 20
    ui.undoButton.click()
    assert not mrml.segmentArray(segmentation, "ball", volume).any()
    assert ui.redoButton.enabled and not ui.undoButton.enabled
    ui.redoButton.click()
    ui.axisSelector.setCurrentIndex(0)
    assert (ui.firstSliceBox.value, ui.lastSliceBox.value) == (0, volume.GetImageData().GetDimensions()[2] - 1)
    ui.firstSliceBox.setValue(middle[0])
    ui.lastSliceBox.setValue(middle[0])
    ui.limitsButton.click()
    found = mrml.segmentArray(segmentation, "ball", volume)
    assert found[middle[0]].any() and found.sum() == found[middle[0]].sum()
    ui.endButton.click()
    assert widget.logic.session is None and not ui.corrections.enabled and ui.inputs.enabled
    assert interaction.GetCurrentInteractionMode() != interaction.Place


def test_every_tool_has_a_button_that_is_down_while_it_is_in_hand(a_learning_panel, an_empty_scene):
    widget, ui = a_learning_panel, a_learning_panel.ui
    started(widget, an_empty_scene)
    buttons = {name: getattr(ui, f"{name}Button") for name in ("points", "scribble", "lasso", "curve", "box")}
    for name, button in buttons.items():
        button.click()
        assert [other for other, b in buttons.items() if b.checked] == [name] == [widget.logic.tools.tool]
        signed = name not in ("curve", "box")
        assert ui.insideButton.enabled is signed is ui.outsideButton.enabled
        assert ("inside of their own" in ui.insideButton.toolTip) is not signed
    buttons["scribble"].click()
    ui.outsideButton.click()
    assert widget.logic.tools.positive is False and ui.outsideButton.checked and not ui.insideButton.checked
    buttons["scribble"].click()
    assert widget.logic.tools.tool is None and not buttons["scribble"].checked
    buttons["lasso"].click()
    slicer.app.applicationLogic().GetInteractionNode().SwitchToViewTransformMode()  # a right click
    slicer.app.processEvents()
    assert not buttons["lasso"].checked
    buttons["points"].click()
    widget.exit()
    assert not buttons["points"].checked


def test_limits_are_asked_for_first_and_proposed(a_learning_panel, an_empty_scene):
    widget, ui = a_learning_panel, a_learning_panel.ui
    volume, segmentation, inside = addCase(an_empty_scene)
    slicer.util.updateSegmentBinaryLabelmapFromArray(inside.astype(np.uint8), segmentation, "ball", volume)
    view = an_empty_scene.AddNewNodeByClass("vtkMRMLSliceNode")
    ui.volumeSelector.setCurrentNode(volume)
    ui.segmentationSelector.setCurrentNode(segmentation)
    ui.startButton.click()
    axis = ui.axisSelector.currentIndex
    slices = np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))
    assert (ui.firstSliceBox.value, ui.lastSliceBox.value) == (slices[0], slices[-1])
    plane = widget.logic.planes()[axis][0]
    assert f"'ball' seems to lie in the {plane} slices {slices[0]} to {slices[-1]}" in ui.statusLabel.text
    assert ui.axisSelector.currentText == f"{plane} slices"
    picture(widget, "learning-2-limits")
    ui.firstSliceBox.setValue(slices[1])
    origin = slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())[:3, 3]
    assert mrml.indexFromWorld(origin, volume)[axis] == pytest.approx(slices[1], abs=1e-3)
    an_empty_scene.RemoveNode(view)
    ui.limitsButton.click()
    found = mrml.segmentArray(segmentation, "ball", volume)
    assert np.flatnonzero(found.any(axis=tuple({0, 1, 2} - {axis}))).tolist() == slices[1:].tolist()
    ui.segmentSelector.setCurrentIndex(1)
    assert "Where does 'rest' begin and end?" in ui.statusLabel.text
    assert ui.lastSliceBox.value == widget.logic.planes()[ui.axisSelector.currentIndex][1] - 1


def test_painting_enters_the_session_by_itself_and_the_estimate_is_shown(a_learning_panel, an_empty_scene):
    widget, ui = a_learning_panel, a_learning_panel.ui
    volume, segmentation, inside = addCase(an_empty_scene)
    ui.volumeSelector.setCurrentNode(volume)
    ui.segmentationSelector.setCurrentNode(segmentation)
    ui.startButton.click()
    assert "Not known yet" in ui.qualityLabel.text
    assert not ui.confirmButton.enabled and ui.confirmButton.toolTip == "Press Next slice first."
    painted = np.zeros_like(inside)
    painted[[5, 7, 9]] = inside[[5, 7, 9]]
    slicer.util.updateSegmentBinaryLabelmapFromArray(painted.astype(np.uint8), segmentation, "ball", volume)
    until(lambda: "painted slices are outlines" in ui.statusLabel.text, 5)
    assert "3 painted" in ui.statusLabel.text and len(widget.logic.session.prompts()) == 3
    assert mrml.segmentArray(segmentation, "ball", volume)[6].any()
    assert "Estimated Dice from the outlined slices: " in ui.qualityLabel.text
    assert "each predicted from the others" in ui.qualityLabel.text
    ui.nextButton.click()
    assert "slice" in ui.statusLabel.text and ui.confirmButton.enabled
    picture(widget, "learning-3-session")
    count = len(widget.logic.session.prompts())
    mask = mrml.segmentArray(segmentation, "ball", volume)
    index, axis = widget.corrections._suggestion.index, widget.corrections._suggestion.axis
    ui.confirmButton.click()
    outline = widget.logic.session.prompts()[count]
    assert (outline.axis, outline.index) == (axis, index)
    assert np.array_equal(outline.mask, mask.take(index, axis)) and not ui.confirmButton.enabled
    ui.undoButton.click()
    ui.undoButton.click()
    assert not widget.logic.session.prompts() and not mrml.segmentArray(segmentation, "ball", volume).any()


def test_a_locked_segment_says_why_nothing_can_be_drawn_in_it(a_learning_panel, an_empty_scene):
    widget, ui = a_learning_panel, a_learning_panel.ui
    volume, segmentation, middle = started(widget, an_empty_scene)
    ui.scribbleButton.click()
    ui.lockedBox.click()
    assert widget.logic.tools.tool is None
    for button in (ui.pointsButton, ui.scribbleButton, ui.boxButton, ui.limitsButton):
        assert not button.enabled and "This segment is locked" in button.toolTip
    picture(widget, "learning-4-locked")
    ui.segmentSelector.setCurrentIndex(1)
    assert not ui.lockedBox.checked and ui.pointsButton.enabled and "Click points" in ui.pointsButton.toolTip
    ui.segmentSelector.setCurrentIndex(0)
    assert ui.lockedBox.checked
    ui.lockedBox.click()
    assert ui.pointsButton.enabled
    widget.logic.click(mrml.worldFromIndex(middle, volume), True)
    assert mrml.segmentArray(segmentation, "ball", volume)[middle]


def test_the_log_is_exported_for_an_audit(a_learning_panel, an_empty_scene, tmp_path, monkeypatch):
    import qt

    widget, ui = a_learning_panel, a_learning_panel.ui
    volume, _, middle = started(widget, an_empty_scene)
    widget.logic.click(mrml.worldFromIndex(middle, volume), True)
    file = tmp_path / "log.json"
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *asked: "")
    ui.exportButton.click()
    assert not list(tmp_path.glob("*.json"))
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *asked: str(file))
    ui.exportButton.click()
    assert str(file) in ui.statusLabel.text
    assert json.loads(file.read_text()) == json.loads(json.dumps(widget.logic.session.export_log()))
    assert "click" in file.read_text()
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *asked: str(tmp_path))
    ui.exportButton.click()
    assert "could not be written" in ui.statusLabel.text


def test_what_is_known_of_earlier_sessions_is_told(a_learning_panel, an_empty_scene):
    widget, ui = a_learning_panel, a_learning_panel.ui
    volume, _, middle = started(widget, an_empty_scene)
    widget.logic.click(mrml.worldFromIndex(middle, volume), True)
    ui.endButton.click()
    ui.startButton.click()
    assert "said in earlier sessions is known (1 times)" in ui.statusLabel.text
    assert not ui.undoButton.enabled


def test_an_accepted_case_is_kept_and_the_learner_started(a_learning_panel, an_empty_scene, a_home):
    from InteractiveLearningLib.replay import ReplayStore

    widget, ui = a_learning_panel, a_learning_panel.ui
    volume, _, middle = started(widget, an_empty_scene)
    ui.acceptButton.click()
    assert "None of the segments has a mask" in ui.statusLabel.text
    widget.logic.click(mrml.worldFromIndex(middle, volume), True)
    ui.patientEdit.text = ""
    assert not ui.acceptButton.enabled and "Name the patient" in ui.acceptButton.toolTip
    ui.patientEdit.text = "12"
    ui.acceptButton.click()
    assert widget.logic.session is None and "Accepted" in ui.statusLabel.text
    replay = ReplayStore(a_home)
    assert len(replay.cases("balls")) == 1
    replay.close()
    assert ui.versionsList.item(0).text() == "1 (active)" and not ui.rollBackButton.enabled
    until(widget.logic.learning.learnerRuns, 200)
    picture(widget, "learning-5-accepted")


def test_a_click_outside_is_told_in_the_panel(a_learning_panel, an_empty_scene):
    started(a_learning_panel, an_empty_scene)
    a_learning_panel.logic.clickNodes[True].AddControlPointWorld(900, 900, 900, "")
    slicer.app.processEvents()
    assert "click inside of it" in a_learning_panel.ui.statusLabel.text


def test_closing_the_scene_ends_the_session_and_starting_again_goes_on(a_learning_panel, an_empty_scene):
    widget, ui = a_learning_panel, a_learning_panel.ui
    volume, _, middle = started(widget, an_empty_scene)
    widget.logic.click(mrml.worldFromIndex(middle, volume), True)
    an_empty_scene.Clear(0)
    assert widget.logic.session is None and not ui.corrections.enabled and not ui.startButton.enabled
    volume, segmentation, _ = started(widget, an_empty_scene)
    assert "goes on" in ui.statusLabel.text
    assert mrml.segmentArray(segmentation, "ball", volume)[middle]


@pytest.mark.parametrize("name", ["RefSegSlicer", "InteractiveLearning"])
def test_a_module_that_is_reloaded_leaves_no_observer_timer_node_or_thread(an_empty_scene, settings, name):
    opened(name).cleanup()  # the singleton parameter node, which every module keeps, is there from now on
    nodes, threads = an_empty_scene.GetNumberOfNodes(), threading.active_count()
    parameters = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
    for _ in range(3):
        widget = opened(name)
        if name == "InteractiveLearning":
            volume, segmentation, _middle = started(widget, an_empty_scene)
        widget.cleanup()
        assert not widget._timer.active and not widget.Observations
        if name == "InteractiveLearning":
            for node in (segmentation.GetDisplayNode(), segmentation, volume.GetParentTransformNode(), volume):
                an_empty_scene.RemoveNode(node)
    assert an_empty_scene.GetNumberOfNodes() == nodes and threading.active_count() == threads
    assert slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode") == parameters
    addVolume(an_empty_scene, FLIPPED)  # an observer that was left behind would speak to a dead panel here
    an_empty_scene.Clear(0)
