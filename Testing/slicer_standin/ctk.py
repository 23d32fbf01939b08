"""The CTK widgets of the panels."""

import qt
from PySide6.QtCore import Property, Qt, Signal


class ctkCollapsibleButton(qt.QWidget):
    """A section with a header that folds it."""

    contentsCollapsed = Signal(bool)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._folded = False
        self._header = qt.QToolButton(self)
        self._header.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self._header.setArrowType(Qt.ArrowType.DownArrow)
        self._header.clicked.connect(lambda: self.setCollapsed(not self._folded))
        self.setContentsMargins(0, self._header.sizeHint().height() + 2, 0, 0)

    def resizeEvent(self, event):
        self._header.setGeometry(0, 0, event.size().width(), self._header.sizeHint().height())

    def childEvent(self, event):
        # In a .ui file `collapsed` is set before the contents arrive.
        if self.__dict__.get("_folded") and event.added() and isinstance(event.child(), qt.QWidget):
            event.child().setVisible(False)

    def setText(self, value):
        self._header.setText(value)

    def setCollapsed(self, value):
        self._folded = bool(value)
        for child in self.children():
            if isinstance(child, qt.QWidget) and child is not self._header:
                child.setVisible(not self._folded)
        self._header.setArrowType(Qt.ArrowType.RightArrow if self._folded else Qt.ArrowType.DownArrow)
        self.contentsCollapsed.emit(self._folded)

    text = Property(str, lambda self: self._header.text, setText)
    collapsed = Property(bool, lambda self: self._folded, setCollapsed)
