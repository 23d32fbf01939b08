"""A workspace of the browser comes back as it was: after a kill, on a full disk, and in every geometry."""

import multiprocessing
import os
import random
import signal
import time
from contextlib import contextmanager, suppress

import numpy as np
import psutil
import pytest
import slicer
import vtk
from browser import READY_MS, picture, wait_for_red_over_gray, wait_for_views
from BrowserWorkspaceLib import recovery as recovery_module
from BrowserWorkspaceLib.recovery import Recovery
from InteractiveLearningLib.prompts import Click, Outline, to_dict
from InteractiveLearningSlicerLib import masking, memory
from RefSegLib.errors import RefSegError
from RefSegLib.models.spec import Code, Label
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.io import write_image, write_labels
from RefSegLib.volume.volume import LabelMap, Volume
from RefSegSlicerLib import masks, mrml, provenance
from running_app import RunningApp
from small_disk import a_small_disk, no_file_larger_than
from workspace_writer import Bench, mask, save_for_ever

pytest_plugins = ("browser",)

FORKED = multiprocessing.get_context("fork")
GRID = Grid((12, 14, 16), (2.5, 0.9, 1.1), ((0, 0, -1), (0, -1, 0), (-1, 0, 0)), (10.0, 20.0, -5.0))
# In some view, something red lets the image through.
TRANSFORM = np.array([[0.36, 0.48, -0.8, 7], [-0.8, 0.6, 0, -3], [0.48, 0.64, 0.6, 90], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def slicer_core():
    """Slicer's core: without it, scenes know no colors and segmentations no conversions."""
    from trame_slicer.core import SlicerApp

    return SlicerApp()


@pytest.fixture
def scenes(slicer_core):
    """Makes scenes that are emptied at the end."""
    made = []

    def make():
        scene = slicer.vtkMRMLScene()
        scene.AddNode(slicer.vtkMRMLSegmentationStorageNode())
        made.append(scene)
        return scene

    yield make
    for scene in made:
        scene.Clear(1)


def matrix_of(volume_node):
    matrix = vtk.vtkMatrix4x4()
    volume_node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def paint(segmentation, identifier, array, volume):
    segment = segmentation.GetSegmentation().GetSegment(identifier)
    segment.SetLabelValue(1)
    segment.AddRepresentation(mrml.REPRESENTATION, mrml.orientedImage(array, mrml.ownGrid(volume)))
    assert np.array_equal(mrml.segmentArray(segmentation, identifier, volume), array != 0)


def a_workspace(scene, grid, parents=0):
    """An image on a grid under a chain of transforms; segments with names, colors, codes, prompts and an overlap."""
    image = np.random.default_rng(2).normal(100, 40, grid.shape).astype(np.float32)
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Kopf Ärztin & <1>")
    volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(grid.ijk_to_ras()))
    volume.SetAndObserveImageData(mrml.imageData(image))
    volume.CreateDefaultDisplayNodes()
    volume.GetDisplayNode().AutoWindowLevelOff()
    volume.GetDisplayNode().SetWindowLevel(123.4, 56.7)
    volume.SetAttribute("RefSeg.Case", "c-1")
    below = volume
    for number in range(parents):
        transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", f"turn {number}")
        transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(TRANSFORM))
        below.SetAndObserveTransformNodeID(transform.GetID())
        below = transform
    values = np.zeros(grid.shape, np.uint8)
    values[2:5, 3:8, 4:9], values[5:6, 3:8, 4:9] = 1, 2
    code = Code(scheme="SCT", value="12738006", meaning="Brain")
    names = [
        Label(value=1, name="brain | matter; ü", color=(0.123456789, 0.5, 1), type=code, category=code),
        Label(value=2, name="rest", color=(1, 0, 0)),
        Label(value=3, name="nothing yet", color=(0, 0, 1)),
    ]
    segmentation = masks.write(masks.crop(LabelMap(values, mrml.worldGrid(volume)), names), volume).node
    segmentation.SetName("masks 'of' it")
    over = np.zeros(grid.shape, np.uint8)
    over[1:4, 2:6, 1:7] = 1
    segmentation.GetSegmentation().AddEmptySegment("over", "over", (0.3, 0.3, 0.3))
    paint(segmentation, "over", over, volume)
    first = segmentation.GetSegmentation().GetSegment("RefSeg_brain | matter; ü")
    first.SetTag("Some.Other", "of another module")
    masking.setLocked(first, True)
    display = segmentation.GetDisplayNode()
    display.SetSegmentVisibility("over", False)
    display.SetSegmentOpacity2DFill("RefSeg_rest", 0.25)
    display.SetOpacity2DFill(0.4)
    provenance.stamp(segmentation, {"model": "brain", "version": "v3"})
    world, own = mrml.worldGrid(volume), mrml.ownGrid(volume)
    prompts = [
        Click(tuple(world.to_world((3, 4, 5))), True, 1),
        Click(tuple(world.to_world((5, 4, 5))), False, 2),
        Outline.on(world, 0, 3, values[3] == 1, 1),
    ]
    known = {identifier: number for number, identifier in enumerate(segmentation.GetSegmentation().GetSegmentIDs(), 1)}
    memory.remember(segmentation, memory.textsOf(prompts, world, own, known))
    return volume, segmentation


