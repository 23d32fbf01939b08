"""The panel of Interactive Learning, driven by events as a person would, with a real service; pictures for people."""

import json
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import shiboken6
import slicer
from both_panels import until
from InteractiveLearningLib.service.local import LocalService
from InteractiveLearningSlicerLib.checks import addCase
from RefSegLib.errors import RefSegError
from RefSegSlicerLib import mrml, settings
from RefSegSlicerLib.checks import FLIPPED, addVolume
from slicer_standin import application
from slicer_standin.fixtures import picture

ROOT = Path(__file__).parents[2]
pytest_plugins = ("slicer_standin.fixtures", "both_panels")
pytestmark = pytest.mark.usefixtures("an_empty_scene", "no_swallowed_exceptions")


@pytest.fixture
def a_panel(an_empty_scene, a_served_home, monkeypatch, tmp_path):
    """The panel, entered, with the models of that store. Sessions of other tests are out of sight."""
    slicer.app.settings().setValue(settings.STORE_KEY, str(a_served_home))
    monkeypatch.setattr(slicer.app, "slicerUserSettingsFilePath", str(tmp_path / "Slicer.ini"), raising=False)
    discard_sessions(a_served_home)
    widget = application.open_module("InteractiveLearning", ROOT / "InteractiveLearning")
    until(lambda: widget.ui.modelSelector.currentText == "balls")
    yield widget
    widget.cleanup()
    # Now: Python would do so at any time, even while its selectors answer to the scene.
    shiboken6.delete(widget.parent)
    slicer.app.settings().clear()


def discard_sessions(home, seconds=60):
    """Sessions of other tests are over. The service may just be ending, when the test before has killed it."""
    end = time.monotonic() + seconds
    while True:
        try:
            with LocalService(home).client() as client:
                for session in client.sessions():
                    client.ask("DELETE", f"/sessions/{session['id']}")
            return
        except RefSegError:
            if time.monotonic() > end:
                raise
            time.sleep(1)


def settled(widget):
    """The session has done what it was told."""
    slicer.app.processEvents()
    until(lambda: not widget.logic.turns.busy)


def press(widget, name):
    """Press a button and wait for what comes of it."""
    assert getattr(widget.ui, name).enabled, getattr(widget.ui, name).toolTip
    getattr(widget.ui, name).click()
    settled(widget)


def chosen(widget, number):
    """Select a segment in the list."""
    widget.ui.segmentsTable.tableWidget().selectRow(number)
    settled(widget)


