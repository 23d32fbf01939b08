"""Masks into segmentations: named, colored segments with codes, in the place of what an earlier run wrote.

What a person has changed since is never overwritten: each segment remembers in a tag which voxels were written into it.
"""

import zlib
from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from RefSegLib.errors import BadInput
from vtk.util.numpy_support import vtk_to_numpy

from RefSegSlicerLib import mrml
from RefSegSlicerLib.translation import tr as _

LABEL = "RefSeg.Label"  # tag: the label of a model that was written into a segment
WRITTEN = "RefSeg.Written"  # tag: which voxels were written, as a checksum and a place
SURFACE = "Closed surface"
# Of a voxel: a mask that came back from a file lies where it was but for rounding.
NEAR = 0.1


@dataclass(frozen=True)
class Crop:
    """The part of a label map that is not 0. shape: of the image; lower: index k, j, i of the first voxel; array: label
    values (k, j, i); names: RefSegLib Labels; terms: value -> its terminology as Slicer stores it; prints: value ->
    (checksum, index of its first voxel), None for a label without voxels.
    """

    shape: tuple[int, int, int]
    lower: tuple[int, int, int]
    array: np.ndarray
    names: tuple
    terms: dict
    prints: dict


@dataclass(frozen=True)
class Written:
    """A segmentation node that was written into, and the names of segments that stayed, because people changed them."""

    node: object
    kept: tuple[str, ...] = ()


def crop(labels, names) -> Crop:
    """What `write` needs of a LabelMap; takes a second for large images, and may be called in any thread."""
    from RefSegLib.volume.segmentation_file import terminology  # needs pydantic, as whoever made the labels does

    start, stop = mrml.boundingBox(labels.array)
    array = np.ascontiguousarray(labels.array[tuple(map(slice, start, stop))])
    found = _prints(array)
    lower = tuple(start.tolist())
    prints = {
        name.value: (found[name.value][0], np.add(found[name.value][1], lower)) if name.value in found else None
        for name in names
    }
    terms = {name.value: terminology(name) for name in names}
    return Crop(labels.array.shape, lower, array, tuple(names), terms, prints)


def write(cropped, volumeNode, outputNode=None) -> Written:
    """Write a Crop on the voxels of `volumeNode` into a segmentation (None: a new one beside the volume).

    The segment that an earlier run wrote for a label is written anew, in its place and with the color and the display
    it has got since. Where somebody has changed its voxels, it stays as it is, and the label gets a segment of its own.
    All other segments are left alone. Raises BadInput if the mask does not fit the volume, or as `check`.
    """
    if cropped.shape != mrml.shapeOf(volumeNode):
        raise BadInput(_("The mask does not belong to this volume: it has another number of voxels."))
    check(outputNode, volumeNode)
    if outputNode is None:
        name = f"{volumeNode.GetName()} segmentation"
        outputNode = volumeNode.GetScene().AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        mrml.putBeside(outputNode, volumeNode)
    kept = []
    modified = outputNode.StartModify()
    try:
        mrml.prepareSegmentation(outputNode, volumeNode)
        segmentation = outputNode.GetSegmentation()
        unchanged = unchangedSegments(segmentation)
        in3D = segmentation.ContainsRepresentation(SURFACE)
        layer = mrml.orientedImage(cropped.array, mrml.ownGrid(volumeNode), cropped.lower)
        for label in cropped.names:
            earlier = _ofLabel(segmentation, label.name)
            kept += [segmentation.GetSegment(i).GetName() for i in earlier if i not in unchanged]
            place = next((i for i in earlier if i in unchanged), None)
            segment = _newSegment(segmentation, label, cropped) if place is None else segmentation.GetSegment(place)
            segment.RemoveAllRepresentations()
            segment.SetLabelValue(label.value)
            segment.AddRepresentation(mrml.REPRESENTATION, layer)  # shared by all labels until somebody parts them
            segment.SetTag(LABEL, label.name)
            segment.SetTag(WRITTEN, _tag(cropped.prints[label.value], layer, cropped.lower))
            if place is None:
                segmentation.AddSegment(segment, _freeId(segmentation, label.name))
        if in3D:
            segmentation.CreateRepresentation(SURFACE, True)
    finally:
        outputNode.EndModify(modified)
    return Written(outputNode, tuple(kept))


def check(outputNode, volumeNode) -> None:
    """Raise BadInput if masks of a volume cannot be written into a segmentation (None: a new one), because segments in
    it would be moved: they lie under another transform than the volume."""
    if outputNode is None or outputNode.GetTransformNodeID() == volumeNode.GetTransformNodeID():
        return
    segmentation = outputNode.GetSegmentation()
    if len(unchangedSegments(segmentation)) < segmentation.GetNumberOfSegments():
        text = _(
            "The segmentation '{segmentation}' holds segments that lie under another transform than the "
            "volume '{volume}'. Put both under the same transform, or choose another segmentation."
        )
        raise BadInput(text.format(segmentation=outputNode.GetName(), volume=volumeNode.GetName()))


