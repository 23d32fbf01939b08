"""Both panels, driven by events as a person would, on the stand-in for Slicer; pictures of them for people."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import shiboken6
import slicer
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


@pytest.mark.parametrize("name", ["RefSegSlicer"])
def test_a_module_that_is_reloaded_leaves_no_observer_timer_node_or_thread(an_empty_scene, settings, name):
    opened(name).cleanup()  # the singleton parameter node, which every module keeps, is there from now on
    nodes, threads = an_empty_scene.GetNumberOfNodes(), threading.active_count()
    parameters = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
    for _ in range(3):
        widget = opened(name)
        widget.cleanup()
        assert not widget._timer.active and not widget.Observations
    assert an_empty_scene.GetNumberOfNodes() == nodes and threading.active_count() == threads
    assert slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode") == parameters
    addVolume(an_empty_scene, FLIPPED)  # an observer that was left behind would speak to a dead panel here
    an_empty_scene.Clear(0)
