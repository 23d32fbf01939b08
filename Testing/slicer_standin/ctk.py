"""The CTK widgets of the panels."""

import qt
from PySide6.QtCore import Property, QEvent, QSize, Qt, Signal


class ctkCollapsibleButton(qt.QWidget):
    """A section with a header that folds it. What is shown or hidden by code while it is folded shows up, or does not,
    once it is unfolded; so it is in CTK.
    """

    contentsCollapsed = Signal(bool)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._folded, self._folding, self._wanted = False, False, set()
        self._header = qt.QToolButton(self)
        self._header.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self._header.setArrowType(Qt.ArrowType.DownArrow)
        self._header.clicked.connect(lambda: self.setCollapsed(not self._folded))
        self.setContentsMargins(0, self._header.sizeHint().height() + 2, 0, 0)

    def resizeEvent(self, event):
        self._header.setGeometry(0, 0, event.size().width(), self._header.sizeHint().height())

    def showEvent(self, event):
        # Not as soon as a child arrives: made by Qt's loader, it would be a plain QWidget to Python for ever.
        if self._folded:
            self._fold_all()

    def eventFilter(self, child, event):
        if self._folded and not self._folding:
            if event.type() == QEvent.Type.ShowToParent:
                self._fold(child)
            elif event.type() == QEvent.Type.HideToParent:
                self._wanted.discard(child)
        return False

    def sizeHint(self):
        return self._header_size(super().sizeHint())

    def minimumSizeHint(self):
        return self._header_size(super().minimumSizeHint())

    def _header_size(self, size):
        return QSize(size.width(), self._header.sizeHint().height()) if self._folded else size

    def _contents(self):
        return [child for child in self.children() if isinstance(child, qt.QWidget) and child is not self._header]

    def _fold_all(self):
        for child in self._contents():
            child.installEventFilter(self)
            if not (child.isHidden() and child.testAttribute(Qt.WidgetAttribute.WA_WState_ExplicitShowHide)):
                self._fold(child)

    def _fold(self, child):
        self._folding = True
        self._wanted.add(child)
        child.setVisible(False)
        self._folding = False

    def setText(self, value):
        self._header.setText(value)

    def setCollapsed(self, value):
        if bool(value) == self._folded:
            return
        self._folded = bool(value)
        if self._folded and self.isVisible():
            self._fold_all()
        elif not self._folded:
            for child in self._wanted:
                child.setVisible(True)
            self._wanted.clear()
        self._header.setArrowType(Qt.ArrowType.RightArrow if self._folded else Qt.ArrowType.DownArrow)
        self.updateGeometry()
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

    def reloadSettings(self):
        """What stands in the settings counts, and Cancel returns to it."""
        for key in self._registered:
            if self._settings.contains(key):
                self._put(key, self._settings.value(key))

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
        """As all that Python may call of CTK's dialog: it gives no panel back."""
        panel.setWindowTitle(label)
        self._panels.append(panel)
        panel.setSettings(self._settings)

    def reject(self):
        for panel in self._panels:
            panel.resetSettings()
        super().reject()

    def accept(self):
        for panel in self._panels:
            panel.applySettings()
        super().accept()
