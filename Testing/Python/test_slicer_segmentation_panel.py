"""The panel of RefSeg Segmentation, driven by events as a person would; pictures of it for people."""

import threading

import numpy as np
import pytest
import slicer
from RefSegLib.errors import BadInput
from RefSegSlicerLib import doubt, mrml, provenance
from RefSegSlicerLib import settings as keys
from RefSegSlicerLib.checks import FLIPPED, MOVE, OBLIQUE, addVolume
from segmentation_panel import Gate, closed, opened, until
from slicer_standin.fixtures import picture

pytest_plugins = ("slicer_standin.fixtures", "segmentation_panel")
pytestmark = pytest.mark.usefixtures("an_empty_scene", "no_swallowed_exceptions")


def segmented(panel, **options):
    """Press Segment with a runner that is through at once."""
    panel.logic.runner = Gate(open=True, **options)
    panel.ui.segmentButton.click()
    until(lambda: panel.job is None)
    return panel.ui.outputSelector.currentNode()


def test_segment_can_be_pressed_only_with_a_volume_and_says_why(a_panel, an_empty_scene):
    ui = a_panel.ui
    assert not ui.segmentButton.enabled and ui.segmentButton.toolTip == "Choose a volume."
    assert ui.statusLabel.text == "Choose a volume."
    assert ui.modelSelector.currentText == "balls" and ui.modelLabel.text == "Two balls in noise (version 1)"
    picture(a_panel, "segmentation-1-start")
    ui.volumeSelector.setCurrentNode(addVolume(an_empty_scene, FLIPPED))
    assert ui.segmentButton.enabled and ui.statusLabel.text == ""
    assert not ui.cancelButton.enabled


def test_the_card_of_the_chosen_model_can_be_read(a_panel):
    ui = a_panel.ui
    assert ui.cardSection.collapsed
    ui.cardSection.setCollapsed(False)
    assert "bright, dim" in ui.cardBrowser.plainText and ui.cardBrowser.readOnly
    picture(a_panel, "segmentation-2-card")


def test_a_model_that_cannot_reflect_says_so(a_panel):
    ui = a_panel.ui
    assert ui.reflectBox.enabled
    ui.modelSelector.setCurrentIndex(ui.modelSelector.findText("plain"))
    assert ui.modelSelector.currentText == "plain" and a_panel._parameterNode.model == "plain"
    assert not ui.reflectBox.enabled and "cannot reflect" in ui.reflectBox.toolTip
    ui.modelSelector.setCurrentIndex(ui.modelSelector.findText("balls"))
    assert ui.reflectBox.enabled


def test_the_region_is_automatic_the_whole_volume_or_a_box(a_panel, an_empty_scene):
    ui = a_panel.ui
    volume = addVolume(an_empty_scene, OBLIQUE, parent=MOVE)
    ui.volumeSelector.setCurrentNode(volume)
    assert ui.regionKindSelector.currentText == "Automatic" and not ui.regionSelector.enabled
    segmented(a_panel)
    assert a_panel.logic.runner.asked[0]["roi"] is None
    ui.regionKindSelector.setCurrentIndex(1)
    segmented(a_panel)
    assert a_panel.logic.runner.asked[0]["roi"] == (0, 0, 0, *OBLIQUE.shape)
    ui.regionKindSelector.setCurrentIndex(2)
    assert ui.regionSelector.enabled and not ui.segmentButton.enabled and "region of interest" in ui.statusLabel.text
    ui.regionSelector.addNode()
    assert ui.segmentButton.enabled
    ui.segmentButton.click()
    assert a_panel.job is None and "not been placed" in ui.statusLabel.text
    roi = ui.regionSelector.currentNode()
    roi.SetCenterWorld(*mrml.worldFromIndex((3, 4, 5), volume))
    roi.SetSizeWorld(0.1, 0.1, 0.1)
    segmented(a_panel)
    assert a_panel.logic.runner.asked[0]["roi"] == (3, 4, 5, 4, 5, 6)
    assert provenance.stamped(ui.outputSelector.currentNode())["settings"]["region"] == [3, 4, 5, 4, 5, 6]


