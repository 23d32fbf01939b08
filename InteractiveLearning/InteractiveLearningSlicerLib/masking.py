"""What may change: the Segment Editor's masking is honored, and so are locked segments.

Slicer itself has no lock for a segment (looked for in its sources up to 5.13): locking is RefSeg's own, a tag of the
segment. It protects the segment from what RefSeg does to others, not from being painted in.
"""

import numpy as np
import slicer
import vtk
from RefSegLib.errors import BadInput
from RefSegSlicerLib import mrml
from RefSegSlicerLib.translation import tr as _
from vtk.util.numpy_support import vtk_to_numpy

LOCKED = "RefSeg.Locked"
SEGMENT_EDITOR = "SegmentEditor"  # the singleton tag of the node of Slicer's Segment Editor module


def setLocked(segment, locked):
    """Lock a segment (vtkSegment), or unlock it. Saved with it."""
    if locked:
        segment.SetTag(LOCKED, "1")
    else:
        segment.RemoveTag(LOCKED)


def isLocked(segment):
    """True if a segment (vtkSegment; None if it was removed) is locked."""
    return segment is not None and segment.HasTag(LOCKED)


def editorOf(segmentationNode):
    """The Segment Editor's node whose settings apply to a segmentation: that of the module if it edits this one, else
    any other that does; None if none does."""
    scene = segmentationNode.GetScene()
    nodes = [scene.GetSingletonNode(SEGMENT_EDITOR, "vtkMRMLSegmentEditorNode")]
    nodes += slicer.util.getNodesByClass("vtkMRMLSegmentEditorNode", scene)
    return next((node for node in nodes if node is not None and node.GetSegmentationNode() is segmentationNode), None)


def lockedSegments(segmentationNode, active):
    """Ids of segments of which no voxel may change while the segments `active` are corrected.

    Those that are locked, and those that the Segment Editor would not overwrite: with "Allow overlap" it overwrites
    none, with "Overwrite visible" none that is hidden.
    """
    segmentation, editor = segmentationNode.GetSegmentation(), editorOf(segmentationNode)
    mode = slicer.vtkMRMLSegmentEditorNode.OverwriteAllSegments if editor is None else editor.GetOverwriteMode()
    found = set()
    for identifier in segmentation.GetSegmentIDs():
        kept = mode == slicer.vtkMRMLSegmentEditorNode.OverwriteNone or (
            mode == slicer.vtkMRMLSegmentEditorNode.OverwriteVisibleSegments
            and not segmentationNode.GetDisplayNode().GetSegmentVisibility(identifier)
        )
        if isLocked(segmentation.GetSegment(identifier)) or (kept and identifier not in active):
            found.add(identifier)
    return found


def editable(segmentationNode, active, volumeNode):
    """Where the Segment Editor's masking lets the segment `active` change: a function that gives a bool array (k, j, i)
    on the grid of the volume, in any thread; None if everywhere. Raises BadInput if the mask cannot be made."""
    editor = editorOf(segmentationNode)
    if editor is None:
        return None
    masks = []
    source = editor.GetSourceVolumeNode() if editor.GetSourceVolumeIntensityMask() else None
    byIntensity = [] if source is None else [source, list(editor.GetSourceVolumeIntensityMaskRange())]
    if byIntensity and _sameVoxels(source, volumeNode):
        # By numpy in the thread: Slicer's own way, which resamples first, takes 0.2 s for 256 cubed voxels.
        voxels, (low, high) = slicer.util.arrayFromVolume(source), byIntensity[1]
        masks.append(lambda: (voxels >= low) & (voxels <= high))
        byIntensity = []
    if byIntensity or editor.GetMaskMode() != slicer.vtkMRMLSegmentationNode.EditAllowedEverywhere:
        mask = _generated(segmentationNode, active, volumeNode, editor, byIntensity)
        masks.append(lambda: mask == 0)  # Slicer marks what must not be edited
    return (lambda: np.logical_and.reduce([mask() for mask in masks])) if masks else None


def _sameVoxels(sourceNode, volumeNode):
    """True if a volume has its voxels where another one has them, one value in each."""
    image = sourceNode.GetImageData()
    if image is None or image.GetNumberOfScalarComponents() != 1:
        return False
    moved = sourceNode.GetTransformNodeID() != volumeNode.GetTransformNodeID()
    return not moved and mrml.ownGrid(sourceNode).same_as(mrml.ownGrid(volumeNode))


def _generated(segmentationNode, active, volumeNode, editor, byIntensity):
    """Slicer's own mask of the editable area. byIntensity: source volume and range, empty for none."""
    reference = _emptyImage(volumeNode)
    options = [reference, active, editor.GetMaskSegmentID() or ""]
    if byIntensity:
        options += [_aligned(byIntensity[0], segmentationNode, reference), byIntensity[1]]
    mask = slicer.vtkOrientedImageData()
    if not segmentationNode.GenerateEditMask(mask, editor.GetMaskMode(), *options):
        raise BadInput(_("The Segment Editor's mask could not be made. Set its editable area to 'Everywhere'."))
    return vtk_to_numpy(mask.GetPointData().GetScalars()).reshape(mask.GetDimensions()[::-1])


def _emptyImage(volumeNode):
    """The grid of a volume without voxels, as Slicer's functions want to be told of it."""
    image = slicer.vtkOrientedImageData()
    image.SetExtent(volumeNode.GetImageData().GetExtent())
    image.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(mrml.ownGrid(volumeNode).ijk_to_ras()))
    return image


def _aligned(sourceNode, segmentationNode, reference):
    """The voxels of another volume on a grid in the segmentation's space, linearly interpolated."""
    source = slicer.vtkOrientedImageData()
    source.ShallowCopy(sourceNode.GetImageData())
    source.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(mrml.ownGrid(sourceNode).ijk_to_ras()))
    transform = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(
        sourceNode.GetParentTransformNode(), segmentationNode.GetParentTransformNode(), transform
    )
    lowest = float(np.min(vtk_to_numpy(sourceNode.GetImageData().GetPointData().GetScalars())))
    resample = slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage
    if not resample(source, reference, source, True, False, transform, lowest):
        text = _("The volume '{name}' of the Segment Editor could not be used as a mask.")
        raise BadInput(text.format(name=sourceNode.GetName()))
    return source
