"""Between a session's label map and the segments of a segmentation node: only what changed is written."""

import numpy as np
import slicer
from RefSegLib.errors import BadInput, RefSegError
from RefSegSlicerLib import mrml


def labelsOf(segmentationNode, spec=None):
    """Segment ids and RefSegLib Labels of the segments, numbered as the model of `spec` numbers them.

    A segment whose name the model does not know gets a number after the model's; it can be edited but not learnt.
    """
    from InteractiveLearningLib.accepting import named_values
    from RefSegLib.models.spec import Label

    known = named_values(spec) if spec is not None else {}
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
        raise BadInput(f"The segmentation '{segmentationNode.GetName()}' has no segments. Add one for each structure.")
    return found


def writeBox(before, after, lower, segmentationNode, volumeNode, values):
    """Write the voxels in which two label maps of the same box differ into the segments that have or had them.

    Segments and voxels besides stay as they are, even where segments overlap. before, after: (k, j, i), the box starts
    at index `lower` of the volume's grid; values: label value by segment id. Raises BadInput if a segment that changes
    has been removed.
    """
    changed = before != after
    modified = segmentationNode.StartModify()
    try:
        for identifier, value in values.items():
            gained, lost = changed & (after == value), changed & (before == value)
            if gained.any() or lost.any():
                _writePatch(gained, lost, lower, segmentationNode, identifier, mrml.ownGrid(volumeNode))
    finally:
        segmentationNode.EndModify(modified)


def _writePatch(gained, lost, lower, segmentationNode, identifier, grid):
    logic, segmentation = slicer.vtkSlicerSegmentationsModuleLogic, segmentationNode.GetSegmentation()
    segment = segmentation.GetSegment(identifier)
    if segment is None:
        raise BadInput(f"The segment '{identifier}' was removed. End the session, and start it without that segment.")
    # Slicer keeps segments that do not overlap in one image, and both merges below would change all of them at once.
    shared = []
    segmentation.GetSegmentIDsSharingBinaryLabelmapRepresentation(identifier, shared, False)
    if shared:
        segmentation.SeparateSegmentLabelmap(identifier)
    for mode, mask in ((logic.MODE_MERGE_MIN, ~lost), (logic.MODE_MERGE_MAX, gained)):  # clears, then sets
        patch = mrml.orientedImage(np.where(mask, segment.GetLabelValue(), 0).astype(np.uint8), grid, lower)
        if not logic.SetBinaryLabelmapToSegment(patch, segmentationNode, identifier, mode, patch.GetExtent()):
            raise RefSegError(f"The segment '{segment.GetName()}' could not be written.")


def shownLabels(segmentationNode, volumeNode, values, known=None):
    """The segments as a label map (k, j, i) on the volume's grid.

    values: label value by segment id. Where segments overlap, the label of `known` stands as long as its segment is
    there; without a `known` label map the last of the segments does.
    """
    arrays = {
        value: mrml.segmentArray(segmentationNode, identifier, volumeNode) for identifier, value in values.items()
    }
    first = next(iter(arrays.values()))
    shown = np.zeros(first.shape, np.uint8 if max(arrays) < 256 else np.uint16) if known is None else known.copy()
    for value, array in arrays.items():
        shown[(shown == value) & ~array] = 0
    for value, array in reversed(arrays.items()):
        shown[array & (shown == 0)] = value
    return shown