def started(widget, scene):
    """A session that a person has begun."""
    volume, segmentation, inside = addCase(scene)
    volume.SetName("patient12_visit2")
    segmentation.GetSegmentation().GetSegment("ball").SetName("bright")
    widget.ui.volumeSelector.setCurrentNode(volume)
    widget.ui.segmentationSelector.setCurrentNode(segmentation)
    press(widget, "startButton")
    assert widget.logic.session is not None, widget.ui.statusLabel.text
    middle = tuple(np.argwhere(inside)[inside.sum() // 2].tolist())
    return volume, segmentation, middle


def test_a_session_needs_a_volume_and_segments_and_says_why(a_panel, an_empty_scene):
    ui = a_panel.ui
    assert not ui.startButton.enabled and ui.startButton.toolTip == "Choose a volume."
    assert not ui.corrections.enabled
    picture(a_panel, "learning-1-start")
    ui.volumeSelector.setCurrentNode(addVolume(an_empty_scene, FLIPPED))
    assert "Choose or create a segmentation" in ui.startButton.toolTip
    ui.segmentationSelector.addNode()
    press(a_panel, "startButton")
    assert "has no segments" in ui.statusLabel.text and a_panel.logic.session is None


def placed():
    """The markup that the mouse sets down."""
    selection = slicer.app.applicationLogic().GetSelectionNode()
    return slicer.mrmlScene.GetNodeByID(selection.GetActivePlaceNodeID())


def test_clicks_undo_and_next_slice_through_the_panel(a_panel, an_empty_scene):
    widget, ui = a_panel, a_panel.ui
    volume, segmentation, middle = started(widget, an_empty_scene)
    assert ui.patientEdit.text == "patient12"
    assert not ui.undoButton.enabled and not ui.inputs.enabled
    ui.pointsButton.click()
    interaction = slicer.app.applicationLogic().GetInteractionNode()
    assert interaction.GetCurrentInteractionMode() == interaction.Place and ui.pointsButton.checked
    placed().AddControlPointWorld(*mrml.worldFromIndex(middle, volume), "")
    settled(widget)
    assert mrml.segmentArray(segmentation, "ball", volume)[middle]
    assert ui.undoButton.toolTip == "Undo positive click for bright (Ctrl+Z)"
    press(widget, "nextButton")
    assert len(ui.statusLabel.text) > 20
    press(widget, "undoButton")
    assert not mrml.segmentArray(segmentation, "ball", volume).any()
    assert ui.redoButton.enabled and not ui.undoButton.enabled
    press(widget, "redoButton")
    ui.axisSelector.setCurrentIndex(0)
    assert (ui.firstSliceBox.value, ui.lastSliceBox.value) == (0, volume.GetImageData().GetDimensions()[2] - 1)
    ui.firstSliceBox.setValue(middle[0])
    ui.lastSliceBox.setValue(middle[0])
    press(widget, "limitsButton")
    found = mrml.segmentArray(segmentation, "ball", volume)
    assert found[middle[0]].any() and found.sum() == found[middle[0]].sum()
    press(widget, "endButton")
    assert widget.logic.session is None and not ui.corrections.enabled and ui.inputs.enabled
    assert interaction.GetCurrentInteractionMode() != interaction.Place


def test_every_tool_has_a_button_that_is_down_while_it_is_in_hand(a_panel, an_empty_scene):
    widget, ui = a_panel, a_panel.ui
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
    widget.enter()
    press(widget, "endButton")
    assert ui.insideButton.checked and not ui.outsideButton.checked  # the next case begins with points inside


def test_limits_are_asked_for_first_and_proposed(a_panel, an_empty_scene):
    widget, ui = a_panel, a_panel.ui
    volume, segmentation, inside = addCase(an_empty_scene)
    slicer.util.updateSegmentBinaryLabelmapFromArray(inside.astype(np.uint8), segmentation, "ball", volume)
    view = an_empty_scene.AddNewNodeByClass("vtkMRMLSliceNode")
    ui.volumeSelector.setCurrentNode(volume)
    ui.segmentationSelector.setCurrentNode(segmentation)
    press(widget, "startButton")
    axis = ui.axisSelector.currentIndex
    slices = np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))
    assert (ui.firstSliceBox.value, ui.lastSliceBox.value) == (slices[0], slices[-1])
    plane = widget.logic.planes()[axis][0]
    assert f"'ball' seems to lie in the {plane} slices {slices[0]} to {slices[-1]}" in ui.statusLabel.text
    assert ui.axisSelector.currentText == plane
    picture(widget, "learning-2-limits")
    ui.firstSliceBox.setValue(slices[1])
    origin = slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())[:3, 3]
    assert mrml.indexFromWorld(origin, volume)[axis] == pytest.approx(slices[1], abs=1e-3)
    an_empty_scene.RemoveNode(view)
    press(widget, "limitsButton")
    found = mrml.segmentArray(segmentation, "ball", volume)
    assert np.flatnonzero(found.any(axis=tuple({0, 1, 2} - {axis}))).tolist() == slices[1:].tolist()
    chosen(widget, 1)
    assert "Where does 'rest' begin and end?" in ui.statusLabel.text
    assert ui.lastSliceBox.value == widget.logic.planes()[ui.axisSelector.currentIndex][1] - 1


