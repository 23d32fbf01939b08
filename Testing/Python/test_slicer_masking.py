"""Nothing changes that must not: the Segment Editor's masking, locked segments, and segments of others."""

import numpy as np
import pytest
import slicer
from InteractiveLearningLib.prompts import Click
from InteractiveLearningSlicerLib import checks, masking
from RefSegLib.errors import BadInput
from RefSegSlicerLib import mrml
from RefSegSlicerLib.checks import MOVE, addVolume
from slicer_case import Case

pytest_plugins = ("slicer_standin.fixtures", "slicer_case")
pytestmark = pytest.mark.usefixtures("an_empty_scene", "no_swallowed_exceptions")

NODE, EDITOR = slicer.vtkMRMLSegmentationNode, slicer.vtkMRMLSegmentEditorNode
BRIGHT, DIM = (7, 8, 9), (13, 15, 18)


def editor(case, tag=masking.SEGMENT_EDITOR):
    """The Segment Editor at work on the segmentation of a case."""
    node = EDITOR()
    node.SetSingletonTag(tag)
    node = case.scene.AddNode(node)
    node.SetAndObserveSegmentationNode(case.segmentation)
    node.SetAndObserveSourceVolumeNode(case.volume)
    return node


def boxed(case, lower=(3, 3, 3), upper=(8, 20, 20)):
    mask = np.zeros(case.grid.shape, bool)
    mask[tuple(map(slice, lower, upper))] = True
    return mask


@pytest.mark.parametrize("parent", [None, MOVE], ids=["no transform", "moved"])
def test_each_mask_mode_is_where_slicer_itself_lets_paint(an_empty_scene, tmp_path, a_grid, parent):
    """By what is drawn: bright, dim (hidden) and a third segment that is no part of the session."""
    case = Case(an_empty_scene, tmp_path, a_grid, parent)
    masks = {"bright": case.balls[0], "dim": case.balls[1], "mine": boxed(case, (1, 1, 1), (4, 6, 6))}
    for name in ("bright", "dim"):
        case.paint(name, masks[name])
    case.add("mine", masks["mine"])
    node = editor(case)
    case.segmentation.GetDisplayNode().SetSegmentVisibility("dim", False)
    every = masks["bright"] | masks["dim"] | masks["mine"]
    others, seen = masks["dim"] | masks["mine"], masks["bright"] | masks["mine"]
    expected = {
        NODE.EditAllowedInsideAllSegments: every,
        NODE.EditAllowedInsideVisibleSegments: seen,
        NODE.EditAllowedOutsideAllSegments: ~others,
        NODE.EditAllowedOutsideVisibleSegments: ~masks["mine"],
        NODE.EditAllowedInsideSingleSegment: masks["mine"],
    }
    assert masking.editable(case.segmentation, "bright", case.volume) is None
    node.SetMaskSegmentID("mine")
    for mode, mask in expected.items():
        node.SetMaskMode(mode)
        found = masking.editable(case.segmentation, "bright", case.volume)()
        assert np.array_equal(found, mask), slicer.vtkMRMLSegmentationNode.ConvertMaskModeToString(mode)
    node.SetMaskMode(NODE.EditAllowedInsideAllSegments)
    node.SetSourceVolumeIntensityMask(True)
    node.SetSourceVolumeIntensityMaskRange(250, 400)
    bright = (case.image >= 250) & (case.image <= 400)
    assert np.array_equal(masking.editable(case.segmentation, "bright", case.volume)(), every & bright)
    node.SetMaskMode(NODE.EditAllowedEverywhere)
    assert np.array_equal(masking.editable(case.segmentation, "bright", case.volume)(), bright)


def test_the_intensity_range_of_another_volume_counts_where_that_volume_lies(a_case):
    """The source volume has voxels half as large and lies under no transform, at the same place in the world."""
    node = editor(a_case)
    world = mrml.worldGrid(a_case.volume)
    fine = type(world)(
        [2 * n for n in world.shape],
        np.divide(world.spacing, 2),
        world.direction,
        world.to_world([-0.25, -0.25, -0.25]),
    )
    halves = np.zeros(fine.shape, np.int16)
    halves[: fine.shape[0] // 2] = 100
    node.SetAndObserveSourceVolumeNode(addVolume(a_case.scene, fine, halves))
    node.SetSourceVolumeIntensityMask(True)
    node.SetSourceVolumeIntensityMaskRange(90, 110)
    found = masking.editable(a_case.segmentation, "bright", a_case.volume)()
    middle = a_case.grid.shape[0] // 2
    assert found[: middle - 1].all() and not found[middle + 1 :].any()


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (EDITOR.OverwriteAllSegments, {"locked"}),
        (EDITOR.OverwriteVisibleSegments, {"locked", "hidden"}),
        (EDITOR.OverwriteNone, {"locked", "hidden", "dim"}),
    ],
    ids=["all", "visible", "none"],
)
def test_what_the_editor_would_not_overwrite_is_locked(a_case, mode, expected):
    for name in ("locked", "hidden"):
        a_case.add(name)
    masking.setLocked(a_case.segment("locked"), True)
    a_case.segmentation.GetDisplayNode().SetSegmentVisibility("hidden", False)
    assert masking.lockedSegments(a_case.segmentation, ["bright"]) == {"locked"}
    editor(a_case).SetOverwriteMode(mode)
    assert masking.lockedSegments(a_case.segmentation, ["bright"]) == expected
    masking.setLocked(a_case.segment("locked"), False)
    assert masking.lockedSegments(a_case.segmentation, ["bright"]) == expected - {"locked"} | (
        {"locked"} if mode == EDITOR.OverwriteNone else set()
    )


