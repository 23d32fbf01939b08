"""The RefSeg Segmentation module's logic on real MRML scenes, with the real engine service in a process of its own."""

import json
import sys
import time

import numpy as np
import psutil
import pytest
import slicer
from InteractiveLearningLib.service.local import LocalService, ServiceRunner
from RefSegLib.errors import BadInput, Cancelled
from RefSegLib.jobs import Segmented
from RefSegLib.models.spec import Label
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import LabelMap
from RefSegSlicerLib import checks, masks, mrml

pytest_plugins = ("slicer_standin.fixtures",)
pytestmark = pytest.mark.usefixtures("an_empty_scene", "no_swallowed_exceptions")

WHOLE = "whole volume"
SCALE = np.diag([1.2, 0.8, 1.0, 1.0])
PARENTS = {"no transform": None, "moved": checks.MOVE, "scaled along its axes": "scaled", "twice": "twice"}


@pytest.fixture(params=PARENTS.values(), ids=PARENTS.keys())
def a_parent(request, a_grid):
    """Transforms above a volume: none, a turn, a scale along the volume's own axes, a mirror."""
    if isinstance(request.param, np.ndarray) or request.param is None:
        return request.param
    turn = np.eye(4)
    turn[:3, :3] = (a_grid.ijk_to_ras()[:3, :3]) / np.linalg.norm(a_grid.ijk_to_ras()[:3, :3], axis=0)
    scaled = turn @ SCALE @ turn.T
    return scaled if request.param == "scaled" else checks.MOVE @ scaled


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test_voxels_stay_where_they_are_on_every_grid_and_under_every_transform(check, an_empty_scene, a_grid, a_parent):
    check(an_empty_scene, a_grid, a_parent)


def test_the_self_test_of_the_module_passes():
    from RefSegSlicer import RefSegSlicerTest

    RefSegSlicerTest().runTest()


def test_a_bent_volume_is_refused_with_what_to_do(an_empty_scene):
    node = checks.addVolume(an_empty_scene, checks.OBLIQUE)
    bend = an_empty_scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "warp")
    node.SetAndObserveTransformNodeID(bend.GetID())
    with pytest.raises(BadInput, match="Harden"):
        mrml.volumeFromNode(node)


def test_a_sheared_volume_is_refused_with_what_to_do(an_empty_scene):
    shear = np.eye(4)
    shear[0, 1] = 0.5
    node = checks.addVolume(an_empty_scene, checks.FLIPPED, parent=shear)
    with pytest.raises(BadInput, match="Resample"):
        mrml.volumeFromNode(node)


def test_a_transform_in_a_chain_counts_once_and_bends_are_found_wherever_they_are(an_empty_scene):
    node = checks.addVolume(an_empty_scene, checks.OBLIQUE, parent=checks.MOVE)
    before = mrml.worldGrid(node)
    outer = an_empty_scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "outer")
    outer.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(checks.MOVE))
    node.GetParentTransformNode().SetAndObserveTransformNodeID(outer.GetID())
    expected = (checks.MOVE @ [*(before.to_world((1, 2, 3)) * mrml.RAS_TO_LPS), 1])[:3]
    assert np.allclose(mrml.worldFromIndex((1, 2, 3), node), expected)


def test_an_empty_volume_is_refused(an_empty_scene):
    node = an_empty_scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "hollow")
    with pytest.raises(BadInput, match="'hollow' holds no voxels"):
        mrml.volumeFromNode(node)


def test_color_images_come_as_channels(an_empty_scene):
    node = an_empty_scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "photo")
    colors = np.arange(1 * 4 * 5 * 3, dtype=np.uint8).reshape(1, 4, 5, 3)
    slicer.util.updateVolumeFromArray(node, colors)
    volume = mrml.volumeFromNode(node)
    assert volume.array.shape == (3, 1, 4, 5)
    assert np.array_equal(volume.array[2, 0], colors[0, :, :, 2])


