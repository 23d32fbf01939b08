"""What a model found, what it learns, and worklists, in the browser workspace: real Chromium, learners, services."""

import re
import shutil

import numpy as np
import psutil
import pytest
from app_page import WAIT_MS, AppPage
from benchmarks.tiny_learning import SPEC, an_image
from browser import picture, wait_for_views
from InteractiveLearningLib.replay import ReplayStore
from InteractiveLearningLib.reviews import ReviewLog
from InteractiveLearningLib.service.patients import patient_key
from playwright.sync_api import expect
from RefSegLib.models.store import ModelStore
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.io import read_labels, write_image
from running_app import RunningApp
from running_service import RunningService

pytest_plugins = ("browser", "app_case")
expect.set_options(timeout=WAIT_MS)
pytest.importorskip("trame_slicer", reason="the workspace is not installed: pip install 'refseg[app]'")


def colored(at_work, view="axial"):
    """Which pixels of a view are no gray."""
    shown = at_work.pixels(view)
    return shown.max(axis=2) - shown.min(axis=2) > 40


def until_shown(at_work, true, seconds=60):
    """The colored pixels of the axial view, once something is true of them and the view changes no more: what is drawn
    while more is to come is coarser, and its edges have other colors."""
    last = colored(at_work)
    for _ in range(2 * seconds):
        at_work.page.wait_for_timeout(500)
        found = colored(at_work)
        if true(found) and np.array_equal(found, last):
            return found
        last = found
    picture(at_work.page, "app-failed")
    raise AssertionError(f"the view did not change as it should: {last.sum()} colored pixels")


def segment(at_work):
    at_work.tab("segment")
    at_work.press("segment")
    return at_work.told("Done. Check the result before you use it.", "success")


def nifti(at_work, folder, back):
    at_work.tab("save")
    found = read_labels(at_work.save("nifti", folder)).array
    at_work.tab(back)
    return found


def test_the_mask_before_reflection_and_suspect_places_are_shown_and_segmenting_is_canceled(at_work, balls, tmp_path):
    page = at_work.page
    at_work.open(balls[0])
    at_work.told("'patient8' is open.")
    at_work.tab("segment")
    for name in ("before", "doubt"):
        expect(page.locator(f".refseg-{name} input")).to_be_disabled()
        assert "egment" in page.locator(f"div:has(> .refseg-{name})").get_attribute("title")
    segment(at_work)
    after = until_shown(at_work, lambda found: found.sum() > 100)
    page.locator(".refseg-before input").click()
    before = until_shown(at_work, lambda found: (found != after).sum() > 200)
    picture(page, "app-reflection-1-before")
    page.locator(".refseg-before input").click()
    until_shown(at_work, lambda found: (found != after).sum() < 0.2 * (before != after).sum())

    page.locator(".refseg-doubt input").click()
    suspect = until_shown(at_work, lambda found: (found & ~after).sum() > 50) & ~after
    picture(page, "app-reflection-2-suspect")
    page.locator(".refseg-doubt input").click()
    until_shown(at_work, lambda found: (found & suspect).sum() < 0.2 * suspect.sum())
    for view in ("axial", "coronal", "sagittal"):
        at_work.of_view(".v-slider-thumb", view).focus()
        page.keyboard.press("Home")
        page.keyboard.press("Home")
    first = {view: at_work.offset(view) for view in ("axial", "coronal", "sagittal")}
    page.locator(".refseg-places .v-list-item").first.click()
    for view, mm in first.items():
        at_work.until_offset(view, lambda now, mm=mm: now != mm)

    result, quality = nifti(at_work, tmp_path, "segment"), page.locator(".refseg-quality").inner_text()
    large = tmp_path / "patient10.nrrd"
    write_image(an_image(3, Grid((48, 48, 48)))[0], large)
    at_work.open(large)
    at_work.told("'patient10' is open.")
    page.locator(".refseg-reflect input").click()  # without it: seconds
    segment(at_work)
    result, quality = nifti(at_work, tmp_path, "segment"), page.locator(".refseg-quality").inner_text()
    page.locator(".refseg-reflect input").click()  # with it: longer than anybody waits
    at_work.press("segment")
    page.locator(".refseg-segment-told").wait_for()
    expect(page.locator(".refseg-segment")).to_be_disabled()
    picture(page, "app-reflection-3-segmenting")
    at_work.press("segment-cancel")
    expect(page.locator(".refseg-segment")).to_be_enabled(timeout=10_000)
    assert at_work.title("segment-cancel") == "Nothing is running."
    assert page.locator(".refseg-quality").inner_text() == quality
    assert np.array_equal(nifti(at_work, tmp_path, "segment"), result)


