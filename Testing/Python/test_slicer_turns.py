"""Turns in the background: one after the other, the same masks as at once, nothing left behind."""

import threading
import time

import numpy as np
import pytest
import slicer
from InteractiveLearningLib.prompts import Outline
from InteractiveLearningLib.service.local import LocalService
from InteractiveLearningLib.service.service_desk import ServiceDesk
from InteractiveLearningSlicerLib import segments
from InteractiveLearningSlicerLib.panel_logic import PanelLogic
from InteractiveLearningSlicerLib.session_logic import SessionLogic
from InteractiveLearningSlicerLib.turns import AtOnce, Turns
from RefSegLib.errors import BadInput
from RefSegLib.volume.grid import Grid
from RefSegSlicerLib import mrml
from RefSegSlicerLib.checks import FLIPPED, MOVE, OBLIQUE, addVolume
from slicer_case import GRID, Case

pytest_plugins = ("slicer_standin.fixtures", "slicer_case")
pytestmark = pytest.mark.usefixtures("an_empty_scene", "no_swallowed_exceptions")


def done(turns, seconds=60.0):
    """Poll until nothing is under way."""
    end = time.monotonic() + seconds
    while turns.busy:
        assert time.monotonic() < end
        turns.poll()
        time.sleep(0.001)


def counting(log, name, steps=2, error=None):
    """A turn that notes what it does, and in which thread."""
    for step in range(steps):
        here = yield threading.current_thread
        log.append((name, step, here is threading.main_thread()))
    if error is not None:
        raise error
    return name


def test_turns_come_one_after_the_other_and_think_in_a_thread():
    log, told, failed = [], [], []
    turns = Turns(failed.append)
    turns.take(counting(log, "a"), told.append)
    turns.take(counting(log, "b", error=BadInput("No.")), told.append)
    turns.take(counting(log, "c"), told.append)
    assert not log and turns.busy and turns.waiting
    done(turns)
    turns.close()
    assert log == [(name, step, False) for name in "abc" for step in (0, 1)]
    assert told == ["a", "c"] and [str(error) for error in failed] == ["No."]


def test_what_is_raised_in_the_thread_comes_back_where_it_was_asked_for():
    caught, failed = [], []

    def turn():
        try:
            yield lambda: 1 / 0
        except ZeroDivisionError as error:
            caught.append(error)

    turns = Turns(failed.append)
    turns.take(turn())
    done(turns)
    turns.close()
    AtOnce().take(turn())
    assert len(caught) == 2 and not failed


def test_a_fault_of_the_program_is_told_and_not_hidden():
    failed = []

    def turn():
        yield lambda: {}["missing"]

    turns = Turns(failed.append)
    turns.take(turn())
    with pytest.raises(KeyError):
        done(turns)
    turns.take(counting([], "next"))
    done(turns)
    turns.close()
    assert "fault of the program" in str(failed[0])


def test_turns_that_are_dropped_are_not_heard_of_and_their_thread_ends():
    log, told, free = [], [], threading.Event()

    def turn():
        try:
            yield free.wait
        finally:
            log.append("closed")

    turns, before = Turns(told.append), threading.active_count()
    turns.take(turn(), told.append)
    turns.take(counting(log, "waiting"), told.append)
    turns.drop()
    assert log == ["closed"] and not turns.busy
    turns.take(counting(log, "after", steps=1), told.append)
    free.set()
    done(turns)
    turns.close()
    assert told == ["after"] and log[-1] == ("after", 0, False)
    while threading.active_count() > before:
        time.sleep(0.01)


def test_the_logic_is_what_the_panel_asks_for(an_empty_scene):
    assert isinstance(SessionLogic(an_empty_scene), PanelLogic)


@pytest.fixture(scope="module")
def a_service(tmp_path_factory):
    """The engine service of a store without models."""
    service = LocalService(tmp_path_factory.mktemp("home"))
    service.client()
    yield service
    service.leave()


def work(case, settle):
    """Everything a person may do, in both segments."""
    logic = case.logic
    logic.activeSegment = "bright"
    settle(lambda: logic.setLimits(0, 2, 12))
    for index in (4, 8):
        settle(lambda index=index: logic.say(Outline.on(logic.session.grid, 0, index, case.balls[0][index], 1)))
    settle(lambda: logic.click(case.world((6, 9, 12)), True))
    logic.activeSegment = "dim"
    settle(lambda: logic.click(case.world((13, 15, 18)), True))
    settle(lambda: logic.click(case.world((13, 13, 18)), False))
    settle(logic.undo)
    painted = case.voxels("dim")
    painted[12] = case.balls[1][12]
    case.paint("dim", painted)
    settle(logic.takeEdits)
    settle(lambda: logic.setLocked("bright", True))
    settle(lambda: logic.click(case.world((12, 14, 17)), True))
    for step in (logic.undo, logic.undo, logic.redo):
        settle(step)
    return {name: case.voxels(name) for name in ("bright", "dim")}


