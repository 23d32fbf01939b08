"""Prompts stay with their segments: in scenes and files that Slicer writes and reads, and in the next session."""

import json

import numpy as np
import pytest
import slicer
from InteractiveLearningLib.curves import outline_of
from InteractiveLearningLib.prompts import Box, Click, Limits, Outline, Scribble, to_dict
from InteractiveLearningSlicerLib import checks, memory
from RefSegLib.errors import BadInput
from RefSegLib.volume.grid import Grid
from RefSegSlicerLib import mrml
from RefSegSlicerLib.checks import MOVE, TURN, addVolume
from scipy import ndimage
from slicer_case import Case

pytest_plugins = ("slicer_standin.fixtures", "slicer_case")
pytestmark = pytest.mark.usefixtures("an_empty_scene", "no_swallowed_exceptions")

SCALE = np.diag([1.2, 0.8, 1.0, 1.0])


def say_much(case):
    """Prompts of every kind in two segments, one of them twice taken back."""
    logic, grid = case.logic, case.logic.session.grid
    logic.activeSegment = "bright"
    logic.setLimits(0, 2, 12)
    for index in (4, 7, 10):
        logic.say(Outline.on(grid, 0, index, case.balls[0][index], 1))
    logic.click(case.world((6, 9, 12)), True)
    logic.click(case.world((8, 5, 9)), False)
    logic.activeSegment = "dim"
    logic.say(Scribble(tuple(map(tuple, grid.to_world([(13, 15, n) for n in range(15, 20)]))), True, 2, 0))
    logic.say(Box((tuple(grid.to_world((8, 9, 11))), tuple(grid.to_world((17, 21, 25)))), 2))
    angles = np.linspace(0, 2 * np.pi, 9, endpoint=False)
    circle = np.stack([13 + 0.8 * np.cos(angles) * 2, 15 + 3 * np.sin(angles), 18 + 3 * np.cos(angles)], axis=1)
    logic.say(outline_of(grid, tuple(map(tuple, grid.to_world(circle))), 2))
    logic.click(case.world((13, 13, 18)), False)
    for _ in range(2):
        logic.undo()
    logic.redo()


def told(prompts):
    """What prompts say, in numbers that may be compared."""
    return [json.loads(json.dumps(to_dict(prompt))) for prompt in prompts]


def close_to(found, expected):
    """The same but for rounding of coordinates."""
    if isinstance(found, dict):
        return found.keys() == expected.keys() and all(close_to(found[key], expected[key]) for key in found)
    if isinstance(found, list):
        return len(found) == len(expected) and all(map(close_to, found, expected))
    return found == pytest.approx(expected, abs=1e-6) if isinstance(found, float) else found == expected


def segments_of(case):
    return {name: case.voxels(name) for name in ("bright", "dim")}


@pytest.mark.parametrize("parent", [None, MOVE, MOVE @ SCALE], ids=["no transform", "moved", "stretched"])
def test_a_case_goes_on_with_its_prompts_and_its_masks_bit_for_bit(an_empty_scene, tmp_path, parent):
    case = Case(an_empty_scene, tmp_path, Grid((20, 24, 28), (1.5, 1.0, 1.0)), parent)
    case.start()
    say_much(case)
    said, masks = case.logic.session.prompts(), segments_of(case)
    case.logic.activeSegment = "bright"
    estimate = case.logic.estimatedDice()
    case.logic.endSession()
    assert not case.start().resumed
    for name, mask in masks.items():
        assert np.array_equal(case.voxels(name), mask)
    case.check_node_shows_session()
    kept = case.logic.session.earlier
    if parent is None or parent is MOVE:
        assert close_to(told(kept), told(said))
        assert case.logic.estimatedDice() == pytest.approx(estimate, abs=0.02)
    assert [type(p) for p in kept if not hasattr(p, "plane")] == [type(p) for p in said if not hasattr(p, "plane")]
    assert case.logic.clickNodes[True].GetNumberOfControlPoints() == 1
    assert not case.logic.session.prompts()
    with pytest.raises(BadInput, match="nothing to undo"):
        case.logic.undo()
    for name, mask in masks.items():
        assert np.array_equal(case.voxels(name), mask)
    case.close()