def test_an_earlier_version_is_used_again_and_a_patient_forgotten(at_work, app_store, balls):
    page, store = at_work.page, ModelStore(app_store)
    active = store.active(SPEC.name)
    at_work.open(balls[0])
    at_work.told("'patient8' is open.")
    at_work.tab("learn")
    expect(page.locator(".refseg-learner")).to_have_text(re.compile("Nothing is left to learn"))
    rows = page.locator(".refseg-versions tr")
    expect(rows.filter(has_text=re.compile("active$")).locator("td").first).to_have_text(active)
    expect(rows.last).to_contain_text("added")
    judged = rows.filter(has_text=re.compile("published|refused|active")).first
    judged.click()
    assert re.search("Published|Refused", page.locator(".refseg-version-details").inner_text())
    assert page.locator(".refseg-loss svg polyline").count() == 1
    assert "before" in at_work.title("roll-back")
    picture(page, "app-learning-1-versions")
    rows.last.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".refseg-version-details")).to_contain_text("when others were compared with it")
    at_work.press("use-version")
    at_work.told("Version 1 is active now.", "success")
    at_work.until_title("use-version", "active already")
    segment(at_work)
    expect(page.locator(".panel-segment")).to_contain_text("balls, version 1")
    at_work.tab("learn")
    at_work.press("roll-back")
    at_work.told(f"Version {active} is active again.", "success")
    segment(at_work)
    expect(page.locator(".panel-segment")).to_contain_text(f"balls, version {active}")

    at_work.tab("learn")
    table = page.locator(".refseg-kept-table")
    expect(table).to_contain_text("bright")
    kept = table.inner_text()
    at_work.press("check-kept")
    at_work.told("All cases that are kept are whole.")
    assert at_work.title("forget") == "Write the name or number of the patient."
    at_work.fill("forget-patient", "p0")
    told = page.locator(".refseg-forget-told")
    at_work.press("forget")
    expect(told).to_contain_text("Press again to confirm.")
    picture(page, "app-learning-2-asked")
    at_work.fill("forget-patient", "p1")
    expect(told).to_have_count(0)  # another patient: nothing was confirmed
    at_work.fill("forget-patient", "p0")
    for _ in range(20):  # on a busy machine the second press may come too late, and asks again
        at_work.press("forget")
        page.wait_for_timeout(700)
        if "Press again" not in told.inner_text():
            break
    expect(told).to_contain_text("Removed for good: 1 case.")
    expect(table).not_to_have_text(kept)
    expect(page.locator(".refseg-forget-patient input")).to_have_value("")
    picture(page, "app-learning-3-forgotten")
    at_work.small_picture("app-learning-3-small")


@pytest.fixture
def a_folder(tmp_path):
    """Three images to be worked through."""
    folder = tmp_path / "images"
    for seed, name in enumerate(("anna_visit1", "bert", "carl")):
        write_image(an_image(seed, Grid((20, 24, 22)))[0], folder / f"{name}.nii.gz")
    return folder


def cases(page, *texts):
    """Until the list of cases is this."""
    expect(page.locator(".refseg-cases .v-list-item")).to_have_text(list(texts))