@pytest.mark.parametrize("parent", [None, MOVE], ids=["no transform", "moved"])
@pytest.mark.parametrize("grid", [GRID, FLIPPED, OBLIQUE], ids=["turned", "flipped", "oblique"])
def test_masks_made_in_the_background_at_a_service_are_those_made_at_once(
    an_empty_scene, tmp_path, a_service, grid, parent
):
    grid = Grid(GRID.shape, grid.spacing, grid.direction, grid.origin)
    case = Case(an_empty_scene, tmp_path / "sessions", grid, parent)
    case.start()
    expected = work(case, lambda step: step())
    case.close()
    assert expected["bright"].any() and expected["dim"].any()
    other = Case(an_empty_scene, tmp_path / "others", grid, parent)
    other.logic = SessionLogic(an_empty_scene, lambda step: step())
    other.logic.failed.connect(lambda error: other.told.append(str(error)))
    other.logic.startSession(other.volume, other.segmentation, ServiceDesk(a_service))
    done(other.logic.turns)

    def settle(step):
        step()
        done(other.logic.turns)

    found = work(other, settle)
    other.close()
    other.logic.turns.close()
    assert not other.told
    for name, mask in expected.items():
        assert np.array_equal(found[name], mask), name


def test_a_start_that_is_given_up_leaves_no_session_open(an_empty_scene, tmp_path, a_service):
    case = Case(an_empty_scene, tmp_path / "sessions")
    logic = case.logic = SessionLogic(an_empty_scene, lambda step: step())
    threads = threading.active_count()
    logic.startSession(case.volume, case.segmentation, ServiceDesk(a_service))
    assert logic.turns.busy
    logic.endSession()
    assert logic.session is None and not logic.turns.busy
    logic.turns.close()
    end = time.monotonic() + 60
    while threading.active_count() > threads:  # its sign of life has a thread
        assert time.monotonic() < end
        time.sleep(0.01)


# Segments as Slicer stores them


def stored(scene, grid, masks, volume):
    """A segmentation in which Slicer itself has stored masks, by name."""
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "masks")
    mrml.prepareSegmentation(node, volume)
    for name, mask in masks.items():
        node.GetSegmentation().AddEmptySegment(name, name)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, name, volume)
    return node


def test_segments_are_read_as_slicer_reads_them_overlapping_empty_or_at_the_edge(an_empty_scene, a_grid):
    rng = np.random.default_rng(0)
    volume = addVolume(an_empty_scene, a_grid, parent=MOVE)
    masks = {
        "a": rng.random(a_grid.shape) < 0.2,
        "none": np.zeros(a_grid.shape, bool),
        "b": rng.random(a_grid.shape) < 0.2,
        "edge": np.zeros(a_grid.shape, bool),
    }
    masks["edge"][-1, -1, -1] = masks["edge"][0, 0, 0] = True
    node = stored(an_empty_scene, a_grid, masks, volume)
    values = {name: number for number, name in enumerate(masks, start=1)}
    parts = segments.snapshot(node, volume, values)
    expected = np.zeros(a_grid.shape, np.uint8)
    for name, value in values.items():
        expected[mrml.segmentArray(node, name, volume)] = value
    assert np.array_equal(segments.labelMap(parts, a_grid.shape), expected)
    assert {part.value: part.count() for part in parts} == {values[name]: mask.sum() for name, mask in masks.items()}
    known = np.where(masks["a"], 1, 0).astype(np.uint8)  # what is known stands where segments overlap
    both = segments.labelMap(parts, a_grid.shape, known)
    assert np.array_equal(both[masks["a"]], known[masks["a"]]) and np.array_equal(both != 0, expected != 0)
    slicer.util.updateSegmentBinaryLabelmapFromArray(np.zeros(a_grid.shape, np.uint8), node, "a", volume)
    assert not (segments.labelMap(parts, a_grid.shape) != expected).any()  # a snapshot does not change any more


def test_segments_on_other_voxels_than_the_volume_are_resampled_onto_it(an_empty_scene):
    fine = Grid((18, 26, 22), (0.5, 0.5, 0.5))
    coarse = Grid((9, 13, 11), (1.0, 1.0, 1.0), origin=(0.25, 0.25, 0.25))
    first, second = addVolume(an_empty_scene, fine), addVolume(an_empty_scene, coarse)
    mask = np.zeros(fine.shape, bool)
    mask[4:12, 6:16, 4:14] = True
    node = stored(an_empty_scene, fine, {"a": mask}, first)
    parts = segments.snapshot(node, second, {"a": 1})
    assert np.array_equal(segments.labelMap(parts, coarse.shape) == 1, mrml.segmentArray(node, "a", second))
    assert (segments.labelMap(parts, coarse.shape) == 1).any()


def test_segments_that_reach_beyond_the_volume_are_cut_to_it(an_empty_scene):
    whole, part = Grid((12, 14, 16)), Grid((6, 7, 8), origin=(3.0, 2.0, 4.0))
    large, small = addVolume(an_empty_scene, whole), addVolume(an_empty_scene, part)
    mask = np.ones(whole.shape, bool)
    node = stored(an_empty_scene, whole, {"a": mask}, large)
    (found,) = segments.snapshot(node, small, {"a": 1})
    assert found.array.shape == part.shape and found.count() == np.prod(part.shape)
    assert np.array_equal(segments.labelMap([found], part.shape) == 1, mrml.segmentArray(node, "a", small))