def test_what_is_said_in_the_next_session_joins_what_was_said_before(a_case):
    a_case.start()
    a_case.logic.click(a_case.world((7, 8, 9)), True)
    a_case.logic.endSession()
    a_case.start()
    a_case.logic.activeSegment = "dim"
    a_case.logic.click(a_case.world((13, 15, 18)), True)
    a_case.logic.activeSegment = "bright"
    a_case.logic.click(a_case.world((7, 9, 9)), True)
    a_case.logic.endSession()
    a_case.start()
    grid = a_case.logic.session.grid
    places = [tuple(np.rint(grid.to_index(p.point)).astype(int).tolist()) for p in a_case.logic.session.earlier]
    assert places == [(7, 8, 9), (13, 15, 18), (7, 9, 9)]
    assert [p.label for p in a_case.logic.session.earlier] == [1, 2, 1]
    a_case.logic.click(a_case.world((7, 9, 9)), False)
    a_case.logic.undo()
    entries = json.loads(memory.stored(a_case.segment("bright")))["prompts"]
    assert [entry["number"] for entry in entries] == [0, 2]


def test_a_click_after_reopening_changes_no_far_away_voxel(a_case):
    """The masks are the outcome of what was said: saying it again must not move them."""
    a_case.start()
    say_much(a_case)
    a_case.logic.endSession()
    before = a_case.voxels("bright")
    a_case.start()
    a_case.logic.activeSegment = "bright"
    index = (5, 8, 13)
    a_case.logic.click(a_case.world(index), True)
    changed = np.argwhere(a_case.voxels("bright") != before)
    assert a_case.voxels("bright")[index]
    far = np.linalg.norm((changed - index) * a_case.grid.spacing, axis=1) > 10
    assert far.sum() <= 0.002 * before.sum(), far.sum()


def test_a_segmentation_file_keeps_the_prompts(a_case, tmp_path):
    a_case.start()
    say_much(a_case)
    masks, said = segments_of(a_case), a_case.logic.session.prompts()
    a_case.logic.endSession()
    storage = slicer.vtkMRMLSegmentationStorageNode()
    a_case.scene.AddNode(storage)
    storage.SetFileName(str(tmp_path / "masks.seg.nrrd"))
    assert storage.WriteData(a_case.segmentation)
    read = a_case.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "masks read")
    assert storage.ReadData(read)
    a_case.segmentation = read
    assert not a_case.start().resumed
    assert close_to(told(a_case.logic.session.earlier), told(said))
    for name, mask in masks.items():
        assert np.array_equal(a_case.voxels(name), mask)
    a_case.check_node_shows_session()


@pytest.mark.parametrize("turned", [1, -1], ids=["left-handed", "right-handed"])
def test_a_scene_bundle_opened_elsewhere_goes_on(an_empty_scene, tmp_path, turned):
    """Slicer turns left-handed volumes round when it reads them: their slices have other numbers then."""
    case = Case(an_empty_scene, tmp_path / "s", Grid((20, 24, 28), (1.5, 1.0, 1.0), TURN * [[turned], [1], [1]]))
    case.start()
    say_much(case)
    said, middle = case.logic.session.prompts(), (9, 11, 13)
    volume = {name: mask.sum() for name, mask in segments_of(case).items()}
    clicked = case.logic.clickNodes[True].GetNthControlPointPositionWorld(0)
    place = case.world(middle)
    case.logic.endSession()
    an_empty_scene.SetRootDirectory(str(tmp_path))
    assert an_empty_scene.WriteToMRB(str(tmp_path / "case.mrb"), None)
    an_empty_scene.Clear(0)
    (tmp_path / "unpacked").mkdir()
    slicer.app.applicationLogic().OpenSlicerDataBundle(str(tmp_path / "case.mrb"), str(tmp_path / "unpacked"))
    case.volume, case.segmentation = slicer.util.getNode("image"), slicer.util.getNode("masks")
    kept_middle = np.rint(mrml.indexFromWorld(place, case.volume)).astype(int).tolist()
    assert (kept_middle == [*middle]) is (turned == -1)
    masks = segments_of(case)
    assert {name: mask.sum() for name, mask in masks.items()} == volume
    assert not case.start().resumed
    for name, mask in masks.items():
        assert np.array_equal(case.voxels(name), mask)
    kept = case.logic.session.earlier
    assert [type(p) for p in kept] == [type(p) for p in said]
    if turned == -1:
        assert close_to(told(kept), told(said))
    for prompt in kept:
        if isinstance(prompt, Outline):
            assert np.array_equal(prompt.mask, masks["bright"].take(prompt.index, prompt.axis))
    assert np.allclose(case.logic.clickNodes[True].GetNthControlPointPositionWorld(0), clicked, atol=1e-4)
    case.close()


