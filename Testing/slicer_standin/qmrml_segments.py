"""Slicer's table of segments and its Segment Editor, as far as the panels speak to them: no effect, no brush."""

import qt
import slicer
from PySide6.QtCore import Property, QItemSelection, Signal

from slicer_standin.qmrml import qMRMLWidget

EVENTS = ("SegmentAdded", "SegmentRemoved", "SegmentModified", "SegmentsOrderModified")


def _kept(name, default):
    """A property that is kept and does nothing more."""
    key = f"_{name}"
    return Property(type(default), lambda self: getattr(self, key, default), lambda self, v: setattr(self, key, v))


class qMRMLSegmentsTableView(qMRMLWidget):
    """The names of the segments of a segmentation; one or several can be selected."""

    selectionChanged = Signal(QItemSelection, QItemSelection)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._table = qt.QTableWidget(0, 2)
        self._table.verticalHeader().hide()
        self._table.horizontalHeader().setStretchLastSection(True)
        self._table.setColumnWidth(0, 24)
        self._table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        layout = qt.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._table)
        self._node, self._ids, self._observed = None, [], []
        self._table.selectionModel().selectionChanged.connect(self.selectionChanged)
        observed = self._observed
        self.destroyed.connect(lambda *_: _forget(observed))

    def tableWidget(self):
        return self._table

    def segmentationNode(self):
        return self._node

    def setSegmentationNode(self, node):
        _forget(self._observed)
        self._node = node
        if node is not None:
            segmentation = node.GetSegmentation()
            events = [getattr(slicer.vtkSegmentation, name) for name in EVENTS if hasattr(slicer.vtkSegmentation, name)]
            self._observed += [(segmentation, segmentation.AddObserver(event, self._refresh)) for event in events]
        self._refresh()

    def selectedSegmentIDs(self):
        return tuple(self._ids[index.row()] for index in self._table.selectionModel().selectedRows())

    def setSelectedSegmentIDs(self, identifiers):
        self._table.clearSelection()
        for identifier in identifiers:
            if identifier in self._ids:
                self._table.selectRow(self._ids.index(identifier))

    def clearSelection(self):
        self._table.clearSelection()

    def _refresh(self, *_):
        found = [] if self._node is None else list(self._node.GetSegmentation().GetSegmentIDs())
        segments = [self._node.GetSegmentation().GetSegment(identifier) for identifier in found]
        selected = self.selectedSegmentIDs() if self._ids == found else ()
        self._table.blockSignals(True)
        self._ids = found
        self._table.setRowCount(len(found))
        for row, segment in enumerate(segments):
            color = qt.QTableWidgetItem("")
            color.setBackground(qt.QColor.fromRgbF(*segment.GetColor()))
            self._table.setItem(row, 0, color)
            self._table.setItem(row, 1, qt.QTableWidgetItem(segment.GetName()))
            self._table.setRowHeight(row, 22)
        self._table.blockSignals(False)
        if selected:
            self.setSelectedSegmentIDs(selected)

    def _mode(self):
        return self._table.selectionMode().value

    def setSelectionMode(self, mode):
        self._table.setSelectionMode(qt.QAbstractItemView.SelectionMode(mode))

    def _header(self, visible):
        self._table.horizontalHeader().setVisible(visible)

    selectionMode = Property(int, _mode, setSelectionMode)
    headerVisible = Property(bool, lambda self: self._table.horizontalHeader().isVisible(), _header)
    opacityColumnVisible, statusColumnVisible = _kept("opacity", True), _kept("status", True)
    visibilityColumnVisible, readOnly = _kept("visibility", True), _kept("readOnly", False)


class qMRMLSegmentEditorWidget(qMRMLWidget):
    """What the panel tells the editor, and a note where its tools would be."""

    def __init__(self, parent=None):
        super().__init__(parent)
        layout = qt.QVBoxLayout(self)
        layout.addWidget(qt.QLabel("(Slicer's Segment Editor)"))
        self._editor, self._effect, self.watchesViews = None, "", False

    def mrmlSegmentEditorNode(self):
        return self._editor

    def setMRMLSegmentEditorNode(self, node):
        self._editor = node

    def setSegmentationNode(self, node):
        if self._editor is not None:
            self._editor.SetAndObserveSegmentationNode(node)
            segments = [] if node is None else node.GetSegmentation().GetSegmentIDs()
            if self._editor.GetSelectedSegmentID() not in segments:
                self._editor.SetSelectedSegmentID(segments[0] if segments else "")

    def segmentationNode(self):
        return self._editor.GetSegmentationNode()

    def setSourceVolumeNode(self, node):
        if self._editor is not None:
            self._editor.SetAndObserveSourceVolumeNode(node)

    def sourceVolumeNode(self):
        return self._editor.GetSourceVolumeNode()

    def setActiveEffectByName(self, name):
        self._effect = name

    def setupViewObservations(self):
        self.watchesViews = True

    def removeViewObservations(self):
        self.watchesViews = False

    segmentationNodeSelectorVisible = _kept("segmentationSelector", True)
    sourceVolumeNodeSelectorVisible = _kept("sourceSelector", True)
    switchToSegmentationsButtonVisible = _kept("switchButton", True)
    undoEnabled, maximumNumberOfUndoStates = _kept("undo", True), _kept("undoStates", 10)


def _forget(observed):
    for subject, tag in observed:
        subject.RemoveObserver(tag)
    observed.clear()


def install():
    """Put the widgets where Slicer has them."""
    slicer.qMRMLSegmentsTableView, slicer.qMRMLSegmentEditorWidget = qMRMLSegmentsTableView, qMRMLSegmentEditorWidget
