"""Where a mask may be wrong, on the way from working grids to the image, into the scene and onto the screen."""

import json
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace

import numpy as np
import pytest
import slicer
import vtk
from RefSegLib.engine import suspect_map
from RefSegLib.inference.predict import RegionResult, Segmentation
from RefSegLib.inference.region import RegionOfInterest
from RefSegLib.jobs import POOR, Estimate, estimates_of
from RefSegLib.reflection import reflect
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import LabelMap
from RefSegSlicerLib import checks, doubt, mrml
from scipy import ndimage
from vtk.util.numpy_support import vtk_to_numpy

pytest_plugins = ("slicer_standin.fixtures",)
pytestmark = pytest.mark.usefixtures("an_empty_scene", "no_swallowed_exceptions")


def places(grid):
    """LPS mm of every voxel (k, j, i, 3)."""
    return grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))


def waves(grid):
    """A value in 0..1 for every voxel that depends on its place in the patient alone, and on it in no simple way."""
    x, y, z = np.moveaxis(places(grid), -1, 0)
    return (0.5 + 0.5 * np.sin(2.1 * x + 3.3 * y + 1.7 * z)).astype(np.float32)


def mirrored(grid):
    """The same voxels, counted from the other end of axis i."""
    direction = np.asarray(grid.direction) * [[1], [1], [-1]]
    return Grid(grid.shape, grid.spacing, direction, grid.to_world((0, 0, grid.shape[2] - 1)))


def found_on(image, *regions):
    """A result for an image grid with reflected regions: (working grid, its suspect map or None)."""
    results = [
        RegionResult(RegionOfInterest(grid), None, None, None if values is None else SimpleNamespace(suspect=values))
        for grid, values in regions
    ]
    return Segmentation(LabelMap(np.zeros(image.shape, np.uint8), image), (), results)


def interpolated(values, source, target):
    """Linear interpolation by another library: 0 beyond the outer faces of the voxels of source."""
    index = np.moveaxis(source.to_index(places(target)), -1, 0)
    faces = [np.minimum(i + 0.5, n - 0.5 - i) for i, n in zip(index, source.shape, strict=True)]
    assert np.abs(faces).min() > 1e-5  # no voxel lies on a face, where rounding would decide
    inside = np.min(faces, axis=0) > 0
    return np.where(inside, ndimage.map_coordinates(values, index, order=1, mode="nearest"), 0)


@pytest.mark.parametrize("side", ["as it is", "mirrored"])
def test_maps_of_turned_regions_land_voxel_for_voxel(a_grid, side):
    region = a_grid.aligned_to_lps().crop((1, 2, 3), (6, 7, 9))
    region = mirrored(region) if side == "mirrored" else region
    found = suspect_map(found_on(a_grid, (region, waves(region))))
    index = region.to_index(places(a_grid))
    inside = ((index > -0.25) & (index < np.subtract(region.shape, 0.75))).all(axis=-1)
    assert inside.sum() == np.prod(region.shape) and found.grid == a_grid and found.array.dtype == np.float32
    np.testing.assert_allclose(found.array[0], np.where(inside, waves(a_grid), 0), atol=1e-4)


@pytest.mark.parametrize("side", ["as it is", "mirrored"])
def test_maps_of_tilted_regions_at_another_spacing_are_interpolated_linearly(a_grid, side):
    middle = a_grid.to_world(np.subtract(a_grid.shape, 1) / 2)
    region = Grid((9, 10, 11), (0.93, 1.07, 1.21), checks.TURN)
    region = Grid(region.shape, region.spacing, region.direction, middle - region.to_world((3.871, 4.413, 5.337)))
    region = mirrored(region) if side == "mirrored" else region
    values = np.random.default_rng(0).random(region.shape).astype(np.float32)
    found = suspect_map(found_on(a_grid, (region, values))).array[0]
    assert (found > 0).any() and not (found > 0).all()
    np.testing.assert_allclose(found, interpolated(values, region, a_grid), atol=1e-4)


