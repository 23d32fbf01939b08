"""The mask as it was before reflection, shown in the place of the result for a while.

It is a node of its own, that is neither saved nor listed, while the result itself is only hidden: whatever happens
meanwhile, nothing of the result, nor of what people have painted into it, can get lost.
"""

import slicer

from RefSegSlicerLib import masks, mrml
from RefSegSlicerLib.translation import tr as _

HIDDEN = "RefSegHiddenForBefore"  # attribute of the display node of a result that is hidden now
KEPT = 8  # first masks: those of a whole body take some 10 MB each


class Before:
    """First masks by result, for as long as the scene lives. scene: where the nodes are."""

    def __init__(self, scene):
        self._scene, self._known, self._shown = scene, {}, None

    def remember(self, node, volumeNode, cropped):
        """What was in the place of a result (segmentation node) before; cropped: masks.Crop, or None if it was the
        result itself."""
        self.showResult()
        self._known.pop(node.GetID(), None)
        self._known[node.GetID()] = cropped, volumeNode, _state(node)
        while len(self._known) > KEPT:
            self._known.pop(next(iter(self._known)))  # the oldest

    def forget(self):
        """The scene is closed."""
        self._known, self._shown = {}, None

    @property
    def shown(self):
        """Whether a first mask is shown now."""
        return self._shown is not None

    def reason(self, node):
        """Why the first mask of a result cannot be shown; empty if it can."""
        if node is None or node.GetID() not in self._known:
            return _("Segment the volume first. It is kept for the last volumes, but not for frames of sequences.")
        cropped, volumeNode, state = self._known[node.GetID()]
        if cropped is None:
            return _("Reflection left the mask as it was.")
        if not self._scene.IsNodePresent(volumeNode):
            return _("The volume was removed.")
        if _state(node) != state and not _unchanged(node, cropped.names):
            return _("The segments have been changed since, so that there is nothing to compare them with.")
        return ""

    def show(self, node):
        """Show the first mask of a result in its place; nothing happens if there is a reason against it."""
        self.showResult()
        if self.reason(node):
            return
        cropped, volumeNode, _state = self._known[node.GetID()]
        shown = self._scene.CreateNodeByClass("vtkMRMLSegmentationNode")
        shown.UnRegister(None)
        shown.SetName(_("{name} before reflection").format(name=node.GetName()))
        shown.SetHideFromEditors(True)
        shown.SetSaveWithScene(False)
        self._scene.AddNode(shown)
        masks.write(cropped, volumeNode, shown)
        _sameColors(node, shown)
        display = shown.GetDisplayNode()
        display.CopyContent(node.GetDisplayNode())
        display.SetSaveWithScene(False)
        node.GetDisplayNode().SetAttribute(HIDDEN, "1")
        node.GetDisplayNode().SetVisibility(False)
        self._shown = shown

    def showResult(self):
        """Show the result again, wherever it was hidden: also in a scene that was saved meanwhile."""
        shown, self._shown = self._shown, None
        if shown is not None and self._scene.IsNodePresent(shown):
            display = shown.GetDisplayNode()
            self._scene.RemoveNode(shown)
            self._scene.RemoveNode(display)
        showHidden(self._scene)


def showHidden(scene):
    """Show every result that is hidden: in a scene that was saved while a first mask was shown, nobody else would."""
    for display in slicer.util.getNodesByClass("vtkMRMLSegmentationDisplayNode", scene):
        if display.GetAttribute(HIDDEN):
            display.RemoveAttribute(HIDDEN)
            display.SetVisibility(True)


def _state(node):
    """Equal as long as nobody has touched the voxels of a segmentation."""
    segmentation = node.GetSegmentation()
    segments = [segmentation.GetNthSegment(number) for number in range(segmentation.GetNumberOfSegments())]
    layers = [segment.GetRepresentation(mrml.REPRESENTATION) for segment in segments]
    return [
        (segment.GetLabelValue(), None if layer is None else layer.GetMTime())
        for segment, layer in zip(segments, layers, strict=True)
    ]


def _unchanged(node, names):
    """Whether every label still has its segment as it was written."""
    segmentation = node.GetSegmentation()
    left = {masks.tagOf(segmentation.GetSegment(i), masks.LABEL) for i in masks.unchangedSegments(segmentation)}
    return all(label.name in left for label in names)


def _sameColors(node, shown):
    """A person may have given the structures other colors."""
    source, target = node.GetSegmentation(), shown.GetSegmentation()
    colors = {}
    for number in range(source.GetNumberOfSegments()):
        segment = source.GetNthSegment(number)
        colors[masks.tagOf(segment, masks.LABEL)] = segment.GetColor()
    for number in range(target.GetNumberOfSegments()):
        segment = target.GetNthSegment(number)
        segment.SetColor(*colors.get(masks.tagOf(segment, masks.LABEL), segment.GetColor()))