def test_a_volume_is_segmented_with_progress_while_the_panel_lives(a_panel, an_empty_scene):
    ui = a_panel.ui
    a_panel.logic.runner = Gate()
    ui.volumeSelector.setCurrentNode(addVolume(an_empty_scene, FLIPPED, parent=MOVE))
    ui.reflectBox.checked = False
    ui.segmentButton.click()
    until(lambda: ui.progressBar.value == 40)
    assert ui.statusLabel.text.startswith("Looking for the region")
    assert ui.cancelButton.enabled and not ui.segmentButton.enabled and not ui.inputs.enabled
    assert not ui.batchButton.enabled and "Press Cancel" in ui.batchButton.toolTip
    assert a_panel.logic.runner.asked == [{"model": "balls", "reflect": False, "roi": None}]
    a_panel._left._start -= 20  # as if it had begun then
    a_panel.onProgress(0.4, "Looking for the region")
    assert ui.statusLabel.text == "Looking for the region, about 30 seconds left"
    picture(a_panel, "segmentation-3-running")
    a_panel.logic.runner.open.set()
    until(lambda: a_panel.job is None)
    node = ui.outputSelector.currentNode()
    assert mrml.segmentArray(node, "RefSeg_bright", ui.volumeSelector.currentNode()).sum() == 27
    assert ui.statusLabel.text == "Done. Check the result before you use it."
    assert "1.25 ml" in ui.qualityLabel.text and "not estimated" in ui.qualityLabel.text
    assert ui.segmentButton.enabled and ui.inputs.enabled
    picture(a_panel, "segmentation-4-done")


def test_what_reflection_found_is_told_and_shown(a_panel, an_empty_scene):
    ui = a_panel.ui
    view = an_empty_scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    volume = addVolume(an_empty_scene, FLIPPED, parent=MOVE)
    view.SetBackgroundVolumeID(volume.GetID())
    ui.volumeSelector.setCurrentNode(volume)
    assert not ui.doubtBox.enabled and not ui.doubtBox.checked and "Segment the volume" in ui.doubtBox.toolTip
    assert ui.placesList.isHidden()
    counts = []
    for _ in range(2):
        segmented(a_panel)
        counts.append(an_empty_scene.GetNumberOfNodes())
    assert counts[0] == counts[1]
    assert "probably good, Dice 0.88 (0.83 to 0.92)" in ui.qualityLabel.text
    assert ui.statusLabel.text.splitlines()[1].startswith("Reflection: Mask replaced (gamma 2)")
    assert view.GetForegroundVolumeID() is None and ui.doubtBox.enabled
    said = ui.statusLabel.text
    ui.doubtBox.click()
    node = a_panel.logic.doubtNode(volume)
    assert view.GetForegroundVolumeID() == node.GetID() and "red" in ui.doubtBox.toolTip
    assert ui.statusLabel.text == said  # showing it says nothing new
    picture(a_panel, "segmentation-5-doubt")
    segmented(a_panel)
    assert view.GetForegroundVolumeID() == node.GetID()
    ui.doubtBox.click()
    assert view.GetForegroundVolumeID() is None
    ui.doubtBox.click()
    ui.reflectBox.checked = False
    segmented(a_panel)
    assert a_panel.logic.doubtNode(volume) is None and view.GetForegroundVolumeID() is None
    assert ui.placesList.isHidden() and not ui.plotButton.enabled