def test_a_region_outside_the_volume_or_not_placed_is_refused(an_empty_scene):
    node = checks.addVolume(an_empty_scene, checks.FLIPPED)
    roi = an_empty_scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "box")
    with pytest.raises(BadInput, match="not been placed"):
        mrml.boxFromRoi(roi, node)
    roi.SetCenterWorld(900, 900, 900)
    roi.SetSizeWorld(5, 5, 5)
    with pytest.raises(BadInput, match="does not reach"):
        mrml.boxFromRoi(roi, node)


def test_a_saved_segmentation_reads_back_the_same(an_empty_scene, tmp_path):
    node = checks.addVolume(an_empty_scene, checks.OBLIQUE, parent=checks.MOVE)
    found = checks.Found(mrml.worldGrid(node))
    segmentation = masks.labelsToSegmentation(found, node)
    storage = an_empty_scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(tmp_path / "mask.seg.nrrd"))
    assert storage.WriteData(segmentation)
    again = an_empty_scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "again")
    again.SetAndObserveTransformNodeID(node.GetTransformNodeID())
    assert storage.ReadData(again)
    for name in checks.names(found):
        assert np.array_equal(mrml.segmentArray(again, name, node), mrml.segmentArray(segmentation, name, node))


def SegmentationLogic(*arguments):
    """The logic, whose words need the application's translations."""
    from RefSegSlicerLib.segmentation_logic import SegmentationLogic

    return SegmentationLogic(*arguments)


class Immediate:
    """A runner without a process: it ends with the given result or error."""

    def __init__(self, result):
        self.result, self.calls = result, []

    def segmented(self, volume, model, *, progress, **options):
        self.calls.append((volume, model, options))
        progress(0.5, "half way")
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def close(self):
        """Nothing to end."""


def run(job):
    """Wait for a job; returns what it told: progress, finished, failed."""
    told = [], [], []
    for signal, heard in zip((job.progressed, job.finished, job.failed), told, strict=True):
        signal.connect(lambda *values, heard=heard: heard.append(values))
    job.wait()
    return told


def a_result(node, value=1):
    grid = mrml.worldGrid(node)
    array = np.zeros(grid.shape, np.uint8)
    array[2:5, 3:6, 4:7] = value
    return Segmented(LabelMap(array, grid), (Label(value=1, name="thing", color=(1, 0, 0)),), {"images": []})


def test_the_runner_gets_the_volume_the_model_and_the_box(an_empty_scene):
    node = checks.addVolume(an_empty_scene, checks.FLIPPED, parent=checks.MOVE)
    roi = an_empty_scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "box")
    roi.SetCenterWorld(*mrml.worldFromIndex((3, 4, 5), node))
    roi.SetSizeWorld(0.1, 0.1, 0.1)
    runner = Immediate(a_result(node))
    logic = SegmentationLogic(an_empty_scene, runner)
    progress, finished, failed = run(logic.segment(node, "balls@3", reflect=False, region=roi))
    volume, model, options = runner.calls[0]
    assert volume.grid.same_as(mrml.worldGrid(node)) and model == "balls@3"
    assert options == {"reflect": False, "roi": (3, 4, 5, 4, 5, 6), "suspect": False}
    assert progress == [(0.5, "half way")] and not failed
    assert mrml.segmentArray(finished[0][0], "RefSeg_thing", node).sum() == 27


def test_a_constant_volume_and_one_with_nan_are_refused_before_anything_is_asked_of_the_engine(an_empty_scene):
    runner = Immediate(None)
    logic = SegmentationLogic(an_empty_scene, runner)
    flat = checks.addVolume(an_empty_scene, checks.FLIPPED, np.zeros(checks.FLIPPED.shape, np.int16))
    array = np.random.default_rng(0).normal(size=checks.FLIPPED.shape)
    array[0, 0, 0] = np.nan
    broken = checks.addVolume(an_empty_scene, checks.FLIPPED, array)
    for node, sentence in ((flat, "'image' has the same value"), (broken, "not numbers")):
        _, finished, failed = run(logic.segment(node, "balls"))
        assert not finished and sentence in str(failed[0][0])
    assert not runner.calls


