"""Two lists of fiducials, one for points inside of a structure and one for points outside, for as long as a session."""

import numpy as np
import slicer
from RefSegSlicerLib import mrml

COLORS = {True: (0.25, 0.85, 0.35), False: (0.95, 0.3, 0.3)}
NAMES = {True: "Inside", False: "Outside"}
# A click lies in the plane of the view it was made in but for rounding (mm); other views only cross that plane.
IN_PLANE = 1e-3


class ClickNodes:
    """The nodes of both lists and their observers.

    clicked: called with (world RAS point, positive) when a person has placed a point. The nodes are neither saved with
    the scene nor listed in other modules. They lie in world space, wherever the volume lies.
    """

    def __init__(self, scene, clicked):
        self.scene, self._clicked, self._ours = scene, clicked, False
        self.nodes = {positive: self._node(positive) for positive in (True, False)}
        event = slicer.vtkMRMLMarkupsNode.PointPositionDefinedEvent
        watchers = {True: self._onInside, False: self._onOutside}
        self._observed = [(node, node.AddObserver(event, watchers[positive])) for positive, node in self.nodes.items()]

    def remove(self):
        """Take nodes and observers out of the scene."""
        for node, tag in self._observed:
            node.RemoveObserver(tag)
            for leftover in (node.GetDisplayNode(), node):
                if leftover is not None and self.scene.IsNodePresent(leftover):
                    self.scene.RemoveNode(leftover)
        self._observed = []

    def show(self, points):
        """Show exactly these clicks: (world RAS point, positive), ..."""
        self._ours = True
        try:
            for positive, node in self.nodes.items():
                wanted = [point for point, sign in points if sign is positive]
                if len(wanted) != len(self.placed(positive)) or not np.allclose(wanted, self.placed(positive)):
                    node.RemoveAllControlPoints()
                    for point in wanted:
                        node.AddControlPointWorld(*point, "")
        finally:
            self._ours = False

    def placed(self, positive):
        """World RAS of the points that are placed; the one that hovers under the mouse is none of them."""
        node = self.nodes[positive]
        defined = slicer.vtkMRMLMarkupsNode.PositionDefined
        numbers = [
            n for n in range(node.GetNumberOfControlPoints()) if node.GetNthControlPointPositionStatus(n) == defined
        ]
        return [node.GetNthControlPointPositionWorld(n) for n in numbers]

    def _onInside(self, caller, event):
        self._onPoint(True)

    def _onOutside(self, caller, event):
        self._onPoint(False)

    def _onPoint(self, positive):
        if not self._ours and self.placed(positive):
            self._clicked(np.array(self.placed(positive)[-1]), positive)

    def _node(self, positive):
        node = self.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", NAMES[positive])
        node.SetSaveWithScene(False)
        node.SetHideFromEditors(True)
        node.CreateDefaultDisplayNodes()
        node.GetDisplayNode().SetSaveWithScene(False)
        node.GetDisplayNode().SetSelectedColor(*COLORS[positive])
        node.GetDisplayNode().SetTextScale(0)
        return node


def clickedAxis(scene, point, volumeNode):
    """The array axis (0, 1, 2 for k, j, i) along which the slice view looks that a point was placed in.

    None if no view, or views of several directions, show that point, or they cut the volume obliquely.
    """
    axes = set()
    directions = np.asarray(mrml.worldGrid(volumeNode).direction) * mrml.RAS_TO_LPS
    for view in slicer.util.getNodesByClass("vtkMRMLSliceNode", scene):
        sliceToRas = slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())
        if abs((np.asarray(point) - sliceToRas[:3, 3]) @ sliceToRas[:3, 2]) < IN_PLANE:
            along = np.abs(directions @ sliceToRas[:3, 2])
            axes.add(int(along.argmax()) if along.max() > np.cos(np.radians(20)) else None)
    return axes.pop() if len(axes) == 1 else None