def a_bench(scenes, grid, parents=0):
    scene = scenes()
    return Bench(scene, *a_workspace(scene, grid, parents))


def told(volume, segmentation):
    """All there is to know about the two nodes, to be compared."""
    found = segmentation.GetSegmentation()
    display = segmentation.GetDisplayNode()
    values = {identifier: number for number, identifier in enumerate(found.GetSegmentIDs(), 1)}
    world, own = mrml.worldGrid(volume), mrml.ownGrid(volume)
    whole = mrml.labelsFromSegmentation(segmentation, list(values), volume).array
    prompts, unreadable = memory.recall(memory.storedOf(segmentation, values), whole, world, own)
    assert not unreadable and len(prompts) == 3
    segments = []
    for identifier in found.GetSegmentIDs():
        segment, other = found.GetSegment(identifier), vtk.reference("")
        segment.GetTag("Some.Other", other)
        terms = vtk.reference("")
        segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), terms)
        segments.append(
            {
                "id": identifier,
                "name": segment.GetName(),
                "color": segment.GetColor(),
                "value": segment.GetLabelValue(),
                "tags": (str(other.get()), str(terms.get()), memory.stored(segment)),
                "locked": segment.HasTag(masking.LOCKED),
                "voxels": mrml.segmentArray(segmentation, identifier, volume).tobytes(),
                "shown": (display.GetSegmentVisibility(identifier), display.GetSegmentOpacity2DFill(identifier)),
            }
        )
    return {
        "image": slicer.util.arrayFromVolume(volume).tobytes(),
        "type": str(slicer.util.arrayFromVolume(volume).dtype),
        "own": matrix_of(volume).tolist(),
        "world": mrml.toWorld(volume).tolist(),
        "segmentation's world": mrml.toWorld(segmentation).tolist(),
        "names": (volume.GetName(), segmentation.GetName(), volume.GetAttribute("RefSeg.Case")),
        "window": (volume.GetDisplayNode().GetWindow(), volume.GetDisplayNode().GetLevel()),
        "opacity": display.GetOpacity2DFill(),
        "done": provenance.stamped(segmentation),
        "unchanged": sorted(masks.unchangedSegments(found)),
        "prompts": [to_dict(prompt) for prompt in prompts],
        "segments": segments,
    }


def saved(bench, folder):
    recovery = Recovery(bench, folder)
    recovery.failed.connect(bench.told.append)
    bench.changed()
    recovery.close()
    return recovery


def restored(scene, folder):
    bench = Bench(scene)
    recovery = Recovery(bench, folder)
    recovery.failed.connect(bench.told.append)
    return bench, recovery.restore()


@pytest.mark.parametrize("parents", [0, 1, 2])
def test_everything_comes_back_where_it_was(scenes, tmp_path, a_grid, parents):
    bench = a_bench(scenes, a_grid, parents)
    bench.chosen = {"panel": "segment", "model": "brain"}
    before = told(bench.volume_node, bench.segmentation_node)
    saved(bench, tmp_path)
    again, found = restored(scenes(), tmp_path)
    assert found and not bench.told and not again.told
    after = told(again.volume_node, again.segmentation_node)
    for key, value in before.items():
        assert after[key] == value, key
    assert again.chosen == bench.chosen
    above = again.segmentation_node.GetParentTransformNode(), again.volume_node.GetParentTransformNode()
    assert above[0] is above[1]  # they still move together
    assert len(list(again.scene.GetNodesByClass("vtkMRMLLinearTransformNode"))) == parents


def test_what_comes_back_can_be_saved_and_come_back_again(scenes, tmp_path, a_grid):
    bench = a_bench(scenes, a_grid, 1)
    saved(bench, tmp_path)
    first, _ = restored(scenes(), tmp_path)
    saved(first, tmp_path)
    second, _ = restored(scenes(), tmp_path)
    assert told(second.volume_node, second.segmentation_node) == told(bench.volume_node, bench.segmentation_node)
    assert len(list(tmp_path.iterdir())) == 4  # nothing piles up


