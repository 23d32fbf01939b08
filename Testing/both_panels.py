"""Both panels, opened as Slicer opens them and brought from state to state, for tests of what all panels must be."""

import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import shiboken6
import slicer
from InteractiveLearningLib.service.local import LocalService
from InteractiveLearningSlicerLib.checks import addCase
from RefSegSlicerLib import mrml
from slicer_standin import application

ROOT = Path(__file__).parents[1]
MODULES = ("RefSegSlicer", "InteractiveLearning")
# What a person types into, presses or chooses from; Slicer's own large widgets explain themselves.
OPERATED = (
    *("QAbstractButton", "QLineEdit", "QComboBox", "QAbstractSpinBox", "QAbstractSlider", "QAbstractItemView"),
    *("QTextEdit", "QPlainTextEdit"),
)
OWN_TOOLTIPS = ("qMRMLSegmentEditorWidget",)
SECTIONS = ("ctkCollapsibleButton", "qMRMLWidget", "QGroupBox", "QFrame", "QWidget")
TEXTS = ("text", "toolTip", "title", "placeholderText", "windowTitle", "statusTip", "whatsThis", "suffix", "prefix")


@pytest.fixture(scope="module")
def a_served_home(tmp_path_factory):
    """A store with a tiny model, and its service, which lives as long as these tests."""
    from benchmarks.tiny_learning import an_untrained_version

    home = tmp_path_factory.mktemp("home")
    an_untrained_version(home)
    service = LocalService(home)
    service.client()
    yield home
    service.leave()


def ui_files(module=None):
    """The .ui files of one module, or of both."""
    return sorted(
        file for name in MODULES if module in (None, name) for file in (ROOT / name).glob("Resources/UI/*.ui")
    )


def ui_widgets(file):
    """The widget elements of a .ui file."""
    return list(ElementTree.parse(file).getroot().iter("widget"))


def is_operated(kind):
    """Whether people operate widgets of a class, by the name that it has in .ui files."""
    import ctk
    import qt

    if kind in SECTIONS or kind in OWN_TOOLTIPS:
        return False
    found = getattr(qt, kind, None) or getattr(ctk, kind, None) or getattr(slicer, kind)
    return kind.startswith(("ctk", "qMRML")) or issubclass(found, tuple(getattr(qt, name) for name in OPERATED))


def until(true, seconds=60):
    """Let the application run until something is true."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        slicer.app.processEvents()
        time.sleep(0.005)
    assert true()


class OpenedPanel:
    """A module's panel, entered, on a store with a tiny model."""

    def __init__(self, module, scene):
        self.module, self.scene = module, scene
        self.widget = application.open_module(module, ROOT / module)
        self.ui = self.widget.ui
        until(lambda: self.ui.modelSelector.currentText == "balls")

    @property
    def parent(self):
        """The QWidget that everything is in."""
        return self.widget.parent

    def named(self):
        """The widgets that .ui files name, by name, with the class that they have there."""
        import qt

        names = {w.get("name"): w.get("class") for file in ui_files() for w in ui_widgets(file)}
        found = {w.name: w for w in self.parent.findChildren(qt.QWidget) if w.name in names}
        assert len(found) > 20
        return {name: (widget, names[name]) for name, widget in found.items()}

    def operated(self):
        """Those that people operate."""
        return {name: widget for name, (widget, kind) in self.named().items() if is_operated(kind)}

    def unfold(self):
        """Open every section."""
        import ctk

        for section in self.parent.findChildren(ctk.ctkCollapsibleButton):
            section.collapsed = False
        slicer.app.processEvents()

    def states(self):
        """Bring the panel from state to state as a person would; gives the name of each."""
        yield "start"
        volume, segmentation, inside = addCase(self.scene)
        self.ui.volumeSelector.setCurrentNode(volume)
        yield "volume"
        if self.module == "InteractiveLearning":
            yield from self._session(volume, segmentation, tuple(np.argwhere(inside)[inside.sum() // 2].tolist()))
        self.scene.Clear(0)
        slicer.app.processEvents()
        yield "scene closed"

    def _session(self, volume, segmentation, middle):
        segmentation.GetSegmentation().GetSegment("ball").SetName("bright")
        self.ui.segmentationSelector.setCurrentNode(segmentation)
        yield "segmentation"
        self.press("startButton")
        assert self.widget.logic.session is not None, self.ui.statusLabel.text
        yield "session"
        self.ui.pointsButton.click()
        selection = slicer.app.applicationLogic().GetSelectionNode()
        markup = self.scene.GetNodeByID(selection.GetActivePlaceNodeID())
        markup.AddControlPointWorld(*mrml.worldFromIndex(middle, volume), "")
        self.settle()
        yield "clicked"
        self.ui.pointsButton.click()
        self.press("endButton")
        yield "ended"

    def press(self, name):
        """Press a button and wait for what comes of it."""
        assert getattr(self.ui, name).enabled, getattr(self.ui, name).toolTip
        getattr(self.ui, name).click()
        self.settle()

    def settle(self):
        """The session has done what it was told."""
        slicer.app.processEvents()
        until(lambda: not self.widget.logic.turns.busy)

    def close(self):
        """As Slicer does at its end. Deleted now: Python would do so at any time, even while selectors answer."""
        self.widget.cleanup()
        shiboken6.delete(self.parent)
