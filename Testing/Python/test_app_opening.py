"""Images come into the browser workspace, are seen, and go out again: real drops in a real Chromium, DICOM, the window,
views that fit, a region, downloads that are voxel for voxel what the server has."""

import asyncio
import base64
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pydicom
import pytest
import slicer
import vtk
from app_page import WAIT_MS, AppPage
from browser import READY_MS, picture, wait_for_red_over_gray, wait_for_views
from BrowserWorkspaceLib import saving, segmentation_file, snapshot
from playwright.sync_api import expect
from pydicom.data import get_testdata_file
from RefSegLib.errors import BadInput
from RefSegLib.models.spec import Label
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.io import read_image, read_labels, write_image, write_labels
from RefSegLib.volume.volume import LabelMap, Volume
from RefSegSlicerLib import masks, mrml
from running_app import RunningApp

pytest_plugins = ("browser", "app_case")
pytest.importorskip("trame_slicer", reason="the workspace is not installed: pip install 'refseg[app]'")

OBLIQUE = Grid((16, 20, 18), (2.5, 0.9, 1.1), ((0, -0.6, 0.8), (0, -0.8, -0.6), (-1, 0, 0)), (-12.0, 34.0, 56.0))
DROP = """async ([files]) => {
  const data = new DataTransfer();
  for (const [name, text] of files) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    data.items.add(new File([bytes], name));
  }
  const views = document.querySelector(".refseg-views");
  for (const name of ["dragenter", "dragover", "drop"])
    views.dispatchEvent(new DragEvent(name, { dataTransfer: data, bubbles: true, cancelable: true }));
}"""


def drop(person, *paths):
    """Drop the contents of files on the views."""
    files = [(path.name, base64.b64encode(path.read_bytes()).decode()) for path in paths]
    person.page.evaluate(DROP, [files])