def test_the_highest_value_stands_where_regions_overlap_and_regions_may_reach_outside():
    image = Grid((6, 7, 8))
    grids = [image.crop((-2, -2, -2), (4, 5, 5)), image.crop((2, 2, 2), (9, 9, 9)), image.crop((20, 0, 0), (22, 2, 2))]
    rng = np.random.default_rng(1)
    regions = [(grid, rng.random(grid.shape).astype(np.float32)) for grid in grids]
    found = suspect_map(found_on(image, *regions, (image, None))).array[0]
    expected = np.maximum(*(interpolated(values, grid, image) for grid, values in regions[:2]))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_there_is_no_map_where_nothing_was_reflected_on():
    image = Grid((6, 7, 8))
    assert suspect_map(found_on(image, (image, None))) is None


# In the scene


def a_view(scene, background=None, foreground=None, opacity=0.0):
    view = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    view.SetBackgroundVolumeID(None if background is None else background.GetID())
    view.SetForegroundVolumeID(None if foreground is None else foreground.GetID())
    view.SetForegroundOpacity(opacity)
    return view


def an_image_with_doubt(scene, grid=checks.FLIPPED, parent=None):
    node = checks.addVolume(scene, grid, parent=parent)
    return node, doubt.writeDoubt(mrml.imageData(waves(grid)), node)


def test_the_map_is_warm_and_transparent_where_there_is_no_doubt(an_empty_scene):
    _, node = an_image_with_doubt(an_empty_scene)
    display = node.GetDisplayNode()
    assert node.GetName() == "image suspect"
    assert display.GetApplyThreshold() and not display.GetAutoThreshold() and not display.GetAutoWindowLevel()
    assert display.GetLowerThreshold() == pytest.approx(0.1) and display.GetUpperThreshold() >= 1
    colors = display.GetColorNode().GetLookupTable()
    for value in (0, 128, 255):
        red, green, blue, _ = colors.GetTableValue(value)
        assert (red, green, blue) == pytest.approx((1, 1 - value / 255, 0), abs=0.01)


def test_under_a_transform_the_map_lies_where_it_was_found(an_empty_scene):
    """A mirrored region of an oblique image that lies under a turn: at its places in the world stand its values."""
    node = checks.addVolume(an_empty_scene, checks.OBLIQUE, parent=checks.MOVE)
    world = mrml.worldGrid(node)
    region = mirrored(world.aligned_to_lps())
    found = doubt.writeDoubt(mrml.imageData(suspect_map(found_on(world, (region, waves(region)))).array[0]), node)
    matrix = vtk.vtkMatrix4x4()
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(found.GetParentTransformNode(), None, matrix)
    toWorld = slicer.util.arrayFromVTKMatrix(matrix)
    found.GetIJKToRASMatrix(matrix)
    ijkToWorld = toWorld @ slicer.util.arrayFromVTKMatrix(matrix)
    for k, j, i in ((0, 0, 0), (3, 9, 2), (8, 12, 10)):
        x, y, z = (ijkToWorld @ (i, j, k, 1))[:3] * (-1, -1, 1)
        expected = 0.5 + 0.5 * np.sin(2.1 * x + 3.3 * y + 1.7 * z)
        assert found.GetImageData().GetScalarComponentAsDouble(i, j, k, 0) == pytest.approx(expected, abs=1e-4)


@pytest.fixture
def a_slice_logic(an_empty_scene):
    """Slicer's own slice pipeline, without a window. Its nodes outlive the closing of a scene, as in Slicer."""
    logic = slicer.vtkMRMLSliceLogic()
    logic.SetMRMLScene(an_empty_scene)
    nodes = [logic.AddSliceNode("Red"), logic.GetSliceCompositeNode(), logic.GetSliceDisplayNode()]
    yield logic
    logic.SetMRMLScene(None)
    for node in nodes:
        an_empty_scene.RemoveNode(node)


