"""The Interactive Learning module's logic on real MRML scenes: clicks, undo, next slice, accepting."""

from dataclasses import replace

import numpy as np
import pytest
import slicer
from InteractiveLearningLib.accepting import named_values
from InteractiveLearningLib.desk import FolderDesk
from InteractiveLearningLib.prompts import Click
from InteractiveLearningLib.replay import ReplayStore
from InteractiveLearningSlicerLib import checks, segments
from InteractiveLearningSlicerLib.beginning import SESSION
from RefSegLib.errors import BadInput
from RefSegLib.models.store import ModelStore
from RefSegLib.volume.grid import Grid
from RefSegSlicerLib import mrml
from RefSegSlicerLib.checks import MOVE, TURN, addVolume

pytest_plugins = ("slicer_standin.fixtures", "slicer_case")
pytestmark = pytest.mark.usefixtures("an_empty_scene", "no_swallowed_exceptions")

SCALE = np.diag([1.2, 0.8, 1.0, 1.0])


@pytest.fixture(params=["no transform", "moved", "scaled along its axes"])
def a_parent(request, a_grid):
    """Transforms above a volume."""
    if request.param == "no transform":
        return None
    turn = np.eye(4)
    turn[:3, :3] = a_grid.ijk_to_ras()[:3, :3] / np.linalg.norm(a_grid.ijk_to_ras()[:3, :3], axis=0)
    return MOVE if request.param == "moved" else turn @ SCALE @ turn.T


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test_clicks_land_on_their_voxels_on_every_grid_and_under_every_transform(check, an_empty_scene, a_grid, a_parent):
    check(an_empty_scene, a_grid, a_parent)


def test_the_self_test_of_the_module_passes():
    from InteractiveLearning import InteractiveLearningTest

    InteractiveLearningTest().runTest()


def test_a_volume_moved_in_the_middle_still_gets_its_clicks_right(a_case):
    a_case.start()
    first, second = (7, 8, 9), (6, 9, 10)
    a_case.logic.click(a_case.world(first), True)
    turned = np.linalg.inv(MOVE) @ np.diag([1.0, -1.0, 1.0, 1.0])
    a_case.volume.GetParentTransformNode().SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(turned))
    a_case.logic.click(a_case.world(second), True)
    grid = a_case.logic.session.grid
    assert [tuple(np.rint(grid.to_index(c.point)).astype(int)) for c in a_case.prompts(Click)] == [first, second]


def test_hovering_is_no_click_and_a_point_is_taken_once(a_case):
    """As in the application: a point appears under the mouse, follows it, and is set down."""
    a_case.start()
    node = a_case.logic.clickNodes[True]
    hovering, placed = slicer.vtkMRMLMarkupsNode.PositionPreview, slicer.vtkMRMLMarkupsNode.PositionDefined
    modified = node.StartModify()
    node.AddControlPointWorld(*a_case.world((1, 1, 1)), "")
    node.SetNthControlPointPosition(0, *a_case.world((1, 1, 1)), hovering)
    node.EndModify(modified)
    for index in ((2, 2, 2), (5, 6, 7)):
        node.SetNthControlPointPosition(0, *a_case.world(index), hovering)
        assert not a_case.prompts(Click)
    node.SetNthControlPointPosition(0, *a_case.world((7, 8, 9)), placed)
    node.Modified()
    (click,) = a_case.prompts(Click)
    assert np.allclose(a_case.logic.session.grid.to_index(click.point), (7, 8, 9), atol=1e-4)
    assert a_case.voxels("bright")[7, 8, 9]


def test_clicks_outside_the_volume_are_told_and_taken_away(a_case):
    told = []
    a_case.start()
    a_case.logic.failed.connect(told.append)
    a_case.logic.clickNodes[True].AddControlPointWorld(900, 900, 900, "")
    assert "outside the volume" in str(told[0])
    assert a_case.logic.clickNodes[True].GetNumberOfControlPoints() == 0
    assert not a_case.logic.session.prompts()


