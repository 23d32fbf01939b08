"""The Interactive Learning module's logic on real MRML scenes: clicks, painted slices, undo, accepting, learning."""

import time

import numpy as np
import pytest
import slicer
from InteractiveLearningLib.prompts import Click, Outline
from InteractiveLearningLib.replay import ReplayStore
from InteractiveLearningSlicerLib import checks, segments
from InteractiveLearningSlicerLib.clicks import clickedAxis
from InteractiveLearningSlicerLib.learning_logic import LearningLogic
from InteractiveLearningSlicerLib.session_logic import SessionLogic
from RefSegLib.errors import BadInput
from RefSegLib.volume.grid import Grid
from RefSegSlicerLib import mrml
from RefSegSlicerLib.checks import MOVE, TURN, addVolume

pytest_plugins = ("slicer_standin.fixtures",)
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


class Case:
    """A volume with two balls, a segmentation with both and a third segment that is not theirs, and the logic."""

    def __init__(self, scene, folder, grid=None, parent=None):
        self.grid = grid or Grid((20, 24, 28), (1.5, 1.0, 1.0), TURN, (4.0, -9.0, 30.0))
        shape = np.array(self.grid.shape)
        self.balls = [checks.ball(self.grid, shape * share, 0.22 * shape.min()) for share in (0.35, 0.65)]
        self.balls[1] &= ~self.balls[0]
        noise = np.random.default_rng(0).normal(0, 8, self.grid.shape)
        self.image = (100 + 200 * self.balls[0] + 400 * self.balls[1] + noise).astype(np.int16)
        self.volume = addVolume(scene, self.grid, self.image, parent)
        self.segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "masks")
        mrml.prepareSegmentation(self.segmentation, self.volume)
        self.scene, self.folder = scene, folder
        self.ids = [self.add(name) for name in ("bright", "dim")]
        self.logic = SessionLogic(scene)

    def add(self, name, mask=None):
        identifier = self.segmentation.GetSegmentation().AddEmptySegment(name, name, (0.2, 0.6, 0.4))
        if mask is not None:
            self.paint(identifier, mask)
        return identifier

    def paint(self, identifier, mask):
        array = mask.astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(array, self.segmentation, identifier, self.volume)

    def start(self, **options):
        return self.logic.startSession(self.volume, self.segmentation, self.folder, **options)

    def world(self, index):
        return mrml.worldFromIndex(index, self.volume)

    def voxels(self, identifier):
        return mrml.segmentArray(self.segmentation, identifier, self.volume)

    def check_node_shows_session(self):
        mask = self.logic.session.labels().array
        for identifier in self.logic.segmentIds():
            value = self.logic._labels[identifier].value
            assert np.array_equal(self.voxels(identifier), mask == value)


@pytest.fixture
def a_case(an_empty_scene, tmp_path):
    """Two balls to segment, nothing segmented yet."""
    case = Case(an_empty_scene, tmp_path / "sessions", parent=MOVE)
    yield case
    case.logic.endSession()


def prompts(case, kind):
    return [prompt for prompt in case.logic.session.prompts() if isinstance(prompt, kind)]


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
    assert [tuple(np.rint(grid.to_index(c.point)).astype(int)) for c in prompts(a_case, Click)] == [first, second]


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
        assert not prompts(a_case, Click)
    node.SetNthControlPointPosition(0, *a_case.world((7, 8, 9)), placed)
    node.Modified()
    (click,) = prompts(a_case, Click)
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
    a_case.logic.usePaintedSlices()
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
        shown[box] = rng.choice([0, *values.values()], shown[box].shape)
        segments.writeBox(shown, (lower, upper), node, volume, values)
        for name, value in values.items():
            assert np.array_equal(mrml.segmentArray(node, name, volume), shown == value), name
        for name, mask in foreign.items():
            assert np.array_equal(mrml.segmentArray(node, name, volume), mask), name