def test_the_whole_volume_is_a_box_of_all_its_voxels(an_empty_scene):
    node = checks.addVolume(an_empty_scene, checks.OBLIQUE)
    runner = Immediate(a_result(node))
    _, finished, _ = run(SegmentationLogic(an_empty_scene, runner).segment(node, "balls", region=WHOLE))
    assert runner.calls[0][2]["roi"] == (0, 0, 0, *checks.OBLIQUE.shape)
    assert finished[0][1]["settings"]["region"] == "whole volume"


@pytest.mark.parametrize("change", ["removed", "moved", "closed"])
def test_a_result_for_a_volume_that_has_gone_or_moved_is_dropped_with_a_sentence(an_empty_scene, change):
    node = checks.addVolume(an_empty_scene, checks.FLIPPED, parent=checks.MOVE)
    job = SegmentationLogic(an_empty_scene, Immediate(a_result(node))).segment(node, "balls")
    if change == "removed":
        an_empty_scene.RemoveNode(node)
    elif change == "closed":
        an_empty_scene.Clear(0)
    else:
        node.SetAndObserveTransformNodeID(None)
    _, finished, failed = run(job)
    assert not finished and "'image' was" in str(failed[0][0])
    assert not slicer.util.getNodesByClass("vtkMRMLSegmentationNode", an_empty_scene)


def test_an_error_of_the_engine_arrives_as_its_sentence(an_empty_scene):
    node = checks.addVolume(an_empty_scene, checks.FLIPPED)
    logic = SegmentationLogic(an_empty_scene, Immediate(BadInput("The image is too small.")))
    _, finished, failed = run(logic.segment(node, "balls"))
    assert not finished and str(failed[0][0]) == "The image is too small."


# The real engine, in a real process, with a real (untrained) network.


@pytest.fixture(scope="module")
def a_store(tmp_path_factory):
    """A store with a tiny model that has a segmenter and a synthesizer with random weights, and one that has none."""
    from benchmarks.tiny_learning import SPEC, an_untrained_version, arrays
    from RefSegLib.models.networks import build_segmenter
    from RefSegLib.models.store import ModelStore

    home = tmp_path_factory.mktemp("store")
    an_untrained_version(home)
    plain = SPEC.model_copy(update={"name": "plain"})
    ModelStore(home).activate("plain", ModelStore(home).add(plain, arrays(build_segmenter(plain))).version)
    return home


def a_runner_on(store, python=sys.executable, environment=None):
    """A runner on the service of this computer."""
    return ServiceRunner(LocalService(store, python, environment))


@pytest.fixture(scope="module")
def a_runner(a_store):
    """What the module segments with: the service is started by the first job, and ends with the last test."""
    runner = a_runner_on(a_store)
    yield runner
    pid = the_service(a_store)
    runner.close()
    until = time.monotonic() + 60
    while pid is not None and psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until, "The service was left behind."
        time.sleep(0.05)


def the_service(store):
    """Process id of the service on a store; None if there is none."""
    told = store / "service" / "local.json"
    return json.loads(told.read_bytes())["pid"] if told.exists() else None


def test_a_volume_is_segmented_and_reflected_on_by_the_service(an_empty_scene, a_store, a_runner):
    """Its voxels in the scene, and those of the map of doubt, are those the engine gives when it is called directly."""
    from RefSegLib.engine import Engine, suspect_map
    from RefSegLib.models.store import ModelStore

    grid = Grid((18, 20, 22), (1.0, 1.0, 1.0), checks.TURN, (-3.0, 5.0, 8.0))
    node = checks.addVolume(an_empty_scene, grid, parent=checks.MOVE)
    logic = SegmentationLogic(an_empty_scene, a_runner)
    progress, finished, failed = run(logic.segment(node, "balls"))
    assert not failed, failed[0][0]
    segmentation, done = finished[0]
    expected = Engine(ModelStore(a_store).load("balls")).segment(mrml.volumeFromNode(node))
    found = mrml.labelsFromSegmentation(segmentation, [f"RefSeg_{n.name}" for n in expected.names], node)
    assert expected.labels.array.any()
    assert np.array_equal(found.array, expected.labels.array)
    suspect = suspect_map(expected).array[0]
    assert suspect.max() > 0.1
    np.testing.assert_allclose(slicer.util.arrayFromVolume(logic.doubtNode(node)), suspect, atol=1e-3)
    assert len(progress) > 2 and progress[-1][0] <= 1
    assert [label["name"] for label in done["found"]["labels"]] == ["bright", "dim"]


