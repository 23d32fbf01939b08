"""What is drawn in slice views, straight or oblique, becomes the prompts that were meant, on every grid."""

import numpy as np
import pytest
import slicer
from InteractiveLearningLib.prompts import Box, Click, Lasso, ObliqueOutline, Outline, Scribble
from InteractiveLearningSlicerLib import checks, views
from RefSegSlicerLib import mrml
from RefSegSlicerLib.checks import MOVE, addVolume
from slicer_case import Case

pytest_plugins = ("slicer_standin.fixtures", "slicer_case")
pytestmark = pytest.mark.usefixtures("an_empty_scene", "no_swallowed_exceptions")


def interaction():
    return slicer.app.applicationLogic().GetInteractionNode()


def place(points):
    """Set points (world RAS) down with the tool in hand, and finish with a double click."""
    node = slicer.mrmlScene.GetNodeByID(slicer.app.applicationLogic().GetSelectionNode().GetActivePlaceNodeID())
    for point in points:
        node.AddControlPointWorld(*point, "")
    node.AddControlPointWorld(*points[-1], "")  # a double click places its first click, too
    hovering = node.AddControlPointWorld(0, 0, 0, "")
    node.SetNthControlPointPosition(hovering, 500, 500, 500, slicer.vtkMRMLMarkupsNode.PositionPreview)
    interaction().SwitchToViewTransformMode()
    return node


def circle(case, index, axis=0, radius=4.0, tilt=0.0, count=10):
    """Points (world RAS) around a voxel, in a view that looks along an array axis; that view is open, too."""
    center = np.asarray(case.world(index))
    matrix = case.slice_to_ras(center, axis, tilt)
    case.view(matrix)
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return center + radius * (np.outer(np.cos(angles), matrix[:3, 0]) + np.outer(np.sin(angles), matrix[:3, 1]))


@pytest.fixture
def a_started_case(a_case):
    a_case.start()
    return a_case


@pytest.mark.parametrize("positive", [True, False])
def test_a_scribble_says_something_about_every_voxel_it_passes(a_started_case, positive):
    case = a_started_case
    ends = (7, 6, 5), (7, 12, 17)
    matrix = case.slice_to_ras(case.world(ends[0]), 0)
    case.view(matrix)
    case.logic.tools.take("scribble", positive)
    place([case.world(end) for end in ends])
    (scribble,) = case.prompts(Scribble)
    assert (scribble.positive, scribble.axis, scribble.label) == (positive, 0, 1)
    voxels = np.rint(case.logic.session.grid.to_index(scribble.points)).astype(int)
    assert np.array_equal(voxels[0], ends[0]) and np.array_equal(voxels[-1], ends[1])
    assert np.abs(np.diff(voxels, axis=0)).max() == 1
    assert len(np.unique(voxels, axis=0)) == len(voxels)
    assert (case.voxels("bright")[tuple(voxels.T)] == positive).all()
    case.check_node_shows_session()


def test_a_lasso_encloses_the_structure_and_a_negative_one_clears(a_started_case):
    case = a_started_case
    index = (7, 8, 10)
    points = circle(case, index, radius=7)
    case.logic.tools.take("lasso")
    place(points)
    (lasso,) = case.prompts(Lasso)
    assert lasso.positive and lasso.axis == 0
    found = case.voxels("bright")[7]
    assert found[8, 10] and found.sum() > 20
    case.logic.tools.take("lasso", False)
    place(points)
    assert not case.voxels("bright")[7].any()
    case.check_node_shows_session()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_curve_through_border_clicks_is_the_outline_that_was_shown(a_started_case, axis):
    case = a_started_case
    index = (9, 11, 13)
    case.logic.tools.take("curve")
    place(circle(case, index, axis, radius=4.0, count=12))
    (outline,) = case.prompts(Outline)
    assert (outline.axis, outline.index) == (axis, index[axis])
    at = np.indices(case.grid.shape) - np.reshape(index, (3, 1, 1, 1))
    distance = np.linalg.norm(at * np.reshape(case.grid.spacing, (3, 1, 1, 1)), axis=0)
    drawn = case.voxels("bright").take(index[axis], axis)
    assert np.array_equal(drawn, outline.mask)
    distance = distance.take(index[axis], axis)
    assert drawn[distance < 3.2].all() and not drawn[distance > 4.8].any()
    assert interaction().GetCurrentInteractionMode() == interaction().Place  # the next one can be drawn