def test_only_an_editor_at_work_on_this_segmentation_counts(a_case):
    assert masking.editorOf(a_case.segmentation) is None
    foreign = editor(a_case, "foreign")
    foreign.SetAndObserveSegmentationNode(a_case.scene.AddNewNodeByClass("vtkMRMLSegmentationNode"))
    foreign.SetMaskMode(NODE.EditAllowedInsideAllSegments)
    assert masking.editable(a_case.segmentation, "bright", a_case.volume) is None
    own = editor(a_case, "another module's")
    assert masking.editorOf(a_case.segmentation) is own
    module = editor(a_case)
    assert masking.editorOf(a_case.segmentation) is module


def test_a_session_changes_nothing_outside_the_editable_mask(a_case):
    a_case.add("mask", boxed(a_case))
    node = editor(a_case)
    node.SetMaskMode(NODE.EditAllowedInsideSingleSegment)
    node.SetMaskSegmentID("mask")
    a_case.start()
    a_case.logic.click(a_case.world(BRIGHT), True)
    found = a_case.voxels("bright")
    assert found[BRIGHT] and not (found & ~boxed(a_case)).any()
    with pytest.raises(BadInput, match="editable area"):
        a_case.logic.click(a_case.world(DIM), True)
    a_case.logic.undo()
    assert not a_case.voxels("bright").any()
    a_case.logic.redo()  # under the mask of then, whatever it is now
    node.SetMaskMode(NODE.EditAllowedEverywhere)
    assert np.array_equal(a_case.voxels("bright"), found)
    a_case.check_node_shows_session()


@pytest.mark.parametrize("how", ["lock", "overlap allowed"])
def test_a_locked_neighbor_keeps_every_voxel_and_a_click_inside_of_it_is_refused(a_case, how):
    for name, ball in zip(("bright", "dim"), a_case.balls, strict=True):
        a_case.paint(name, ball)
    a_case.start()
    if how == "lock":
        a_case.logic.setLocked("dim", True)
    else:
        editor(a_case).SetOverwriteMode(EDITOR.OverwriteNone)
    a_case.logic.activeSegment = "bright"
    with pytest.raises(BadInput, match="'dim', which is locked"):
        a_case.logic.click(a_case.world(DIM), True)
    a_case.logic.clickNodes[True].AddControlPointWorld(*a_case.world(DIM), "")
    assert "'dim', which is locked" in a_case.told[-1] and not a_case.prompts(Click)
    assert a_case.logic.clickNodes[True].GetNumberOfControlPoints() == 0
    assert np.array_equal(a_case.voxels("dim"), a_case.balls[1])
    if how == "lock":
        a_case.logic.activeSegment = "dim"
        with pytest.raises(BadInput, match="'dim' is locked"):
            a_case.logic.click(a_case.world(DIM), False)
        a_case.logic.setLocked("dim", False)
    else:
        masking.editorOf(a_case.segmentation).SetOverwriteMode(EDITOR.OverwriteAllSegments)
    a_case.logic.activeSegment = "bright"
    a_case.logic.click(a_case.world(DIM), True)
    assert a_case.voxels("bright")[DIM] and not a_case.voxels("dim")[DIM]
    a_case.check_node_shows_session()


def test_overlapping_segments_lose_nothing_to_clicks_elsewhere(a_case):
    """A session knows one label a voxel; what another segment has there as well stays."""
    wide = a_case.balls[0] | checks.ball(a_case.grid, (9, 11, 12), 6)
    a_case.paint("bright", wide)
    a_case.segmentation.GetSegmentation().SeparateSegmentLabelmap("dim")
    over = a_case.balls[1] | checks.ball(a_case.grid, (9, 11, 12), 4)
    array = over.astype(np.uint8)
    image = mrml.orientedImage(array, mrml.ownGrid(a_case.volume))
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    assert logic.SetBinaryLabelmapToSegment(image, a_case.segmentation, "dim", logic.MODE_REPLACE)
    assert np.array_equal(a_case.voxels("bright"), wide) and np.array_equal(a_case.voxels("dim"), over)
    both = wide & over
    assert a_case.start().overlap == both.sum() > 0
    a_case.logic.activeSegment = "dim"
    a_case.logic.click(a_case.world((13, 20, 24)), True)
    a_case.logic.setLimits(0, 0, 19)
    assert (a_case.voxels("bright") & both).sum() == both.sum()
    a_case.logic.undo()
    a_case.logic.undo()
    assert np.array_equal(a_case.voxels("bright"), wide) and np.array_equal(a_case.voxels("dim"), over)


@pytest.mark.parametrize("seed", range(4))
def test_segments_of_others_are_the_same_bit_for_bit_whatever_is_said(a_case, seed):
    """In one image with ours, as Slicer stores segments that do not overlap, and in one of their own."""
    rng, segmentation = np.random.default_rng(seed), a_case.segmentation.GetSegmentation()
    whole = rng.integers(0, 4, a_case.grid.shape)
    a_case.paint("bright", whole == 1)
    a_case.start()
    others = {"beside": whole == 3, "across": rng.random(a_case.grid.shape) < 0.4}
    for name, mask in others.items():
        a_case.add(name, mask)
    for step in range(6):
        if step % 2 == 0:  # into one image again, as far as they do not overlap
            segmentation.CollapseBinaryLabelmaps(False)
            assert step or segmentation.GetLayerIndex("bright") == segmentation.GetLayerIndex("beside")
        a_case.logic.activeSegment = str(rng.choice(["bright", "dim"]))
        index = tuple(int(rng.integers(n)) for n in a_case.grid.shape)
        a_case.logic.click(a_case.world(index), bool(rng.integers(2)))
        for name, mask in others.items():
            assert np.array_equal(a_case.voxels(name), mask)
        a_case.check_node_shows_session()