def test_a_slice_view_draws_doubt_on_the_voxels_it_belongs_to_and_nothing_elsewhere(an_empty_scene, a_slice_logic):
    """On an oblique image under a turn."""
    node = checks.addVolume(an_empty_scene, checks.OBLIQUE, parent=checks.MOVE)
    values = np.full(checks.OBLIQUE.shape, 0.05, np.float32)
    values[3:6, 4:9, 3:8] = 0.9
    doubt.writeDoubt(mrml.imageData(values), node)
    view = a_slice_logic.GetSliceNode()
    a_slice_logic.GetSliceCompositeNode().SetBackgroundVolumeID(node.GetID())
    doubt.showDoubt(an_empty_scene, True)
    view.SetDimensions(120, 120, 1)
    view.SetFieldOfView(30, 30, 1)
    view.RotateToVolumePlane(node)
    view.JumpSliceByCentering(*mrml.worldFromIndex((4, 6, 5), node))
    a_slice_logic.UpdatePipeline()
    producer = a_slice_logic.GetForegroundLayer().GetImageDataConnection().GetProducer()
    producer.Update()
    drawn = vtk_to_numpy(producer.GetOutput().GetPointData().GetScalars()).reshape(120, 120, 4)  # y, x, color
    toView = np.linalg.inv(slicer.util.arrayFromVTKMatrix(view.GetXYToRAS()))
    near = ndimage.minimum_filter(values[4], 3), ndimage.maximum_filter(values[4], 3)
    seen = []
    for j, i in np.ndindex(values[4].shape):
        x, y = np.rint(toView @ [*mrml.worldFromIndex((4, j, i), node), 1])[:2].astype(int)
        if near[0][j, i] == near[1][j, i]:  # at a border the view mixes neighbors
            red, green, blue, alpha = drawn[y, x].tolist()
            seen.append(alpha > 0)
            assert seen[-1] == (values[4, j, i] > 0.1)
            assert not seen[-1] or (red > 240 and green < 60 and blue < 10)
    assert sum(seen) == 9 and len(seen) > 60


def test_views_of_the_image_show_it_and_get_back_what_was_in_front(an_empty_scene):
    volume, node = an_image_with_doubt(an_empty_scene)
    other = checks.addVolume(an_empty_scene, checks.OBLIQUE)
    views = [a_view(an_empty_scene, volume), a_view(an_empty_scene, volume, other, 0.3), a_view(an_empty_scene, other)]
    before = [(view.GetForegroundVolumeID(), view.GetForegroundOpacity()) for view in views]
    for _ in range(2):  # to say it twice changes nothing
        doubt.showDoubt(an_empty_scene, True)
    assert [view.GetForegroundVolumeID() for view in views] == [node.GetID(), node.GetID(), None]
    assert all(0.3 < view.GetForegroundOpacity() < 0.8 for view in views[:2])
    doubt.showDoubt(an_empty_scene, False)
    assert [(view.GetForegroundVolumeID(), view.GetForegroundOpacity()) for view in views] == before


def test_a_mask_that_was_not_reflected_on_takes_the_earlier_map_away(an_empty_scene):
    volume = checks.addVolume(an_empty_scene, checks.FLIPPED)
    view = a_view(an_empty_scene, volume)
    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(an_empty_scene)  # in Slicer every scene has one
    count = an_empty_scene.GetNumberOfNodes()
    doubt.writeDoubt(mrml.imageData(waves(checks.FLIPPED)), volume)
    doubt.showDoubt(an_empty_scene, True)
    assert doubt.writeDoubt(None, volume) is None
    assert an_empty_scene.GetNumberOfNodes() == count and doubt.doubtNode(volume) is None
    assert view.GetForegroundVolumeID() is None and view.GetForegroundOpacity() == 0


def test_a_map_whose_image_was_removed_is_taken_away_from_the_views_as_well(an_empty_scene):
    volume, node = an_image_with_doubt(an_empty_scene)
    view = a_view(an_empty_scene, volume)
    doubt.showDoubt(an_empty_scene, True)
    an_empty_scene.RemoveNode(volume)
    assert view.GetForegroundVolumeID() == node.GetID()
    doubt.showDoubt(an_empty_scene, False)
    assert view.GetForegroundVolumeID() is None
    other = checks.addVolume(an_empty_scene, checks.OBLIQUE)
    assert doubt.doubtNode(other) is None


def test_the_map_is_put_where_the_image_is_in_the_subject_hierarchy(an_empty_scene):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(an_empty_scene)
    volume = checks.addVolume(an_empty_scene, checks.FLIPPED)
    patient = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), "patient")
    hierarchy.CreateItem(patient, volume)
    node = doubt.writeDoubt(mrml.imageData(waves(checks.FLIPPED)), volume)
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == patient