def test_only_the_changed_box_is_written(a_case, monkeypatch):
    written = []
    original = segments.writeBox
    monkeypatch.setattr(
        segments, "writeBox", lambda array, bounds, *rest: (written.append(bounds), original(array, bounds, *rest))
    )
    a_case.start()
    a_case.logic.click(a_case.world((7, 8, 9)), True)
    lower, upper = np.array(written[-1])
    assert (upper - lower).prod() < np.prod(a_case.grid.shape) / 2


def test_painted_slices_become_outlines_and_a_mask_between_them(a_case):
    a_case.start()
    drawn = [int(n) for n in np.flatnonzero(a_case.balls[0].any(axis=(1, 2)))]
    chosen = [drawn[0], drawn[len(drawn) // 2], drawn[-1]]
    painted = np.zeros(a_case.grid.shape, bool)
    painted[chosen] = a_case.balls[0][chosen]
    a_case.paint("bright", painted)
    axis, indices = a_case.logic.usePaintedSlices()
    assert (axis, indices) == (0, chosen)
    assert [p.index for p in prompts(a_case, Outline)] == chosen
    found = a_case.voxels("bright")
    assert all(np.array_equal(found[n], a_case.balls[0][n]) for n in chosen)
    overlap = 2 * (found & a_case.balls[0]).sum() / (found.sum() + a_case.balls[0].sum())
    assert overlap > 0.85
    a_case.check_node_shows_session()
    with pytest.raises(BadInput, match="Nothing new was painted"):
        a_case.logic.usePaintedSlices()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_axis_of_painted_slices_is_found(axis):
    painted = np.zeros((6, 7, 8), bool)
    np.moveaxis(painted, axis, 0)[2, 1:4, 1:5] = True
    assert segments.paintedSlices(painted, np.zeros_like(painted)) == (axis, [2])


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
    assert a_case.start() is False
    a_case.logic.click(a_case.world((7, 8, 9)), True)
    mask = a_case.voxels("bright")
    a_case.logic.endSession(keep=True)
    a_case.paint("bright", np.zeros_like(mask))  # as after a crash: the scene is gone, the volume is loaded again
    assert a_case.start() is True
    assert np.array_equal(a_case.voxels("bright"), mask)
    assert a_case.logic.clickNodes[True].GetNumberOfControlPoints() == 1
    a_case.logic.undo()
    assert not a_case.voxels("bright").any()


def test_ending_a_session_leaves_only_the_masks(a_case):
    nodes = a_case.scene.GetNumberOfNodes()
    a_case.start()
    for node in a_case.logic.clickNodes.values():
        assert not node.GetSaveWithScene() and node.GetHideFromEditors()
    a_case.logic.click(a_case.world((7, 8, 9)), True)
    mask, folder = a_case.voxels("bright"), a_case.logic.session.folder
    a_case.logic.endSession()
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


def test_the_next_slice_is_shown_in_all_views_with_a_reason(a_case):
    views = []
    for orientation in ("Axial", "Sagittal", "Coronal"):
        view = a_case.scene.AddNewNodeByClass("vtkMRMLSliceNode")
        view.SetLayoutName(orientation)
        view.SetOrientation(orientation)
        views.append(view)
    a_case.start()
    painted = np.zeros(a_case.grid.shape, bool)
    painted[7] = a_case.balls[0][7]
    a_case.paint("bright", painted)
    a_case.logic.usePaintedSlices()
    suggestion = a_case.logic.nextSlice()
    assert suggestion.axis == 0 and suggestion.index != 7 and suggestion.reason.endswith(".")
    points = [slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())[:3, 3] for view in views]
    for point in points:
        assert mrml.indexFromWorld(point, a_case.volume)[0] == pytest.approx(suggestion.index, abs=1e-3)


def test_the_view_a_point_was_clicked_in_is_known(an_empty_scene, a_grid):
    node = addVolume(an_empty_scene, a_grid, parent=MOVE)
    point = mrml.worldFromIndex((3, 4, 5), node)
    assert clickedAxis(an_empty_scene, point, node) is None
    for axis in range(3):
        view = an_empty_scene.AddNewNodeByClass("vtkMRMLSliceNode")
        view.SetLayoutName(f"view{axis}")
        directions = np.asarray(mrml.worldGrid(node).direction) * mrml.RAS_TO_LPS
        matrix = np.eye(4)
        matrix[:3, 2], matrix[:3, 0] = directions[axis], directions[axis - 1]
        matrix[:3, 1] = np.cross(matrix[:3, 2], matrix[:3, 0])
        matrix[:3, 3] = point + 3 * matrix[:3, 0]
        view.GetSliceToRAS().DeepCopy(slicer.util.vtkMatrixFromArray(matrix))
        view.UpdateMatrices()
        assert clickedAxis(an_empty_scene, point, node) == axis
        an_empty_scene.RemoveNode(view)


# Accepting and learning, with a real store, a real (untrained) model and the real learner process.


@pytest.fixture
def a_learning_store(tmp_path):
    from benchmarks.tiny_learning import an_untrained_version

    an_untrained_version(tmp_path / "home")
    learning = LearningLogic(tmp_path / "home")
    yield learning
    learning.stopLearner()


def test_an_accepted_case_is_kept_with_the_models_own_values(a_case, a_learning_store):
    a_case.add("something else")
    spec = a_learning_store.models.load("balls").spec
    a_case.start(spec=spec)
    a_case.logic.activeSegment = "dim"
    a_case.logic.click(a_case.world((13, 15, 18)), True)
    identifier = a_learning_store.accept(a_case.logic.acceptedCase("balls", "patient 7", spec))
    replay = ReplayStore(a_learning_store.home)
    kept = replay.load(identifier)
    replay.close()
    assert kept.label_names == ("bright", "dim")
    assert np.array_equal(kept.labels.array == 2, a_case.voxels("dim"))
    assert np.array_equal(kept.image.array[0], a_case.image)
    assert kept.image.grid.same_as(mrml.worldGrid(a_case.volume))


def test_a_case_the_model_does_not_know_is_refused(a_case, a_learning_store):
    spec = a_learning_store.models.load("balls").spec
    stranger = a_case.add("stranger")
    a_case.start(spec=spec)
    a_case.logic.activeSegment = stranger
    a_case.logic.click(a_case.world((7, 8, 9)), True)
    with pytest.raises(BadInput, match="bright, dim"):
        a_case.logic.acceptedCase("balls", "p", spec)


def test_left_and_right_get_the_values_of_their_boxes():
    from pathlib import Path

    from RefSegLib.models.spec import SegmenterSpec

    file = Path(__file__).parents[2] / "Resources" / "specs" / "hippocampus.json"
    values = segments.namedValues(SegmenterSpec.model_validate_json(file.read_text()))
    assert values["Left posterior hippocampus"] == 2 and values["Right anterior hippocampus"] == 3


def test_what_was_learnt_is_read_from_files_with_its_reason(a_case, a_learning_store):
    from InteractiveLearningLib.learner import Learner
    from InteractiveLearningLib.learning import LearningSettings

    spec = a_learning_store.models.load("balls").spec
    a_case.start(spec=spec)
    a_case.logic.click(a_case.world((7, 8, 9)), True)
    assert a_learning_store.status("balls") == "Nothing has been learnt yet."
    a_learning_store.accept(a_case.logic.acceptedCase("balls", "p", spec))
    learner = Learner(a_learning_store.home, "balls", LearningSettings(iterations=1))
    (verdict,) = learner.work()
    learner.close()
    assert a_learning_store.status("balls") == verdict.reason
    versions = a_learning_store.versions("balls")
    assert versions[0] == (verdict.candidate, False, verdict.reason) and versions[1][1]
    a_learning_store.models.activate("balls", verdict.candidate)
    assert a_learning_store.rollBack("balls") == versions[1][0]


def test_the_learner_is_a_process_that_ends_when_asked_to(a_learning_store):
    a_learning_store.startLearner("balls")
    assert a_learning_store.learnerRuns()
    first = a_learning_store._learner.pid
    a_learning_store.startLearner("balls")  # one is enough
    assert a_learning_store._learner.pid == first
    started = time.monotonic()
    a_learning_store.stopLearner()
    assert not a_learning_store.learnerRuns() and time.monotonic() - started < 10
