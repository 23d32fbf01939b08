"""The worklist in Slicer: images become volumes exactly, cases are opened, decided and left, from all three sources."""

from slicer_standin.fixtures import picture  # isort: skip  # starts the stand-in, which the others need

import json
import shutil
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shiboken6
import slicer
from benchmarks.tiny_learning import an_untrained_version
from InteractiveLearningLib.replay import ReplayStore
from InteractiveLearningLib.reviews import ReviewLog
from InteractiveLearningLib.service.accounts import Accounts, Role
from InteractiveLearningLib.service.client import Client
from InteractiveLearningSlicerLib import cases as cases_module
from InteractiveLearningSlicerLib import worklist as worklist_module
from InteractiveLearningSlicerLib.volumes import Image, volumeToNode
from InteractiveLearningSlicerLib.worklist_section import WorklistSection
from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.io import read_image, write_image
from RefSegLib.volume.volume import Volume
from RefSegSlicerLib import connection, mrml, provenance, settings
from RefSegSlicerLib.checks import OBLIQUE, addVolume
from running_service import RunningService

ROOT = Path(__file__).parents[2]
UI = ROOT / "InteractiveLearning" / "Resources" / "UI" / "InteractiveLearningWorklist.ui"
pytest_plugins = ("slicer_standin.fixtures",)
pytestmark = pytest.mark.usefixtures("an_empty_scene", "no_swallowed_exceptions")
GRID, PLAIN = OBLIQUE, Grid((12, 14, 16))


def voxels(grid, seed=0, dtype=np.int16):
    return np.random.default_rng(seed).integers(0, 900, grid.shape).astype(dtype)


