"""Where a mask is in doubt: a volume node beside its image, and its warm overlay in the slice views.

The map has the voxels of the image and lies under the same transform, so that it is on the image wherever that lies.
What a view showed in front before is kept in the view itself, so that it comes back even after the scene was saved.
"""

import json
from dataclasses import asdict

import slicer
from RefSegLib.errors import BadInput
from vtk import vtkMatrix4x4

from RefSegSlicerLib import mrml
from RefSegSlicerLib.translation import tr as _

IMAGE = "RefSegDoubtOf"  # node reference of a map to its image; as an attribute it marks maps, image or not
PLACES = "RefSegPlaces"  # attribute of a map: where in it to look first, as JSON
BEFORE = "RefSegForegroundBefore"  # node reference of a view to what it showed in front, attribute: how opaque
WARM = "vtkMRMLColorTableNodeWarm1"  # from yellow to red
SHOWN_FROM = 0.1
OPACITY = 0.5


def doubtNode(volumeNode):
    """The map of an image (None: there is none, or no image)."""
    if volumeNode is None or volumeNode.GetScene() is None:
        return None
    volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode", volumeNode.GetScene())
    return next((node for node in volumes if node.GetNodeReferenceID(IMAGE) == volumeNode.GetID()), None)


def doubtArray(volumeNode):
    """The map of an image as an array (k, j, i) in 0..1 on its voxels; None if there is none that fits."""
    node = doubtNode(volumeNode)
    if node is None or node.GetImageData() is None:
        return None
    array = slicer.util.arrayFromVolume(node)
    return array if array.shape == volumeNode.GetImageData().GetDimensions()[::-1] else None


def placesOf(volumeNode):
    """Where in the map of an image to look first (quality.places.Place); empty if there is no map or nobody told."""
    node = doubtNode(volumeNode)
    text = node.GetAttribute(PLACES) if node is not None else None
    if not text:
        return []
    from RefSegLib.quality.places import Place  # and with it scipy: not at the start of Slicer

    try:
        return [Place(**entry | {"index": tuple(entry["index"])}) for entry in json.loads(text)]
    except (ValueError, TypeError, KeyError):  # of another RefSeg
        return []


def writeDoubt(suspect, volumeNode, places=()):
    """Put a map (mrml.imageData with the voxels of `volumeNode`, 0..1) into the image's node for it, made if need be.

    suspect: None removes an earlier map, which speaks of another mask. places: where in it to look first, stays with
    the map. Returns the node or None.
    """
    node = doubtNode(volumeNode)
    if suspect is None:
        if node is not None:
            _remove(node)
        return None
    if suspect.GetDimensions() != volumeNode.GetImageData().GetDimensions():
        raise BadInput(_("The map of doubt does not belong to this volume: it has another number of voxels."))
    new = node is None
    if new:
        name = f"{volumeNode.GetName()} suspect"
        node = volumeNode.GetScene().AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        node.SetNodeReferenceID(IMAGE, volumeNode.GetID())
        node.SetAttribute(IMAGE, "1")
        _giveColors(node)  # before it has voxels: Slicer would look through all of them, 0.13 s for 256 cubed
    node.SetAndObserveImageData(suspect)
    node.SetAttribute(PLACES, json.dumps([asdict(place) for place in places]))
    matrix = vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    node.SetIJKToRASMatrix(matrix)
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    if new:  # later runs keep what a person made of its place, and of its colors
        mrml.putBeside(node, volumeNode)
    return node


def showDoubt(scene, shown):
    """Lay every map over its image in the slice views that have the image behind, or bring back what was in front."""
    for view in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode", scene):
        front = scene.GetNodeByID(view.GetForegroundVolumeID() or "")
        ours = front is not None and front.GetAttribute(IMAGE) is not None
        node = doubtNode(scene.GetNodeByID(view.GetBackgroundVolumeID() or "")) if shown else None
        if node is None:
            if ours:
                _bringBack(view)
            continue
        if not ours:
            view.SetNodeReferenceID(BEFORE, view.GetForegroundVolumeID())
            view.SetAttribute(BEFORE, str(view.GetForegroundOpacity()))
            view.SetForegroundOpacity(OPACITY)
        if front is not node:
            view.SetForegroundVolumeID(node.GetID())


def _bringBack(view):
    before = view.GetNodeReference(BEFORE)
    view.SetForegroundVolumeID(before.GetID() if before is not None else None)
    view.SetForegroundOpacity(float(view.GetAttribute(BEFORE) or 0))
    view.SetNodeReferenceID(BEFORE, None)
    view.RemoveAttribute(BEFORE)


def _remove(node):
    scene = node.GetScene()
    for view in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode", scene):
        if view.GetForegroundVolumeID() == node.GetID():
            _bringBack(view)
    display = node.GetDisplayNode()
    scene.RemoveNode(node)
    if display is not None:
        scene.RemoveNode(display)


def _giveColors(node):
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID(WARM)
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(SHOWN_FROM, 1.0)
    display.AutoThresholdOff()
    display.SetThreshold(SHOWN_FROM, 1.0)  # what is below is transparent
    display.ApplyThresholdOn()