def test_an_image_is_written_once(scenes, tmp_path):
    bench = a_bench(scenes, GRID)
    recovery = saved(bench, tmp_path)
    (file,) = tmp_path.glob("volume-*.npz")
    bench.segmentation_node.GetSegmentation().GetSegment("over").SetName("changed")
    bench.changed()
    recovery.close()
    assert list(tmp_path.glob("volume-*.npz")) == [file]
    slicer.util.arrayFromVolume(bench.volume_node)[:] += 1
    slicer.util.arrayFromVolumeModified(bench.volume_node)
    bench.changed()
    recovery.close()
    (other,) = tmp_path.glob("volume-*.npz")
    assert other != file
    again, _ = restored(scenes(), tmp_path)
    assert again.segmentation_node.GetSegmentation().GetSegment("over").GetName() == "changed"
    assert np.array_equal(*map(slicer.util.arrayFromVolume, (again.volume_node, bench.volume_node)))


def test_an_empty_folder_restores_nothing(scenes, tmp_path):
    bench, found = restored(scenes(), tmp_path)
    assert not found and not bench.told and bench.volume_node is None


@pytest.mark.parametrize("name", ["workspace.json", "volume-*", "segments-*.npz", "segments-*.seg.nrrd"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_what_was_damaged_is_put_aside_and_told(scenes, tmp_path, name, damage):
    saved(a_bench(scenes, GRID), tmp_path)
    (file,) = tmp_path.glob(name)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x41
    if damage == "gone" and name != "workspace.json":
        file.unlink()
    elif damage != "gone":
        file.write_bytes(content[: len(content) // 3] if damage == "cut" else content)
    else:
        file.write_text("{}")
    bench, found = restored(scenes(), tmp_path)
    assert not found
    (error,) = bench.told
    (aside,) = tmp_path.glob("unreadable-*")
    assert str(aside) in str(error) and list(aside.iterdir())
    assert restored(scenes(), tmp_path)[1] is False  # and it is told once


def test_a_transform_that_bends_is_told_and_what_was_saved_stays(scenes, tmp_path):
    bench = a_bench(scenes, GRID)
    recovery = saved(bench, tmp_path)
    before = (tmp_path / "workspace.json").read_bytes()
    bent = bench.volume_node.GetScene().AddNewNodeByClass("vtkMRMLBSplineTransformNode", "bent")
    bent.SetAndObserveTransformToParent(slicer.vtkOrientedBSplineTransform())
    bench.volume_node.SetAndObserveTransformNodeID(bent.GetID())
    bench.changed()
    recovery.close()
    (error,) = bench.told
    assert "Harden" in str(error) and "bent" in str(error)
    assert (tmp_path / "workspace.json").read_bytes() == before


def write_into(folder, told):
    with os.fdopen(told, "w", buffering=1) as pipe:
        save_for_ever(folder, lambda number: print(number, file=pipe, flush=True))


def test_killed_at_any_moment_of_saving_the_last_state_or_the_one_before_is_there(slicer_core, scenes, tmp_path):
    moments, last = random.Random(5), 0
    for _ in range(25):
        read, write = os.pipe()
        writer = FORKED.Process(target=write_into, args=(tmp_path, write))
        writer.start()
        os.close(write)
        with os.fdopen(read) as pipe:
            first = int(pipe.readline())
            assert first == last + 1  # it went on from what was there
            time.sleep(moments.uniform(0, 0.06))
            writer.kill()
            writer.join()
            acknowledged = [first, *map(int, pipe.read().split())][-1]
        bench, found = restored(scenes(), tmp_path)
        assert found and not bench.told
        last = bench.chosen["state"]
        assert acknowledged <= last <= acknowledged + 1
        segments = bench.segmentation_node.GetSegmentation()
        assert segments.GetSegment("segment").GetName() == f"state {last}"
        shown = mrml.segmentArray(bench.segmentation_node, "segment", bench.volume_node)
        assert np.array_equal(shown, mask(last) != 0)
        assert np.array_equal(slicer.util.arrayFromVolume(bench.volume_node), mask(0))
        assert len(list(tmp_path.iterdir())) == 4  # what was half written is gone


def change(bench, number):
    """Make the segment "over" noise that does not get smaller on disk."""
    segment = bench.segmentation_node.GetSegmentation().GetSegment("over")
    segment.SetName(f"state {number}")
    noise = np.random.default_rng(number).integers(0, 2, mrml.shapeOf(bench.volume_node)).astype(np.uint8)
    paint(bench.segmentation_node, "over", noise, bench.volume_node)
    return noise


def check_full(bench, recovery, folder, scenes, full, free):
    """On a full disk: told once, what was saved stays; later: saved."""
    first = change(bench, 1)
    bench.changed()
    recovery.close()
    assert not bench.told
    with full:
        change(bench, 2)
        bench.changed()
        for _ in range(3):
            recovery.save()
            while recovery._job is not None:
                recovery.poll()
        (error,) = bench.told
        assert isinstance(error, RefSegError) and "could not be saved" in str(error) and "still here" in str(error)
        kept, found = restored(scenes(), folder)
        assert found and not kept.told
        assert np.array_equal(mrml.segmentArray(kept.segmentation_node, "over", kept.volume_node), first != 0)
    free()
    recovery.close()  # tries again by itself
    last, found = restored(scenes(), folder)
    assert found and last.segmentation_node.GetSegmentation().GetSegment("over").GetName() == "state 2"


def test_a_full_disk_says_so_and_loses_nothing(scenes, tmp_path):
    with a_small_disk(tmp_path / "disk", 200) as folder:
        bench = a_bench(scenes, GRID)
        recovery = saved(bench, folder)
        ballast = folder / "ballast"

        @contextmanager
        def full():
            with ballast.open("wb", buffering=0) as file, suppress(OSError):
                while file.write(b"x" * 512):
                    pass
            yield

        check_full(bench, recovery, folder, scenes, full(), ballast.unlink)


def test_a_file_that_cannot_grow_says_so_and_loses_nothing(scenes, tmp_path):
    bench = a_bench(scenes, GRID)
    recovery = saved(bench, tmp_path)
    check_full(bench, recovery, tmp_path, scenes, no_file_larger_than(0), lambda: None)


def test_it_saves_by_itself_a_little_after_a_change_and_not_all_the_time(scenes, tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(recovery_module.time, "monotonic", lambda: clock[0])
    bench = a_bench(scenes, GRID)
    recovery, times = Recovery(bench, tmp_path), []
    recovery.saved.connect(lambda: times.append(clock[0]))

    def settle():
        recovery.poll()
        while recovery._job is not None:
            recovery.poll()

    settle()
    assert not times  # nothing has changed
    for _ in range(5):
        bench.changed()
        settle()
    assert times == [100.0]
    clock[0] += recovery_module.EVERY_SECONDS
    settle()
    assert len(times) == 2
    clock[0] += 100
    settle()
    assert len(times) == 2


@pytest.fixture
def an_app(tmp_path):
    array = np.random.default_rng(1).integers(0, 500, (1, *GRID.shape)).astype(np.int16)
    write_image(Volume(array, GRID), tmp_path / "kept.nii.gz")
    app = RunningApp(tmp_path / "store", "--volume", str(tmp_path / "kept.nii.gz"))
    yield app
    app.end()


def until(condition, page=None):
    """Wait for something that takes seconds at most on an idle machine."""
    end = time.monotonic() + READY_MS / 1000
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1) if page is None else page.wait_for_timeout(100)


def test_a_page_finds_everything_again_after_its_process_or_all_of_it_was_killed(an_app, tmp_path, a_page):
    values = np.zeros(GRID.shape, np.uint8)
    values[3:8, 4:9, 5:11] = 1
    write_labels(LabelMap(values, GRID), tmp_path / "masks.seg.nrrd", [Label(value=1, name="liver", color=(1, 0, 0))])
    page = a_page(f"{an_app.url}/?token={an_app.token}", may_fail=True)
    wait_for_views(page)
    page.get_by_text("kept").first.wait_for(timeout=READY_MS)
    page.locator("input[type=file]").first.set_input_files(str(tmp_path / "masks.seg.nrrd"))
    show_segments(page)
    picture(page, "workspace-before-a-kill")
    state = an_app.home / "app" / "console" / "workspace.json"
    until(lambda: state.exists() and b'"liver"' in state.read_bytes(), page)

    killed = an_app.child()["pid"]
    os.kill(killed, signal.SIGKILL)
    page.wait_for_function("document.body.innerText.includes('starting')", timeout=READY_MS)
    page.get_by_text("kept").first.wait_for(timeout=READY_MS)  # it came back by itself
    show_segments(page)
    assert an_app.child()["pid"] != killed

    worker = psutil.Process(an_app.child()["pid"])
    an_app.process.kill()
    worker.wait(timeout=60)  # it notices, saves and ends
    other = RunningApp(an_app.home)
    try:
        again = a_page(f"{other.url}/?token={other.token}", may_fail=True)
        again.get_by_text("kept").first.wait_for(timeout=READY_MS)
        show_segments(again)
        wait_for_red_over_gray(again)
        picture(again, "workspace-after-a-kill")
    finally:
        other.end()
    scene = slicer.vtkMRMLScene()
    bench, found = restored(scene, state.parent)
    assert found
    (identifier,) = bench.segmentation_node.GetSegmentation().GetSegmentIDs()
    assert np.array_equal(mrml.segmentArray(bench.segmentation_node, identifier, bench.volume_node), values == 1)
    scene.Clear(1)


def show_segments(page):
    page.get_by_role("tab", name="Edit").click()
    listed = "[...document.querySelectorAll('input')].some((i) => i.value === 'liver' && i.checkVisibility())"
    page.wait_for_function(listed, timeout=READY_MS)