def until(true, seconds=60):
    """Let the application run until something is true."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        slicer.app.processEvents()
        time.sleep(0.01)
    assert true()


# An image as a volume node


@pytest.mark.parametrize("dtype", ["int16", "uint8", "float32", "float64"])
def test_an_image_becomes_a_volume_node_exactly(an_empty_scene, a_grid, dtype):
    volume = Volume(voxels(a_grid, dtype=dtype), a_grid)
    node = volumeToNode(Image(volume), an_empty_scene, "case")
    again = mrml.volumeFromNode(node)
    assert again.grid.same_as(a_grid, 1e-9) and np.array_equal(again.array, volume.array)
    assert again.array.dtype == volume.array.dtype and node.GetName() == "case"
    display = node.GetDisplayNode()
    assert not display.GetAutoWindowLevel()
    assert 0.95 * np.ptp(volume.array) < display.GetWindow() <= np.ptp(volume.array)


@pytest.mark.parametrize(
    ("dtype", "value", "held"),
    [("bool", 1, "uint8"), ("float16", 2, "float32"), ("int64", 7, "int32"), ("int64", 2**40, "float64")],
)
def test_voxels_that_nodes_do_not_hold_are_converted_without_loss(an_empty_scene, dtype, value, held):
    array = np.zeros(GRID.shape, dtype)
    array[3, 4, 5] = value
    node = volumeToNode(Image(Volume(array, GRID)), an_empty_scene, "case")
    found = slicer.util.arrayFromVolume(node)
    assert found.dtype == held and found[3, 4, 5] == value and np.count_nonzero(found) == 1


def test_color_flat_and_moving_images_are_refused_with_a_sentence(tmp_path):
    with pytest.raises(BadInput, match="only one channel"):
        Image(Volume(np.zeros((3, *GRID.shape), np.uint8), GRID))
    flat = Grid((1, 9, 9), planar=True)
    with pytest.raises(BadInput, match="flat"):
        Image(Volume(np.zeros((1, 9, 9), np.uint8), flat))
    import SimpleITK as sitk

    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5, 6, 7), np.int16), isVector=False), str(tmp_path / "4d.nii"))
    with pytest.raises(BadInput, match="4D"):
        read_image(tmp_path / "4d.nii")


# The section


class Panel:
    """The section as the module will have it, and what it tells."""

    def __init__(self, scene, home, openService):
        self.scene, self.said, self.opened, self.why = scene, [], [], ""
        self.widget = slicer.util.loadUI(str(UI))
        self.ui = slicer.util.childWidgetVariables(self.widget)
        self.section = WorklistSection(
            self.ui,
            scene,
            home,
            openService,
            lambda node, case: self.opened.append((node, case)),
            lambda: self.why,
            self.guarded,
            self.said.append,
        )
        import qt

        self.timer = qt.QTimer()
        self.timer.setInterval(20)
        self.timer.connect("timeout()", self.section.poll)
        self.timer.start()

    def guarded(self, work):
        try:
            return work()
        except RefSegError as error:
            self.said.append(str(error))

    def texts(self):
        return [self.ui.casesList.item(n).text() for n in range(self.ui.casesList.count)]

    def until_opened(self, name):
        until(lambda: self.opened and self.opened[-1][1].name == name)
        return self.opened[-1][0]

    def idle(self):
        until(lambda: not (self.section.worklist.opening or self.section.worklist.listing))
        until(lambda: not (self.section.work.telling or self.section.worklist._telling))

    def volumes(self):
        return [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode", self.scene)]

    def close(self):
        self.timer.stop()
        self.section.close()
        shiboken6.delete(self.widget)


@contextmanager
def a_panel(scene, home, openService=None):
    panel = Panel(scene, home, openService)
    yield panel
    panel.close()


@pytest.fixture
def kept_settings(tmp_path):
    """Settings of this test alone."""
    slicer.app.settings().clear()
    yield tmp_path / "kept"
    slicer.app.settings().clear()


@pytest.fixture
def a_folder(tmp_path):
    """Three cases, oblique."""
    folder = tmp_path / "images"
    for seed, name in enumerate(("anna_visit1", "bert", "carl")):
        write_image(Volume(voxels(GRID, seed), GRID), folder / f"{name}.nii.gz")
    return folder


def chosen(panel, folder):
    panel.ui.worklist.collapsed = False
    panel.ui.folderEdit.currentPath = str(folder)
    until(lambda: panel.section.worklist is not None and panel.section.worklist.cases)


def segmented(panel, node, mask=None, model=None):
    """A segmentation of the open case with one segment."""
    segmentation = panel.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "masks")
    mrml.prepareSegmentation(segmentation, node)
    segmentation.GetSegmentation().AddEmptySegment("bright", "bright")
    if mask is not None:
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, "bright", node)
    if model:
        provenance.stamp(segmentation, {"model": model, "version": "1"})
    return segmentation


def test_before_a_source_is_chosen_every_button_says_why_not(an_empty_scene, kept_settings, a_folder):
    with a_panel(an_empty_scene, kept_settings) as panel:
        assert panel.ui.worklist.collapsed
        picture(panel.widget, "worklist-1-collapsed")
        panel.ui.worklist.collapsed = False
        for name in ("refreshButton", "openButton", "nextCaseButton", "skipButton", "rejectButton"):
            button = getattr(panel.ui, name)
            assert not button.enabled and button.toolTip == "Choose a folder of images."
        picture(panel.widget, "worklist-2-start")
        chosen(panel, a_folder)
        assert panel.texts() == ["anna_visit1", "bert", "carl"]
        assert panel.ui.worklistLabel.text == "0 of 3 cases decided."
        assert panel.ui.openButton.enabled and panel.ui.nextCaseButton.enabled
        assert panel.ui.skipButton.toolTip == "Open a case of the list first."


def test_a_folder_is_worked_through_and_goes_on_where_it_was(an_empty_scene, kept_settings, a_folder):
    before = {file: file.stat().st_mtime_ns for file in a_folder.iterdir()}
    with a_panel(an_empty_scene, kept_settings) as panel:
        chosen(panel, a_folder)
        panel.ui.nextCaseButton.click()
        assert not panel.ui.openButton.enabled and "being opened" in panel.ui.openButton.toolTip
        assert panel.ui.cancelLoadingButton.enabled
        node = panel.until_opened("anna_visit1")
        volume = mrml.volumeFromNode(node)
        assert volume.grid.same_as(GRID, 1e-4) and np.array_equal(volume.array[0], voxels(GRID, 0))
        assert panel.opened[-1][1].patient == "anna"
        assert slicer.app.applicationLogic().GetSelectionNode().GetActiveVolumeID() == node.GetID()
        segmented(panel, node, np.ones(GRID.shape, np.uint8))
        picture(panel.widget, "worklist-3-open")
        panel.section.accepted()
        panel.until_opened("bert")
        panel.idle()
        assert panel.volumes() == ["bert"]  # the store has the accepted one, so it may go
        assert not slicer.util.getNodesByClass("vtkMRMLSegmentationNode", an_empty_scene)
        panel.ui.skipButton.click()
        panel.until_opened("carl")
        panel.idle()
        assert panel.texts() == ["anna_visit1 (accepted)", "bert (skipped)", "carl (open)"]
        assert panel.ui.worklistLabel.text == "2 of 3 cases decided. Open: carl."
        picture(panel.widget, "worklist-4-going-on")
    assert {file: file.stat().st_mtime_ns for file in a_folder.iterdir()} == before
    slicer.mrmlScene.Clear(0)
    with a_panel(an_empty_scene, kept_settings) as panel:  # Slicer was closed and started again
        panel.ui.worklist.collapsed = False
        panel.section.enter()
        until(lambda: panel.section.worklist.cases)
        assert panel.texts() == ["anna_visit1 (accepted)", "bert (skipped)", "carl"]
        panel.ui.nextCaseButton.click()
        panel.until_opened("carl")
        panel.ui.nextBox.click()
        panel.section.accepted()
        panel.idle()
        assert panel.section.worklist.present.name == "carl" and len(panel.opened) == 1
        assert not panel.ui.nextCaseButton.enabled and "every case" in panel.ui.nextCaseButton.toolTip


def test_a_case_that_cannot_be_left_stays_and_the_reason_is_told(an_empty_scene, kept_settings, a_folder):
    with a_panel(an_empty_scene, kept_settings) as panel:
        chosen(panel, a_folder)
        panel.ui.nextCaseButton.click()
        panel.until_opened("anna_visit1")
        panel.why = "The last click is still being worked on."
        for name in ("nextCaseButton", "skipButton", "rejectButton", "openButton"):
            panel.ui.casesList.setCurrentRow(1)
            getattr(panel.ui, name).click()
            assert panel.said.pop() == panel.why and not panel.section.worklist.opening
        assert panel.texts() == ["anna_visit1 (open)", "bert", "carl"]
        panel.why = ""
        panel.ui.nextCaseButton.click()
        panel.why = "Something was drawn meanwhile."
        until(lambda: panel.ui.worklistLabel.text == panel.why)
        assert panel.volumes() == ["anna_visit1"]
        panel.why = ""
        panel.until_opened("bert")
        assert panel.volumes() == ["bert"]


def test_what_is_not_kept_anywhere_stays_in_the_scene(an_empty_scene, kept_settings, a_folder):
    with a_panel(an_empty_scene, kept_settings) as panel:
        chosen(panel, a_folder)
        other = addVolume(an_empty_scene, GRID)  # of the user
        panel.ui.nextCaseButton.click()
        drawn = segmented(panel, panel.until_opened("anna_visit1"), np.ones(GRID.shape, np.uint8))
        panel.ui.skipButton.click()
        segmented(panel, panel.until_opened("bert"))  # nothing is in it
        assert panel.volumes() == ["image", "anna_visit1", "bert"]
        assert drawn.GetScene() is not None and not drawn.GetDisplayNode().GetVisibility()
        panel.ui.skipButton.click()
        panel.until_opened("carl")
        panel.idle()
        assert panel.volumes() == ["image", "anna_visit1", "carl"] and other.GetScene() is not None
        panel.ui.casesList.setCurrentRow(0)
        panel.ui.openButton.click()
        until(lambda: len(panel.opened) == 4)
        assert panel.opened[-1][0] is panel.opened[0][0] and panel.volumes() == ["image", "anna_visit1"]
        an_empty_scene.Clear(0)
        until(lambda: panel.section.worklist.present is None)
        assert panel.texts() == ["anna_visit1 (skipped)", "bert (skipped)", "carl"]
        assert panel.ui.rejectButton.toolTip == "Open a case of the list first."


def test_a_damaged_image_is_told_and_the_next_one_can_be_opened(an_empty_scene, kept_settings, a_folder):
    (a_folder / "anna_visit1.nii.gz").write_bytes(b"no image")
    with a_panel(an_empty_scene, kept_settings) as panel:
        chosen(panel, a_folder)
        panel.ui.nextCaseButton.click()
        until(lambda: panel.said)
        assert "anna_visit1" in panel.said[-1] and panel.section.worklist.present is None
        picture(panel.widget, "worklist-5-damaged")
        panel.ui.nextCaseButton.click()
        panel.until_opened("bert")
        shutil.rmtree(a_folder)
        panel.ui.nextCaseButton.click()
        until(lambda: len(panel.said) == 2)
        assert "There is no file" in panel.said[-1] and panel.section.worklist.present.name == "bert"
        panel.ui.refreshButton.click()
        until(lambda: len(panel.said) == 3)
        assert "There is no folder" in panel.said[-1]


def test_opening_can_be_canceled(an_empty_scene, kept_settings, a_folder, monkeypatch):
    gate = threading.Event()
    reading = cases_module.FolderCases.load
    monkeypatch.setattr(cases_module.FolderCases, "load", lambda *given: gate.wait(20) and reading(*given))
    with a_panel(an_empty_scene, kept_settings) as panel:
        chosen(panel, a_folder)
        panel.ui.nextCaseButton.click()
        panel.ui.cancelLoadingButton.click()
        until(lambda: not panel.section.worklist.opening)
        gate.set()
        assert panel.said == [] and panel.opened == [] and panel.volumes() == []
        assert panel.ui.nextCaseButton.enabled


def test_the_volumes_of_the_scene_are_worked_through_where_they_are(an_empty_scene, kept_settings):
    with a_panel(an_empty_scene, kept_settings) as panel:
        panel.ui.worklist.collapsed = False
        panel.ui.sourceSelector.setCurrentIndex(1)
        until(lambda: panel.section.worklist is not None)
        assert not panel.ui.folderEdit.enabled and "A folder of images" in panel.ui.folderEdit.toolTip
        assert panel.ui.worklistLabel.text == "There are no cases here."
        first, second = (addVolume(an_empty_scene, grid) for grid in (GRID, PLAIN))
        first.SetName("first_T1"), second.SetName("second")
        an_empty_scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
        until(lambda: panel.texts() == ["first_T1", "second"])
        panel.ui.casesList.setCurrentRow(1)
        panel.ui.casesList.itemActivated.emit(panel.ui.casesList.item(1))
        assert panel.opened[-1][0] is second
        panel.ui.rejectButton.click()
        assert panel.opened[-1][0] is first and panel.opened[-1][1].patient == "first"
        assert second.GetScene() is not None and second.GetAttribute("RefSeg.Worklist") == "rejected"
        panel.section.accepted()
        assert panel.said[-1].startswith("That was the last case")
        assert panel.texts() == ["first_T1 (accepted, open)", "second (rejected)"]
        an_empty_scene.RemoveNode(first)
        until(lambda: panel.texts() == ["second (rejected)"])
        picture(panel.widget, "worklist-6-scene")


# In the panel


def test_cases_of_a_folder_are_corrected_accepted_and_followed_by_the_next(
    an_empty_scene, kept_settings, a_folder, tmp_path, monkeypatch
):
    from both_panels import OpenedPanel

    an_untrained_version(tmp_path / "home")
    settings.choose(settings.STORE_KEY, tmp_path / "home")
    settings.choose("RefSeg/WorklistFolder", a_folder)
    monkeypatch.setattr(slicer.app, "slicerUserSettingsFilePath", str(kept_settings / "Slicer.ini"))
    panel = OpenedPanel("InteractiveLearning", an_empty_scene)
    section, ui = panel.widget.worklist, panel.ui
    section.ui.worklist.collapsed = False
    until(lambda: section.worklist is not None and section.worklist.cases)
    section.ui.nextCaseButton.click()
    until(lambda: ui.volumeSelector.currentNode() is not None)
    volume = ui.volumeSelector.currentNode()
    assert volume.GetName() == "anna_visit1" and ui.patientEdit.text == "anna"
    ui.segmentationSelector.setCurrentNode(segmented(panel, volume, ball_in(volume)))
    panel.press("startButton")
    assert panel.widget.logic.session is not None, ui.statusLabel.text
    section.ui.skipButton.click()
    assert "session is open" in ui.statusLabel.text and volume.GetScene() is not None
    panel.press("acceptButton")
    until(lambda: ui.volumeSelector.currentNode() not in (None, volume))
    assert ui.volumeSelector.currentNode().GetName() == "bert" and ui.patientEdit.text == "bert"
    assert volume.GetScene() is None and not slicer.util.getNodesByClass("vtkMRMLSegmentationNode", an_empty_scene)
    until(lambda: not section.worklist._telling)
    assert [case.state for case in section.worklist.cases] == ["accepted", "todo", "todo"]
    assert len(ReplayStore(tmp_path / "home").cases("balls")) == 1
    picture(panel.widget, "worklist-8-in-the-panel")
    panel.close()
    assert len(list((kept_settings / "RefSegWorklists").iterdir())) == 1


def ball_in(volume):
    """A mask that is in some slices."""
    mask = np.zeros(slicer.util.arrayFromVolume(volume).shape, np.uint8)
    mask[3:6, 4:9, 3:8] = 1
    return mask


# The server


def test_this_computers_own_engine_has_no_worklist_and_is_not_started_for_one(an_empty_scene, kept_settings, tmp_path):
    settings.choose(settings.STORE_KEY, tmp_path / "home")
    with a_panel(an_empty_scene, kept_settings, connection.open_service) as panel:
        panel.ui.sourceSelector.setCurrentIndex(2)
        panel.ui.worklist.collapsed = False
        assert "this computer's own engine" in panel.ui.worklistLabel.text
        assert panel.ui.refreshButton.toolTip == panel.ui.worklistLabel.text and panel.section.worklist is None
        panel.ui.sourceSelector.setCurrentIndex(1)
        until(lambda: panel.section.worklist is not None)
        assert panel.ui.worklistLabel.text == "There are no cases here."
    assert not (tmp_path / "home" / "service" / "local.json").exists()


class Site:
    """What connection.open_service gives for a running service: one person's connection to it."""

    def __init__(self, url, token):
        self.about, self.home = (url, token), None
        self._client = Client(url, token, patience=1)

    def leave(self):
        assert threading.current_thread() is not threading.main_thread()
        self._client.close()

    def client(self, progress):
        assert threading.current_thread() is not threading.main_thread()
        return self._client


