"""Slicer's own Segment Editor in the panel, and the segment that both it and the session speak of.

The parameters are those of the Segment Editor module, so that its editable area, intensity range and overwrite mode
are one thing wherever they are set.
"""

from InteractiveLearningSlicerLib.masking import SEGMENT_EDITOR


class EditorSection:
    """ui: widgets by name; scene: see SessionLogic. Knows the widget, not Qt."""

    def __init__(self, ui, scene):
        self.ui, self.scene = ui, scene
        self._nodes = None, None

    def enter(self):
        """The module is shown."""
        self.ui.editorWidget.setMRMLSegmentEditorNode(self._node())
        self.ui.editorWidget.setupViewObservations()
        self.show(*self._nodes)

    def exit(self):
        """Nothing is painted while another module is shown."""
        self.ui.editorWidget.setActiveEffectByName("")
        self.ui.editorWidget.removeViewObservations()

    def show(self, volumeNode, segmentationNode):
        """Edit this segmentation; None and None: none."""
        self._nodes = volumeNode, segmentationNode
        if volumeNode is None:
            self.ui.editorWidget.setActiveEffectByName("")
        self.ui.editorWidget.setSegmentationNode(segmentationNode)
        self.ui.editorWidget.setSourceVolumeNode(volumeNode)

    def select(self, identifier):
        """The segment that is painted in is the one that is spoken of."""
        self._node().SetSelectedSegmentID(identifier)

    def rest(self):
        """Put the brush away: another tool takes the mouse."""
        self.ui.editorWidget.setActiveEffectByName("")

    def _node(self):
        node = self.scene.GetSingletonNode(SEGMENT_EDITOR, "vtkMRMLSegmentEditorNode")
        if node is None:
            node = self.scene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
            node.UnRegister(None)
            node.SetSingletonTag(SEGMENT_EDITOR)
            node = self.scene.AddNode(node)
        return node