def drop_from_disk(person, *paths):
    """Drop files or folders on the views as a file manager does: the browser itself walks through folders."""
    x, y = person.place("axial")
    session = person.page.context.new_cdp_session(person.page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": x, "y": y, "data": data})
    session.detach()


def saved_image(app, person, name, user="console"):
    """(voxels (k, j, i), 4x4 index i, j, k to RAS) of the image of that name, as the server has saved it by itself."""
    folder = app.home / "app" / user
    for _ in range(WAIT_MS // 100):
        try:
            state = json.loads((folder / "workspace.json").read_text())["state"]
            if state["about"]["volume"]["name"] == name:
                with np.load(folder / state["volume_file"]) as stored:
                    return stored["voxels"], np.array(state["about"]["volume"]["matrix"])
        except FileNotFoundError:
            pass
        person.page.wait_for_timeout(100)
    raise AssertionError(f"{name} was not saved")


def check_saved(app, person, name, expected):
    """The server has the very voxels of a Volume, where it lies."""
    voxels, matrix = saved_image(app, person, name)
    assert np.array_equal(voxels, expected.array[0])
    assert np.allclose(matrix, expected.grid.ijk_to_ras(), atol=1e-6)


def a_ct_series(folder):
    """Seven oblique slices of a CT series, in files of another order."""
    folder.mkdir()
    row, column = np.array([0.8, 0.6, 0.0]), np.array([0.0, 0.0, -1.0])
    for n in range(7):
        slice_ = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
        slice_.PixelData = (slice_.pixel_array // 2 + 100 * n).astype(np.int16).tobytes()
        slice_.ImageOrientationPatient = [*row, *column]
        slice_.ImagePositionPatient = [float(x) for x in [10, -20, 30] + 2.5 * n * np.cross(row, column)]
        slice_.SOPInstanceUID = slice_.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{n + 1}"
        slice_.SeriesInstanceUID = "1.2.3"
        slice_.save_as(folder / f"{n * 3 % 7}.dcm")
    (folder / "notes.txt").write_text("of the technician")
    return folder


def an_image_file(path, grid=OBLIQUE):
    """A ramp with noise."""
    noise = np.random.default_rng(4).integers(0, 60, grid.shape)
    array = (np.indices(grid.shape).sum(axis=0) * 20 + noise).astype(np.int16)
    write_image(Volume(array[None], grid), path)
    return read_image(path)


def window_of(person):
    """The darkest and the brightest value, as the page shows them."""
    return [float(part) for part in person.page.locator(".refseg-window-values").inner_text().split("…")]


def test_files_and_folders_are_dropped_on_the_views(an_app, at_work, tmp_path):
    flipped = Grid((12, 14, 16), (1.5, 1.0, 1.0), ((0, 0, -1), (0, -1, 0), (-1, 0, 0)), (10.0, 20.0, -5.0))
    for name, grid in (("dropped.nrrd", OBLIQUE), ("dropped too.nii.gz", flipped)):
        expected = an_image_file(tmp_path / name, grid)
        drop(at_work, tmp_path / name)
        stem = name.split(".")[0]
        at_work.told(f"'{stem}' is open.")
        check_saved(an_app, at_work, stem, expected)

    values = np.zeros(flipped.shape, np.uint8)
    values[3:8, 4:9, 5:11], values[8:10, 4:9, 5:11] = 1, 2
    names = [Label(value=1, name="liver", color=(1, 0, 0)), Label(value=2, name="spleen", color=(0, 0, 1))]
    write_labels(LabelMap(values, flipped), tmp_path / "organs.seg.nrrd", names)
    drop(at_work, tmp_path / "organs.seg.nrrd")
    at_work.told("The segments of 'organs.seg.nrrd' are open.")
    at_work.tab("save")
    found = read_labels(at_work.save("nifti", tmp_path))
    assert np.array_equal(found.array, values) and found.grid.same_as(flipped)
    picture(at_work.page, "app-12-dropped")

    series = a_ct_series(tmp_path / "series")
    expected = read_image(series)
    drop(at_work, *sorted(series.iterdir()))
    at_work.told("'0' is open.")
    check_saved(an_app, at_work, "0", expected)
    drop_from_disk(at_work, tmp_path / "dropped.nrrd")
    at_work.told("'dropped' is open.")
    drop_from_disk(at_work, series)
    at_work.told("'0' is open.")
    check_saved(an_app, at_work, "0", expected)

    for name, content, sentence in (
        ("letter.txt", b"Dear colleague", "letter.txt"),
        ("scene.mrb", b"PK", "is a scene of Slicer"),
        ("bend.h5", b"\x89HDF", "is a transform"),
        ("cut.seg.nrrd", (tmp_path / "organs.seg.nrrd").read_bytes()[:300], "'cut.seg.nrrd' could not be read"),
        ("cut.nrrd", (tmp_path / "dropped.nrrd").read_bytes()[:3000], "cut.nrrd'"),
    ):
        (tmp_path / name).write_bytes(content)
        drop(at_work, tmp_path / name)
        said = at_work.told(sentence, "error")
        assert "Traceback" not in said and "/tmp" not in said
    drop(at_work, tmp_path / "dropped.nrrd", tmp_path / "dropped too.nii.gz")
    at_work.told("Open one image at a time.", "error")
    drop(at_work, tmp_path / "letter.txt", series / "notes.txt")
    assert "What was sent holds no DICOM images" in at_work.told("DICOM", "error")
    picture(at_work.page, "app-13-junk")
    check_saved(an_app, at_work, "0", expected)  # what was open stays


def test_a_dicom_folder_of_the_server_is_opened_where_it_lies(an_app, at_work, tmp_path, shared_data):
    study = shared_data / "dicom_mr_brain_tumor"
    for series in ("11-T1post-18670", "36468-FLAIRreg-58706"):
        at_work.page.locator(".refseg-folder").click()
        at_work.page.locator(".refseg-folder-path input").fill(str(study / series))
        at_work.page.locator(".refseg-folder-open").click()
        at_work.told(f"'{series}' is open.")
        check_saved(an_app, at_work, series, read_image(study / series))
    expect(at_work.page.locator(".refseg-folder-path")).to_be_hidden()
    picture(at_work.page, "app-14-dicom")
    crop = study / "11_HCropVolume"
    drop_from_disk(at_work, crop)
    expected = read_image(crop)
    at_work.told("'1' is open.")  # after its first file
    check_saved(an_app, at_work, "1", expected)
    at_work.page.locator(".refseg-folder").click()
    at_work.page.locator(".refseg-folder-path input").fill(str(study))
    at_work.page.locator(".refseg-folder-open").click()
    at_work.told("holds no DICOM images", "error")
    at_work.page.keyboard.press("Escape")


def test_the_window_is_dragged_in_a_view_and_set_back(at_work, tmp_path):
    complaints = []
    at_work.page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    at_work.page.reload()
    wait_for_views(at_work.page)
    assert not complaints
    an_image_file(tmp_path / "ramp.nrrd")
    at_work.open(tmp_path / "ramp.nrrd")
    at_work.told("'ramp' is open.")
    at_work.tab("image")
    values = at_work.page.locator(".refseg-window-values")
    expect(at_work.page.get_by_text("Values", exact=True)).to_be_visible()
    before = window_of(at_work)
    at_work.drag("axial", [(0.5, 0.5), (0.8, 0.5)])
    at_work.page.wait_for_timeout(500)
    assert window_of(at_work) == before  # the left button does nothing by itself
    at_work.press("window-drag")
    expect(at_work.page.locator(".refseg-window-drag.bg-primary")).to_be_visible()
    at_work.drag("axial", [(0.5, 0.5), (0.8, 0.7)])
    expect(values).not_to_have_text(" … ".join(f"{value:g}" for value in before))
    picture(at_work.page, "app-15-window")
    wider = window_of(at_work)
    assert wider[1] - wider[0] > before[1] - before[0]
    at_work.press("window-drag")
    at_work.press("automatic")
    expect(values).to_have_text(" … ".join(f"{value:g}" for value in before))


def lit(person):
    """The box (top, bottom, left, right), as fractions, of what is not black in the axial view, beside its controls."""
    pixels = person.pixels("axial")
    height, width = pixels.shape[:2]
    seen = pixels.sum(axis=2) > 60
    seen[: height // 10], seen[-height // 10 :] = False, False
    rows, columns = np.flatnonzero(seen.mean(axis=1) > 0.1), np.flatnonzero(seen.mean(axis=0) > 0.1)
    return np.array([rows[0] / height, rows[-1] / height, columns[0] / width, columns[-1] / width])


def until_lit(person, expected):
    """Until the axial view shows the image in a box."""
    for _ in range(WAIT_MS // 200):
        if np.allclose(lit(person), expected, atol=0.03):
            return
        person.page.wait_for_timeout(200)
    raise AssertionError(f"{lit(person)} is not {expected}")


# Every view shows something, and the axial one, which is the largest, an image.
ALL_DRAWN = """() => {
  const views = [...document.querySelectorAll(".refseg-views img")];
  if (views.length !== 4 || views.some((image) => image.naturalWidth < 100)) return false;
  const image = views.sort((a, b) => b.naturalHeight - a.naturalHeight)[0];
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight).getContext("2d");
  canvas.drawImage(image, 0, 0);
  const { data } = canvas.getImageData(0, 0, image.naturalWidth, image.naturalHeight);
  let lit = 0;
  for (let i = 0; i < data.length; i += 4) lit += data[i] > 40;
  return lit > 0.05 * image.naturalWidth * image.naturalHeight;
}"""
# In some view, something red lets the image through.


def test_views_show_all_of_the_image_with_its_segments_over_it_also_after_a_restart(a_page, tmp_path):
    grid = Grid((40, 50, 60), (1.0, 1.0, 1.0))
    noise = np.random.default_rng(1).integers(900, 1000, grid.shape).astype(np.int16)
    noise[0, 0, 0] = 0
    write_image(Volume(noise[None], grid), tmp_path / "block.nrrd")
    values = np.zeros(grid.shape, np.uint8)
    values[10:30, 10:40, 15:45] = 1
    write_labels(LabelMap(values, grid), tmp_path / "red.seg.nrrd", [Label(value=1, name="red", color=(1, 0, 0))])
    app = RunningApp(tmp_path / "store", "--volume", str(tmp_path / "block.nrrd"))
    try:
        with app.signed_in() as client:
            app.until_ready(client)
        page = a_page(f"{app.url}/?token={app.token}", may_fail=True)  # its connection will break
        wait_for_views(page)
        person = AppPage(page)
        expect(page.locator(".refseg-volume")).to_have_text("block")
        page.wait_for_function(ALL_DRAWN, timeout=READY_MS)
        _x, _y, width, height = page.locator(".refseg-views img").first.bounding_box().values()
        half = grid.shape[1] / grid.shape[2] * width / height / 2
        fitted = 0.5 - half, 0.5 + half, 0, 1  # it is as wide as the view
        until_lit(person, fitted)
        person.open(tmp_path / "red.seg.nrrd")
        person.told("The segments of 'red.seg.nrrd' are open.")
        wait_for_red_over_gray(page)
        picture(page, "app-16-over")
        saved_image(app, person, "block")
        old = app.child()["pid"]
        page.set_viewport_size({"width": 1100, "height": 700})
        page.set_viewport_size({"width": 1440, "height": 900})
        until_lit(person, fitted)
        psutil.Process(old).kill()
        page.goto(app.url)
        for _ in range(WAIT_MS // 200):
            if app.child()["pid"] != old:
                break
            page.wait_for_timeout(200)
        page.goto(app.url)
        wait_for_views(page)
        expect(page.locator(".refseg-volume")).to_have_text("block")
        page.wait_for_function(ALL_DRAWN, timeout=READY_MS)
        until_lit(person, fitted)
        wait_for_red_over_gray(page)
        picture(page, "app-17-restored")
    finally:
        app.end()


def test_a_region_is_looked_at_and_the_log_of_a_session_is_downloaded(at_work, balls, tmp_path):
    path, _truth = balls
    at_work.open(path)
    at_work.told("'patient8' is open.")
    at_work.tab("segment")
    at_work.choose("region", "Whole volume")
    at_work.press("segment")
    at_work.told("Done.", "success")
    at_work.tab("save")
    whole = read_labels(at_work.save("nifti", tmp_path)).array
    layers = np.flatnonzero(whole.any(axis=(1, 2)))
    first = int(layers[0] + layers[-1] + 1) // 2  # half of what was found lies before it

    at_work.tab("segment")
    at_work.page.locator(".refseg-notice .v-alert__close button").click()  # of the first
    at_work.choose("region", "A box")
    thumbs = [at_work.page.locator(f".refseg-region-{axis} .v-slider-thumb") for axis in range(3)]
    expect(thumbs[0]).to_have_count(2)
    lower = thumbs[0].first
    lower.focus()
    for _ in range(abs(step := first - int(lower.get_attribute("aria-valuenow")))):
        at_work.page.keyboard.press("ArrowRight" if step > 0 else "ArrowLeft")
    expect(lower).to_have_attribute("aria-valuenow", str(first))
    picture(at_work.page, "app-18-region")
    box = tuple(slice(*(int(thumb.get_attribute("aria-valuenow")) for thumb in found.all())) for found in thumbs)
    at_work.press("segment")
    at_work.told("Done.", "success")
    at_work.tab("save")
    inside = read_labels(at_work.save("nifti", tmp_path)).array
    outside = np.ones(inside.shape, bool)
    outside[tuple(slice(part.start, part.stop + 1) for part in box)] = False
    assert whole[outside].any() and inside.any() and not inside[outside].any()
    picture(at_work.page, "app-19-region-segmented")

    assert at_work.title("save-log") == "No session is open. Start one in Correct."
    at_work.tab("correct")
    at_work.press("start")
    at_work.told("bright")
    at_work.press("tool-points")
    at_work.click("axial", 0.5, 0.45)
    at_work.until_title("undo", "Undo positive click for bright")
    at_work.tab("save")
    log = json.loads(at_work.save("log", tmp_path).read_text())
    assert len(log) >= 2 and "click" in json.dumps(log[-1])
    picture(at_work.page, "app-20-save")
    at_work.tab("correct")
    at_work.press("end")
    at_work.page.locator(".refseg-start").wait_for()


def test_downloads_are_what_the_server_has_on_an_oblique_image(an_app, at_work, tmp_path):
    expected = an_image_file(tmp_path / "tilted.nrrd")
    at_work.open(tmp_path / "tilted.nrrd")
    at_work.told("'tilted' is open.")
    values = np.zeros(OBLIQUE.shape, np.uint8)
    values[3:9, 4:12, 5:11], values[9:12, 4:12, 5:11] = 1, 2
    names = [Label(value=1, name="liver", color=(1, 0, 0)), Label(value=2, name="spleen", color=(0, 0, 1))]
    write_labels(LabelMap(values, OBLIQUE), tmp_path / "tilted.seg.nrrd", names)
    at_work.open(tmp_path / "tilted.seg.nrrd")
    at_work.told("The segments of 'tilted.seg.nrrd' are open.")
    at_work.tab("save")
    numbers, slicers = at_work.save("nifti", tmp_path), at_work.save("seg", tmp_path)
    for found in map(read_labels, (numbers, slicers)):
        assert np.array_equal(found.array, values) and found.grid.same_as(expected.grid)
    report = at_work.save("report", tmp_path).read_text()
    assert "liver" in report and f"{6 * 8 * 6 * 2.5 * 0.9 * 1.1 / 1000:.2f} ml" in report


@pytest.fixture(scope="module")
def core():
    """Slicer's core: without it, scenes know no colors and segmentations no conversions."""
    from trame_slicer.core import SlicerApp

    return SlicerApp()


def run(coroutine):
    """What a coroutine gives; in a thread, as the browser's driver has a loop of its own in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def nodes_on(grid, scene):
    """An image on a grid, and three segments of which two overlap."""
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "image")
    volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(grid.ijk_to_ras()))
    volume.SetAndObserveImageData(mrml.imageData(np.random.default_rng(2).normal(size=grid.shape).astype(np.float32)))
    values = np.zeros(grid.shape, np.uint8)
    values[2:5, 3:8, 4:9], values[5:6, 3:8, 4:9] = 1, 2
    names = [Label(value=1, name="liver", color=(1, 0, 0)), Label(value=2, name="spleen & co", color=(0, 0, 1))]
    segmentation = masks.write(masks.crop(LabelMap(values, grid), names), volume).node
    return volume, segmentation, values


def test_nifti_has_every_voxel_at_its_place_on_every_grid(core, a_grid, tmp_path):
    core.scene.Clear()
    volume, segmentation, values = nodes_on(a_grid, core.scene)
    (tmp_path / "masks.nii.gz").write_bytes(run(saving.nifti(volume, segmentation)))
    found = read_labels(tmp_path / "masks.nii.gz")
    assert np.array_equal(found.array, values) and found.grid.same_as(a_grid)
    report = run(saving.report(volume, segmentation)).decode()
    assert "spleen &amp; co" in report and f"{3 * 5 * 5 * np.prod(a_grid.spacing) / 1000:.2f} ml" in report
    bent = core.scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "bent")
    bent.SetAndObserveTransformToParent(slicer.vtkOrientedBSplineTransform())
    for node in (volume, segmentation):
        node.SetAndObserveTransformNodeID(bent.GetID())
    for make in (saving.nifti, saving.seg, saving.report):
        with pytest.raises(BadInput, match="bends it"):
            run(make(volume, segmentation))


def test_slicers_file_is_what_slicers_own_writer_makes_and_comes_back(core, tmp_path):
    core.scene.Clear()
    volume, segmentation, _values = nodes_on(OBLIQUE, core.scene)
    over = np.zeros(OBLIQUE.shape, np.uint8)
    over[1:4, 2:6, 1:7] = 1
    segmentation.GetSegmentation().AddEmptySegment("over", "over", (0.3, 0.3, 0.3))
    segment = segmentation.GetSegmentation().GetSegment("over")
    segment.SetLabelValue(1)
    segment.AddRepresentation(mrml.REPRESENTATION, mrml.orientedImage(over, OBLIQUE))
    segment.SetTag("Some.Other", "of another module")
    file, direct = tmp_path / "ours.seg.nrrd", tmp_path / "direct.seg.nrrd"
    file.write_bytes(run(saving.seg(volume, segmentation)))
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(direct))
    assert storage.WriteData(segmentation)
    assert file.read_bytes().split(b"\n") == direct.read_bytes().split(b"\n")
    taken = segmentation_file.read(file)
    (tmp_path / "header.seg.nrrd").write_bytes(taken.header)
    again = snapshot.put_segmentation_back(core.scene, taken, tmp_path / "header.seg.nrrd", volume)
    identifiers = list(segmentation.GetSegmentation().GetSegmentIDs())
    assert list(again.GetSegmentation().GetSegmentIDs()) == identifiers
    for identifier in identifiers:
        assert np.array_equal(*(mrml.segmentArray(node, identifier, volume) for node in (segmentation, again)))
        one, other = (node.GetSegmentation().GetSegment(identifier) for node in (segmentation, again))
        assert (one.GetName(), one.GetColor()) == (other.GetName(), other.GetColor())
    tag = vtk.reference("")
    assert again.GetSegmentation().GetSegment("over").GetTag("Some.Other", tag) and tag == "of another module"
    (tmp_path / "junk.seg.nrrd").write_bytes(b"no NRRD")
    with pytest.raises(BadInput, match=r"junk\.seg\.nrrd"):
        segmentation_file.read(tmp_path / "junk.seg.nrrd")