def until_when(home):
    """The moment until which somebody has a case."""
    marks = json.loads((home / "service" / "worklist.json").read_bytes())["marks"].values()
    return max(mark["until"] for mark in marks if mark["by"] == "tester")


def test_a_site_gives_cases_and_is_told_what_became_of_them(
    an_empty_scene, kept_settings, a_folder, tmp_path, monkeypatch
):
    home = tmp_path / "home"
    an_untrained_version(home)
    service = RunningService(home, "--worklist", str(a_folder)).start()
    accounts = Accounts(home)
    accounts.add("zoe", Role.ANNOTATOR)
    settings.choose("RefSeg/WorklistSource", "server")
    with Client(service.url, accounts.give_token("zoe")) as zoe:
        first = zoe.worklist()[0]["id"]
        zoe.worklist_state(first, "take")
        with a_panel(an_empty_scene, kept_settings, lambda: Site(service.url, service.token)) as panel:
            panel.ui.worklist.collapsed = False
            until(lambda: panel.section.worklist is not None and panel.section.worklist.cases)
            assert panel.texts() == ["anna_visit1 (zoe works on it)", "bert", "carl"]
            panel.ui.casesList.setCurrentRow(0)
            assert panel.ui.openButton.toolTip == "zoe works on this case."
            panel.ui.nextCaseButton.click()
            node = panel.until_opened("bert")
            assert np.array_equal(slicer.util.arrayFromVolume(node), voxels(GRID, 1))
            assert mrml.volumeFromNode(node).grid.same_as(GRID, 1e-4) and panel.opened[-1][1].patient == "bert"
            picture(panel.widget, "worklist-7-server")
            leased = until_when(home)
            monkeypatch.setattr(worklist_module, "RENEW_SECONDS", 0.1)
            until(lambda: until_when(home) > leased)  # for as long as it is open
            monkeypatch.undo()
            panel.idle()
            assert [case["by"] for case in zoe.worklist()] == ["zoe", "tester", ""]
            segmented(panel, node, np.ones(GRID.shape, np.uint8), model="balls")
            panel.ui.rejectButton.click()
            panel.until_opened("carl")
            panel.idle()
            (review,) = ReviewLog(home, "balls").reviews()
            assert (review.version, review.accepted, review.by) == ("1", False, "tester")
            assert [case["state"] for case in zoe.worklist()] == ["todo", "rejected", "todo"]
            zoe.worklist_state(first, "skipped")
            panel.ui.refreshButton.click()
            until(lambda: panel.texts()[0] == "anna_visit1 (skipped)")
            panel.ui.casesList.setCurrentRow(0)
            panel.ui.openButton.click()
            panel.until_opened("anna_visit1")
            panel.idle()
            assert [case["held"] for case in zoe.worklist()] == [True, False, False]  # the one before was put back
        until(lambda: not any(case["held"] for case in zoe.worklist()))
    service.kill()