def test_a_volume_that_lies_elsewhere_by_then_takes_its_prompts_along(a_case):
    a_case.start()
    say_much(a_case)
    grid, masks = a_case.logic.session.grid, segments_of(a_case)
    places = [np.rint(grid.to_index(p.point)) for p in a_case.prompts(Click)]
    limits = [p.indices(grid) for p in a_case.prompts(Limits)]
    a_case.logic.endSession()
    turn = np.diag([1.0, -1.0, -1.0, 1.0]) @ MOVE
    a_case.volume.GetParentTransformNode().SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(turn))
    a_case.start()
    moved, kept = a_case.logic.session.grid, a_case.logic.session.earlier
    assert not moved.same_as(grid)
    assert np.array_equal([np.rint(moved.to_index(p.point)) for p in kept if isinstance(p, Click)], places)
    assert [p.indices(moved) for p in kept if isinstance(p, Limits)] == limits
    for name, mask in masks.items():
        assert np.array_equal(a_case.voxels(name), mask)


def test_a_crop_of_the_volume_takes_what_lies_in_it(a_case):
    """The same patient space, other voxels: slices are found by where they lie, the rest is left out."""
    a_case.start()
    grid = a_case.logic.session.grid
    for index in (4, 10):
        a_case.logic.say(Outline.on(grid, 0, index, a_case.balls[0][index], 1))
    a_case.logic.click(a_case.world((3, 8, 9)), True)
    a_case.logic.click(a_case.world((9, 8, 9)), True)
    masks = segments_of(a_case)
    a_case.logic.endSession()
    whole = mrml.ownGrid(a_case.volume)
    upper = tuple(whole.shape)
    small = addVolume(a_case.scene, whole.crop((5, 0, 0), upper), a_case.image[5:])
    small.SetAndObserveTransformNodeID(a_case.volume.GetTransformNodeID())
    a_case.volume = small
    a_case.start()
    kept = a_case.logic.session.earlier
    assert [(p.axis, p.index) for p in kept if isinstance(p, Outline)] == [(0, 5)]
    assert np.array_equal(kept[0].mask, masks["bright"][10])
    (click,) = [p for p in kept if isinstance(p, Click)]
    assert np.allclose(np.rint(a_case.logic.session.grid.to_index(click.point)), (4, 8, 9))


def test_a_slice_changed_without_a_session_stays_as_it_was_changed(a_case):
    a_case.start()
    grid = a_case.logic.session.grid
    for index in (4, 7, 10):
        a_case.logic.say(Outline.on(grid, 0, index, a_case.balls[0][index], 1))
    a_case.logic.endSession()
    changed = a_case.voxels("bright")
    changed[7] = checks.ball(a_case.grid, (7, 10, 12), 4)[7]
    a_case.paint("bright", changed)
    a_case.start()
    assert np.array_equal(a_case.voxels("bright"), changed)
    a_case.logic.click(a_case.world((4, 8, 9)), True)
    assert np.array_equal(a_case.voxels("bright")[7], changed[7])


def test_a_damaged_tag_is_told_and_a_newer_one_is_not_overwritten(a_case):
    a_case.start()
    a_case.logic.click(a_case.world((7, 8, 9)), True)
    mask = a_case.voxels("bright")
    a_case.logic.endSession()
    text = memory.stored(a_case.segment("bright"))
    for damaged in (text[: len(text) // 2], "[]", '{"schema": 1, "axes": [], "prompts": [{"kind": "?"}]}'):
        a_case.segment("bright").SetTag(memory.TAG, damaged)
        assert a_case.start().unreadable == ["bright"]
        assert np.array_equal(a_case.voxels("bright"), mask)
        a_case.logic.endSession()
    a_case.segment("bright").SetTag(memory.TAG, text.replace('"schema":1', '"schema":2'))
    with pytest.raises(BadInput, match="newer RefSeg"):
        a_case.start()
    assert '"schema":2' in memory.stored(a_case.segment("bright"))


def test_tags_are_small_and_hold_nothing_that_files_of_segmentations_cannot(a_case):
    """Slicer separates tags in a file by a bar. A 512 x 512 slice takes what a small one does."""
    grid = Grid((40, 512, 512))
    drawn = ndimage.gaussian_filter(np.random.default_rng(0).random((512, 512)), 4) > 0.5
    segment = a_case.segment("bright")
    for count in (1, 40):
        outlines = [Outline.on(grid, 0, n, drawn, 1) for n in range(count)]
        memory.remember(a_case.segmentation, memory.textsOf(outlines, grid, grid, {"bright": 1}))
        size = len(memory.stored(segment))
        assert size < 200 + 450 * count
    assert "|" not in memory.stored(segment) and memory.stored(segment).isascii()
    memory.remember(a_case.segmentation, memory.textsOf([], grid, grid, {"bright": 1}))
    assert not segment.HasTag(memory.TAG)