def test_a_model_that_cannot_reflect_still_segments_and_leaves_no_map(an_empty_scene, a_runner):
    node = checks.addVolume(an_empty_scene, checks.FLIPPED)
    logic = SegmentationLogic(an_empty_scene, a_runner)
    _, finished, failed = run(logic.segment(node, "plain"))
    assert not failed, failed[0][0]
    assert finished[0][1]["settings"]["reflect"] is False
    assert finished[0][0].GetSegmentation().GetNumberOfSegments() == 2 and logic.doubtNode(node) is None


def test_a_model_that_is_not_there_is_told_in_one_sentence(an_empty_scene, a_runner):
    node = checks.addVolume(an_empty_scene, checks.FLIPPED)
    _, finished, failed = run(SegmentationLogic(an_empty_scene, a_runner).segment(node, "no-such-model"))
    assert not finished
    assert "no-such-model" in str(failed[0][0]) and "Traceback" not in str(failed[0][0])


def test_a_python_without_the_engine_or_without_anything_is_told_in_one_sentence(an_empty_scene, tmp_path):
    node = checks.addVolume(an_empty_scene, checks.FLIPPED)
    missing = a_runner_on(tmp_path, "/no/python")
    _, _, failed = run(SegmentationLogic(an_empty_scene, missing).segment(node, "m"))
    assert "could not be started" in str(failed[0][0])
    bare = {"PATH": "/usr/bin:/bin", "PYTHONNOUSERSITE": "1"}
    without = a_runner_on(tmp_path, sys._base_executable, bare)
    _, _, failed = run(SegmentationLogic(an_empty_scene, without).segment(node, "m"))
    assert f"The Python '{sys._base_executable}' lacks " in str(failed[0][0])
    assert "Traceback" not in str(failed[0][0])


def test_canceling_while_the_service_starts_ends_it(an_empty_scene, a_store, tmp_path):
    import shutil

    shutil.copytree(a_store / "models", tmp_path / "models")
    node = checks.addVolume(an_empty_scene, checks.FLIPPED)
    logic = SegmentationLogic(an_empty_scene, a_runner_on(tmp_path))
    before = _children()
    job = logic.segment(node, "balls")
    until = time.monotonic() + 20
    while not _children() - before and time.monotonic() < until:
        time.sleep(0.01)
    (started,) = _children() - before
    job.cancel()
    _, finished, failed = run(job)
    assert not finished and isinstance(failed[0][0], Cancelled) and not job.open
    psutil.Process(started).wait(30)
    logic.closeRunner()
    assert logic.runner is None


def test_a_service_that_is_killed_is_started_again_and_the_segmentation_comes_to_its_end(
    an_empty_scene, a_store, a_runner
):
    node = checks.addVolume(an_empty_scene, checks.FLIPPED)
    logic = SegmentationLogic(an_empty_scene, a_runner)
    run(logic.segment(node, "balls"))
    killed = the_service(a_store)
    job = logic.segment(node, "balls")
    psutil.Process(killed).kill()
    _, finished, failed = run(job)
    assert finished and not failed, failed[0][0]
    assert the_service(a_store) not in (None, killed)


def _children():
    """Processes that this one has started and that still run."""
    return {process.pid for process in psutil.Process().children() if process.status() != psutil.STATUS_ZOMBIE}


def test_a_python_of_the_settings_starts_without_slicers_libraries(monkeypatch):
    import qt
    from RefSegSlicerLib import settings

    assert settings.environment() is None
    settings.choose(settings.PYTHON_KEY, "/opt/engine/bin/python")
    before_slicer = qt.QProcessEnvironment()
    before_slicer.insert("PATH", "/usr/bin")
    monkeypatch.setattr(slicer.app, "startupEnvironment", lambda: before_slicer)
    try:
        assert settings.python() == "/opt/engine/bin/python" and settings.environment() == {"PATH": "/usr/bin"}
    finally:
        slicer.app.settings().clear()
