"""An image and its segments as plain values, and nodes made of them again: the same voxels in the same places.

What Slicer's classes do not let Python see (the tags of segments that others have set) goes through Slicer's own file
of segments, without voxels: whole, its writer holds the interpreter (measured: 0.2 s for 16 segments on 256 cubed).
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import slicer
import vtk
from RefSegLib.errors import BadInput, RefSegError
from RefSegSlicerLib import mrml
from RefSegSlicerLib.translation import tr as _
from vtk.util.numpy_support import vtk_to_numpy

GEOMETRY = "Reference image geometry"
_SEGMENT_DISPLAY = ("Visibility", "Visibility2DFill", "Visibility2DOutline", "Visibility3D")
_SEGMENT_DISPLAY += ("Opacity2DFill", "Opacity2DOutline", "Opacity3D")
_DISPLAY = ("Visibility", "Visibility3D", "Opacity", "Opacity2DFill", "Opacity2DOutline", "Opacity3D")
_VOLUME_DISPLAY = ("AutoWindowLevel", "Window", "Level", "Interpolate")


@dataclass(frozen=True)
class Snapshot:
    """about: JSON; volume: voxels (k, j, i), shared with the node; layers: voxels of the segments, (k, j, i) each, a
    copy; header: all else about segments, as Slicer's own file without voxels."""

    about: dict
    volume: npt.NDArray
    layers: list[npt.NDArray]
    header: bytes


def take(volume_node, segmentation_node) -> Snapshot:
    """Takes milliseconds, and 40 for segments on 512 cubed voxels. Raises BadInput if a transform bends them."""
    about = {"volume": _volume(volume_node), "segmentation": None}
    voxels, layers, header = slicer.util.arrayFromVolume(volume_node), [], b""
    if segmentation_node is not None:
        about["segmentation"], layers = take_segmentation(segmentation_node)
        header = header_of(segmentation_node.GetSegmentation())
    return Snapshot(about, voxels, layers, header)


def put_back(scene, taken: Snapshot, header: Path):
    """(volume node, segmentation node or None) with all that was taken, added to a scene. header: the file with that of
    the snapshot, whose name ends in .seg.nrrd. Writes nothing: a disk may be full."""
    volume_node = _new_volume(scene, taken.about["volume"], taken.volume)
    if taken.about["segmentation"] is None:
        return volume_node, None
    return volume_node, put_segmentation_back(scene, taken, header, volume_node)


def put_segmentation_back(scene, taken: Snapshot, header: Path, volume_node):
    """A segmentation node of a volume node with the segments that were taken, added to a scene. header: see put_back.

    Raises RefSegError if the header cannot be read.
    """
    return _new_segmentation(scene, taken.about["segmentation"], taken.layers, header, volume_node)


def draw_over_image(segmentation_node) -> None:
    """To be called once the image is shown. Views draw in the order in which things came to them, and segments that
    came before their image hide it (measured: half red over black instead of over gray)."""
    scene, display = segmentation_node.GetScene(), segmentation_node.GetDisplayNode()
    scene.RemoveNode(display)
    scene.AddNode(display)
    segmentation_node.SetAndObserveDisplayNodeID(display.GetID())


def _volume(node) -> dict:
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    display = node.GetDisplayNode()
    return _node(node) | {
        "matrix": slicer.util.arrayFromVTKMatrix(matrix).tolist(),
        "display": None if display is None else _values(display, _VOLUME_DISPLAY) | {"color": display.GetColorNodeID()},
    }


def _new_volume(scene, about: dict, voxels):
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", about["name"])
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(np.array(about["matrix"])))
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    if about["display"] is not None:
        display.AutoWindowLevelOff()  # before there are voxels: else all of them are gone through for a window
    node.SetAndObserveImageData(mrml.imageData(voxels))
    if about["display"] is not None:
        _set(display, {name: about["display"][name] for name in reversed(_VOLUME_DISPLAY)})
        if about["display"]["color"] is not None and scene.GetNodeByID(about["display"]["color"]) is not None:
            display.SetAndObserveColorNodeID(about["display"]["color"])
    _restore_node(scene, node, about)
    return node


def take_segmentation(node) -> tuple[dict, list]:
    """What a Snapshot's `about` tells of a segmentation node, and its `layers`."""
    segmentation, display = node.GetSegmentation(), node.GetDisplayNode()
    identifiers = list(segmentation.GetSegmentIDs())
    layers, numbers, segments = [], {}, []
    for identifier in identifiers:
        segment = segmentation.GetSegment(identifier)
        layer = segment.GetRepresentation(mrml.REPRESENTATION)
        number = None
        if layer is not None and layer.GetPointData().GetScalars() is not None:
            number = numbers.setdefault(layer.GetAddressAsString(""), len(layers))
            if number == len(layers):
                layers.append(layer)
        shown = {name: getattr(display, f"GetSegment{name}")(identifier) for name in _SEGMENT_DISPLAY if display}
        segments.append(
            {
                "id": identifier,
                "name": segment.GetName(),
                "color": list(segment.GetColor()),
                "value": segment.GetLabelValue(),
                "layer": number,
                "display": shown,
            }
        )
    about = _node(node) | {
        "geometry": segmentation.GetConversionParameter(GEOMETRY),
        "display": None if display is None else _values(display, _DISPLAY),
        "segments": segments,
        "layers": [_place(layer) for layer in layers],
    }
    return about, [_voxels(layer).copy() for layer in layers]