def test_an_oblique_view_gives_its_normal_and_oblique_outlines(a_started_case):
    case = a_started_case
    index = (9, 11, 13)
    points = circle(case, index, tilt=30, radius=4, count=12)
    case.logic.click(case.world(index), True)
    (click,) = case.prompts(Click)
    world = case.slice_to_ras(np.zeros(3), 0, 30)[:3, 2] * mrml.RAS_TO_LPS
    assert click.axis is None and abs(np.dot(click.normal, world)) == pytest.approx(1, abs=1e-6)
    case.logic.tools.take("curve")
    place(points)
    (outline,) = case.prompts(ObliqueOutline)
    assert abs(np.dot(outline.plane.direction[0], world)) == pytest.approx(1, abs=1e-4)
    assert case.voxels("bright")[index]
    case.logic.tools.take("lasso")
    place(points)
    assert abs(np.dot(case.prompts(Lasso)[0].normal, world)) == pytest.approx(1, abs=1e-6)
    case.check_node_shows_session()


def test_a_normal_stays_right_when_the_volume_is_turned_in_the_middle(a_started_case):
    """The session keeps the place it had; a view that cuts the same voxels has the same normal for it."""
    case = a_started_case
    normals = []
    for turn in (np.eye(4), np.diag([1.0, -1.0, -1.0, 1.0])):
        transform = case.volume.GetParentTransformNode()
        transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(turn @ MOVE))
        view = case.view(case.slice_to_ras(case.world((9, 11, 13)), 0, 25))
        case.logic.click(case.world((9, 11, 13)), True)
        normals.append(case.prompts(Click)[-1].normal)
        case.scene.RemoveNode(view)
    assert np.allclose(*normals, atol=1e-6)


def test_a_box_holds_the_voxels_of_its_region(a_started_case):
    case = a_started_case
    case.logic.tools.take("box")
    low, high = (3, 4, 5), (11, 12, 14)
    node = slicer.mrmlScene.GetNodeByID(slicer.app.applicationLogic().GetSelectionNode().GetActivePlaceNodeID())
    corners = np.array([case.world(low), case.world(high)])
    node.SetCenterWorld(corners.mean(axis=0))
    node.SetSizeWorld(np.abs(np.diff(corners, axis=0))[0])
    inside = mrml.boxFromRoi(node, case.volume)
    interaction().SwitchToViewTransformMode()
    (box,) = case.prompts(Box)
    found = np.rint(case.logic.session.grid.to_index(box.corners)).astype(int)
    assert np.array_equal([*found.min(axis=0), *(found.max(axis=0) + 1)], inside)
    case.logic.click(case.world((7, 8, 9)), True)
    outside = case.voxels("bright")
    outside[tuple(map(slice, inside[:3], inside[3:]))] = False
    assert not outside.any()


def test_a_lasso_may_leave_the_volume_but_a_scribble_outside_is_told(a_started_case):
    case = a_started_case
    case.logic.tools.take("lasso")
    place(circle(case, (7, 3, 3), radius=9))
    assert case.prompts(Lasso)
    case.logic.tools.take("scribble")
    place([(900, 900, 900), (905, 900, 900)])
    assert "outside the volume" in case.told[-1]
    assert len(case.logic.session.prompts()) == 1


def test_leaving_without_drawing_puts_the_tool_away_and_no_markup_stays(a_started_case):
    case = a_started_case
    nodes = case.scene.GetNumberOfNodes()
    for tool in ("scribble", "lasso", "curve", "box", "points"):
        case.logic.tools.take(tool)
        assert case.logic.tools.tool == tool and interaction().GetCurrentInteractionMode() == interaction().Place
        interaction().SwitchToViewTransformMode()  # a right click
        assert case.logic.tools.tool is None
        assert case.scene.GetNumberOfNodes() == nodes
    assert not case.logic.session.prompts() and not case.told


def test_what_is_half_drawn_is_finished_by_another_tool_and_given_up_at_the_end(a_started_case):
    case = a_started_case
    nodes = case.scene.GetNumberOfNodes()
    case.logic.tools.take("scribble")
    node = slicer.mrmlScene.GetNodeByID(slicer.app.applicationLogic().GetSelectionNode().GetActivePlaceNodeID())
    assert not node.GetSaveWithScene() and node.GetHideFromEditors()
    node.AddControlPointWorld(*case.world((7, 8, 9)), "")
    case.logic.tools.take("curve")
    assert len(case.prompts(Scribble)) == 1
    node = slicer.mrmlScene.GetNodeByID(slicer.app.applicationLogic().GetSelectionNode().GetActivePlaceNodeID())
    for point in circle(case, (7, 8, 9)):
        node.AddControlPointWorld(*point, "")
    case.logic.tools.remove()
    assert len(case.logic.session.prompts()) == 1 and case.logic.tools.tool is None
    assert case.scene.GetNumberOfNodes() == nodes + 1  # the view that circle opened
    assert interaction().GetCurrentInteractionMode() == interaction().ViewTransform


