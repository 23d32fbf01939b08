"""qMRMLWidget and qMRMLNodeComboBox on a real scene."""

import qt
import slicer
from PySide6.QtCore import Property, Signal

FLAGS = {
    "noneEnabled": False,
    "addEnabled": True,
    "removeEnabled": True,
    "renameEnabled": False,
    "editEnabled": False,
    "showHidden": False,
    "showChildNodeTypes": True,
    "selectNodeUponCreation": True,
}


class qMRMLWidget(qt.QWidget):
    """The root of a panel; tells its children the scene through the connections of the .ui file."""

    mrmlSceneChanged = Signal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene = None

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, scene):
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


class qMRMLNodeComboBox(qt.QWidget):
    """A selector of nodes by class. Dead, as in Slicer, until it is given a scene."""

    currentNodeChanged = Signal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._box = qt.QComboBox()
        layout = qt.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        self._scene, self._ids, self._types, self._flags = None, [], [], dict(FLAGS)
        self._observed = []  # (scene, tag); kept apart so that it can be emptied once the widget is gone
        self._box.currentIndexChanged.connect(lambda *_: self.currentNodeChanged.emit(self.currentNode()))
        self._box.setEnabled(False)
        observed = self._observed
        self.destroyed.connect(lambda *_: _forget(observed))

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, scene):
        _forget(self._observed)
        self._scene = scene
        if scene is not None:
            events = (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent, scene.EndImportEvent)
            self._observed += [(scene, scene.AddObserver(event, self._refresh)) for event in events]
        self._box.setEnabled(scene is not None)
        self._refresh()

    def _shows(self, node):
        if node.GetHideFromEditors() and not self._flags["showHidden"]:
            return False
        same = node.IsA if self._flags["showChildNodeTypes"] else node.GetClassName().__eq__
        return any(same(name) for name in self._types)

    def _refresh(self, *_):
        before = self.currentNodeID
        found = slicer.util.getNodesByClass("vtkMRMLNode", self._scene) if self._scene is not None else []
        nodes = [None] * self._flags["noneEnabled"] + [node for node in found if self._shows(node)]
        self._ids = ["" if node is None else node.GetID() for node in nodes]
        self._box.blockSignals(True)
        self._box.clear()
        for node in nodes:
            self._box.addItem("None" if node is None else node.GetName())
        fallback = 0 if self._ids and (before or self._flags["noneEnabled"]) else -1
        self._box.setCurrentIndex(self._ids.index(before) if before in self._ids else fallback)
        self._box.blockSignals(False)
        if self.currentNodeID != before:
            self.currentNodeChanged.emit(self.currentNode())

    @property
    def currentNodeID(self):
        return self._ids[self._box.currentIndex] if 0 <= self._box.currentIndex < len(self._ids) else ""

    def currentNode(self):
        return self._scene.GetNodeByID(self.currentNodeID) if self._scene and self.currentNodeID else None

    def setCurrentNode(self, node):
        wanted = "" if node is None else node.GetID()
        self._box.setCurrentIndex(self._ids.index(wanted) if wanted in self._ids else -1)

    def addNode(self):
        """What "Create new ..." in the selector does."""
        node = self._scene.AddNewNodeByClass(self._types[0])
        if self._flags["selectNodeUponCreation"]:
            self.setCurrentNode(node)
        return node

    def _set_types(self, types):
        self._types = list(types)
        self._refresh()

    nodeTypes = Property("QStringList", lambda self: self._types, _set_types)
    baseName = Property(str, lambda self: "", lambda self, value: None)

    def _flag(name):
        def put(self, value):
            self._flags[name] = value
            self._refresh()

        return Property(bool, lambda self: self._flags[name], put)

    noneEnabled, addEnabled, removeEnabled = _flag("noneEnabled"), _flag("addEnabled"), _flag("removeEnabled")
    renameEnabled, editEnabled, showHidden = _flag("renameEnabled"), _flag("editEnabled"), _flag("showHidden")
    showChildNodeTypes, selectNodeUponCreation = _flag("showChildNodeTypes"), _flag("selectNodeUponCreation")


def _forget(observed):
    for scene, tag in observed:
        scene.RemoveObserver(tag)
    observed.clear()


def install():
    """Put the widgets where Slicer has them."""
    slicer.qMRMLWidget, slicer.qMRMLNodeComboBox = qMRMLWidget, qMRMLNodeComboBox
