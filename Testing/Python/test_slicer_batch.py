"""Several volumes, or all frames of a sequence, one after the other: through the panel, on real sequence nodes."""

import numpy as np
import pytest
import slicer
from RefSegLib.errors import BadInput
from RefSegSlicerLib import doubt, mrml, provenance
from RefSegSlicerLib.checks import FLIPPED, MOVE, OBLIQUE, addVolume
from segmentation_panel import Gate, a_mask, until
from slicer_standin.fixtures import picture

pytest_plugins = ("slicer_standin.fixtures", "segmentation_panel")
pytestmark = pytest.mark.usefixtures("an_empty_scene", "no_swallowed_exceptions")


@pytest.fixture
def volumes(an_empty_scene):
    """Three volumes, of which the second lies under a transform."""
    nodes = [
        addVolume(an_empty_scene, grid, parent=parent)
        for grid, parent in ((FLIPPED, None), (OBLIQUE, MOVE), (FLIPPED, None))
    ]
    for number, node in enumerate(nodes):
        node.SetName(f"scan {number}")
    return nodes


def shown(panel):
    """Unfold the section; it follows the scene while it is open."""
    panel.ui.batchSection.setCollapsed(False)
    until(lambda: panel.ui.batchSelector.count)
    return panel.ui


def resultOf(volume):
    """The segmentation that a run has made of a volume."""
    from RefSegSlicerLib.batch import segmentationOf  # needs the application's translations

    return segmentationOf(volume)


def ended(panel):
    until(lambda: panel.job is None)


def test_all_volumes_are_segmented_each_into_its_own_and_again_into_the_same(a_panel, volumes, an_empty_scene):
    ui = shown(a_panel)
    assert [ui.batchList.item(row).text() for row in range(3)] == ["scan 0", "scan 1", "scan 2"]
    assert ui.batchButton.enabled and not ui.segmentButton.enabled
    a_panel.logic.runner = Gate(open=True)
    ui.batchButton.click()
    ended(a_panel)
    assert ui.statusLabel.text == "3 of 3 segmented."
    picture(a_panel, "segmentation-12-batch")
    results = [resultOf(volume) for volume in volumes]
    assert len(set(results)) == 3 and ui.outputSelector.currentNode() is results[2]
    for volume, node in zip(volumes, results, strict=True):
        expected = a_mask(mrml.volumeFromNode(volume), 3) != 0
        np.testing.assert_array_equal(mrml.segmentArray(node, "RefSeg_bright", volume), expected)
    assert ui.batchList.count == 3  # maps of doubt are not offered
    assert ui.doubtBox.enabled and ui.placesList.count == 1 and ui.beforeBox.enabled
    ui.outputSelector.setCurrentNode(results[1])
    view = an_empty_scene.AddNewNodeByClass("vtkMRMLSliceNode")
    ui.placesList.setCurrentRow(0)  # of the volume that this segmentation was made of
    place = mrml.worldFromIndex(doubt.placesOf(volumes[1])[0].index, volumes[1])
    np.testing.assert_allclose(slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())[:3, 3], place, atol=1e-4)
    ui.batchButton.click()
    ended(a_panel)
    assert [resultOf(volume) for volume in volumes] == results
    assert len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == 3


def test_only_what_is_checked_is_segmented_and_nothing_cannot_be(a_panel, volumes, an_empty_scene):
    import qt

    ui = shown(a_panel)
    for row in (0, 2):
        ui.batchList.item(row).setCheckState(qt.Qt.CheckState.Unchecked)
    addVolume(an_empty_scene, FLIPPED).SetName("late")
    until(lambda: ui.batchList.count == 4)
    ui.batchList.item(3).setCheckState(qt.Qt.CheckState.Unchecked)
    a_panel.logic.runner = Gate(open=True)
    ui.batchButton.click()
    ended(a_panel)
    assert ui.statusLabel.text == "1 of 1 segmented." and resultOf(volumes[1]) is not None
    ui.batchList.item(1).setCheckState(qt.Qt.CheckState.Unchecked)
    assert not ui.batchButton.enabled and ui.batchButton.toolTip == "Check at least one volume."


class Picky(Gate):
    """Fails at volumes of one shape."""

    def segmented(self, volume, model, **options):
        self.error = BadInput("The template does not match.") if volume.grid.shape == OBLIQUE.shape else None
        return super().segmented(volume, model, **options)


