"""The sections of learning and of kept cases in a panel of their own, for tests: folded, polled, pictured, closed."""

import threading
import time
from pathlib import Path

import pytest
import qt
import slicer
from InteractiveLearningSlicerLib.learning_logic import LearningLogic
from InteractiveLearningSlicerLib.learning_section import LearningSection
from InteractiveLearningSlicerLib.replay_section import ReplaySection
from InteractiveLearningSlicerLib.tables import texts
from RefSegLib.errors import BadInput
from slicer_standin.fixtures import picture

UI = Path(__file__).parents[1] / "InteractiveLearning" / "Resources" / "UI"


class Aside:
    """A service that must never be asked in the main thread: the whole application would wait. asked: how often."""

    def __init__(self, service):
        self._service, self.home, self.place, self.asked = service, service.home, service.place, 0

    def client(self, progress):
        assert threading.current_thread() is not threading.main_thread()
        self.asked += 1
        return self._service.client(progress)

    def connected(self):
        return self._service.found()

    def leave(self):
        assert threading.current_thread() is not threading.main_thread()
        self._service.leave()


class Panel:
    """Both sections in one column, and time that goes on while somebody waits."""

    def __init__(self, scene, service, model="balls"):
        self.parent, self.told = qt.QWidget(), []
        layout = qt.QVBoxLayout(self.parent)
        loaded = [slicer.util.loadUI(str(UI / f"InteractiveLearning{name}.ui")) for name in ("Learning", "Replay")]
        for widget in loaded:
            layout.addWidget(widget)
        layout.addStretch(1)
        self.ui, self.keptUi = (slicer.util.childWidgetVariables(widget) for widget in loaded)
        self.learning = LearningSection(self.ui, scene, qt.QTableWidgetItem, self.guarded, self.told.append)
        self.replay = ReplaySection(self.keptUi, qt.QTableWidgetItem, self.guarded, self.told.append)
        self.service = None if service is None else Aside(service)
        self.logic = None if service is None else LearningLogic(self.service)
        for section in (self.learning, self.replay):
            section.watch(self.logic, model)
            section.enter()

    def guarded(self, work):
        try:
            work()
        except BadInput as error:
            self.told.append(str(error))

    def show(self, learning=True, kept=False):
        """Fold and unfold."""
        self.ui.learning.collapsed, self.keptUi.replay.collapsed = not learning, not kept
        return self

    def until(self, true, seconds=200):
        """Let the application run until something is true."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, (self.ui.learnerLabel.text, self.keptUi.forgetLabel.text, self.told)
            self.learning.poll()
            self.replay.poll()
            slicer.app.processEvents()
            time.sleep(0.01)

    def rows(self, name):
        """What a table shows."""
        return texts(getattr(self.ui if name == "versionsTable" else self.keptUi, name))

    def picture(self, name):
        """Both sections as a file for people."""
        picture(self, name)

    def close(self):
        for section in (self.learning, self.replay):
            section.close()
        if self.logic is not None:
            self.logic.close()


@pytest.fixture
def opened(an_empty_scene):
    """Makes panels; they leave nothing behind."""
    made = []

    def open_(service, model="balls"):
        made.append(Panel(an_empty_scene, service, model))
        return made[-1]

    yield open_
    for panel in made:
        panel.close()
        assert not slicer.util.getNodesByClass("vtkMRMLPlotChartNode")
    until = time.monotonic() + 60
    while any(thread.name in ("leaving", "presence") for thread in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.02)
