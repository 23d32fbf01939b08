"""A person at work in the browser workspace: a real Chromium, a real launcher, its real child, the real engine service.

Bright and dim balls and a tiny model that has learnt a little of them, so that everything takes seconds.
"""

import json
import re
import time

import numpy as np
import psutil
import pytest
from app_case import a_patient_who_teaches
from app_page import WAIT_MS, AppPage
from benchmarks.tiny_learning import SPEC
from browser import picture, wait_for_views
from BrowserWorkspaceLib.opening import folder_below
from playwright.sync_api import expect
from RefSegLib.errors import BadInput
from RefSegLib.models.store import ModelStore
from RefSegLib.volume.io import read_image, read_labels
from running_app import RunningApp

pytest_plugins = ("browser", "app_case")
pytest.importorskip("trame_slicer", reason="the workspace is not installed: pip install 'refseg[app]'")


def test_a_case_is_worked_on_from_its_file_to_a_new_version(at_work, app_store, balls, tmp_path):
    known = len(ModelStore(app_store).versions(SPEC.name))
    path, _truth = balls
    at_work.open(path)
    at_work.told("'patient8' is open.")
    assert at_work.page.locator(".refseg-volume").inner_text() == "patient8"
    picture(at_work.page, "app-1-opened")

    at_work.tab("segment")
    at_work.press("segment")
    said = at_work.told("Done. Check the result before you use it.", "success")
    assert "Reflection: " in said
    assert "not estimated" in at_work.page.locator(".refseg-quality").inner_text()  # of a model that was never measured
    assert at_work.page.locator(".refseg-curve svg polyline").count() >= 1
    at_work.page.locator(".refseg-doubt input").click()
    picture(at_work.page, "app-2-segmented")
    at_work.page.locator(".refseg-doubt input").click()
    at_work.tab("save")
    found = read_labels(at_work.save("nifti", tmp_path))
    assert found.grid.same_as(read_image(path).grid)

    at_work.tab("correct")
    at_work.press("start")
    at_work.told("bright")
    at_work.press("tool-points")
    at_work.click("axial", 0.5, 0.45)
    at_work.until_title("undo", "Undo positive click for bright")
    at_work.press("outside")
    at_work.click("coronal", 0.6, 0.5)
    at_work.until_title("undo", "Undo negative click for bright")
    picture(at_work.page, "app-3-clicks")
    at_work.press("undo")
    at_work.until_title("undo", "Undo positive click for bright")
    assert at_work.title("redo") == "Redo negative click for bright"
    at_work.press("redo")
    at_work.until_title("undo", "Undo negative click for bright")
    at_work.press("next")
    at_work.told("press Slice is right if it is.")
    at_work.press("confirm")
    at_work.told("Taken as an outline.")
    at_work.until_title("undo", "Undo outline of slice")
    at_work.tab("save")
    corrected = read_labels(at_work.save("nifti", tmp_path))
    assert corrected.grid.same_as(found.grid) and (corrected.array != found.array).any()

    at_work.tab("correct")
    picture(at_work.page, "app-4-corrected")
    at_work.page.locator(".refseg-patient input").fill(a_patient_who_teaches(app_store))
    at_work.press("accept")
    at_work.told("Accepted and kept. It teaches the model or tests it, in the background.", "success")
    at_work.tab("learn")
    versions = at_work.page.locator(".refseg-versions tr")
    expect(versions).to_have_count(1 + known + 1, timeout=2 * WAIT_MS)  # with its head
    expect(versions.nth(1)).to_have_text(re.compile("refused|published|active"), timeout=WAIT_MS)
    versions.nth(1).click()
    assert at_work.page.locator(".refseg-version-details").inner_text()
    assert at_work.page.locator(".refseg-loss svg polyline").count() == 1
    picture(at_work.page, "app-5-learnt")


def test_masks_that_were_downloaded_and_opened_again_are_the_same(at_work, balls, tmp_path):
    path, _truth = balls
    at_work.open(path)
    at_work.told("'patient8' is open.")
    at_work.tab("segment")
    at_work.press("segment")
    at_work.told("Done.", "success")
    at_work.tab("save")
    numbers, slicers = at_work.save("nifti", tmp_path), at_work.save("seg", tmp_path)
    found, same = read_labels(numbers), read_labels(slicers)
    assert found.array.any() and np.array_equal(found.array, same.array) and found.grid.same_as(same.grid)
    report = at_work.save("report", tmp_path).read_text()
    assert "balls, version" in report and "bright" in report and "Not for diagnostic use" in report
    picture(at_work.page, "app-6-save")
    at_work.open(path)
    at_work.told("'patient8' is open.")
    at_work.until_title("save-seg", "There are no segments yet.")
    at_work.open(slicers)
    at_work.told("The segments of 'patient8.seg.nrrd' are open.")
    again = read_labels(at_work.save("nifti", tmp_path))
    assert np.array_equal(again.array, found.array) and again.grid.same_as(found.grid)


def test_what_cannot_be_opened_is_told_and_what_was_open_stays(at_work, balls, tmp_path):
    path, _truth = balls
    at_work.open(path)
    at_work.told("'patient8' is open.")
    letter = tmp_path / "letter.nrrd"
    letter.write_text("Dear colleague")
    at_work.open(letter)
    said = at_work.told("letter.nrrd", "error")
    assert "Traceback" not in said
    at_work.page.locator(".refseg-folder").click()
    at_work.page.locator(".refseg-folder-path input").fill("/nowhere/at/all")
    at_work.page.locator(".refseg-folder-open").click()
    at_work.told("There is no folder '/nowhere/at/all' on this computer.", "error")
    picture(at_work.page, "app-7-error")
    at_work.page.keyboard.press("Escape")
    assert at_work.page.locator(".refseg-volume").inner_text() == "patient8"
    at_work.tab("segment")
    assert at_work.title("segment-cancel") == "Nothing is running."


