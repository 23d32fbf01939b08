"""The slice views of the scene: in which one something was drawn, and showing a slice."""

import numpy as np
import slicer
from RefSegSlicerLib import mrml

# A point lies in the plane of the view it was made in but for rounding (mm); other views only cross that plane.
IN_PLANE = 1e-3
# A view turned by less than this looks along an axis of the image: across 60 voxels it drifts by one.
STRAIGHT = np.cos(np.radians(1.0))
SAME = 1 - 1e-9


def drawnIn(scene, points, volumeNode):
    """(axis, normal) of the slice view in which points (world RAS) were placed.

    axis: the array axis (0, 1, 2 for k, j, i) along which that view looks. normal: of a view that cuts the volume
    obliquely, its unit normal in world RAS; then axis is None. Where several views show all these points, it is the one
    under the mouse. Both are None if nobody knows.
    """
    found = []
    for view in _views(scene):
        origin, normal = _plane(view)
        if (np.abs((np.reshape(points, (-1, 3)) - origin) @ normal) < IN_PLANE).all():
            found.append((view, normal))
    if any(np.abs(normal @ other) < SAME for _, normal in found for _, other in found):
        crosshair = scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        mouse = None if crosshair is None else crosshair.GetCursorPositionXYZ([0.0] * 3)
        found = [(view, normal) for view, normal in found if view is mouse]
    if not found:
        return None, None
    axis = _axis(found[0][1], volumeNode)
    return axis, found[0][1] if axis is None else None


def jumpTo(scene, point, axis, volumeNode):
    """Center the slice views that look along an array axis on a point (world RAS); all views if none does."""
    views = _views(scene)
    for view in [v for v in views if _axis(_plane(v)[1], volumeNode) == axis] or views:
        view.JumpSliceByCentering(*point)


def _views(scene):
    """The slice views of the layout that is shown, all of the scene if nobody manages a layout."""
    views = slicer.util.getNodesByClass("vtkMRMLSliceNode", scene)
    return [view for view in views if view.IsMappedInLayout()] or views


def _plane(view):
    """A point and the normal of a view's plane; seen from behind, its normal is the same."""
    sliceToRas = slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())
    normal = sliceToRas[:3, 2] / np.linalg.norm(sliceToRas[:3, 2])
    return sliceToRas[:3, 3], normal * np.sign(normal[np.abs(normal).argmax()])


def _axis(normal, volumeNode):
    """The array axis a view with this normal (world RAS) looks along, None if it is oblique to the volume."""
    along = np.abs(np.asarray(mrml.worldGrid(volumeNode).direction) * mrml.RAS_TO_LPS @ normal)
    return int(along.argmax()) if along.max() > STRAIGHT else None