def test_negative_clicks_take_away_and_undo_and_redo_move_points_and_masks_together(a_case):
    a_case.start()
    a_case.logic.clickNodes[True].AddControlPointWorld(*a_case.world((7, 8, 9)), "")
    grown = a_case.voxels("bright")
    assert grown[7, 8, 9]
    a_case.logic.clickNodes[False].AddControlPointWorld(*a_case.world((7, 8, 9)), "")
    assert not a_case.voxels("bright")[7, 8, 9]
    a_case.logic.undo()
    assert np.array_equal(a_case.voxels("bright"), grown)
    assert a_case.logic.clickNodes[False].GetNumberOfControlPoints() == 0
    a_case.logic.undo()
    assert not a_case.voxels("bright").any()
    assert a_case.logic.clickNodes[True].GetNumberOfControlPoints() == 0
    a_case.logic.redo()
    assert np.array_equal(a_case.voxels("bright"), grown)
    points = a_case.logic.clickNodes[True]
    assert np.allclose(points.GetNthControlPointPositionWorld(0), a_case.world((7, 8, 9)), atol=1e-4)
    a_case.logic.redo()
    with pytest.raises(BadInput, match="nothing to redo"):
        a_case.logic.redo()
    a_case.check_node_shows_session()


def test_segments_that_are_not_of_the_session_keep_every_voxel(a_case):
    a_case.start()
    overlapping = checks.ball(a_case.grid, (7, 8, 9), 6)
    mine = a_case.add("mine", overlapping)
    for active, index, positive in (
        ("bright", (7, 8, 9), True),
        ("dim", (13, 15, 18), True),
        ("dim", (7, 8, 9), True),
        ("dim", (3, 3, 3), False),
        ("bright", (7, 8, 9), True),
    ):
        a_case.logic.activeSegment = active
        a_case.logic.click(a_case.world(index), positive)
        assert np.array_equal(a_case.voxels(mine), overlapping)
        a_case.check_node_shows_session()
    painted = a_case.voxels("bright")
    painted[8] |= checks.ball(a_case.grid, (8, 10, 11), 5)[8]
    a_case.paint("bright", painted)
    a_case.logic.takeEdits()
    assert np.array_equal(a_case.voxels(mine), overlapping)
    a_case.check_node_shows_session()


@pytest.mark.parametrize("seed", range(6))
def test_any_box_of_any_label_map_is_written_whatever_lies_around(an_empty_scene, seed):
    """Three segments of ours, two of somebody else, one of them overlapping, in as many images as Slicer likes."""
    rng = np.random.default_rng(seed)
    grid = Grid((9, 10, 11), (1.5, 1.0, 1.0), TURN)
    volume = addVolume(an_empty_scene, grid)
    node = an_empty_scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "masks")
    mrml.prepareSegmentation(node, volume)
    order = rng.permutation(["a", "b", "c", "beside", "across"]).tolist()
    for name in order:
        node.GetSegmentation().AddEmptySegment(name, name)
    whole = rng.integers(0, 5, grid.shape)
    foreign = {"beside": whole == 4, "across": rng.random(grid.shape) < 0.3}
    for name, mask in foreign.items():
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, name, volume)
    values = {"a": 2, "b": 1, "c": 7}
    shown = np.zeros(grid.shape, np.uint8)
    for _ in range(12):
        lower = rng.integers(0, np.array(grid.shape) - 1)
        upper = [int(rng.integers(low + 1, n + 1)) for low, n in zip(lower, grid.shape, strict=True)]
        box = tuple(map(slice, lower, upper))
        before = shown[box].copy()
        shown[box] = rng.choice([0, *values.values()], shown[box].shape)
        changes = segments.changesOf(before, shown[box], values.values())
        moved = [replace(change, lower=change.lower + lower) for change in changes]
        segments.write(moved, node, volume, values)
        for name, value in values.items():
            assert np.array_equal(mrml.segmentArray(node, name, volume), shown == value), name
        for name, mask in foreign.items():
            assert np.array_equal(mrml.segmentArray(node, name, volume), mask), name


