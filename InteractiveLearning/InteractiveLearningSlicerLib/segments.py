"""Between a session's label map and the segments of a segmentation node: only what changed is written.

What takes long for a large volume touches no node, so that it can run in a thread: `labelMap`, `changesOf`.
"""

from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from RefSegLib.errors import BadInput, RefSegError
from RefSegSlicerLib import mrml
from RefSegSlicerLib.translation import tr as _
from vtk.util.numpy_support import vtk_to_numpy

# A segment's image lies on the voxels of the volume if it is off by less than this (voxels).
SAME_VOXELS = 1e-3


@dataclass(frozen=True)
class Part:
    """A segment as it was. value: its label value; array: (k, j, i) an image that holds it, from index `lower` of the
    volume on; number: what its voxels are in it."""

    value: int
    array: np.ndarray
    lower: np.ndarray
    number: int

    @property
    def box(self):
        """Where in the volume its image lies."""
        return tuple(slice(low, low + count) for low, count in zip(self.lower, self.array.shape, strict=True))

    def count(self):
        """How many voxels it has."""
        return int(np.count_nonzero(self.array == self.number))


@dataclass(frozen=True)
class Change:
    """Voxels that a label gained and lost: bool (k, j, i), from index `lower` of the volume on."""

    value: int
    lower: np.ndarray
    gained: np.ndarray
    lost: np.ndarray


def labelsOf(segmentationNode, known):
    """Segment ids and RefSegLib Labels of the segments.

    known: label values of a model by the names of its segments. A segment whose name is not known gets a number after
    the model's; it can be edited but not learnt.
    """
    from RefSegLib.models.spec import Label

    segments, found = segmentationNode.GetSegmentation(), {}
    free = max(known.values(), default=0) + 1
    for number in range(segments.GetNumberOfSegments()):
        identifier = segments.GetNthSegmentID(number)
        segment = segments.GetSegment(identifier)
        value = known.get(segment.GetName())
        if value is None or any(value == label.value for label in found.values()):
            value, free = free, free + 1
        found[identifier] = Label(value=value, name=segment.GetName(), color=segment.GetColor())
    if not found:
        text = _("The segmentation '{name}' has no segments. Add one for each structure.")
        raise BadInput(text.format(name=segmentationNode.GetName()))
    return found


def snapshot(segmentationNode, volumeNode, values):
    """The segments as they are now, as Parts that do not change any more; values: label value by segment id.

    Copies the images as Slicer stores them, cut to what is segmented: milliseconds. Only an image that lies on other
    voxels than the volume's is resampled.
    """
    copied, parts = {}, []
    for identifier, value in values.items():
        segment = segmentationNode.GetSegmentation().GetSegment(identifier)
        layer = segment.GetRepresentation(mrml.REPRESENTATION)
        if layer is None or layer.GetPointData().GetScalars() is None:
            parts.append(Part(value, np.zeros((0, 0, 0), np.uint8), np.zeros(3, int), 1))
            continue
        if layer not in copied:
            copied[layer] = _onVolume(layer, volumeNode)
        if copied[layer] is None:
            array = mrml.segmentArray(segmentationNode, identifier, volumeNode)
            parts.append(Part(value, array, np.zeros(3, int), 1))
        else:
            parts.append(Part(value, *copied[layer], segment.GetLabelValue()))
    return parts