def test_closing_the_scene_takes_the_map_along_and_a_saved_scene_brings_it_back(an_empty_scene, tmp_path):
    volume, node = an_image_with_doubt(an_empty_scene)
    text = "vtkMRMLScalarVolumeNode"
    an_empty_scene.SetSaveToXMLString(1)
    an_empty_scene.Commit()
    saved = an_empty_scene.GetSceneXMLString()
    an_empty_scene.Clear(0)
    assert not slicer.util.getNodesByClass(text, an_empty_scene)
    an_empty_scene.SetLoadFromXMLString(1)
    an_empty_scene.SetSceneXMLString(saved)
    an_empty_scene.Import()
    an_empty_scene.SetLoadFromXMLString(0)
    an_empty_scene.SetSaveToXMLString(0)
    image, found = (slicer.util.getNode(name) for name in ("image", "image suspect"))
    assert image is not volume and doubt.doubtNode(image) is found and found is not node


def test_a_map_with_other_voxels_is_refused(an_empty_scene):
    volume = checks.addVolume(an_empty_scene, checks.FLIPPED)
    with pytest.raises(doubt.BadInput, match="another number of voxels"):
        doubt.writeDoubt(mrml.imageData(waves(checks.OBLIQUE)), volume)


# In words


@pytest.fixture
def words():
    """The module, which needs the application's translations."""
    from RefSegSlicerLib import words

    return words


def a_report(**changes):
    """The entry of an image in a report."""
    told = {"estimated_dice": {"1": 0.88, "2": 0.61}, "estimated_interval": {"1": [0.83, 0.92], "2": [0.4, 0.75]}}
    region = {"side": "left", "labels": {"1": "Left head", "2": "Left tail"}, "said": "First mask kept."}
    region["reflection"] = told | changes
    labels = [{"name": name, "milliliters": 1.5} for name in ("Left head", "Left tail")]
    return json.loads(json.dumps({"labels": labels, "regions": [region]}))


def cells(table):
    """The rows of a table in HTML."""
    rows = ElementTree.fromstring(table.replace("&nbsp;", "")).iter("tr")
    return [[cell.text for cell in row.iter("td")] for row in rows]


def test_quality_is_told_in_words_and_numbers(words):
    found = a_report()
    assert cells(words.table(found)) == [
        ["Left head", "1.50 ml", "probably good, Dice 0.88 (0.83 to 0.92)"],
        ["Left tail", "1.50 ml", "please check, Dice 0.61 (0.40 to 0.75)"],
    ]
    assert words.said(found) == ["Left: First mask kept."]


def test_models_without_intervals_or_estimates_are_told_of_as_well(words):
    first, second = cells(words.table(a_report(estimated_interval={})))
    assert first[2] == "probably good, Dice 0.88" and second[2] == "please check, Dice 0.61"
    assert cells(words.table(a_report(estimated_dice={})))[0] == ["Left head", "1.50 ml", "not estimated"]
    found = a_report()
    found["regions"][0] |= {"reflection": None, "said": "This region is too large."}
    assert estimates_of(found) == []
    assert words.said(found) == ["Left: This region is too large."]
    assert cells(words.table(found | {"regions": []}))[0] == ["Left head", "1.50 ml", "not estimated"]
    assert words.table({}) == ""


def test_names_are_text_and_no_markup(words):
    found = a_report(estimated_dice={})
    found["labels"][0]["name"] = "<b>T1 & T2</b>"
    assert cells(words.table(found))[0][0] == "<b>T1 & T2</b>"


def test_structures_that_were_not_found_are_named(words):
    found = a_report()
    found["labels"][1]["voxels"] = 0
    assert "Not found: Left tail." in words.finished({"found": found}, ())
    assert "Not found" not in words.finished({"found": a_report()}, ())


def test_the_time_left_is_told_in_words(words):
    told = {
        3: "a few seconds left",
        31: "about 30 seconds left",
        55: "about a minute left",
        130: "about 2 minutes left",
    }
    assert {seconds: words.left(seconds) for seconds in told} == told
    assert words.left(3 * 3600) == "about 3 hours left" and words.left(None) == ""


def test_a_mask_that_may_well_be_poor_is_not_called_good(words):
    assert POOR == reflect.POOR
    assert words.quality(Estimate("x", 0.75, (0.55, 0.9))).startswith("perhaps good")
    assert words.quality(Estimate("x", POOR, (POOR, 0.9))).startswith("probably good")
    assert words.quality(Estimate("x", POOR - 0.01)).startswith("please check")