def labelsToSegmentation(segmentation, volumeNode, outputNode=None):
    """`crop` and `write` at once, for scripts. segmentation: anything with `labels` and `names`; returns the node."""
    return write(crop(segmentation.labels, segmentation.names), volumeNode, outputNode).node


def unchangedSegments(segmentation) -> set[str]:
    """Ids of the segments (of a vtkSegmentation) that hold just the voxels that were written into them."""
    found, layers = set(), {}
    for number in range(segmentation.GetNumberOfSegments()):
        identifier = segmentation.GetNthSegmentID(number)
        segment = segmentation.GetSegment(identifier)
        written, layer = tagOf(segment, WRITTEN), segment.GetRepresentation(mrml.REPRESENTATION)
        if written:
            key = "" if layer is None else layer.GetAddressAsString("")
            if key not in layers:
                layers[key] = _printsOf(layer)
            if _same(written, layers[key].get(segment.GetLabelValue()), layer):
                found.add(identifier)
    return found


def changedSegments(segmentation) -> list[str]:
    """Names of the segments that were written and whose voxels somebody has changed since."""
    unchanged, names = unchangedSegments(segmentation), []
    for number in range(segmentation.GetNumberOfSegments()):
        identifier = segmentation.GetNthSegmentID(number)
        segment = segmentation.GetSegment(identifier)
        if identifier not in unchanged and tagOf(segment, WRITTEN):
            names.append(segment.GetName())
    return names


def tagOf(segment, name) -> str:
    """A tag of a vtkSegment; empty if it has none."""
    text = vtk.reference("")
    return str(text.get()) if segment.GetTag(name, text) else ""


def _ofLabel(segmentation, name) -> list[str]:
    """The segments that were written for a label, or bear the name such a segment would have."""
    ids = [segmentation.GetNthSegmentID(number) for number in range(segmentation.GetNumberOfSegments())]
    return [i for i in ids if tagOf(segmentation.GetSegment(i), LABEL) == name or i == f"RefSeg_{name}"]


def _newSegment(segmentation, label, cropped):
    segment = slicer.vtkSegment()
    names = {segmentation.GetNthSegment(n).GetName() for n in range(segmentation.GetNumberOfSegments())}
    numbered = (f"{label.name} ({n})" for n in range(2, len(names) + 3))
    segment.SetName(label.name if label.name not in names else next(n for n in numbered if n not in names))
    segment.SetColor(*label.color)
    segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), cropped.terms[label.value])
    return segment


def _freeId(segmentation, name) -> str:
    wanted = f"RefSeg_{name}"
    return wanted if segmentation.GetSegment(wanted) is None else segmentation.GenerateUniqueSegmentID(wanted)


def _prints(array) -> dict:
    """value -> (checksum of the shape of its voxels in the smallest box around them, index of that box's first)."""
    from scipy import ndimage  # not at the start of Slicer

    found = {}
    for value, box in enumerate(ndimage.find_objects(array), start=1):
        if box is not None:
            mask = array[box] == value
            number = zlib.crc32(np.packbits(mask).tobytes(), zlib.crc32(repr(mask.shape).encode()))
            found[value] = number, [s.start for s in box]
    return found


def _printsOf(layer) -> dict:
    """The same of a layer of segments (vtkOrientedImageData or None), counted in its own indices."""
    scalars = None if layer is None else layer.GetPointData().GetScalars()
    if scalars is None or not scalars.GetNumberOfTuples():
        return {}
    extent = layer.GetExtent()
    shape = tuple(extent[2 * n + 1] - extent[2 * n] + 1 for n in (2, 1, 0))
    array = vtk_to_numpy(scalars).reshape(shape)
    if array.dtype.kind == "f":
        array = array.astype(np.int32)
    lower = [extent[4], extent[2], extent[0]]
    return {value: (number, np.add(start, lower)) for value, (number, start) in _prints(array).items()}


def _tag(found, layer, lower) -> str:
    """A print as it is stored: the checksum and where its first voxel lies, RAS before transforms."""
    if found is None:
        return "nothing"
    return " ".join([str(found[0]), *(f"{x:.6g}" for x in _placeOf(found[1], layer))])


def _same(written, found, layer) -> bool:
    if found is None or written == "nothing":
        return found is None and written == "nothing"
    try:
        number, *place = (float(part) for part in written.split())
    except ValueError:  # of another RefSeg
        return False
    steps = np.linalg.norm(_matrixOf(layer)[:3, :3], axis=0).min()
    return number == found[0] and np.allclose(place, _placeOf(found[1], layer), rtol=1e-5, atol=NEAR * steps)


def _placeOf(index, layer):
    return (_matrixOf(layer) @ [*np.asarray(index, float)[::-1], 1.0])[:3]


def _matrixOf(layer):
    matrix = vtk.vtkMatrix4x4()
    layer.GetImageToWorldMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)
