"""Masks in segmentations: where they lie, what they are called, and that nothing a person has changed is lost."""

import numpy as np
import pytest
import slicer
from RefSegLib.errors import BadInput
from RefSegSlicerLib import checks, masks, mrml

pytest_plugins = ("slicer_standin.fixtures",)
pytestmark = pytest.mark.usefixtures("an_empty_scene", "no_swallowed_exceptions")
LEFT, REST = "RefSeg_Left hippocampus", "RefSeg_rest"


@pytest.fixture(params=[None, checks.MOVE], ids=["no transform", "moved"])
def a_volume(request, an_empty_scene, a_grid):
    """A volume of every kind, also under a transform."""
    return checks.addVolume(an_empty_scene, a_grid, parent=request.param)


def found(volume, turn=0):
    """A result; turn: another one."""
    result = checks.Found(mrml.worldGrid(volume))
    array = np.roll(result.labels.array, turn, axis=2)
    result.labels = type(result.labels)(array, result.labels.grid)
    return masks.crop(result.labels, result.names)


def ids(node):
    segmentation = node.GetSegmentation()
    return [segmentation.GetNthSegmentID(n) for n in range(segmentation.GetNumberOfSegments())]


def whole(cropped, value):
    array = np.zeros(cropped.shape, bool)
    stop = np.add(cropped.lower, cropped.array.shape)
    array[tuple(map(slice, cropped.lower, stop))] = cropped.array == value
    return array


def painted(node, identifier, volume):
    """What the Segment Editor does to a segment: one voxel more or less."""
    mask = mrml.segmentArray(node, identifier, volume)
    mask[-2, -3, -2] ^= True
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, identifier, volume)
    return mask


def test_a_second_run_takes_the_place_of_the_first_and_keeps_colors_and_display(a_volume):
    first, second = found(a_volume), found(a_volume, 1)
    node = masks.write(first, a_volume).node
    assert masks.unchangedSegments(node.GetSegmentation()) == {LEFT, REST}
    node.GetSegmentation().GetSegment(LEFT).SetColor(0.1, 0.2, 0.3)
    node.GetDisplayNode().SetSegmentVisibility(LEFT, False)
    again = masks.write(second, a_volume, node)
    assert again.node is node and again.kept == () and ids(node) == [LEFT, REST]
    for value, identifier in ((1, LEFT), (2, REST)):
        np.testing.assert_array_equal(mrml.segmentArray(node, identifier, a_volume), whole(second, value))
    assert np.allclose(node.GetSegmentation().GetSegment(LEFT).GetColor(), (0.1, 0.2, 0.3))
    assert not node.GetDisplayNode().GetSegmentVisibility(LEFT)
    assert masks.unchangedSegments(node.GetSegmentation()) == {LEFT, REST}


def test_what_a_person_has_painted_stays_and_the_new_mask_lies_beside_it(a_volume):
    node = masks.write(found(a_volume), a_volume).node
    mask = painted(node, LEFT, a_volume)
    assert LEFT not in masks.unchangedSegments(node.GetSegmentation())
    for turn in (1, 2):  # the second time, only what the first has added is written over
        newer = found(a_volume, turn)
        assert masks.write(newer, a_volume, node).kept == ("Left hippocampus",)
        assert len(ids(node)) == 3
        np.testing.assert_array_equal(mrml.segmentArray(node, LEFT, a_volume), mask)
        (added,) = set(ids(node)) - {LEFT, REST}
        assert node.GetSegmentation().GetSegment(added).GetName() == "Left hippocampus (2)"
        np.testing.assert_array_equal(mrml.segmentArray(node, added, a_volume), whole(newer, 1))
        np.testing.assert_array_equal(mrml.segmentArray(node, REST, a_volume), whole(newer, 2))


def test_a_change_that_was_undone_is_none(an_empty_scene):
    volume = checks.addVolume(an_empty_scene, checks.OBLIQUE)
    node = masks.write(found(volume), volume).node
    painted(node, LEFT, volume)
    painted(node, LEFT, volume)
    assert masks.unchangedSegments(node.GetSegmentation()) == {LEFT, REST}


def test_painting_another_segment_into_the_same_voxels_is_seen_only_where_it_took_some(an_empty_scene):
    volume = checks.addVolume(an_empty_scene, checks.FLIPPED)
    node = masks.write(found(volume), volume).node
    mine = node.GetSegmentation().AddEmptySegment("mine", "mine")
    array = np.zeros(checks.FLIPPED.shape, np.uint8)
    array[0, 0, 0] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(array, node, mine, volume)
    assert masks.unchangedSegments(node.GetSegmentation()) == {LEFT, REST}
    assert masks.write(found(volume, 1), volume, node).kept == ()
    assert mrml.segmentArray(node, "mine", volume).sum() == 1


