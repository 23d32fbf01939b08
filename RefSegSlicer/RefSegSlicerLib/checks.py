"""Checks of the border to MRML that run both inside Slicer (self test) and in the project's own tests.

Each takes an empty scene, and the grids and transforms to try where a caller has more; it fails by AssertionError.
"""

import numpy as np
import slicer
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import LabelMap

from RefSegSlicerLib import doubt, masks, mrml

TURN = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
OBLIQUE = Grid((9, 13, 11), (2.5, 0.9, 1.1), TURN, (-12.0, 34.0, 56.0))
FLIPPED = Grid((12, 14, 16), (1.5, 1.0, 1.0), ((0, 0, -1), (0, -1, 0), (-1, 0, 0)), (10.0, 20.0, -5.0))
MOVE = np.array([[0.0, -1.0, 0.0, 12.5], [1.0, 0.0, 0.0, -7.0], [0.0, 0.0, 1.0, 30.25], [0.0, 0.0, 0.0, 1.0]])


def addVolume(scene, grid, array=None, parent=None):
    """A volume node of noise (or `array`) on a grid, under a linear transform (4x4, RAS) if one is given."""
    if array is None:
        array = np.random.default_rng(1).integers(0, 900, grid.shape).astype(np.int16)
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "image")
    slicer.util.updateVolumeFromArray(node, array)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(grid.ijk_to_ras()))
    if parent is not None:
        transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
        transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(parent))
        node.SetAndObserveTransformNodeID(transform.GetID())
    return node


class Found:
    """A result with two labels in it, one of them coded."""

    def __init__(self, grid):
        from RefSegLib.models.spec import Code, Label

        array = np.random.default_rng(2).integers(0, 3, grid.shape).astype(np.uint8)
        array[0] = array[:, :2] = 0  # so that segments are smaller than the volume
        self.labels = LabelMap(array, grid)
        code = Code(value="5366008", meaning="Hippocampus")
        left = Code(value="7771000", meaning="Left")
        self.names = (
            Label(value=1, name="Left hippocampus", color=(0.86, 0.36, 0.24), type=code, modifier=left),
            Label(value=2, name="rest", color=(0.2, 0.5, 0.9)),
        )


def checkVolumesLieWhereTheyAre(scene, grid=OBLIQUE, parent=MOVE):
    """Every corner of the engine's grid is where MRML has it, and the voxels are the node's own."""
    node = addVolume(scene, grid, parent=parent)
    volume = mrml.volumeFromNode(node)
    assert np.array_equal(volume.array[0], slicer.util.arrayFromVolume(node))
    bounds, own = [0.0] * 6, [0.0] * 6
    node.GetRASBounds(bounds)  # MRML's own way through the transform
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in grid.shape])).reshape(3, -1).T
    ras = volume.grid.to_world(corners) * mrml.RAS_TO_LPS
    own = np.stack([ras.min(axis=0), ras.max(axis=0)], axis=1).ravel()
    assert np.allclose(bounds, own, atol=1e-4), (bounds, own)
    point = mrml.worldFromIndex((3, 4, 5), node)
    assert np.allclose(mrml.indexFromWorld(point, node), (3, 4, 5), atol=1e-6)
    assert np.allclose(volume.grid.to_world((3, 4, 5)) * mrml.RAS_TO_LPS, point, atol=1e-6)


def checkMasksComeBackVoxelForVoxel(scene, grid=OBLIQUE, parent=MOVE):
    """Segments have exactly the engine's voxels, its names, colors and codes, and lie where the volume lies."""
    node = addVolume(scene, grid, parent=parent)
    found = Found(mrml.worldGrid(node))
    segmentation = masks.labelsToSegmentation(found, node)
    segments = segmentation.GetSegmentation()
    assert segments.GetNumberOfSegments() == 2
    assert segmentation.GetTransformNodeID() == node.GetTransformNodeID()
    for number, label in enumerate(found.names):
        identifier = segments.GetNthSegmentID(number)
        segment = segments.GetSegment(identifier)
        assert segment.GetName() == label.name
        assert np.allclose(segment.GetColor(), label.color)
        for code in (label.category, label.type, label.modifier) if label.type else ():
            terminology = masks.tagOf(segment, slicer.vtkSegment.GetTerminologyEntryTagName())
            assert f"~{code.scheme}^{code.value}^{code.meaning}~" in terminology
        expected = found.labels.array == label.value
        assert np.array_equal(mrml.segmentArray(segmentation, identifier, node), expected)
        assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, identifier, node), expected)


def checkOtherSegmentsAreLeftAlone(scene, grid=OBLIQUE, parent=MOVE):
    """Segmenting again into a segmentation keeps what a person drew in it, overlapping or not."""
    node = addVolume(scene, grid, parent=parent)
    found = Found(mrml.worldGrid(node))
    segmentation = masks.labelsToSegmentation(found, node)
    mine = segmentation.GetSegmentation().AddEmptySegment("mine", "mine")
    drawn = np.zeros(grid.shape, np.uint8)
    drawn[2:5, 3:7, 2:6] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(drawn, segmentation, mine, node)
    again = masks.labelsToSegmentation(found, node, segmentation)
    assert again is segmentation and segmentation.GetSegmentation().GetNumberOfSegments() == 3
    assert np.array_equal(mrml.segmentArray(segmentation, mine, node), drawn != 0)
    assert np.array_equal(mrml.labelsFromSegmentation(segmentation, names(found), node).array, found.labels.array)