def _onVolume(layer, volumeNode):
    """(array, lower) of an image cut to the volume; None if it does not lie on the volume's voxels."""
    toWorld = vtk.vtkMatrix4x4()
    layer.GetImageToWorldMatrix(toWorld)
    own = mrml.ownGrid(volumeNode)
    offset = np.linalg.solve(own.ijk_to_ras(), slicer.util.arrayFromVTKMatrix(toWorld))
    whole = np.eye(4)
    whole[:3, 3] = np.rint(offset[:3, 3])
    reach = np.append(np.array(own.shape[::-1], float), 1.0)  # how far a small turn moves the last voxel
    if np.abs((offset - whole) * reach).max() > SAME_VOXELS:
        return None
    extent = layer.GetExtent()
    lower = np.array(extent[::2])[::-1] + whole[2::-1, 3].astype(int)
    array = vtk_to_numpy(layer.GetPointData().GetScalars()).reshape(layer.GetDimensions()[::-1])
    start = np.maximum(-lower, 0)
    stop = np.maximum(np.minimum(np.array(own.shape) - lower, array.shape), start)
    return array[tuple(map(slice, start, stop))].copy(), lower + start


def labelMap(parts, shape, known=None):
    """Segments as a label map (k, j, i) on the volume's grid. parts: see `snapshot`.

    Where segments overlap, the label of `known` stands as long as its segment is there; without a `known` label map the
    last of the segments does.
    """
    largest = max((part.value for part in parts), default=0)
    shown = np.zeros(shape, np.uint8 if largest < 256 else np.uint16)
    for part in parts:
        shown[part.box][part.array == part.number] = part.value
    if known is None:
        return shown
    shown = shown.astype(known.dtype, copy=False)
    for part in parts:
        there = (known[part.box] == part.value) & (part.array == part.number)
        shown[part.box][there] = part.value
    return shown


def changesOf(before, after, values):
    """The Changes between two label maps (k, j, i), each in its own box. values: label values that may have changed."""
    lower, upper = mrml.boundingBox(before != after)
    box = tuple(map(slice, lower, upper))
    before, after, found = before[box], after[box], []
    for value in values:
        gained, lost = (after == value) & (before != value), (before == value) & (after != value)
        own = gained | lost
        if own.any():
            start, stop = mrml.boundingBox(own)
            inner = tuple(map(slice, start, stop))
            found.append(Change(value, lower + start, gained[inner], lost[inner]))
    return found


def write(changes, segmentationNode, volumeNode, values):
    """Write Changes into the segments; all other segments and voxels stay as they are, even where segments overlap.

    values: label value by segment id. Raises BadInput if a segment that changes has been removed.
    """
    identifiers = {value: identifier for identifier, value in values.items()}
    modified = segmentationNode.StartModify()
    try:
        for change in changes:
            _writePatch(change, segmentationNode, identifiers[change.value], mrml.ownGrid(volumeNode))
    finally:
        segmentationNode.EndModify(modified)


def removed(name) -> str:
    """What is told of a segment that a session needs and that is gone."""
    return _("The segment '{name}' was removed. End the session, and start it without that segment.").format(name=name)


def _writePatch(change, segmentationNode, identifier, grid):
    logic, segmentation = slicer.vtkSlicerSegmentationsModuleLogic, segmentationNode.GetSegmentation()
    segment = segmentation.GetSegment(identifier)
    if segment is None:
        raise BadInput(removed(identifier))
    # Slicer keeps segments that do not overlap in one image, and both merges below would change all of them at once.
    shared = []
    segmentation.GetSegmentIDsSharingBinaryLabelmapRepresentation(identifier, shared, False)
    if shared:
        segmentation.SeparateSegmentLabelmap(identifier)
    # Clears, then sets; what neither clears nor sets is left out: a merge over 256 cubed voxels takes 0.2 s.
    for mode, mask, any_ in (
        (logic.MODE_MERGE_MIN, ~change.lost, change.lost.any()),
        (logic.MODE_MERGE_MAX, change.gained, change.gained.any()),
    ):
        if any_:
            voxels = np.where(mask, segment.GetLabelValue(), 0).astype(np.uint8)
            patch = mrml.orientedImage(voxels, grid, change.lower)
            if not logic.SetBinaryLabelmapToSegment(patch, segmentationNode, identifier, mode, patch.GetExtent()):
                raise RefSegError(_("The segment '{name}' could not be written.").format(name=segment.GetName()))