def test_two_people_never_open_the_same_case(an_empty_scene, kept_settings, a_folder, tmp_path):
    home = tmp_path / "home"
    service = RunningService(home, "--worklist", str(a_folder)).start()
    accounts = Accounts(home)
    accounts.add("zoe", Role.ANNOTATOR)
    settings.choose("RefSeg/WorklistSource", "server")
    token = accounts.give_token("zoe")
    with (
        a_panel(an_empty_scene, kept_settings, lambda: Site(service.url, token)) as hers,
        Client(service.url, service.token) as tester,
    ):
        hers.ui.worklist.collapsed = False
        until(lambda: hers.section.worklist is not None and hers.section.worklist.cases)
        one = tester.worklist()[0]["id"]
        tester.worklist_state(one, "take")  # after she has seen the list
        hers.ui.nextCaseButton.click()
        hers.until_opened("bert")
        hers.idle()
        hers.section.worklist.cases = [replace(case, other="") for case in hers.section.worklist.cases]
        hers.ui.casesList.setCurrentRow(0)
        hers.ui.openButton.click()
        until(lambda: hers.said)
        assert hers.said == ["tester works on this case. Take another one."]
        assert hers.section.worklist.present.name == "bert"
        segmented(hers, hers.section.worklist.node, np.ones(GRID.shape, np.uint8), model="balls")
        hers.ui.rejectButton.click()
        assert not hers.ui.nextCaseButton.enabled and "is being kept" in hers.ui.nextCaseButton.toolTip
        assert "is being kept" in hers.ui.worklistLabel.text
        until(lambda: len(hers.said) > 1)
        assert "may not reject" in hers.said[1]
        hers.idle()
        assert hers.section.worklist.present.name == "bert" and len(hers.opened) == 1 and len(hers.said) == 2
        assert hers.texts()[1:] == ["bert (open)", "carl"] and hers.ui.nextCaseButton.enabled
        assert [case["held"] for case in tester.worklist()] == [True, True, False]  # it is still hers
        assert not ReviewLog(home, "balls").reviews()  # nor is a model told what did not come to pass
        picture(hers.widget, "worklist-9-refused")
        service.kill()
        hers.ui.refreshButton.click()
        until(lambda: len(hers.said) > 2)
        assert service.url in hers.said[2] and hers.texts()[1].startswith("bert")