def names(found):
    """Segment ids of a result."""
    return [f"RefSeg_{label.name}" for label in found.names]


def checkRegionsHoldTheirVoxels(scene, grid=OBLIQUE, parent=MOVE):
    """A ROI turned like the volume and drawn around voxels gives the box of just these voxels."""
    node = addVolume(scene, grid, parent=parent)
    lower, upper = np.array((2, 3, 4)), np.array((6, 9, 11))
    axes = np.eye(4)
    axes[:3, :3] = grid.ijk_to_ras()[:3, :3] / np.array(grid.spacing[::-1])
    axes[:3, 3] = grid.to_world((lower + upper - 1) / 2) * mrml.RAS_TO_LPS
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "box")
    roi.SetAndObserveTransformNodeID(node.GetTransformNodeID())
    roi.SetSize(*((upper - lower - 0.5) * grid.spacing)[::-1])
    roi.SetCenter(*axes[:3, 3])
    roi.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(axes))
    assert mrml.boxFromRoi(roi, node) == (*lower, *upper), (mrml.boxFromRoi(roi, node), lower, upper)


def checkDoubtLiesOnTheImage(scene, grid=OBLIQUE, parent=MOVE):
    """The map of doubt has the place and the voxels of its image; a second one takes the place of the first."""
    node = addVolume(scene, grid, parent=parent)
    values = np.random.default_rng(3).random((2, *grid.shape)).astype(np.float32)
    found = doubt.writeDoubt(mrml.imageData(values[0]), node)
    count = scene.GetNumberOfNodes()
    assert doubt.writeDoubt(mrml.imageData(values[1]), node) is found is doubt.doubtNode(node)
    assert scene.GetNumberOfNodes() == count
    assert np.array_equal(slicer.util.arrayFromVolume(found), values[1])
    assert found.GetTransformNodeID() == node.GetTransformNodeID()
    bounds, own = [0.0] * 6, [1.0] * 6
    node.GetRASBounds(bounds)
    found.GetRASBounds(own)
    assert np.allclose(bounds, own, atol=1e-9)
    for index in ((0, 0, 0), (1, 2, 3), np.subtract(grid.shape, 1)):
        assert np.allclose(mrml.worldFromIndex(index, found), mrml.worldFromIndex(index, node), atol=1e-9)


def checkWhatPeoplePaintStays(scene, grid=OBLIQUE, parent=MOVE):
    """A segment that was changed by hand is not written over; a second mask of it lies beside it."""
    node = addVolume(scene, grid, parent=parent)
    found = Found(mrml.worldGrid(node))
    segmentation = masks.labelsToSegmentation(found, node)
    edited, other = names(found)
    mask = mrml.segmentArray(segmentation, edited, node)
    mask[0, 0, 0] = True
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), segmentation, edited, node)
    assert masks.unchangedSegments(segmentation.GetSegmentation()) == {other}
    written = masks.write(masks.crop(found.labels, found.names), node, segmentation)
    assert written.kept == (found.names[0].name,)
    assert np.array_equal(mrml.segmentArray(segmentation, edited, node), mask)
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 3


def checkTheFirstMaskIsShownForAWhile(scene, grid=OBLIQUE, parent=MOVE):
    """The mask before reflection lies on the volume, in the colors of the result, and leaves nothing behind."""
    from RefSegSlicerLib.before import Before  # needs the application's translations

    node = addVolume(scene, grid, parent=parent)
    found = Found(mrml.worldGrid(node))
    result = masks.labelsToSegmentation(found, node)
    result.GetSegmentation().GetSegment(names(found)[0]).SetColor(0.1, 0.2, 0.3)
    first = LabelMap(np.flip(found.labels.array, 2), found.labels.grid)
    toggle, count = Before(scene), scene.GetNumberOfNodes()
    toggle.remember(result, node, masks.crop(first, found.names))
    assert toggle.reason(result) == ""
    toggle.show(result)
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode", scene)
    (shown,) = (other for other in nodes if other is not result)
    assert shown.GetDisplayNode().GetVisibility() and not result.GetDisplayNode().GetVisibility()
    assert not shown.GetSaveWithScene() and not shown.GetDisplayNode().GetSaveWithScene()
    assert np.array_equal(mrml.labelsFromSegmentation(shown, names(found), node).array, first.array)
    assert np.allclose(shown.GetSegmentation().GetSegment(names(found)[0]).GetColor(), (0.1, 0.2, 0.3))
    assert np.array_equal(mrml.labelsFromSegmentation(result, names(found), node).array, found.labels.array)
    toggle.showResult()
    assert result.GetDisplayNode().GetVisibility() and scene.GetNumberOfNodes() == count


CHECKS = (
    checkVolumesLieWhereTheyAre,
    checkMasksComeBackVoxelForVoxel,
    checkOtherSegmentsAreLeftAlone,
    checkRegionsHoldTheirVoxels,
    checkDoubtLiesOnTheImage,
    checkWhatPeoplePaintStays,
    checkTheFirstMaskIsShownForAWhile,
)
