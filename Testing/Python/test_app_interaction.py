"""Masks are corrected in the browser workspace with all that a session can be told: a real Chromium, real services."""

import re
import time

import numpy as np
import pytest
from app_page import WAIT_MS
from browser import picture
from playwright.sync_api import expect
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.io import read_labels, write_image
from RefSegLib.volume.volume import Volume

pytest_plugins = ("browser", "app_case")
expect.set_options(timeout=WAIT_MS)
pytest.importorskip("trame_slicer", reason="the workspace is not installed: pip install 'refseg[app]'")
GRID = Grid((40, 44, 48), (1.5, 1.0, 1.0))
# Of two bodies: middle and half axes in voxels, brightness. The first is in the middle of every view.
BODIES = {1: ((20, 22, 24), (8, 9, 7), 600), 2: ((20, 22, 37), (6, 7, 5), 350)}


@pytest.fixture
def two_bodies(tmp_path):
    """An image file of two bodies in noise, and which voxels are which."""
    labels = np.zeros(GRID.shape, np.uint8)
    for value, (middle, axes, _brightness) in BODIES.items():
        apart = sum(((index - m) / a) ** 2 for index, m, a in zip(np.indices(GRID.shape), middle, axes, strict=True))
        labels[apart < 1] = value
    image = np.choose(labels, (60, 600, 350)) + np.random.default_rng(0).normal(0, 8, GRID.shape)
    path = tmp_path / "patient9.nrrd"
    write_image(Volume(image.astype(np.float32), GRID), path)
    return path, labels


class Session:
    """A person who corrects the two bodies: where to click for a voxel, and which masks there are."""

    def __init__(self, at_work, folder):
        self.at_work, self.page, self.folder = at_work, at_work.page, folder

    def place(self, view, k, j, i):
        """Fractions of a view's width and height: the whole image fits into it, and its middle is in the middle."""
        height, depth, width = np.multiply(GRID.shape, GRID.spacing)
        z, y, x = (index + 0.5 - count / 2 for index, count in zip((k, j, i), GRID.shape, strict=True))
        z *= -GRID.spacing[0]
        along, down, wide, high = {
            "axial": (x, y, width, depth),
            "coronal": (x, z, width, height),
            "sagittal": (y, z, depth, height),
        }[view]
        box = self.at_work.of_view("img", view).bounding_box()
        scale = min(box["width"] / wide, box["height"] / high)
        return 0.5 + along * scale / box["width"], 0.5 + down * scale / box["height"]

    def click(self, view, k, j, i, times=1):
        self.at_work.click(view, *self.place(view, k, j, i), times=times)

    def line(self, view, voxels):
        """Click along voxels; a double click ends it."""
        for voxel in voxels[:-1]:
            self.click(view, *voxel)
        self.click(view, *voxels[-1], times=2)

    def done(self, name):
        self.at_work.until_title("undo", f"Undo {name}")

    def masks(self):
        """The masks as they are downloaded, (k, j, i)."""
        self.at_work.tab("save")
        found = read_labels(self.at_work.save("nifti", self.folder)).array
        self.at_work.tab("correct")
        return found

    def until(self, true, seconds=60):
        """The masks, once something is true of them."""
        end = time.monotonic() + seconds
        while not true(found := self.masks()):
            assert time.monotonic() < end, self.page.locator(".refseg-notice").all_inner_texts()
        return found

    def choose(self, segment):
        self.page.locator(".refseg-segments").get_by_text(segment, exact=True).click()
        self.at_work.told(f"'{segment}'")


@pytest.fixture
def session(at_work, two_bodies, tmp_path):
    """A session with two empty segments, bright and dim."""
    path, _labels = two_bodies
    at_work.open(path)
    at_work.told("'patient9' is open.")
    at_work.tab("correct")
    at_work.press("add-segments")
    at_work.press("start")
    at_work.told("bright")
    yield Session(at_work, tmp_path)
    if at_work.page.locator(".refseg-end").is_visible():  # of a test that failed: the next one has the same workspace
        at_work.press("end")


