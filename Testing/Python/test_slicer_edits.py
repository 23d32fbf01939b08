"""What other tools do to the segments of a session becomes prompts of it, and both stay the same."""

import numpy as np
import pytest
import slicer
from InteractiveLearningLib.prompts import Outline
from InteractiveLearningSlicerLib import checks, edits
from RefSegLib.errors import BadInput
from RefSegLib.volume.grid import Grid
from scipy import ndimage
from slicer_case import Case
from vtk.util.numpy_support import vtk_to_numpy

pytest_plugins = ("slicer_standin.fixtures", "slicer_case")
pytestmark = pytest.mark.usefixtures("an_empty_scene", "no_swallowed_exceptions")

EDITOR = slicer.vtkSlicerSegmentEditorLogic
ADD, REMOVE = EDITOR.ModificationModeAdd, EDITOR.ModificationModeRemove


class Editor:
    """Slicer's own Segment Editor, without its mouse."""

    def __init__(self, case):
        self.case, self.logic = case, EDITOR()
        self.node = case.scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
        self.node.SetAndObserveSegmentationNode(case.segmentation)
        self.node.SetAndObserveSourceVolumeNode(case.volume)
        self.logic.SetMRMLScene(case.scene)
        self.logic.SetSegmentEditorNode(self.node)
        history = slicer.vtkSegmentationHistory()
        history.SetSegmentation(case.segmentation.GetSegmentation())
        self.logic.SetSegmentationHistory(history)
        self.logic.SetMaximumNumberOfUndoStates(10)

    def stroke(self, segment, mask, mode=ADD):
        """Paint a mask (k, j, i) into a segment, or erase it there."""
        self.node.SetSelectedSegmentID(segment)
        self.logic.ResetModifierLabelmapToDefault()
        image = self.logic.GetModifierLabelmap()
        voxels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
        voxels[:] = mask
        image.Modified()
        self.logic.SaveStateForUndo()
        self.logic.ModifySegmentByLabelmap(self.case.segmentation, segment, image, mode, False, False)


def slices(case, mask, *chosen, axis=0):
    """Only these slices of a mask."""
    found = np.zeros(case.grid.shape, bool)
    at = tuple([*chosen] if a == axis else slice(None) for a in range(3))
    found[at] = mask[at]
    return found