def _new_segmentation(scene, about: dict, arrays, header: Path, volume_node):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", about["name"])
    segmentation = node.GetSegmentation()
    modified = node.StartModify()
    try:
        storage = slicer.vtkMRMLSegmentationStorageNode()
        storage.SetFileName(str(header))
        if not storage.ReadData(node):
            raise RefSegError(_("The names of the segments cannot be read."))
        node.SetName(about["name"])
        if node.GetDisplayNode() is None:
            node.CreateDefaultDisplayNodes()
        mrml.prepareSegmentation(node, volume_node)
        if about["geometry"]:
            segmentation.SetConversionParameter(GEOMETRY, about["geometry"])
        layers = [_layer(place, array) for place, array in zip(about["layers"], arrays, strict=True)]
        for said in about["segments"]:
            segment = segmentation.GetSegment(said["id"])
            segment.RemoveAllRepresentations()
            segment.SetName(said["name"])
            segment.SetColor(*said["color"])
            segment.SetLabelValue(said["value"])
            layer = slicer.vtkOrientedImageData() if said["layer"] is None else layers[said["layer"]]
            segment.AddRepresentation(mrml.REPRESENTATION, layer)
    finally:
        node.EndModify(modified)
    display = node.GetDisplayNode()
    if about["display"] is not None:
        _set(display, about["display"])
    for said in about["segments"]:
        for name, value in said["display"].items():
            getattr(display, f"SetSegment{name}")(said["id"], value)
    _restore_node(scene, node, about)
    return node


def header_of(segmentation) -> bytes:
    """All about segments but their voxels, as Slicer writes it."""
    bare = slicer.vtkMRMLSegmentationNode()
    few = mrml.orientedImage(np.zeros((2, 2, 2), np.uint8), mrml.Grid((2, 2, 2)))  # of one, Slicer's reader crashes
    for identifier in segmentation.GetSegmentIDs():
        segment = slicer.vtkSegment()
        segment.DeepCopyMetadata(segmentation.GetSegment(identifier))
        segment.AddRepresentation(mrml.REPRESENTATION, few)
        bare.GetSegmentation().AddSegment(segment, identifier)
    # Not the segments' reference geometry, which `about` has: the writer would fill it (75 ms for 256 cubed voxels).
    bare.GetSegmentation().SetConversionParameter(GEOMETRY, slicer.vtkSegmentationConverter.SerializeImageGeometry(few))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "header.seg.nrrd"
        storage = slicer.vtkMRMLSegmentationStorageNode()
        storage.SetFileName(str(file))
        if not storage.WriteData(bare):
            raise RefSegError(_("The segments could not be saved: there is no room for temporary files."))
        return file.read_bytes()


def _place(layer) -> dict:
    matrix = vtk.vtkMatrix4x4()
    layer.GetImageToWorldMatrix(matrix)
    return {"matrix": slicer.util.arrayFromVTKMatrix(matrix).tolist(), "extent": list(layer.GetExtent())}


def _layer(place: dict, array):
    image = slicer.vtkOrientedImageData()
    image.ShallowCopy(mrml.imageData(array))
    image.SetExtent(place["extent"])
    image.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(np.array(place["matrix"])))
    return image


def _voxels(layer):
    lower_upper = np.array(layer.GetExtent()).reshape(3, 2)
    return vtk_to_numpy(layer.GetPointData().GetScalars()).reshape((np.diff(lower_upper).ravel() + 1)[::-1])


def _node(node) -> dict:
    """Name, description, attributes and the transforms above a node, nearest first."""
    transforms, above = [], node.GetParentTransformNode()
    while above is not None:
        matrix = vtk.vtkMatrix4x4()
        if not above.IsLinear():
            text = _(
                "'{name}' lies under the transform '{transform}', which bends it, and cannot be saved. "
                "Harden the transform first."
            )
            raise BadInput(text.format(name=node.GetName(), transform=above.GetName()))
        above.GetMatrixTransformToParent(matrix)
        transforms.append(
            {"id": above.GetID(), "name": above.GetName(), "matrix": slicer.util.arrayFromVTKMatrix(matrix).tolist()}
        )
        above = above.GetParentTransformNode()
    attributes = {name: node.GetAttribute(name) for name in node.GetAttributeNames() or ()}
    return {
        "name": node.GetName(),
        "description": node.GetDescription() or "",
        "attributes": attributes,
        "transforms": transforms,
    }


def _restore_node(scene, node, about: dict) -> None:
    node.SetDescription(about["description"])
    for name, value in about["attributes"].items():
        node.SetAttribute(name, value)
    child = node
    for said in about["transforms"]:  # one that is above both nodes is made once
        transform = next(
            (n for n in scene.GetNodesByClass("vtkMRMLTransformNode") if n.GetAttribute(_MADE) == said["id"]), None
        )
        if transform is None:
            transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", said["name"])
            transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.array(said["matrix"])))
            transform.SetAttribute(_MADE, said["id"])
        child.SetAndObserveTransformNodeID(transform.GetID())
        child = transform


# Which transform a node was in the scene that was saved.
_MADE = "RefSeg.RestoredFrom"


def _values(node, names) -> dict:
    return {name: getattr(node, f"Get{name}")() for name in names}


def _set(node, values: dict) -> None:
    for name, value in values.items():
        getattr(node, f"Set{name}")(value)
