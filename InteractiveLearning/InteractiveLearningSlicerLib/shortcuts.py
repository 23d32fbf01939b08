"""Keys for the buttons of the panel; they live only while the module is shown.

With Shift, as the slice views have plain letters for themselves. Text fields keep their letters: Qt asks them first.
"""

from RefSegSlicerLib.translation import tr as _

KEYS = {
    "pointsButton": "Shift+P",
    "scribbleButton": "Shift+S",
    "lassoButton": "Shift+L",
    "curveButton": "Shift+B",
    "boxButton": "Shift+X",
    "insideButton": "Shift+I",
    "outsideButton": "Shift+O",
    "nextButton": "Shift+N",
    "confirmButton": "Shift+R",
    "undoButton": "Ctrl+Z",
    "redoButton": "Ctrl+Y",
    "acceptButton": "Ctrl+Return",
}


def tip(name, text):
    """The tooltip of a button, with its key."""
    return _("{text} ({key})").format(text=text, key=KEYS[name]) if name in KEYS else text


class Shortcuts:
    """ui: widgets by name; make(key, action): a shortcut of the main window that calls action; unmake(shortcut): it is
    no more; window(): the main window, None where Slicer runs without one."""

    def __init__(self, ui, make, unmake, window):
        self._ui, self._make, self._unmake, self._window, self._made = ui, make, unmake, window, []

    def enter(self):
        """The module is shown: its keys work."""
        self.exit()
        if self._window() is not None:
            self._made = [self._make(key, getattr(self._ui, name).click) for name, key in KEYS.items()]

    def exit(self):
        """Another module is shown: its keys are its own."""
        for shortcut in self._made:
            self._unmake(shortcut)
        self._made = []