def test_only_the_changed_box_is_written(a_case, monkeypatch):
    written = []
    original = segments.write

    def write(changes, *rest):
        written.extend(change.gained.size for change in changes)
        original(changes, *rest)

    monkeypatch.setattr(segments, "write", write)
    a_case.start()
    a_case.logic.click(a_case.world((7, 8, 9)), True)
    assert 1 < written[-1] < np.prod(a_case.grid.shape) / 2


def test_limits_cut_the_mask(a_case):
    a_case.paint("bright", a_case.balls[0])
    a_case.start()
    a_case.logic.setLimits(0, 6, 8)
    kept = a_case.voxels("bright")
    assert not kept[:6].any() and not kept[9:].any() and kept[6:9].any()
    a_case.logic.undo()
    assert np.array_equal(a_case.voxels("bright"), a_case.balls[0])


def test_a_session_starts_from_the_segments_as_they_are(a_case):
    a_case.paint("bright", a_case.balls[0])
    a_case.paint("dim", a_case.balls[1])
    a_case.start()
    assert np.array_equal(a_case.logic.session.labels().array, a_case.balls[0] + 2 * a_case.balls[1])
    a_case.check_node_shows_session()


def test_a_session_that_was_cut_off_goes_on_where_it_was(a_case):
    assert not a_case.start().resumed
    a_case.logic.click(a_case.world((7, 8, 9)), True)
    mask = a_case.voxels("bright")
    a_case.logic.endSession(keep=True)
    # As after a crash: the scene is gone, the volume and the empty segments are loaded again.
    a_case.segmentation.GetSegmentation().RemoveAllSegments()
    a_case.segmentation.RemoveAttribute(SESSION)
    for name in ("bright", "dim"):
        a_case.add(name)
    assert a_case.start().resumed
    assert np.array_equal(a_case.voxels("bright"), mask)
    assert a_case.logic.clickNodes[True].GetNumberOfControlPoints() == 1
    a_case.logic.undo()
    assert not a_case.voxels("bright").any()


def test_a_scene_saved_in_the_middle_goes_on_after_a_crash_with_what_was_said_later(a_case):
    a_case.start()
    a_case.logic.click(a_case.world((7, 8, 9)), True)
    saved, attribute = a_case.voxels("bright"), a_case.segmentation.GetAttribute(SESSION)
    a_case.logic.click(a_case.world((7, 8, 9)), False)
    later = a_case.voxels("bright")
    assert not np.array_equal(saved, later)
    a_case.logic.endSession(keep=True)
    a_case.paint("bright", saved)
    a_case.segmentation.SetAttribute(SESSION, attribute)
    assert a_case.start().resumed
    assert np.array_equal(a_case.voxels("bright"), later)
    a_case.logic.endSession(keep=True)
    a_case.paint("bright", a_case.balls[0])  # somebody went on without a session: that stays
    assert not a_case.start().resumed
    assert np.array_equal(a_case.voxels("bright"), a_case.balls[0])


def test_ending_a_session_leaves_only_the_masks(a_case):
    nodes = a_case.scene.GetNumberOfNodes()
    a_case.start()
    for node in a_case.logic.clickNodes.values():
        assert not node.GetSaveWithScene() and node.GetHideFromEditors()
    a_case.logic.click(a_case.world((7, 8, 9)), True)
    mask, folder = a_case.voxels("bright"), a_case.logic.session.folder
    a_case.logic.endSession()
    assert a_case.segmentation.GetAttribute(SESSION) is None
    assert a_case.scene.GetNumberOfNodes() == nodes
    assert not folder.exists()
    assert np.array_equal(a_case.voxels("bright"), mask)
    with pytest.raises(BadInput, match="No session"):
        a_case.logic.undo()


