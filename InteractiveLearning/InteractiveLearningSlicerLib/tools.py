"""What the mouse draws in the slice views: points, scribbles, lassos, border curves and boxes, one tool at a time.

Points lie in two lists that stay for the session (clicks.py). Everything else is a markup of its own, which lives from
the choice of its tool until it is finished, with a double click or a right click, as all of Slicer's markups.
"""

import numpy as np
import slicer

from InteractiveLearningSlicerLib.clicks import COLORS, hiddenNode, removeNode

POINTS = "points"
# Class of the markup, and how many points it needs to be something.
SHAPES = {
    "scribble": ("vtkMRMLMarkupsCurveNode", 1),
    "lasso": ("vtkMRMLMarkupsClosedCurveNode", 3),
    "curve": ("vtkMRMLMarkupsClosedCurveNode", 3),
    "box": ("vtkMRMLMarkupsROINode", 1),
}
# These speak of a whole border; whether it is inside or outside is no question.
UNSIGNED = ("curve", "box")
SAME_POINT = 1e-6


class Tools:
    """The tool in hand, and its markup.

    drawn(tool, positive, points): a shape is finished; points: world RAS (n, 3) along the line as it is shown, of a
    box its markup instead. chosen(): another tool, or none, is in hand. later(work): runs work when Slicer is through
    with the event at hand: a markup must not vanish under the mouse event that finishes it.
    """

    def __init__(self, scene, clickNodes, drawn, chosen, later):
        self.scene, self._clickNodes, self._drawn, self._chosen, self._later = scene, clickNodes, drawn, chosen, later
        self.tool, self.positive, self._node, self._tag = None, True, None, None
        self._interaction = scene.GetSingletonNode("Singleton", "vtkMRMLInteractionNode")
        self._selection = scene.GetSingletonNode("Singleton", "vtkMRMLSelectionNode")

    def take(self, tool, positive=True):
        """Draw with this tool from now on; what is being drawn with another one is finished first."""
        self.leave()
        self.tool, self.positive = tool, positive or tool in UNSIGNED
        self._begin()
        self._chosen()

    def leave(self):
        """Put the tool away; a shape that is far enough is finished."""
        if self.tool is None:
            return
        self._unwatch()
        if self._interaction.GetCurrentInteractionMode() == self._interaction.Place:
            self._interaction.SwitchToViewTransformMode()
        self._finish()
        self.tool = None
        self._chosen()

    def remove(self):
        """Put the tool away and what is half drawn with it."""
        if self._node is not None:
            removeNode(self.scene, self._node)
            self._node = None
        self.leave()

    def _begin(self):
        if self.tool == POINTS:
            node = self._clickNodes[self.positive]
        else:
            node = self._node = hiddenNode(self.scene, SHAPES[self.tool][0], self.tool, COLORS[self.positive])
        self._selection.SetReferenceActivePlaceNodeClassName(node.GetClassName())
        self._selection.SetActivePlaceNodeID(node.GetID())
        self._interaction.SetPlaceModePersistence(self.tool != "box")  # a box is finished with its second corner
        self._interaction.SetCurrentInteractionMode(self._interaction.Place)
        self._tag = self._interaction.AddObserver(self._interaction.EndPlacementEvent, self._onEnd)

    def _unwatch(self):
        if self._tag is not None:
            self._interaction.RemoveObserver(self._tag)
            self._tag = None

    def _onEnd(self, caller, event):
        """The shape is finished, or somebody else took the mouse."""
        self._unwatch()
        self._later(self._goOn)

    def _goOn(self):
        """Finish the shape and begin the next one; if nothing was drawn, the tool is put away."""
        if self.tool is None or self._tag is not None:
            return  # another tool was chosen meanwhile
        if self._finish():
            self._begin()
        else:
            self.tool = None
            self._chosen()

    def _finish(self):
        """Hand on what was drawn and remove its markup; True if it was something."""
        node, self._node = self._node, None
        if node is None or not self.scene.IsNodePresent(node):
            return False
        try:
            points = definedPoints(node)
            enough = len(points) >= SHAPES[self.tool][1]
            if enough:
                self._drawn(self.tool, self.positive, node if self.tool == "box" else _line(node, points))
        finally:
            removeNode(self.scene, node)
        return enough


def definedPoints(node):
    """World RAS (n, 3) of the points of a markup that are placed, each once; the one under the mouse is removed, and
    so is the second of a double click."""
    for number in reversed(range(node.GetNumberOfControlPoints())):
        if node.GetNthControlPointPositionStatus(number) != slicer.vtkMRMLMarkupsNode.PositionDefined:
            node.RemoveNthControlPoint(number)
    points = slicer.util.arrayFromMarkupsControlPoints(node, world=True).reshape(-1, 3)
    for number in reversed(range(1, len(points))):
        if np.allclose(points[number], points[number - 1], rtol=0, atol=SAME_POINT):
            node.RemoveNthControlPoint(number)
    return slicer.util.arrayFromMarkupsControlPoints(node, world=True).reshape(-1, 3)


def _line(node, points):
    """The curve as it is shown, through its control points."""
    if len(points) < 2:
        return points
    return slicer.util.arrayFromMarkupsCurvePoints(node, world=True)
