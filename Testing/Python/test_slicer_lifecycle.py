"""Nothing of a panel is left behind: not when the scene is closed or imported, not by exit, reload or Slicer's end."""

import slicer_standin.fixtures  # noqa: F401 # isort: skip  # starts the stand-in, which the others need

import gc
import threading
import time
import weakref
from collections import Counter

import psutil
import pytest
import shiboken6
import slicer
from both_panels import MODULES, OpenedPanel, until
from RefSegSlicerLib import settings

pytest_plugins = ("slicer_standin.fixtures", "both_panels")
pytestmark = pytest.mark.usefixtures("an_empty_scene", "no_swallowed_exceptions", "a_main_window")


@pytest.fixture(params=MODULES)
def module(request, a_served_home):
    """The name of each module; its engine is that service."""
    slicer.app.settings().setValue(settings.STORE_KEY, str(a_served_home))
    yield request.param
    slicer.app.settings().clear()


def objects(*kinds):
    """Living Qt objects of some kinds."""
    return [o for o in gc.get_objects() if isinstance(o, kinds) and shiboken6.isValid(o)]


def rest():
    """Let the application do what it does when nobody does anything, deleting objects among it."""
    import qt

    slicer.app.processEvents()
    qt.QCoreApplication.sendPostedEvents(None, qt.QEvent.DeferredDelete.value)
    gc.collect()


def left(scene):
    """What there is besides panels: nodes, observers of the scene, running timers, keys, threads, processes."""
    import qt

    rest()
    nodes = [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]
    return {
        "nodes": Counter(node.GetClassName() for node in nodes),
        "observers": str(scene).count("vtkObserver ("),
        "timers": sum(timer.active for timer in objects(qt.QTimer)),
        "shortcuts": len(objects(qt.QShortcut)),
        "threads": Counter(thread.name.partition("-")[0] for thread in threading.enumerate()),
        "processes": sorted(p.pid for p in psutil.Process().children(recursive=True) if p.status() != "zombie"),
    }


def alive(parts, seconds=30):
    """What of some weakly referenced parts is kept alive: by an observer, a timer, a thread."""
    end = time.monotonic() + seconds
    while (found := [part() for part in parts if part() is not None]) and time.monotonic() < end:
        del found
        time.sleep(0.05)
        rest()
    return found


def at_rest():
    """Wait for the threads that earlier tests have left to their end."""
    until(lambda: {thread.name.partition("-")[0] for thread in threading.enumerate()} <= {"MainThread", "presence"})


def settled(scene, wanted, seconds=30):
    """What is left once threads that were on their way out are gone."""
    end = time.monotonic() + seconds
    while (found := left(scene)) != wanted and time.monotonic() < end:
        time.sleep(0.05)
    return {key: (found[key], wanted[key]) for key in wanted if found[key] != wanted[key]}


def opened_and_closed(module, scene, use):
    """Open a panel, use it, close it. Returns weak references to all that it was made of."""
    panel = OpenedPanel(module, scene)
    use(panel)
    parts = [panel.widget, *vars(panel.widget).values()]
    own = [part for part in parts if type(part).__module__.startswith(("RefSeg", "Interactive"))]
    found = [weakref.ref(part) for part in own]
    panel.close()
    return found


def every_state(panel):
    """Use a panel as a person would."""
    for _state in panel.states():
        panel.unfold()


def test_three_times_opened_used_and_closed_is_as_never_opened(module, an_empty_scene):
    opened_and_closed(module, an_empty_scene, every_state)  # what Slicer itself makes once, as parameter nodes
    an_empty_scene.Clear(0)
    at_rest()
    before = left(an_empty_scene)
    for _ in range(3):
        parts = opened_and_closed(module, an_empty_scene, every_state)
        an_empty_scene.Clear(0)
        assert settled(an_empty_scene, before) == {}
        # Whoever still observes a node, or waits for a timer, keeps what it would call alive.
        assert alive(parts) == []
        assert len(parts) > 2


def test_a_closed_panel_has_no_timer_whoever_still_holds_it(module, an_empty_scene):
    import qt

    rest()
    before = len(objects(qt.QTimer))
    panel = OpenedPanel(module, an_empty_scene)
    assert len(objects(qt.QTimer)) > before
    panel.close()
    rest()
    assert len(objects(qt.QTimer)) == before, vars(panel.widget)


def test_closing_slicer_in_the_middle_of_a_session_leaves_nothing(an_empty_scene, a_served_home):
    slicer.app.settings().setValue(settings.STORE_KEY, str(a_served_home))

    def begin(panel):
        for state in panel.states():
            if state == "clicked":
                return

    opened_and_closed("InteractiveLearning", an_empty_scene, begin)
    an_empty_scene.Clear(0)
    at_rest()
    before = left(an_empty_scene)
    parts = opened_and_closed("InteractiveLearning", an_empty_scene, begin)
    temporary = [n.GetName() for n in slicer.util.getNodesByClass("vtkMRMLMarkupsNode", an_empty_scene)]
    assert temporary == []
    an_empty_scene.Clear(0)
    assert settled(an_empty_scene, before) == {}
    assert alive(parts) == []
    slicer.app.settings().clear()


def test_while_another_module_is_shown_nothing_ticks_and_no_key_is_taken(module, an_empty_scene):
    import qt

    panel = OpenedPanel(module, an_empty_scene)
    shown = left(an_empty_scene)
    for _ in range(3):
        panel.widget.exit()
        hidden = left(an_empty_scene)
        assert hidden["timers"] == 0 and hidden["shortcuts"] == 0, objects(qt.QTimer)
        panel.widget.enter()
        until(lambda: panel.ui.modelSelector.currentText == "balls")
        assert settled(an_empty_scene, shown) == {}
    if module == "InteractiveLearning":
        assert shown["shortcuts"] > 5
    panel.close()


def test_scenes_closed_and_imported_leave_the_panel_as_it_was(module, an_empty_scene, tmp_path):
    panel = OpenedPanel(module, an_empty_scene)
    states = panel.states()
    for state in states:
        if state in ("volume", "segmentation"):
            file = tmp_path / f"{state}.mrml"
            an_empty_scene.Commit(str(file))
    start = left(an_empty_scene)
    for _ in range(3):
        for file in sorted(tmp_path.glob("*.mrml")):
            an_empty_scene.SetURL(str(file))
            an_empty_scene.Import()
            slicer.app.processEvents()
            an_empty_scene.Clear(0)
            slicer.app.processEvents()
    assert settled(an_empty_scene, start) == {}
    assert panel.ui.volumeSelector.currentNode() is None
    button = panel.ui.segmentButton if module == "RefSegSlicer" else panel.ui.startButton
    assert not button.enabled and "volume" in button.toolTip
    panel.close()