@pytest.mark.parametrize("grid", [FLIPPED, OBLIQUE], ids=["flipped", "oblique"])
def test_choosing_a_place_in_doubt_moves_all_slice_views_there(a_panel, an_empty_scene, grid):
    ui = a_panel.ui
    volume = addVolume(an_empty_scene, grid, parent=MOVE)
    views = [an_empty_scene.AddNewNodeByClass("vtkMRMLSliceNode") for _ in range(3)]
    for view, plane in zip(views, ("Axial", "Sagittal", "Coronal"), strict=True):
        getattr(view, f"SetOrientationTo{plane}")()
    ui.volumeSelector.setCurrentNode(volume)
    segmented(a_panel)
    (place,) = doubt.placesOf(volume)
    assert ui.placesList.count == 1 and ui.placesList.item(0).text().startswith("bright: ")
    assert "doubt 0.80" in ui.placesList.item(0).text()
    assert max(place.index) <= 6 and min(place.index) >= 5
    ui.placesList.setCurrentRow(0)

    def shown():
        point = mrml.worldFromIndex(place.index, volume)
        return [np.allclose(slicer.util.arrayFromVTKMatrix(v.GetSliceToRAS())[:3, 3], point, atol=1e-4) for v in views]

    assert all(shown())
    for view in views:
        view.JumpSliceByCentering(50, 50, 50)
    assert not any(shown())
    ui.placesList.itemClicked.emit(ui.placesList.item(0))  # the same place again
    assert all(shown())