def test_a_folder_is_worked_through_and_goes_on_after_the_process_was_killed(an_app, a_page, a_folder, tmp_path):
    page = a_page(f"{an_app.url}/?token={an_app.token}", may_fail=True)  # its connection will break
    wait_for_views(page)
    at_work = AppPage(page)
    at_work.tab("cases")
    assert at_work.title("next-case") == "Write the folder of the images as this computer knows it."
    at_work.fill("cases-folder", "/nowhere")
    at_work.press("list-cases")
    at_work.told("There is no folder '/nowhere'", "error")
    at_work.fill("cases-folder", a_folder)
    page.keyboard.press("Enter")
    cases(page, "anna_visit1", "bert", "carl")
    at_work.press("next-case")
    at_work.told("'anna_visit1' is open.")
    cases(page, "anna_visit1 (open)", "bert", "carl")
    picture(page, "app-cases-1-open")

    at_work.tab("correct")
    at_work.press("add-segments")
    at_work.press("start")
    at_work.told("bright")
    at_work.tab("cases")
    at_work.press("next-case")
    at_work.told("A session is open. Accept it, or end it, first.", "error")
    at_work.tab("correct")
    at_work.press("tool-points")
    at_work.click("axial", 0.5, 0.5)
    at_work.until_title("undo", "positive click")
    expect(page.locator(".refseg-patient input")).to_have_value("anna")
    at_work.press("accept")
    at_work.told("'bert' is open.")
    at_work.tab("cases")
    cases(page, "anna_visit1 (accepted)", "bert (open)", "carl")

    segment(at_work)
    at_work.tab("cases")
    at_work.press("reject-case")
    at_work.told("'carl' is open.")
    cases(page, "anna_visit1 (accepted)", "bert (rejected)", "carl (open)")
    for _ in range(600):
        reviews = ReviewLog(an_app.home, SPEC.name).reviews()
        if reviews:
            break
        page.wait_for_timeout(100)
    assert [review.accepted for review in reviews] == [False], "the model has heard of it"

    segment(at_work)
    drawn = nifti(at_work, tmp_path, "cases")
    assert drawn.any()
    at_work.press("skip-case")
    at_work.told("That was the last case: every case has been decided.")
    page.locator(".refseg-cases .v-list-item").first.click()
    at_work.press("open-case")
    at_work.told("'anna_visit1' is open.")
    at_work.until_title("next-case", "every case has been decided")
    page.locator(".refseg-cases .v-list-item").last.dblclick()
    at_work.told("'carl' is open.")
    assert np.array_equal(nifti(at_work, tmp_path, "cases"), drawn), "what was kept nowhere else is still there"
    picture(page, "app-cases-2-decided")

    saved = an_app.home / "app" / "console" / "workspace.json"
    for _ in range(600):
        if '"open":' in saved.read_text() and "carl" in saved.read_text():
            break
        page.wait_for_timeout(100)
    page.wait_for_timeout(3000)
    old = an_app.child()["pid"]
    psutil.Process(old).kill()
    page.reload()
    for _ in range(600):
        if an_app.child()["pid"] != old:
            break
        page.wait_for_timeout(100)
    page.goto(an_app.url)
    wait_for_views(page)
    at_work.tab("cases")
    cases(page, "anna_visit1 (accepted)", "bert (rejected)", "carl (skipped, open)")


def test_the_worklist_of_a_service_gives_each_case_to_one_user(tmp_path, app_store, a_page, a_folder):
    home = tmp_path / "site"
    shutil.copytree(app_store, home, ignore=shutil.ignore_patterns("local.json", "app", "*.log", "*lock"))
    service = RunningService(home, "--worklist", str(a_folder)).start()
    app = RunningApp(home)
    try:
        with app.signed_in(service.token) as client:
            app.until_ready(client)
        page = a_page(f"{app.url}/?token={service.token}")
        wait_for_views(page)
        at_work = AppPage(page)
        at_work.tab("cases")
        cases(page, "anna_visit1", "bert", "carl")
        at_work.press("next-case")
        at_work.told("'anna_visit1' is open.")
        with service.client() as asked:
            held = asked.get("/v1/worklist").json()["cases"]
        assert [case["held"] for case in held] == [True, False, False] and held[0]["by"] == "tester"
        at_work.tab("correct")
        expect(page.locator(".refseg-patient input")).to_have_value("anna")
        at_work.tab("cases")
        at_work.press("skip-case")
        at_work.told("'bert' is open.")
        cases(page, "anna_visit1 (skipped)", "bert (open)", "carl")
        picture(page, "app-cases-3-service")
        at_work.small_picture("app-cases-3-small")

        segment(at_work)
        at_work.tab("cases")
        at_work.press("reject-case")
        at_work.told("'carl' is open.")
        at_work.click_first()
        at_work.press("accept")
        at_work.tab("cases")
        cases(page, "anna_visit1 (skipped)", "bert (rejected)", "carl (accepted, open)")
        with service.client() as asked:
            held = asked.get("/v1/worklist").json()["cases"]
        assert [(case["state"], case["held"]) for case in held] == [
            ("skipped", False),
            ("rejected", False),
            ("accepted", False),
        ]
        store = ReplayStore(home)
        assert any(case.patient == patient_key(home, "carl") for case in store.cases()), "what was accepted is kept"
        store.close()
        page.close()
    finally:
        app.end()
        service.end()