def test_painting_enters_the_session_by_itself_and_the_estimate_is_shown(a_panel, an_empty_scene):
    widget, ui = a_panel, a_panel.ui
    volume, segmentation, inside = addCase(an_empty_scene)
    ui.volumeSelector.setCurrentNode(volume)
    ui.segmentationSelector.setCurrentNode(segmentation)
    press(widget, "startButton")
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
    press(widget, "nextButton")
    assert "slice" in ui.statusLabel.text and ui.confirmButton.enabled
    picture(widget, "learning-3-session")
    count = len(widget.logic.session.prompts())
    mask = mrml.segmentArray(segmentation, "ball", volume)
    index, axis = widget.corrections._suggestion.index, widget.corrections._suggestion.axis
    press(widget, "confirmButton")
    outline = widget.logic.session.prompts()[count]
    assert (outline.axis, outline.index) == (axis, index)
    assert np.array_equal(outline.mask, mask.take(index, axis)) and not ui.confirmButton.enabled
    press(widget, "undoButton")
    press(widget, "undoButton")
    assert not widget.logic.session.prompts() and not mrml.segmentArray(segmentation, "ball", volume).any()


def test_a_locked_segment_says_why_nothing_can_be_drawn_in_it(a_panel, an_empty_scene):
    widget, ui = a_panel, a_panel.ui
    volume, segmentation, middle = started(widget, an_empty_scene)
    ui.scribbleButton.click()
    ui.lockedBox.click()
    assert widget.logic.tools.tool is None
    for button in (ui.pointsButton, ui.scribbleButton, ui.boxButton, ui.limitsButton):
        assert not button.enabled and "This segment is locked" in button.toolTip
    picture(widget, "learning-4-locked")
    chosen(widget, 1)
    assert not ui.lockedBox.checked and ui.pointsButton.enabled and "Click points" in ui.pointsButton.toolTip
    chosen(widget, 0)
    assert ui.lockedBox.checked
    ui.lockedBox.click()
    assert ui.pointsButton.enabled
    widget.logic.click(mrml.worldFromIndex(middle, volume), True)
    settled(widget)
    assert mrml.segmentArray(segmentation, "ball", volume)[middle]


def test_the_log_is_exported_for_an_audit(a_panel, an_empty_scene, tmp_path, monkeypatch):
    import qt

    widget, ui = a_panel, a_panel.ui
    volume, _, middle = started(widget, an_empty_scene)
    widget.logic.click(mrml.worldFromIndex(middle, volume), True)
    settled(widget)
    file = tmp_path / "log.json"
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *asked: "")
    press(widget, "exportButton")
    assert not list(tmp_path.glob("*.json"))
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *asked: str(file))
    press(widget, "exportButton")
    assert str(file) in ui.statusLabel.text
    assert json.loads(file.read_text()) == json.loads(json.dumps(widget.logic.session.export_log()))
    assert "click" in file.read_text()
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *asked: str(tmp_path))
    press(widget, "exportButton")
    assert "could not be written" in ui.statusLabel.text


def test_what_is_known_of_earlier_sessions_is_told(a_panel, an_empty_scene):
    widget, ui = a_panel, a_panel.ui
    volume, _, middle = started(widget, an_empty_scene)
    widget.logic.click(mrml.worldFromIndex(middle, volume), True)
    settled(widget)
    press(widget, "endButton")
    press(widget, "startButton")
    assert "said in earlier sessions is known (1 times)" in ui.statusLabel.text
    assert not ui.undoButton.enabled


def test_an_accepted_case_is_kept_and_the_learner_started(a_panel, an_empty_scene, a_served_home):
    from InteractiveLearningLib.replay import ReplayStore

    widget, ui = a_panel, a_panel.ui
    volume, _, middle = started(widget, an_empty_scene)
    press(widget, "acceptButton")
    assert "None of the segments has a mask" in ui.statusLabel.text
    widget.logic.click(mrml.worldFromIndex(middle, volume), True)
    settled(widget)
    ui.patientEdit.text = ""
    assert not ui.acceptButton.enabled and "Name the patient" in ui.acceptButton.toolTip
    ui.patientEdit.text = "12"
    press(widget, "acceptButton")
    assert widget.logic.session is None and "Accepted" in ui.statusLabel.text
    replay = ReplayStore(a_served_home)
    assert len(replay.cases("balls")) == 1
    replay.close()
    until(widget.logic.learning.learnerRuns, 200)
    picture(widget, "learning-5-accepted")


