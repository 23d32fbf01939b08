"""Two lists of fiducials, one for points inside of a structure and one for points outside, for as long as a session."""

import numpy as np
import slicer

COLORS = {True: (0.25, 0.85, 0.35), False: (0.95, 0.3, 0.3)}
NAMES = {True: "Inside", False: "Outside"}


def hiddenNode(scene, className, name, color):
    """A markup that is neither saved with the scene nor listed in other modules, in world space."""
    node = scene.AddNewNodeByClass(className, name)
    node.SetSaveWithScene(False)
    node.SetHideFromEditors(True)
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetSaveWithScene(False)
    node.GetDisplayNode().SetSelectedColor(*color)
    node.GetDisplayNode().SetActiveColor(*color)  # of the point that hovers under the mouse
    node.GetDisplayNode().SetTextScale(0)
    return node


def removeNode(scene, node):
    """Take a markup and its display node out of the scene, if they are still there."""
    for leftover in (node.GetDisplayNode(), node):
        if leftover is not None and scene.IsNodePresent(leftover):
            scene.RemoveNode(leftover)


class ClickNodes:
    """The nodes of both lists and their observers.

    clicked: called with (world RAS point, positive) when a person has placed a point. The nodes lie in world space,
    wherever the volume lies.
    """

    def __init__(self, scene, clicked):
        self.scene, self._clicked, self._ours = scene, clicked, False
        names = NAMES.items()
        self.nodes = {sign: hiddenNode(scene, "vtkMRMLMarkupsFiducialNode", name, COLORS[sign]) for sign, name in names}
        event = slicer.vtkMRMLMarkupsNode.PointPositionDefinedEvent
        watchers = {True: self._onInside, False: self._onOutside}
        self._observed = [(node, node.AddObserver(event, watchers[positive])) for positive, node in self.nodes.items()]

    def remove(self):
        """Take nodes and observers out of the scene."""
        for node, tag in self._observed:
            node.RemoveObserver(tag)
            removeNode(self.scene, node)
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
