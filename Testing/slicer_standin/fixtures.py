"""Fixtures for tests of the Slicer modules. A test file asks for them by

pytest_plugins = ("slicer_standin.fixtures",)
pytestmark = pytest.mark.usefixtures("an_empty_scene", "no_swallowed_exceptions")
"""

import os
import sys
from pathlib import Path

import pytest
import slicer

from slicer_standin import application

application.start()

WIDTH = 420  # of the panel beside the views of a screen of 1280 pixels


def picture(widget, name):
    """What a panel (a module's widget, or any QWidget) looks like now, as a file for people."""
    import qt

    root = Path(__file__).parents[2]
    folder = Path(os.environ.get("REFSEG_SCREENSHOTS", root / "out" / "screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    panel = widget if isinstance(widget, qt.QWidget) else widget.parent
    panel.show()
    for _ in range(4):  # what was hidden, and words that are wrapped, know their height some events later
        panel.resize(WIDTH, max(panel.sizeHint().height(), panel.heightForWidth(WIDTH)))
        slicer.app.processEvents()
    assert panel.grab().save(str(folder / f"{name}.png"))
    panel.hide()


@pytest.fixture
def an_empty_scene():
    """The scene of the application, empty before and after."""
    slicer.mrmlScene.Clear(0)
    yield slicer.mrmlScene
    slicer.mrmlScene.Clear(0)


@pytest.fixture
def a_main_window():
    """Slicer's main window, without anything in it: shortcuts need one, and slicer.util.mainWindow() finds it."""
    import qt
    import shiboken6

    window = qt.QMainWindow()
    window.name = "qSlicerMainWindow"
    yield window
    shiboken6.delete(window)


@pytest.fixture
def no_swallowed_exceptions():
    """Qt slots and VTK observers print their exceptions and go on; here they fail the test."""
    raised, hook = [], sys.excepthook
    sys.excepthook = lambda kind, value, trace: raised.append(value)
    yield raised
    sys.excepthook = hook
    if raised:
        raise raised[0]