def test_a_click_outside_is_told_in_the_panel(a_panel, an_empty_scene):
    started(a_panel, an_empty_scene)
    a_panel.logic.clickNodes[True].AddControlPointWorld(900, 900, 900, "")
    slicer.app.processEvents()
    assert "click inside of it" in a_panel.ui.statusLabel.text


def test_closing_the_scene_ends_the_session_and_starting_again_goes_on(a_panel, an_empty_scene):
    widget, ui = a_panel, a_panel.ui
    volume, _, middle = started(widget, an_empty_scene)
    widget.logic.click(mrml.worldFromIndex(middle, volume), True)
    settled(widget)
    an_empty_scene.Clear(0)
    assert widget.logic.session is None and not ui.corrections.enabled and not ui.startButton.enabled
    volume, segmentation, _ = started(widget, an_empty_scene)
    assert "goes on" in ui.statusLabel.text
    assert mrml.segmentArray(segmentation, "ball", volume)[middle]


def test_clicks_that_come_while_a_mask_is_made_wait_for_their_turn_and_none_is_lost(a_panel, an_empty_scene):
    volume, segmentation, middle = started(a_panel, an_empty_scene)
    ui, logic = a_panel.ui, a_panel.logic
    ui.pointsButton.click()
    places = [tuple(np.add(middle, step)) for step in ((0, 0, 0), (0, 1, 0), (1, 0, 0))]
    for place in places:
        placed().AddControlPointWorld(*mrml.worldFromIndex(place, volume), "")
    slicer.app.processEvents()
    assert logic.turns.busy and logic.turns.waiting
    assert logic.clickNodes[True].GetNumberOfControlPoints() == 3
    settled(a_panel)
    assert len(logic.session.prompts()) == 3
    mask = mrml.segmentArray(segmentation, "ball", volume)
    assert all(mask[place] for place in places)
    assert np.array_equal(mask, logic.session.labels().array == 1)


def test_no_session_work_is_done_in_the_thread_of_the_application(a_panel, an_empty_scene, monkeypatch):
    """Every request to the service, whatever is pressed, comes from another thread."""
    from InteractiveLearningLib.service.transport import Transport

    asked, ask = [], Transport.ask
    monkeypatch.setattr(
        Transport, "ask", lambda self, *a, **k: (asked.append(threading.current_thread()), ask(self, *a, **k))[1]
    )
    volume, _, middle = started(a_panel, an_empty_scene)
    a_panel.logic.click(mrml.worldFromIndex(middle, volume), True)
    settled(a_panel)
    for name in ("nextButton", "undoButton", "redoButton", "limitsButton", "acceptButton"):
        press(a_panel, name)
    assert asked and threading.main_thread() not in asked


def test_ending_in_the_middle_of_a_mask_leaves_the_segments_as_they_were(a_panel, an_empty_scene):
    volume, segmentation, middle = started(a_panel, an_empty_scene)
    a_panel.logic.click(mrml.worldFromIndex(middle, volume), True)
    assert a_panel.logic.turns.busy
    a_panel.ui.endButton.click()
    assert a_panel.logic.session is None and not a_panel.logic.turns.busy
    until(lambda: not a_panel.thinking._timer.active)
    assert not mrml.segmentArray(segmentation, "ball", volume).any() and a_panel.ui.startButton.enabled


def test_what_is_canceled_comes_to_nothing(a_panel, an_empty_scene):
    volume, segmentation, middle = started(a_panel, an_empty_scene)
    a_panel.logic.click(mrml.worldFromIndex(middle, volume), True)
    a_panel.ui.cancelButton.click()
    settled(a_panel)
    assert not a_panel.logic.session.prompts() and not mrml.segmentArray(segmentation, "ball", volume).any()
    assert a_panel.logic.clickNodes[True].GetNumberOfControlPoints() == 0
    a_panel.logic.click(mrml.worldFromIndex(middle, volume), True)
    settled(a_panel)
    assert mrml.segmentArray(segmentation, "ball", volume)[middle]