def test_segments_that_came_back_from_a_file_are_known_again(a_volume, an_empty_scene, tmp_path):
    node = masks.write(found(a_volume), a_volume).node
    storage = an_empty_scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(tmp_path / "mask.seg.nrrd"))
    assert storage.WriteData(node)
    again = an_empty_scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "again")
    again.SetAndObserveTransformNodeID(a_volume.GetTransformNodeID())
    assert storage.ReadData(again)
    assert masks.unchangedSegments(again.GetSegmentation()) == {LEFT, REST}
    painted(again, REST, a_volume)
    assert masks.unchangedSegments(again.GetSegmentation()) == {LEFT}


def test_a_segment_of_an_earlier_program_with_the_same_id_is_left_alone(an_empty_scene):
    volume = checks.addVolume(an_empty_scene, checks.FLIPPED)
    node = an_empty_scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.GetSegmentation().AddEmptySegment(REST, "rest")
    assert masks.write(found(volume), volume, node).kept == ("rest",)
    assert not mrml.segmentArray(node, REST, volume).any() and len(ids(node)) == 3


def test_a_structure_that_was_not_found_is_an_empty_segment_and_may_be_found_later(an_empty_scene):
    volume = checks.addVolume(an_empty_scene, checks.OBLIQUE)
    result = checks.Found(mrml.worldGrid(volume))
    only = type(result.labels)(np.where(result.labels.array == 2, 2, 0).astype(np.uint8), result.labels.grid)
    node = masks.write(masks.crop(only, result.names), volume).node
    assert ids(node) == [LEFT, REST] and not mrml.segmentArray(node, LEFT, volume).any()
    assert masks.write(found(volume), volume, node).kept == ()
    assert mrml.segmentArray(node, LEFT, volume).any()
    nothing = type(result.labels)(np.zeros_like(only.array), result.labels.grid)
    assert masks.write(masks.crop(nothing, result.names), volume, node).kept == ()
    assert not mrml.segmentArray(node, REST, volume).any()


def test_a_segmentation_that_is_shown_in_3d_stays_so(an_empty_scene):
    volume = checks.addVolume(an_empty_scene, checks.FLIPPED)
    node = masks.write(found(volume), volume).node
    node.CreateClosedSurfaceRepresentation()
    masks.write(found(volume, 1), volume, node)
    for identifier in ids(node):
        surface = node.GetSegmentation().GetSegment(identifier).GetRepresentation(masks.SURFACE)
        assert surface.GetNumberOfPoints() > 0


def test_the_reference_geometry_is_the_volumes_and_the_place_in_the_hierarchy_beside_it(a_volume, an_empty_scene):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(an_empty_scene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
    hierarchy.CreateItem(study, a_volume)
    node = masks.write(found(a_volume), a_volume).node
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study
    reference = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
    assert reference is a_volume
    text = node.GetSegmentation().GetConversionParameter("Reference image geometry")
    assert text.split(";")[16:22] == [str(v) for n in (2, 1, 0) for v in (0, mrml.shapeOf(a_volume)[n] - 1)]
    elsewhere = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), "mine")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node), elsewhere)
    masks.write(found(a_volume), a_volume, node)
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == elsewhere  # where a person has put it


def test_segments_that_would_be_moved_are_not(an_empty_scene):
    volume = checks.addVolume(an_empty_scene, checks.FLIPPED, parent=checks.MOVE)
    other = an_empty_scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "other")
    masks.write(found(volume), volume, other)  # empty: nothing moves
    volume.SetAndObserveTransformNodeID(None)
    masks.write(found(volume), volume, other)  # all of it is written anew, where the volume lies now
    assert other.GetTransformNodeID() is None and ids(other) == [LEFT, REST]
    mask = painted(other, LEFT, volume)
    above = slicer.util.getNodesByClass("vtkMRMLLinearTransformNode")[0]
    volume.SetAndObserveTransformNodeID(above.GetID())
    with pytest.raises(
        BadInput, match="'other' holds segments that lie under another transform than the volume 'image'"
    ):
        masks.write(found(volume), volume, other)
    assert other.GetTransformNodeID() is None
    np.testing.assert_array_equal(mrml.segmentArray(other, LEFT, volume), mask)


def test_a_mask_of_another_volume_is_refused_and_nothing_is_made(an_empty_scene):
    cropped = found(checks.addVolume(an_empty_scene, checks.FLIPPED))
    other = checks.addVolume(an_empty_scene, checks.OBLIQUE)
    with pytest.raises(BadInput, match="another number of voxels"):
        masks.write(cropped, other)
    assert not slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