def test_limits_clicks_in_every_plane_locked_segments_and_undo(session, two_bodies):
    at_work, page = session.at_work, session.page
    _path, truth = two_bodies
    assert at_work.title("confirm") == "Press Next slice first."
    assert at_work.title("undo") == "There is nothing to undo."

    at_work.choose("limits-plane", "axial")
    at_work.fill("limits-first", 15)
    page.keyboard.press("Enter")
    at_work.until_offset("axial", lambda mm: abs(mm - 15 * 1.5) < 0.1)
    at_work.fill("limits-last", 99)  # more than there are: the last one
    page.keyboard.press("Enter")
    at_work.until_offset("axial", lambda mm: abs(mm - 39 * 1.5) < 0.1)
    at_work.fill("limits-last", 25)
    at_work.press("limits")
    at_work.told("Now correct where the mask is wrong")
    session.done("limits")

    at_work.press("tool-points")
    session.click("coronal", 20, 22, 24)
    session.done("positive click for bright")
    first = session.masks()
    assert first[20, 22, 24] == 1 and set(np.unique(first)) == {0, 1}
    assert not first[:15].any() and not first[26:].any(), "outside of the limits"
    picture(page, "app-interaction-1-limits")

    at_work.press("outside")
    for view, voxel in (("coronal", (20, 22, 20)), ("sagittal", (22, 18, 24))):
        before = session.masks()
        assert before[voxel] == 1
        session.click(view, *voxel)
        after = session.until(lambda masks, voxel=voxel: masks[voxel] == 0)
        session.done("negative click for bright")
        assert (after == 1).sum() < (before == 1).sum()
    picture(page, "app-interaction-2-negative")
    for _ in range(2):
        at_work.press("undo")
    session.done("positive click for bright")
    assert at_work.title("redo") == "Redo negative click for bright"
    assert np.array_equal(session.masks(), first)

    page.locator(".refseg-locked input").click()
    at_work.until_title("tool-points", "locked")
    assert "locked" in at_work.title("limits")
    session.choose("dim")
    at_work.until_title("tool-points", "Click points")
    at_work.press("inside")
    at_work.press("tool-points")
    session.click("coronal", 20, 22, 24)
    at_work.told("is locked", "error")
    assert np.array_equal(session.masks(), first)
    session.click("coronal", 20, 22, 37)
    session.done("positive click for dim")
    both = session.masks()
    assert both[20, 22, 37] == 2 and np.array_equal(both == 1, first == 1), "the locked segment is as it was"
    assert ((both == 2) & (truth == 1)).sum() < 0.2 * (both == 2).sum()
    picture(page, "app-interaction-3-locked")

    session.choose("bright")
    expect(page.locator(".refseg-locked input")).to_be_checked()
    page.locator(".refseg-locked input").click()
    at_work.until_title("tool-points", "Click points")
    page.locator(".refseg-undo").focus()
    page.keyboard.press("Enter")
    session.done("positive click for bright")
    at_work.press("redo")
    session.done("positive click for dim")
    assert np.array_equal(session.masks(), both)
    at_work.press("end")
    page.locator(".refseg-start").wait_for()