def test_a_service_that_is_killed_in_the_middle_costs_nothing(a_panel, an_empty_scene, a_served_home):
    volume, segmentation, middle = started(a_panel, an_empty_scene)
    a_panel.logic.click(mrml.worldFromIndex(middle, volume), True)
    settled(a_panel)
    first = mrml.segmentArray(segmentation, "ball", volume)
    psutil.Process(json.loads((a_served_home / "service" / "local.json").read_bytes())["pid"]).kill()
    a_panel.logic.click(mrml.worldFromIndex(middle, volume), False)
    settled(a_panel)
    assert len(a_panel.logic.session.prompts()) == 2
    assert not mrml.segmentArray(segmentation, "ball", volume)[middle]
    press(a_panel, "undoButton")
    assert np.array_equal(mrml.segmentArray(segmentation, "ball", volume), first)


def test_keys_work_only_while_the_module_is_shown(a_panel, an_empty_scene, monkeypatch):
    import qt
    from InteractiveLearningSlicerLib.shortcuts import KEYS

    window = qt.QMainWindow()
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: window)
    monkeypatch.setattr(a_panel.shortcuts, "_window", slicer.util.mainWindow)
    try:
        a_panel.exit()
        assert not window.findChildren(qt.QShortcut)
        a_panel.enter()
        made = {shortcut.key.toString(): shortcut for shortcut in window.findChildren(qt.QShortcut)}
        assert len(made) == len(KEYS)
        started(a_panel, an_empty_scene)
        made["Shift+L"].activated.emit()
        assert a_panel.logic.tools.tool == "lasso"
        made["Shift+R"].activated.emit()  # the button cannot be pressed: nothing was asked for
        settled(a_panel)
        assert not a_panel.logic.session.prompts()
        a_panel.exit()
        slicer.app.processEvents()
        assert not [s for s in window.findChildren(qt.QShortcut) if s.parent() is window]
    finally:
        shiboken6.delete(window)


def test_the_segment_editor_in_the_panel_edits_what_is_spoken_of(a_panel, an_empty_scene):
    volume, segmentation, _ = started(a_panel, an_empty_scene)
    editor = a_panel.ui.editorWidget
    assert editor.segmentationNode() is segmentation and editor.sourceVolumeNode() is volume and editor.watchesViews
    assert not editor.undoEnabled and editor.mrmlSegmentEditorNode().GetSelectedSegmentID() == "ball"
    chosen(a_panel, 1)
    assert editor.mrmlSegmentEditorNode().GetSelectedSegmentID() == "rest" == a_panel.logic.activeSegment
    editor.setActiveEffectByName("Paint")
    a_panel.ui.pointsButton.click()  # the mouse has one tool at a time
    assert editor._effect == ""
    a_panel.exit()
    assert not editor.watchesViews
    a_panel.enter()
    assert editor.watchesViews and editor.segmentationNode() is segmentation
    press(a_panel, "endButton")
    assert editor.segmentationNode() is None


def test_a_panel_that_is_reloaded_leaves_no_observer_timer_node_or_thread(a_panel, an_empty_scene):
    nodes, threads = an_empty_scene.GetNumberOfNodes(), threading.active_count()
    for _ in range(3):
        widget = application.open_module("InteractiveLearning", ROOT / "InteractiveLearning")
        until(lambda widget=widget: widget.ui.modelSelector.currentText == "balls")
        volume, segmentation, _middle = started(widget, an_empty_scene)
        timers = widget._polling, widget._strokes, widget.thinking._timer
        widget.cleanup()
        assert not any(timer.active for timer in timers) and not widget.Observations
        shiboken6.delete(widget.parent)
        for node in (segmentation.GetDisplayNode(), segmentation, volume.GetParentTransformNode(), volume):
            an_empty_scene.RemoveNode(node)
    until(lambda: threading.active_count() <= threads)
    assert an_empty_scene.GetNumberOfNodes() == nodes
    addVolume(an_empty_scene, FLIPPED)  # an observer that was left behind would speak to a dead panel here