def mask_seen(panel, volume):
    """The voxels that the views show of the label, and how many segmentations are visible."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    visible = [node for node in nodes if node.GetDisplayNode().GetVisibility()]
    assert len(visible) == 1
    return mrml.segmentArray(visible[0], "RefSeg_bright", volume)


def test_the_mask_before_reflection_can_be_seen_and_never_stays(a_panel, an_empty_scene):
    ui = a_panel.ui
    volume = addVolume(an_empty_scene, OBLIQUE, parent=MOVE)
    ui.volumeSelector.setCurrentNode(volume)
    assert not ui.beforeBox.enabled and "Segment the volume first" in ui.beforeBox.toolTip
    node = segmented(a_panel)
    node.GetSegmentation().GetSegment("RefSeg_bright").SetColor(0.1, 0.2, 0.3)
    nodes, after = an_empty_scene.GetNumberOfNodes(), mask_seen(a_panel, volume)
    ui.beforeBox.click()
    assert ui.beforeBox.checked
    before = mask_seen(a_panel, volume)
    assert before[4:7, 4:7, 4:7].all() and before.sum() == 27 and not np.array_equal(before, after)
    np.testing.assert_array_equal(mrml.segmentArray(node, "RefSeg_bright", volume), after)  # the result is untouched
    picture(a_panel, "segmentation-6-before")
    ui.beforeBox.click()
    np.testing.assert_array_equal(mask_seen(a_panel, volume), after)
    assert an_empty_scene.GetNumberOfNodes() == nodes
    for leave in (a_panel.exit, lambda: an_empty_scene.InvokeEvent(an_empty_scene.StartSaveEvent)):
        ui.beforeBox.click()
        assert a_panel.logic.before.shown
        leave()
        assert not a_panel.logic.before.shown and an_empty_scene.GetNumberOfNodes() == nodes
        a_panel.enter()
        assert not ui.beforeBox.checked
        np.testing.assert_array_equal(mask_seen(a_panel, volume), after)
    ui.beforeBox.click()
    segmented(a_panel)
    assert not ui.beforeBox.checked and an_empty_scene.GetNumberOfNodes() == nodes


def test_where_reflection_changed_nothing_there_is_no_before(a_panel, an_empty_scene):
    ui = a_panel.ui
    ui.volumeSelector.setCurrentNode(addVolume(an_empty_scene, FLIPPED))
    segmented(a_panel, moved=False)
    assert not ui.beforeBox.enabled and ui.beforeBox.toolTip == "Reflection left the mask as it was."


def test_segments_that_were_painted_since_are_not_compared_and_not_overwritten(a_panel, an_empty_scene):
    ui = a_panel.ui
    volume = addVolume(an_empty_scene, OBLIQUE, parent=MOVE)
    ui.volumeSelector.setCurrentNode(volume)
    node = segmented(a_panel)
    painted = mrml.segmentArray(node, "RefSeg_bright", volume)
    painted[1, 1, 1] = True
    slicer.util.updateSegmentBinaryLabelmapFromArray(painted.astype(np.uint8), node, "RefSeg_bright", volume)
    a_panel.exit()
    a_panel.enter()
    assert not ui.beforeBox.enabled and "changed since" in ui.beforeBox.toolTip
    assert "Changed since: bright. This is about the masks as they were found." in ui.qualityLabel.text
    segmented(a_panel)
    np.testing.assert_array_equal(mrml.segmentArray(node, "RefSeg_bright", volume), painted)
    assert "You have changed bright since; that was kept" in ui.statusLabel.text
    assert node.GetSegmentation().GetNumberOfSegments() == 2
    picture(a_panel, "segmentation-7-kept")


def test_a_scene_that_was_saved_while_the_first_mask_was_shown_shows_the_result(a_panel, an_empty_scene, tmp_path):
    ui = a_panel.ui
    ui.volumeSelector.setCurrentNode(addVolume(an_empty_scene, FLIPPED))
    segmented(a_panel)
    ui.beforeBox.click()
    an_empty_scene.SetURL(str(tmp_path / "scene.mrml"))
    an_empty_scene.Commit()
    an_empty_scene.Clear(0)
    an_empty_scene.SetURL(str(tmp_path / "scene.mrml"))
    an_empty_scene.Import()
    (node,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    (display,) = slicer.util.getNodesByClass("vtkMRMLSegmentationDisplayNode")
    assert node.GetDisplayNode() is display and display.GetVisibility()
    ui.outputSelector.setCurrentNode(node)
    assert "balls, version 7" in ui.doneLabel.text and "Dice 0.88" in ui.qualityLabel.text and ui.plotButton.enabled


def test_such_a_scene_shows_the_result_also_where_the_module_was_never_opened(an_empty_scene):
    from RefSegSlicerLib import before

    node = an_empty_scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "result")
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetVisibility(False)
    node.GetDisplayNode().SetAttribute(before.HIDDEN, "1")
    other = an_empty_scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "hidden by a person")
    other.CreateDefaultDisplayNodes()
    other.GetDisplayNode().SetVisibility(False)
    before.showHidden(an_empty_scene)
    assert node.GetDisplayNode().GetVisibility() and not other.GetDisplayNode().GetVisibility()


def test_what_was_done_is_kept_with_the_segmentation_and_shown(a_panel, an_empty_scene):
    ui = a_panel.ui
    assert "Choose a segmentation" in ui.doneLabel.text
    volume = addVolume(an_empty_scene, FLIPPED)
    ui.volumeSelector.setCurrentNode(volume)
    node = segmented(a_panel)
    done = provenance.stamped(node)
    assert done["model"] == "balls" and done["version"] == "7" and done["image"] == "cd" * 32
    assert done["settings"] == {"reflect": True, "region": "automatic"} and done["where"] == "this computer"
    assert done["weights"] == {"segmenter.safetensors": "ab" * 32} and done["made_at"].endswith("+00:00")
    ui.doneSection.setCollapsed(False)
    for word in ("balls, version 7", "this computer", "abababababababab...", "where the model looks by itself", "UTC"):
        assert word in ui.doneLabel.text
    picture(a_panel, "segmentation-8-what-was-done")
    other = an_empty_scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
    ui.outputSelector.setCurrentNode(other)
    assert "not made by RefSeg" in ui.doneLabel.text and "Not known yet" in ui.qualityLabel.text
    ui.outputSelector.setCurrentNode(node)
    assert "balls, version 7" in ui.doneLabel.text and "0.88" in ui.qualityLabel.text


def test_the_similarity_of_candidates_and_rounds_is_plotted(a_panel, an_empty_scene):
    ui = a_panel.ui
    ui.volumeSelector.setCurrentNode(addVolume(an_empty_scene, FLIPPED))
    assert not ui.plotButton.enabled and "reflects" in ui.plotButton.toolTip
    segmented(a_panel)
    count = an_empty_scene.GetNumberOfNodes()
    ui.plotButton.click()
    (chart,) = slicer.util.getNodesByClass("vtkMRMLPlotChartNode")
    tables = {}
    for number in range(chart.GetNumberOfPlotSeriesNodes()):
        series = chart.GetNthPlotSeriesNode(number)
        table = series.GetTableNode().GetTable()
        columns = range(table.GetNumberOfColumns())
        rows = range(table.GetNumberOfRows())
        tables[series.GetName()] = [[table.GetValue(row, column).ToString() for column in columns] for row in rows]
    assert tables["Image"] == [["0", "0.81", "first mask"], ["1", "0.84", "gamma 2"]]
    assert tables["Image, adjusting"] == [["2", "0.84"], ["3", "0.85"]]
    segmented(a_panel)
    assert slicer.util.getNodesByClass("vtkMRMLPlotChartNode") == [chart]
    ui.outputSelector.setCurrentNode(None)  # the plot would speak of another result
    assert an_empty_scene.GetNumberOfNodes() == count


def test_cancel_stops_at_once_and_says_so(a_panel, an_empty_scene):
    ui = a_panel.ui
    a_panel.logic.runner = Gate()
    ui.volumeSelector.setCurrentNode(addVolume(an_empty_scene, FLIPPED))
    ui.segmentButton.click()
    ui.cancelButton.click()
    assert a_panel.job is None and ui.statusLabel.text == "Cancelled." and ui.segmentButton.enabled
    assert ui.outputSelector.currentNode() is None


def test_errors_are_told_in_the_panel(a_panel, an_empty_scene):
    ui = a_panel.ui
    ui.volumeSelector.setCurrentNode(addVolume(an_empty_scene, FLIPPED))
    segmented(a_panel, error=BadInput("The template does not match this image. Draw a region."))
    assert ui.statusLabel.text == "The template does not match this image. Draw a region."
    ui.volumeSelector.setCurrentNode(addVolume(an_empty_scene, FLIPPED, np.ones(FLIPPED.shape, np.int16)))
    segmented(a_panel)
    assert "same value in every voxel" in ui.statusLabel.text
    picture(a_panel, "segmentation-9-error")
    ui.volumeSelector.setCurrentNode(None)
    assert ui.statusLabel.text == "Choose a volume."


def test_leaving_the_module_lets_the_segmentation_go_on(a_panel, an_empty_scene):
    ui = a_panel.ui
    a_panel.logic.runner = Gate()
    ui.volumeSelector.setCurrentNode(addVolume(an_empty_scene, FLIPPED))
    ui.segmentButton.click()
    a_panel.exit()
    a_panel.logic.runner.open.set()
    until(lambda: not a_panel._timer.active)
    assert a_panel.job is None and ui.outputSelector.currentNode() is not None


def test_closing_the_scene_in_the_middle_leaves_nothing_running(a_panel, an_empty_scene):
    ui = a_panel.ui
    a_panel.logic.runner = Gate()
    threads = threading.active_count()
    ui.volumeSelector.setCurrentNode(addVolume(an_empty_scene, FLIPPED))
    ui.reflectBox.checked = False
    ui.segmentButton.click()
    an_empty_scene.Clear(0)
    assert a_panel.job is None
    until(lambda: threading.active_count() <= threads)
    assert ui.statusLabel.text == "Choose a volume." and not ui.segmentButton.enabled and ui.inputs.enabled
    assert ui.reflectBox.checked and ui.modelSelector.currentText == "balls"
    ui.volumeSelector.setCurrentNode(addVolume(an_empty_scene, FLIPPED))
    assert ui.segmentButton.enabled
    a_panel._parameterNode.reflect = False
    assert not ui.reflectBox.checked


def test_models_that_were_published_meanwhile_and_other_settings_are_noticed(a_panel, settings, a_home, tmp_path):
    import shutil

    ui = a_panel.ui
    shutil.copytree(a_home / "models" / "plain", tmp_path / "models" / "plain")
    a_panel.exit()
    keys.choose(keys.STORE_KEY, tmp_path)
    a_panel.enter()
    until(lambda: ui.modelSelector.findText("plain") >= 0)
    assert ui.modelSelector.findText("balls") < 0 and str(a_panel._service.home) == str(tmp_path)
    shutil.copytree(a_home / "models" / "balls", tmp_path / "models" / "balls")
    a_panel.enter()
    until(lambda: ui.modelSelector.findText("balls") >= 0)
    shutil.rmtree(tmp_path / "models")
    a_panel.enter()
    until(lambda: ui.modelSelector.findText("plain") < 0)
    assert ui.modelSelector.currentText == a_panel._parameterNode.model == "hippocampus"  # it is shipped


def test_what_is_missing_is_explained_before_anything_can_be_done(an_empty_scene, settings, monkeypatch):
    from RefSegSlicerLib import packages

    monkeypatch.setattr(packages, "missingPackages", lambda file: ["pydantic>=2.9"])
    widget = opened()
    assert "set up first" in widget.ui.statusLabel.text and not widget.firstUse.ui.firstUse.isHidden()
    assert widget.models.catalog is None and not widget.ui.segmentButton.enabled
    picture(widget, "segmentation-10-first-use")
    monkeypatch.undo()
    widget.enter()
    until(lambda: widget.ui.modelSelector.currentText == "balls")
    assert widget.firstUse.ui.firstUse.isHidden()
    closed(widget)


def test_a_panel_that_is_reloaded_leaves_no_observer_timer_node_or_thread(an_empty_scene, settings):
    closed(opened())  # the singleton parameter node, which every module keeps, is there from now on
    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(an_empty_scene)  # as in every scene of Slicer
    nodes = an_empty_scene.GetNumberOfNodes()
    for _ in range(3):
        widget = opened()
        volume = addVolume(an_empty_scene, FLIPPED)
        widget.ui.volumeSelector.setCurrentNode(volume)
        node = segmented(widget)
        widget.ui.plotButton.click()
        widget.ui.beforeBox.click()
        closed(widget)
        assert not widget._timer.active and not widget.Observations
        for made in (node.GetDisplayNode(), node, doubt.doubtNode(volume).GetDisplayNode(), doubt.doubtNode(volume)):
            an_empty_scene.RemoveNode(made)
        an_empty_scene.RemoveNode(volume)
        assert an_empty_scene.GetNumberOfNodes() == nodes
    addVolume(an_empty_scene, FLIPPED)  # an observer that was left behind would speak to a dead panel here
    an_empty_scene.Clear(0)


def test_the_real_engine_is_reached_through_the_panel(a_panel, an_empty_scene):
    ui = a_panel.ui
    volume = addVolume(an_empty_scene, FLIPPED, parent=MOVE)
    ui.volumeSelector.setCurrentNode(volume)
    ui.segmentButton.click()
    until(lambda: a_panel.job is None, 200)
    node = ui.outputSelector.currentNode()
    assert node is not None, ui.statusLabel.text
    assert node.GetSegmentation().GetNumberOfSegments() == 2 and ui.beforeBox.enabled and ui.plotButton.enabled
    done = provenance.stamped(node)
    assert len(done["image"]) == 64 and set(done["weights"]) == {"segmenter.safetensors", "synthesizer.safetensors"}
    picture(a_panel, "segmentation-11-real")


def test_the_shipped_model_segments_a_real_image(a_panel, an_empty_scene, shared_data):
    from RefSegLib.volume.io import read_image

    ui = a_panel.ui
    file = next(iter(sorted((shared_data / "msd_hippocampus" / "images").glob("*.nii.gz"))))
    image = read_image(file)
    volume = addVolume(an_empty_scene, image.grid, image.array[0])
    ui.volumeSelector.setCurrentNode(volume)
    ui.modelSelector.setCurrentIndex(ui.modelSelector.findText("hippocampus"))
    ui.segmentButton.click()
    until(lambda: a_panel.job is None, 200)
    node = ui.outputSelector.currentNode()
    assert node is not None, ui.statusLabel.text
    found = provenance.stamped(node)["found"]
    for label in found["labels"]:
        mask = mrml.segmentArray(node, f"RefSeg_{label['name']}", volume)
        assert mask.sum() == label["voxels"] > 300 and label["name"] in ui.qualityLabel.text
    assert ui.qualityLabel.text.count("Dice 0.") == 2
    places = doubt.placesOf(volume)
    map_ = slicer.util.arrayFromVolume(doubt.doubtNode(volume))
    assert ui.placesList.count == len(places) > 0 and all(map_[place.index] > 0.5 for place in places)
    ui.cardSection.setCollapsed(False)
    assert "hippocampus" in ui.cardBrowser.plainText.lower()
    picture(a_panel, "segmentation-15-hippocampus")
