"""A case leaves the scene, and with it what was drawn on it, unless something that is kept nowhere would be lost."""

import slicer
from RefSegSlicerLib import doubt


def segmentationsOf(volumeNode):
    """The segmentations on the voxels of a volume."""
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode", volumeNode.GetScene())
    return [node for node in nodes if node.GetNodeReferenceID(role) == volumeNode.GetID()]


def takeOut(volumeNode, disposable) -> bool:
    """Remove a volume with its segmentations. False if it stays, because one of them does; that one is hidden.

    disposable: what was drawn is kept elsewhere, or not wanted. What somebody has loaded or saved stays in any case.
    """
    stays = False
    for segmentation in segmentationsOf(volumeNode):
        if _fromFile(segmentation):
            stays = True
        elif disposable or not _holdsSomething(segmentation):
            _remove(segmentation)
        else:
            stays = True
            if segmentation.GetDisplayNode() is not None:
                segmentation.GetDisplayNode().SetVisibility(False)
    if not stays:
        doubt.writeDoubt(None, volumeNode)
        _remove(volumeNode)
    return not stays


def _holdsSomething(segmentationNode):
    """Whether a segment of it has any voxel."""
    segments = segmentationNode.GetSegmentation()  # no voxel is read: an empty segment beside others counts, too
    bounds = [0.0] * 6
    for number in range(segments.GetNumberOfSegments()):
        segments.GetNthSegment(number).GetBounds(bounds)
        if bounds[0] <= bounds[1]:
            return True
    return False


def _fromFile(segmentationNode):
    """Whether somebody has loaded or saved it: then it is theirs."""
    storage = segmentationNode.GetStorageNode()
    return storage is not None and bool(storage.GetFileName())


def _remove(node):
    """A node with what shows it."""
    scene, displays = node.GetScene(), [node.GetNthDisplayNode(n) for n in range(node.GetNumberOfDisplayNodes())]
    for beside in [*displays, node]:
        if beside is not None and scene.IsNodePresent(beside):
            scene.RemoveNode(beside)