def test_a_shape_is_used_after_the_event_that_finished_it(an_empty_scene, tmp_path):
    """In the application the markup's own widget is still at work when placing ends: nothing may vanish under it."""
    case, waiting = Case(an_empty_scene, tmp_path), []
    case.logic._later = waiting.append
    case.start()
    case.logic.tools.take("scribble")
    node = place([case.world((7, 8, 9)), case.world((7, 9, 9))])
    assert an_empty_scene.IsNodePresent(node) and not case.logic.session.prompts()
    (work,) = waiting
    work()
    assert not an_empty_scene.IsNodePresent(node) and case.prompts(Scribble)
    case.logic.clickNodes[True].AddControlPointWorld(*case.world((7, 8, 9)), "")
    assert not case.prompts(Click)
    case.logic.endSession()
    waiting[-1]()  # too late: the session is over


def test_undo_takes_shapes_back_and_leaves_the_clicks(a_started_case):
    case = a_started_case
    case.logic.clickNodes[True].AddControlPointWorld(*case.world((7, 8, 9)), "")
    clicked = case.voxels("bright")
    case.logic.tools.take("lasso", False)
    place(circle(case, (7, 8, 9), radius=3))
    assert not np.array_equal(case.voxels("bright"), clicked)
    case.logic.undo()
    assert np.array_equal(case.voxels("bright"), clicked)
    assert case.logic.clickNodes[True].GetNumberOfControlPoints() == 1
    case.logic.undo()
    assert case.logic.clickNodes[True].GetNumberOfControlPoints() == 0 and not case.voxels("bright").any()


def test_a_click_inside_another_segment_moves_that_region(a_started_case):
    case = a_started_case
    case.logic.activeSegment = "dim"
    case.logic.click(case.world((13, 15, 18)), True)
    taken = case.voxels("dim")
    assert taken.any()
    case.logic.activeSegment = "bright"
    case.logic.click(case.world((13, 15, 18)), True)
    assert case.voxels("bright")[13, 15, 18] and not case.voxels("dim")[13, 15, 18]
    case.check_node_shows_session()


# Which view something was drawn in


def test_the_view_a_point_was_drawn_in_is_known(an_empty_scene, tmp_path, a_grid):
    node = addVolume(an_empty_scene, a_grid, parent=MOVE)
    point = np.asarray(mrml.worldFromIndex((3, 4, 5), node))
    assert views.drawnIn(an_empty_scene, point, node) == (None, None)
    case = Case(an_empty_scene, tmp_path, a_grid)
    for axis in range(3):
        for tilt in (0.0, 0.5):  # so little that it is no other slice
            view = case.view(case.slice_to_ras(np.asarray(case.world((3, 4, 5))), axis, tilt))
            assert views.drawnIn(an_empty_scene, case.world((3, 4, 5)), case.volume) == (axis, None)
            an_empty_scene.RemoveNode(view)
        view = case.view(case.slice_to_ras(np.asarray(case.world((3, 4, 5))), axis, 20.0))
        found, normal = views.drawnIn(an_empty_scene, case.world((3, 4, 5)), case.volume)
        assert found is None
        assert abs(normal @ slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())[:3, 2]) == pytest.approx(1)
        an_empty_scene.RemoveNode(view)
    case.close()


def test_points_that_two_views_share_leave_it_open_and_more_points_tell(a_case):
    point = np.asarray(a_case.world((9, 11, 13)))
    matrices = [a_case.slice_to_ras(point, axis) for axis in (0, 1)]
    for number, matrix in enumerate(matrices):
        a_case.view(matrix, f"view{number}")
    assert views.drawnIn(a_case.scene, point, a_case.volume) == (None, None)
    more = [point, point + 3 * matrices[0][:3, 0], point + 2 * matrices[0][:3, 1]]
    assert views.drawnIn(a_case.scene, more, a_case.volume) == (0, None)


def test_views_that_the_layout_does_not_show_are_not_drawn_in(a_case):
    point = np.asarray(a_case.world((9, 11, 13)))
    shown, other = (a_case.view(a_case.slice_to_ras(point, axis), f"view{axis}") for axis in (0, 1))
    shown.SetMappedInLayout(1)
    assert views.drawnIn(a_case.scene, point, a_case.volume) == (0, None)
    other.SetMappedInLayout(1)
    assert views.drawnIn(a_case.scene, point, a_case.volume) == (None, None)


def test_only_the_view_of_a_plane_jumps_to_its_slice(a_case):
    point = np.asarray(a_case.world((9, 11, 13)))
    opened = [a_case.view(a_case.slice_to_ras(point, axis), f"view{axis}") for axis in range(3)]
    target = np.asarray(a_case.world((4, 5, 6)))
    views.jumpTo(a_case.scene, target, 1, a_case.volume)
    for axis, view in enumerate(opened):
        origin = slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())[:3, 3]
        index = mrml.indexFromWorld(origin, a_case.volume)[axis]
        assert index == pytest.approx((9, 5, 13)[axis], abs=1e-3)


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test_the_checks_of_the_self_test_pass_under_no_transform(check, an_empty_scene):
    check(an_empty_scene, parent=None)
