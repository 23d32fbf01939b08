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


class ctkPathLineEdit(qt.QWidget):
    """A path that is typed or looked for. (CTK's has a history, and checks what is typed against its filters.)"""

    currentPathChanged = Signal(str)
    Dirs, Files, Drives, Readable, Writable, Executable, NoDotAndDotDot = 0x1, 0x2, 0x4, 0x10, 0x20, 0x40, 0x6000

    def __init__(self, parent=None):
        super().__init__(parent)
        self._filters = self.Files | self.Dirs
        self._edit, self._browse = qt.QLineEdit(), qt.QToolButton()
        self._browse.setText("...")
        layout = qt.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._edit)
        layout.addWidget(self._browse)
        self.setFocusProxy(self._edit)
        self._edit.textChanged.connect(self.currentPathChanged)

    def setCurrentPath(self, value):
        self._edit.setText(value)

    def _set_filters(self, value):
        self._filters = value

    currentPath = Property(str, lambda self: self._edit.text, setCurrentPath)
    filters = Property(int, lambda self: self._filters, _set_filters)


class ctkComboBox(qt.QComboBox):
    """A selector whose choices stand for names."""

    def _choose(self, name):
        found = self.findData(name)
        if found >= 0:
            self.setCurrentIndex(found)

    currentUserDataAsString = Property(str, lambda self: str(self.currentData or ""), _choose)


class ctkSettingsPanel(qt.QWidget):
    """A page of the application's settings: keeps properties of widgets and keys of the settings alike."""

    settingChanged = Signal(str, object)
    OptionNone, OptionRequireRestart = 0x0000, 0x0001

    def __init__(self, parent=None):
        super().__init__(parent)
        self._settings, self._registered, self._previous = None, {}, {}

    def settings(self):
        return self._settings

    def setSettings(self, settings):
        """What the dialog does with a page that it is given: only then are values read, or defaults written."""
        self._settings = settings
        for key in self._registered:
            if settings.contains(key):
                self._put(key, settings.value(key))
            else:
                self.updateSetting(key)

    def registerProperty(self, key, widget, name, signal, label="", options=OptionNone, settings=None):
        self._registered[key] = widget, name
        self._previous[key] = getattr(widget, name)
        if self._settings is not None and self._settings.contains(key):
            self._put(key, self._settings.value(key))
        getattr(widget, signal.lstrip("2").partition("(")[0]).connect(lambda *_: self.updateSetting(key))
        self.updateSetting(key)

    def updateSetting(self, key):
        widget, name = self._registered[key]
        self._set(key, getattr(widget, name))

    def applySettings(self):
        """OK in the dialog: what Cancel would return to from now on."""
        self._previous = {key: getattr(widget, name) for key, (widget, name) in self._registered.items()}

    def resetSettings(self):
        """Cancel in the dialog."""
        for key, value in dict(self._previous).items():
            self._set(key, value)

    def _set(self, key, value):
        if self._settings is None:
            return
        before = self._settings.value(key)
        self._settings.setValue(key, value)
        widget, name = self._registered[key]
        if getattr(widget, name) != value:
            setattr(widget, name, value)
        if before != value:
            self.settingChanged.emit(key, value)

    def _put(self, key, value):
        widget, name = self._registered[key]
        setattr(widget, name, value)
        self._previous[key] = value


class ctkSettingsDialog(qt.QDialog):
    """The application's settings: pages side by side."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self._settings, self._panels = qt.QSettings(), []

    def addPanel(self, label, panel):
        panel.setWindowTitle(label)
        self._panels.append(panel)
        panel.setSettings(self._settings)

    def panel(self, label):
        return next((panel for panel in self._panels if panel.windowTitle == label), None)

    def reject(self):
        for panel in self._panels:
            panel.resetSettings()
        super().reject()

    def accept(self):
        for panel in self._panels:
            panel.applySettings()
        super().accept()