def test_a_removed_volume_or_segment_is_told(a_case):
    a_case.start()
    a_case.segmentation.GetSegmentation().RemoveSegment("dim")
    with pytest.raises(BadInput, match="'dim' was removed"):
        a_case.logic.click(a_case.world((7, 8, 9)), True)
    a_case.scene.RemoveNode(a_case.volume)
    with pytest.raises(BadInput, match="removed from the scene"):
        a_case.logic.undo()


def test_the_next_slice_is_shown_with_a_reason_in_views_that_all_cut_the_volume_obliquely(a_case):
    views = []
    for orientation in ("Axial", "Sagittal", "Coronal"):
        view = a_case.view(np.eye(4), orientation)
        view.SetOrientation(orientation)
        views.append(view)
    a_case.start()
    painted = np.zeros(a_case.grid.shape, bool)
    painted[7] = a_case.balls[0][7]
    a_case.paint("bright", painted)
    a_case.logic.takeEdits()
    suggestion = a_case.logic.nextSlice()
    assert suggestion.axis == 0 and suggestion.index != 7 and suggestion.reason.endswith(".")
    points = [slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())[:3, 3] for view in views]
    for point in points:
        assert mrml.indexFromWorld(point, a_case.volume)[0] == pytest.approx(suggestion.index, abs=1e-3)


def test_every_plane_has_its_next_slice_and_what_reflection_doubts_is_asked_for(a_case):
    from RefSegSlicerLib.doubt import writeDoubt

    a_case.start()
    assert [a_case.logic.nextSlice(axis).axis for axis in range(3)] == [0, 1, 2]
    plain = a_case.logic.nextSlice(1)
    suspect = np.zeros(a_case.grid.shape, np.float32)
    doubted = plain.index + 2
    suspect[:, doubted] = 1
    writeDoubt(mrml.imageData(suspect), a_case.volume)
    asked = a_case.logic.nextSlice(1)
    assert asked.index == doubted
    assert "reflection doubts" in asked.reason


# Accepting, with a real store and a real (untrained) model.


@pytest.fixture
def a_store(tmp_path):
    """A store with a tiny model of random weights."""
    from benchmarks.tiny_learning import an_untrained_version

    an_untrained_version(tmp_path / "home")
    return ModelStore(tmp_path / "home")


def begun(case, store):
    known = named_values(store.load("balls").spec)
    case.logic.startSession(case.volume, case.segmentation, FolderDesk(case.folder, store.home), known=known)


def test_an_accepted_case_is_kept_with_the_models_own_values(a_case, a_store):
    a_case.add("something else")
    begun(a_case, a_store)
    a_case.logic.activeSegment = "dim"
    a_case.logic.click(a_case.world((13, 15, 18)), True)
    identifier = a_case.logic.accept("balls", "patient 7")
    assert a_case.logic.session is None and not any(a_case.folder.iterdir())
    replay = ReplayStore(a_store.home)
    kept = replay.load(identifier)
    replay.close()
    assert kept.label_names == ("bright", "dim")
    assert np.array_equal(kept.labels.array == 2, a_case.voxels("dim"))
    assert np.array_equal(kept.image.array[0], a_case.image)
    assert kept.image.grid.same_as(mrml.worldGrid(a_case.volume))


def test_a_case_the_model_does_not_know_is_refused_and_the_session_stays(a_case, a_store):
    stranger = a_case.add("stranger")
    begun(a_case, a_store)
    a_case.logic.activeSegment = stranger
    a_case.logic.click(a_case.world((7, 8, 9)), True)
    with pytest.raises(BadInput, match="bright, dim"):
        a_case.logic.accept("balls", "p")
    assert a_case.logic.session is not None and a_case.voxels(stranger)[7, 8, 9]


def test_left_and_right_get_the_values_of_their_boxes():
    from pathlib import Path

    from RefSegLib.models.spec import SegmenterSpec

    file = Path(__file__).parents[2] / "Resources" / "specs" / "hippocampus.json"
    values = named_values(SegmenterSpec.model_validate_json(file.read_text()))
    assert values["Left posterior hippocampus"] == 2 and values["Right anterior hippocampus"] == 3