def test_a_failure_of_one_is_told_and_the_others_go_on(a_panel, volumes):
    ui = shown(a_panel)
    a_panel.logic.runner = Picky(open=True)
    ui.batchButton.click()
    ended(a_panel)
    assert ui.statusLabel.text == "2 of 3 segmented.\nscan 1 failed: The template does not match."
    assert [resultOf(volume) is not None for volume in volumes] == [True, False, True]


class Once(Gate):
    """Lets only the first volume through."""

    def segmented(self, volume, model, **options):
        if self.asked:
            self.open.clear()
        return super().segmented(volume, model, **options)


def test_cancel_keeps_what_is_done_and_tells_the_rest(a_panel, volumes):
    ui = shown(a_panel)
    a_panel.logic.runner = Once(open=True)
    ui.batchButton.click()
    until(lambda: "2 of 3, scan 1: Looking" in ui.statusLabel.text)
    assert 33 < ui.progressBar.value < 66
    picture(a_panel, "segmentation-13-batch-running")
    ui.cancelButton.click()
    assert a_panel.job is None and ui.statusLabel.text == "1 of 3 segmented.\nNot begun or stopped: scan 1, scan 2."
    assert [resultOf(volume) is not None for volume in volumes] == [True, False, False]


def test_a_volume_that_is_removed_meanwhile_is_told(a_panel, volumes, an_empty_scene):
    ui = shown(a_panel)
    runner = a_panel.logic.runner = Gate()
    ui.batchButton.click()
    until(lambda: runner.asked)
    an_empty_scene.RemoveNode(volumes[2])
    runner.open.set()
    ended(a_panel)
    assert ui.statusLabel.text == "2 of 3 segmented.\nscan 2 failed: The volume was removed."


def test_closing_the_scene_in_the_middle_stops_all(a_panel, volumes, an_empty_scene):
    ui = shown(a_panel)
    runner = a_panel.logic.runner = Gate()
    ui.batchButton.click()
    until(lambda: runner.asked)
    an_empty_scene.Clear(0)
    assert a_panel.job is None and len(runner.asked) == 1
    until(lambda: ui.batchList.count == 0)
    assert not slicer.util.getNodesByClass("vtkMRMLSegmentationNode")


# Sequences


@pytest.fixture
def a_sequence(an_empty_scene, monkeypatch):
    """Three frames of different content under a transform, seen through a browser; returns (volume, browser)."""
    if getattr(slicer.modules, "sequences", None) is None:
        from slicer_standin.application import _module_with_logic

        logic = slicer.app.applicationLogic()
        module = _module_with_logic("Sequences", logic, an_empty_scene)
        monkeypatch.setattr(slicer.modules, "sequences", module, raising=False)
    sequence = an_empty_scene.AddNewNodeByClass("vtkMRMLSequenceNode", "cine")
    sequence.SetIndexName("time")
    sequence.SetIndexUnit("s")
    for number in range(3):
        array = np.random.default_rng(number).integers(0, 900, OBLIQUE.shape).astype(np.int16)
        array[0, 0, 0] = 10000 + number
        frame = addVolume(an_empty_scene, OBLIQUE, array)
        sequence.SetDataNodeAtValue(frame, str(number / 2))
        an_empty_scene.RemoveNode(frame)
    browser = an_empty_scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "browser")
    slicer.modules.sequences.logic().AddSynchronizedNode(sequence, None, browser)
    volume = browser.GetProxyNode(sequence)
    above = an_empty_scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    above.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(MOVE))
    volume.SetAndObserveTransformNodeID(above.GetID())
    browser.SetSelectedItemNumber(1)
    return volume, browser


class Numbered(Gate):
    """Finds a cube whose place tells which frame it was given."""

    def segmented(self, volume, model, **options):
        found = super().segmented(volume, model, **options)
        number = int(volume.array[0, 0, 0, 0]) - 10000
        found.labels.array[:] = a_mask(volume, number + 1)
        found.report["frame"] = number
        return found