@pytest.fixture
def an_editor(a_case):
    a_case.start()
    return Editor(a_case)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_strokes_become_outlines_of_the_slices_painted_and_a_mask_between_them(a_case, an_editor, axis):
    drawn = np.flatnonzero(a_case.balls[0].any(axis=tuple({0, 1, 2} - {axis})))
    chosen = [int(drawn[1]), int(drawn[len(drawn) // 2]), int(drawn[-2])]
    drawings = dict.fromkeys(chosen[::2], a_case.balls[0]) | {chosen[1]: ndimage.binary_dilation(a_case.balls[0])}
    for indices in (chosen[::2], chosen[1:2]):
        for index in indices:
            an_editor.stroke("bright", slices(a_case, ~drawings[index], index, axis=axis), REMOVE)
            an_editor.stroke("bright", slices(a_case, drawings[index], index, axis=axis))
        assert a_case.logic.takeEdits() == len(indices)
        a_case.check_node_shows_session()
    assert [(p.axis, p.index) for p in a_case.prompts(Outline)] == [(axis, n) for n in (*chosen[::2], chosen[1])]
    found = a_case.voxels("bright")
    assert all(np.array_equal(found.take(n, axis), drawn.take(n, axis)) for n, drawn in drawings.items())
    overlap = 2 * (found & a_case.balls[0]).sum() / (found.sum() + a_case.balls[0].sum())
    assert overlap > 0.8
    assert a_case.logic.takeEdits() == 0


def test_a_stroke_is_noticed_once_it_is_through_and_before_anything_else_is_said(a_case, an_editor):
    noticed = []
    a_case.logic.edited.connect(lambda: noticed.append(len(a_case.logic.session.prompts())))
    painted = slices(a_case, a_case.balls[0], 7)
    an_editor.stroke("bright", painted)
    assert noticed and not any(noticed)  # nothing was written while Slicer was at it
    a_case.logic.click(a_case.world((7, 8, 9)), True)
    assert [type(p).__name__ for p in a_case.logic.session.prompts()] == ["Outline", "Click"]
    noticed.clear()
    a_case.logic.undo()
    a_case.logic.setLocked("dim", True)
    assert not noticed  # our own doing is no edit
    assert np.array_equal(a_case.voxels("bright")[7], painted[7])


def test_painting_over_another_segment_takes_what_it_covers_and_speaks_of_the_painted_one_alone(a_case, an_editor):
    for name, ball in zip(("bright", "dim"), a_case.balls, strict=True):
        an_editor.stroke(name, slices(a_case, ball, *range(20)))
    a_case.logic.takeEdits()
    count = len(a_case.logic.session.prompts())
    over = slices(a_case, checks.ball(a_case.grid, (13, 15, 18), 2), 13)
    assert (over & a_case.voxels("dim")).any()
    an_editor.stroke("bright", over)
    assert a_case.logic.takeEdits() == 1
    new = a_case.logic.session.prompts()[count:]
    assert [p.label for p in new] == [1]
    assert a_case.voxels("bright")[over].all() and not a_case.voxels("dim")[over].any()
    a_case.check_node_shows_session()


def test_erasing_stays_erased_and_one_stroke_may_change_several_segments(a_case, an_editor):
    for name, ball in zip(("bright", "dim"), a_case.balls, strict=True):
        an_editor.stroke(name, ball)
    a_case.logic.takeEdits()
    hole = slices(a_case, checks.ball(a_case.grid, (7, 8, 9), 2), 7)
    an_editor.stroke("bright", hole, REMOVE)
    assert a_case.logic.takeEdits() == 1
    assert not a_case.voxels("bright")[hole].any()
    a_case.check_node_shows_session()
    before = {name: a_case.voxels(name) for name in ("bright", "dim")}
    cut = np.zeros(a_case.grid.shape, bool)
    cut[9:11] = True
    an_editor.stroke("bright", cut, EDITOR.ModificationModeRemoveAll)
    touched = sum(int((before[name] & cut).any()) for name in before)
    assert touched == 2 and a_case.logic.takeEdits() == 2
    for name in before:
        assert not a_case.voxels(name)[cut].any()
    a_case.check_node_shows_session()
    a_case.logic.undo()
    for name, mask in before.items():
        assert np.array_equal(a_case.voxels(name), mask)


def test_a_stroke_of_many_slices_is_taken_in_at_once_and_taken_back_at_once(a_case, an_editor):
    an_editor.stroke("bright", a_case.balls[0])
    count = min(int(a_case.balls[0].any(axis=axes).sum()) for axes in ((1, 2), (0, 2), (0, 1)))
    assert a_case.logic.takeEdits() == count == len(a_case.prompts(Outline))
    assert np.array_equal(a_case.voxels("bright"), a_case.balls[0])
    a_case.logic.undo()
    assert not a_case.voxels("bright").any() and not a_case.logic.session.prompts()
    a_case.logic.redo()
    assert np.array_equal(a_case.voxels("bright"), a_case.balls[0])
    with pytest.raises(BadInput, match="nothing to redo"):
        a_case.logic.redo()


def test_the_editors_own_undo_and_redo_move_the_session_with_them(a_case, an_editor):
    empty = a_case.logic.session.labels().array
    an_editor.stroke("bright", slices(a_case, a_case.balls[0], 5, 9))
    a_case.logic.takeEdits()
    first = a_case.logic.session.labels().array
    assert first[7].any()  # what followed from the stroke
    an_editor.stroke("bright", slices(a_case, checks.ball(a_case.grid, (7, 8, 9), 5), 7))
    a_case.logic.takeEdits()
    second = a_case.logic.session.labels().array
    for step, mask, count in (
        (an_editor.logic.Undo, first, 2),
        (an_editor.logic.Undo, empty, 0),
        (an_editor.logic.Redo, first, 2),
        (an_editor.logic.Redo, second, 3),
    ):
        step()
        assert a_case.logic.takeEdits() == 0
        assert np.array_equal(a_case.logic.session.labels().array, mask)
        assert len(a_case.logic.session.prompts()) == count
        a_case.check_node_shows_session()


def test_an_undo_of_the_editor_to_a_mask_the_session_never_had_is_an_edit(a_case, an_editor):
    an_editor.stroke("bright", slices(a_case, a_case.balls[0], 7))
    an_editor.stroke("bright", slices(a_case, a_case.balls[0], 9))
    a_case.logic.takeEdits()  # both as one
    an_editor.logic.Undo()
    a_case.logic.takeEdits()
    a_case.check_node_shows_session()
    assert np.array_equal(a_case.voxels("bright")[7], a_case.balls[0][7])
    assert not a_case.voxels("bright")[9].any()


def test_allowed_overlap_stays_and_the_session_goes_on_knowing_the_first(a_case, an_editor):
    an_editor.stroke("dim", a_case.balls[1])
    a_case.logic.takeEdits()
    an_editor.node.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteNone)
    over = slices(a_case, checks.ball(a_case.grid, (13, 15, 18), 3), 13)
    an_editor.stroke("bright", over)
    a_case.logic.takeEdits()
    assert a_case.voxels("bright")[over].all() and np.array_equal(a_case.voxels("dim"), a_case.balls[1])
    count = len(a_case.logic.session.prompts())
    an_editor.stroke("bright", slices(a_case, a_case.balls[0], 7))
    a_case.logic.takeEdits()
    assert a_case.voxels("bright")[over & a_case.balls[1]].all()
    assert np.array_equal(a_case.voxels("dim"), a_case.balls[1])
    assert {p.index for p in a_case.logic.session.prompts()[count:]} == {7}


def test_painting_in_a_locked_segment_is_taken_in_but_what_follows_changes_no_other(a_case, an_editor):
    for name, ball in zip(("bright", "dim"), a_case.balls, strict=True):
        an_editor.stroke(name, ball)
    a_case.logic.takeEdits()
    a_case.logic.setLocked("bright", True)
    a_case.logic.setLocked("dim", True)
    hole = slices(a_case, checks.ball(a_case.grid, (7, 8, 9), 2), 7)
    an_editor.stroke("bright", hole, REMOVE)
    a_case.logic.takeEdits()
    assert not a_case.voxels("bright")[hole].any() and np.array_equal(a_case.voxels("dim"), a_case.balls[1])
    a_case.check_node_shows_session()


def test_painted_voxels_stay_where_the_mask_of_now_would_not_let_them_be(a_case, an_editor):
    painted = slices(a_case, a_case.balls[0], 5, 9)
    an_editor.stroke("bright", painted)
    an_editor.node.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment)
    an_editor.node.SetMaskSegmentID("dim")  # which is empty: nothing is editable
    a_case.logic.takeEdits()
    assert np.array_equal(a_case.voxels("bright"), painted)
    a_case.check_node_shows_session()


@pytest.mark.parametrize("seed", range(5))
def test_any_mix_of_strokes_undo_and_clicks_leaves_session_and_segments_the_same(an_empty_scene, tmp_path, seed):
    rng = np.random.default_rng(seed)
    case = Case(an_empty_scene, tmp_path, Grid((10, 12, 14), (1.5, 1.0, 1.0)))
    case.start()
    editor = Editor(case)
    foreign = rng.random(case.grid.shape) < 0.2
    case.add("foreign", foreign)
    editor.node.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteAllSegments)
    for _ in range(14):
        what = rng.choice(
            ["paint", "erase", "click", "undo", "editor undo", "editor redo"], p=[0.4, 0.1, 0.2, 0.1, 0.1, 0.1]
        )
        name = str(rng.choice(["bright", "dim"]))
        center = [int(rng.integers(n)) for n in case.grid.shape]
        blob = slices(
            case, checks.ball(case.grid, center, int(rng.integers(1, 4))), *range(*sorted(rng.integers(0, 11, 2)))
        )
        if what in ("paint", "erase"):
            editor.stroke(name, blob, ADD if what == "paint" else REMOVE)
            foreign = case.voxels("foreign")  # Slicer itself overwrites it
        elif what == "click":
            case.logic.activeSegment = name
            case.logic.click(case.world(center), bool(rng.integers(2)))
        elif what == "undo" and case.logic.session.prompts():
            case.logic.undo()
        elif what == "editor undo" and editor.logic.CanUndo():
            editor.logic.Undo()
            foreign = case.voxels("foreign")
        elif what == "editor redo" and editor.logic.CanRedo():
            editor.logic.Redo()
            foreign = case.voxels("foreign")
        if rng.integers(3):
            case.logic.takeEdits()
            case.check_node_shows_session()
            assert np.array_equal(case.voxels("foreign"), foreign)
    case.logic.takeEdits()
    case.check_node_shows_session()
    case.close()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_axis_of_painted_slices_is_found(axis):
    painted = np.zeros((6, 7, 8), bool)
    np.moveaxis(painted, axis, 0)[2, 1:4, 1:5] = True
    assert edits.paintedSlices(painted) == (axis, [2])