def test_lines_shapes_painting_and_suggested_slices_in_every_plane(session):
    at_work, page = session.at_work, session.page
    around = [(20, 14, 18), (20, 14, 30), (20, 30, 30), (20, 30, 18)]  # of the bright body, in the axial view
    at_work.press("tool-box")
    session.click("axial", *around[0])
    session.click("axial", *around[2])
    session.done("box of bright")
    box = session.masks()
    j, i = np.argwhere(box == 1)[:, 1:].min(axis=0), np.argwhere(box == 1)[:, 1:].max(axis=0)
    assert (j >= (13, 17)).all() and (i <= (31, 31)).all()
    assert page.locator(".refseg-inside").get_attribute("title") == "A border and a box have an inside of their own."
    picture(page, "app-interaction-4-box")

    at_work.press("tool-curve")
    session.line("axial", around)
    session.done("outline of slice 20 of bright")
    curve = session.masks()
    assert (curve[20] == 1)[16:28, 20:28].all() and not (curve[20] == 1)[:10].any()
    at_work.press("tool-curve")

    at_work.press("outside")
    at_work.press("tool-lasso")
    session.line("axial", [(20, 10, 14), (20, 10, 34), (20, 19, 34), (20, 19, 14)])
    session.done("negative lasso for bright")
    lasso = session.masks()
    assert not (lasso[20] == 1)[:17].any() and (lasso[20] == 1)[22:28, 20:28].all()
    at_work.press("tool-lasso")
    at_work.press("tool-scribble")
    session.line("sagittal", [(16, 24, 24), (24, 24, 24)])
    session.done("negative scribble for bright")
    scribble = session.masks()
    assert not (scribble[17:24, 24, 24] == 1).any()
    picture(page, "app-interaction-5-shapes")
    at_work.press("tool-scribble")
    at_work.press("undo")
    session.done("negative lasso for bright")
    assert at_work.title("redo") == "Redo negative scribble for bright"
    assert np.array_equal(session.masks(), lasso)

    brush = page.locator("button:has(.mdi-brush):visible").first
    brush.click()
    expect(brush).to_have_class(re.compile("v-btn--active"))
    at_work.drag("coronal", [session.place("coronal", 30, 22, i) for i in (20, 24, 28)])
    at_work.told("painted")
    session.done("outline")
    painted = session.masks()
    assert (painted[30, 22, 20:29] == 1).all()
    eraser = page.locator("button:has(.mdi-eraser):visible").first
    eraser.click()
    expect(eraser).to_have_class(re.compile("v-btn--active"))
    at_work.drag("coronal", [session.place("coronal", 30, 22, i) for i in (20, 24)])
    erased = session.until(lambda masks: not (masks[30, 22, 20:24] == 1).any())
    assert (erased == 1).sum() < (painted == 1).sum()
    picture(page, "app-interaction-6-painted")
    at_work.press("undo")
    session.until(lambda masks: np.array_equal(masks, painted))

    for plane, spacing in (("coronal", GRID.spacing[1]), ("sagittal", GRID.spacing[2])):
        at_work.choose("plane", plane)
        at_work.press("next")
        said = at_work.told(f"{plane.capitalize()} slice")
        number = int(re.search(r"slice (\d+)", said)[1])
        at_work.until_offset(plane, lambda mm, there=number * spacing: abs(abs(mm) - there) < 0.1)
        at_work.until_title("confirm", f"The mask is right in slice {number}")
        at_work.press("confirm")
        at_work.told("Taken as an outline.")
        at_work.until_title("confirm", "Press Next slice first.")
        session.done("outline of slice")
    picture(page, "app-interaction-7-suggested")
    at_work.small_picture("app-interaction-7-small")
    at_work.press("end")
    page.locator(".refseg-start").wait_for()


def test_a_step_that_takes_long_is_canceled_and_comes_to_nothing(at_work, tmp_path):
    page, grid = at_work.page, Grid((176, 208, 208))
    apart = sum(((index - 100) / half) ** 2 for index, half in zip(np.indices(grid.shape), (90, 80, 80), strict=True))
    image = np.where(apart < 1, 180, 20) + np.random.default_rng(1).integers(0, 30, grid.shape)
    write_image(Volume(image.astype(np.uint8), grid), tmp_path / "patient11.nrrd")
    at_work.open(tmp_path / "patient11.nrrd")
    at_work.told("'patient11' is open.")
    at_work.tab("correct")
    at_work.press("add-segments")
    at_work.press("start")
    at_work.told("bright")
    session = Session(at_work, tmp_path)
    at_work.choose("limits-plane", "axial")
    at_work.press("tool-curve")
    around = [(0.3, 0.3), (0.7, 0.3), (0.7, 0.7), (0.3, 0.7)]
    for slice_, first in ((30, True), (150, False)):
        at_work.fill("limits-first", slice_)
        page.keyboard.press("Enter")
        at_work.until_offset("axial", lambda mm, slice_=slice_: abs(mm - slice_) < 0.1)
        for place in around[:-1]:
            at_work.click("axial", *place)
        at_work.click("axial", *around[-1], times=2)
        if first:
            session.done("outline of slice 30 of bright")
            one = session.masks()
    page.locator(".refseg-session-cancel").wait_for()
    picture(page, "app-interaction-8-thinking")
    at_work.press("session-cancel")
    expect(page.locator(".refseg-session-cancel")).to_be_hidden(timeout=60_000)
    assert at_work.title("undo") == "Undo outline of slice 30 of bright"
    assert np.array_equal(session.masks(), one)
    at_work.press("end")
    page.locator(".refseg-start").wait_for()