def test_all_frames_are_segmented_into_a_sequence_that_follows_the_browser(a_panel, a_sequence, an_empty_scene):
    volume, browser = a_sequence
    ui = shown(a_panel)
    assert ui.batchSelector.count == 2 and ui.batchSelector.itemText(1) == "All frames of 'cine'"
    ui.batchSelector.setCurrentIndex(1)
    assert not ui.batchList.enabled and "All frames" in ui.batchList.toolTip and ui.batchButton.enabled
    a_panel.logic.runner = Numbered(open=True)
    ui.batchButton.click()
    ended(a_panel)
    assert ui.statusLabel.text == "3 of 3 segmented." and browser.GetSelectedItemNumber() == 1
    node = ui.outputSelector.currentNode()
    (same,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    assert node is same and browser.GetSequenceNode(node) is not None
    assert browser.GetSequenceNode(node).GetIndexName() == "time"
    # What would stay behind when the browser moves on is not kept at all.
    assert doubt.doubtNode(volume) is None and "not for frames of sequences" in ui.beforeBox.toolTip
    picture(a_panel, "segmentation-14-sequence")
    for number in (2, 0, 1):
        browser.SetSelectedItemNumber(number)
        expected = a_mask(mrml.volumeFromNode(volume), number + 1) != 0
        np.testing.assert_array_equal(mrml.segmentArray(node, "RefSeg_bright", volume), expected)
        assert node.GetTransformNodeID() == volume.GetTransformNodeID()
        assert provenance.stamped(node)["model"] == "balls"


def test_what_is_painted_into_one_frame_stays_in_it(a_panel, a_sequence):
    volume, browser = a_sequence
    ui = shown(a_panel)
    ui.batchSelector.setCurrentIndex(1)
    a_panel.logic.runner = Numbered(open=True)
    ui.batchButton.click()
    ended(a_panel)
    node = ui.outputSelector.currentNode()
    painted = mrml.segmentArray(node, "RefSeg_bright", volume)
    painted[8, 12, 10] = True
    slicer.util.updateSegmentBinaryLabelmapFromArray(painted.astype(np.uint8), node, "RefSeg_bright", volume)
    browser.SetSelectedItemNumber(2)
    assert not mrml.segmentArray(node, "RefSeg_bright", volume)[8, 12, 10]
    browser.SetSelectedItemNumber(1)
    np.testing.assert_array_equal(mrml.segmentArray(node, "RefSeg_bright", volume), painted)


def test_a_browser_that_is_moved_meanwhile_mixes_no_frames_up(a_panel, a_sequence):
    volume, browser = a_sequence
    ui = shown(a_panel)
    ui.batchSelector.setCurrentIndex(1)
    runner = a_panel.logic.runner = Numbered()
    ui.batchButton.click()
    until(lambda: runner.asked)
    browser.SetSelectedItemNumber(2)
    runner.open.set()
    ended(a_panel)
    node = ui.outputSelector.currentNode()
    for number in range(3):
        browser.SetSelectedItemNumber(number)
        expected = a_mask(mrml.volumeFromNode(volume), number + 1) != 0
        np.testing.assert_array_equal(mrml.segmentArray(node, "RefSeg_bright", volume), expected)


def test_frames_that_were_done_before_a_cancel_stay_and_the_frame_shown_comes_back(a_panel, a_sequence):
    _, browser = a_sequence
    ui = shown(a_panel)
    ui.batchSelector.setCurrentIndex(1)
    a_panel.logic.runner = Once(open=True)
    ui.batchButton.click()
    until(lambda: "2 of 3, time 0.5 s: Looking" in ui.statusLabel.text)
    ui.cancelButton.click()
    assert a_panel.job is None and browser.GetSelectedItemNumber() == 1
    sequence = browser.GetSequenceNode(ui.outputSelector.currentNode())
    assert sequence.GetNumberOfDataNodes() == 1
    for number, count in ((2, 0), (0, 27), (1, 0)):
        browser.SetSelectedItemNumber(number)
        node = ui.outputSelector.currentNode()
        identifiers = [
            node.GetSegmentation().GetNthSegmentID(n) for n in range(node.GetSegmentation().GetNumberOfSegments())
        ]
        assert sum(mrml.segmentArray(node, one, a_sequence[0]).sum() for one in identifiers) == count
    assert ui.statusLabel.text == "1 of 3 segmented.\nNot begun or stopped: time 0.5 s, time 1.0 s."


def test_nothing_is_left_of_a_sequence_that_was_canceled_at_once(a_panel, a_sequence, an_empty_scene):
    _, browser = a_sequence
    ui = shown(a_panel)
    ui.batchSelector.setCurrentIndex(1)
    a_panel.logic.runner = Numbered()
    nodes = an_empty_scene.GetNumberOfNodes()
    ui.batchButton.click()
    ui.cancelButton.click()
    assert a_panel.job is None and an_empty_scene.GetNumberOfNodes() == nodes
    assert browser.GetSelectedItemNumber() == 1 and doubt.doubtNode(a_sequence[0]) is None