def test_lines_shapes_and_a_brush_are_prompts_of_the_session_and_are_undone(at_work, balls, tmp_path):
    path, _truth = balls
    at_work.open(path)
    at_work.told("'patient8' is open.")
    at_work.tab("correct")
    assert at_work.title("start").startswith("There are no segments yet.")
    at_work.press("add-segments")
    at_work.press("start")
    at_work.told("bright")
    around = [(0.4, 0.42), (0.6, 0.42), (0.6, 0.58), (0.4, 0.58)]
    for tool, places, prompt in (
        ("scribble", around[:3], "scribble"),
        ("lasso", around, "lasso"),
        ("curve", around, "outline"),
    ):
        at_work.press(f"tool-{tool}")
        for place in places[:-1]:
            at_work.click("axial", *place)
        at_work.click("axial", *places[-1], times=2)
        at_work.until_title("undo", f"Undo .*{prompt}.* bright")
        at_work.press(f"tool-{tool}")
    picture(at_work.page, "app-8-shapes")
    at_work.press("tool-box")
    at_work.click("axial", 0.3, 0.4)
    at_work.click("axial", 0.7, 0.6)
    at_work.until_title("undo", "Undo box.* bright")
    at_work.press("undo")
    at_work.until_title("redo", "Redo box.* bright")
    eraser = at_work.page.locator("button:has(.mdi-eraser):visible").first
    eraser.click()
    expect(eraser).to_have_class(re.compile("v-btn--active"))
    at_work.drag("axial", [(0.45, 0.5), (0.55, 0.5)])
    at_work.told("painted")
    at_work.until_title("undo", "Undo .*outline")
    at_work.press("end")
    at_work.page.locator(".refseg-start").wait_for()


def test_a_head_is_segmented_by_the_model_that_is_shipped_and_its_quality_told(a_page, tmp_path):
    app = RunningApp(tmp_path / "store")
    try:
        with app.signed_in() as client:
            app.until_ready(client)
        page = a_page(f"{app.url}/?token={app.token}")
        wait_for_views(page)
        person = AppPage(page)
        person.press("sample")
        person.told("'MNI152' is open.")
        person.tab("segment")
        person.press("segment")
        person.page.locator(".refseg-segment-told", has_text=re.compile("left|Waiting|,")).wait_for()
        picture(page, "app-10-head-segmenting")
        person.told("Left: ", "success")
        told = page.locator(".refseg-quality").inner_text()
        assert told.count("Dice 0.") == 4 and "probably good" in told
        page.locator(".refseg-doubt input").click()
        page.locator(".refseg-places .v-list-item").first.click()
        assert page.locator(".refseg-curve svg circle").count() >= 4
        page.wait_for_timeout(1500)
        picture(page, "app-11-head")
        person.tab("save")
        found = read_labels(person.save("nifti", tmp_path))
        assert sorted(np.unique(found.array)) == [0, 1, 2, 3, 4]
    finally:
        app.end()


def test_everything_is_there_again_after_a_reload_and_after_the_process_was_killed(an_app, a_page, balls):
    page = a_page(f"{an_app.url}/?token={an_app.token}", may_fail=True)  # its connection will break
    wait_for_views(page)
    at_work = AppPage(page)
    path, _truth = balls
    at_work.open(path)
    at_work.told("'patient8' is open.")
    at_work.click_first()
    at_work.page.reload()
    wait_for_views(at_work.page)
    at_work.until_title("undo", "Undo positive click for bright")
    assert at_work.page.locator(".refseg-volume").inner_text() == "patient8"
    until(lambda: "RefSeg.Prompts" in saved_header(an_app.home / "app" / "console"))
    old = an_app.child()["pid"]
    psutil.Process(old).kill()
    at_work.page.reload()
    until(lambda: an_app.child()["pid"] != old)
    at_work.page.goto(an_app.url)
    wait_for_views(at_work.page)
    at_work.until_title("undo", "Undo positive click for bright")
    assert at_work.page.locator(".refseg-volume").inner_text() == "patient8"
    picture(at_work.page, "app-9-again")
    at_work.tab("correct")
    at_work.press("end")


def saved_header(folder):
    """What a workspace's last save has beside the voxels: names, colors, and tags with what was said."""
    state = json.loads((folder / "workspace.json").read_text())["state"]
    return (folder / state["header_file"]).read_text(errors="replace")


def until(true, seconds=60):
    """Wait for something that other processes do."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_what_was_written_is_at_the_server_before_the_next_press_even_while_an_answer_is_outstanding(at_work):
    at_work.tab("cases")
    at_work.page.evaluate("trame.client.beginBusy()")
    at_work.fill("cases-folder", "/nowhere")
    at_work.press("list-cases")
    at_work.told("There is no folder '/nowhere'", "error")
    at_work.page.evaluate("trame.client.endBusy()")


def test_no_folder_is_none_and_not_the_one_the_server_was_started_in():
    for empty in ("", "  ", None):
        with pytest.raises(BadInput, match="Write a folder first"):
            folder_below(empty)
