"""Between a session's label map and the segments of a segmentation node: only what changed is written."""

import numpy as np
import slicer
from RefSegLib.errors import BadInput, RefSegError
from RefSegSlicerLib import mrml


def namedValues(spec) -> dict[str, int]:
    """Label values of a model by the names its segments carry, left and right among them."""
    values = {label.name: label.value for label in spec.labels}
    for box in spec.region.boxes:
        side = f"{box.side.capitalize()} " if box.side else ""
        values |= {f"{side}{label.name}": label.value + box.offset for label in spec.labels}
    return values


def labelsOf(segmentationNode, spec=None):
    """Segment ids and RefSegLib Labels of the segments, numbered as the model of `spec` numbers them.

    A segment whose name the model does not know gets a number after the model's; it can be edited but not learnt.
    """
    from RefSegLib.models.spec import Label

    known = namedValues(spec) if spec is not None else {}
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


def writeBox(array, bounds, segmentationNode, volumeNode, values):
    """Write the voxels of a box of a label map into its segments; segments and voxels besides stay as they are.

    array: label map (k, j, i) on the volume's grid; bounds: (lower, upper) in k, j, i, upper exclusive; values: label
    value by segment id. Raises BadInput if a segment has been removed.
    """
    lower, upper = bounds
    part = array[tuple(map(slice, lower, upper))]
    modified = segmentationNode.StartModify()
    try:
        for identifier, value in values.items():
            _writePatch(part == value, lower, segmentationNode, identifier, mrml.ownGrid(volumeNode))
    finally:
        segmentationNode.EndModify(modified)


def _writePatch(mask, lower, segmentationNode, identifier, grid):
    logic, segmentation = slicer.vtkSlicerSegmentationsModuleLogic, segmentationNode.GetSegmentation()
    segment = segmentation.GetSegment(identifier)
    if segment is None:
        raise BadInput(f"The segment '{identifier}' was removed. End the session, and start it without that segment.")
    # Slicer keeps segments that do not overlap in one image, and both merges below would change all of them at once.
    shared = []
    segmentation.GetSegmentIDsSharingBinaryLabelmapRepresentation(identifier, shared, False)
    if shared:
        segmentation.SeparateSegmentLabelmap(identifier)
    patch = mrml.orientedImage(np.where(mask, segment.GetLabelValue(), 0).astype(np.uint8), grid, lower)
    for mode in (logic.MODE_MERGE_MIN, logic.MODE_MERGE_MAX):  # clears, then sets
        if not logic.SetBinaryLabelmapToSegment(patch, segmentationNode, identifier, mode, patch.GetExtent()):
            raise RefSegError(f"The segment '{segment.GetName()}' could not be written.")


def paintedSlices(painted, shown):
    """(axis, indices) of the slices that a person painted in: the axis along which they are fewest.

    painted, shown: masks (k, j, i) of a segment as it is and as the session knows it.
    """
    changed = painted != shown
    if not changed.any():
        raise BadInput("Nothing new was painted in the active segment. Paint its outline on a slice first.")
    slices = [np.flatnonzero(changed.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    axis = int(np.argmin([len(found) for found in slices]))
    return axis, slices[axis].tolist()
