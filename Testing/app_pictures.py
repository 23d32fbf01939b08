"""The pictures of the browser workspace in the README: a person at work in a real Chromium, with the shipped model on
the demonstration's head. `make pictures`.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from app_page import AppPage
from browser import NAMES, READY_MS, SCREEN, wait_for_views
from PIL import Image
from playwright.sync_api import sync_playwright
from running_app import RunningApp

FOLDER = Path(__file__).parents[1] / "Resources" / "pictures"
LONG_MS = 300_000
# In the axial view, whose right is the patient's left: fractions of its width and height.
INSIDE, OUTSIDE = (0.715, 0.465), (0.765, 0.505)


def picture(page, name):
    """What the page shows, as a PNG."""
    page.wait_for_timeout(1500)  # views draw finely once nothing moves
    with tempfile.TemporaryDirectory() as folder:
        page.screenshot(path=f"{folder}/page.png")
        # All colors: with 256 the points lose theirs, or the head gets steps.
        Image.open(f"{folder}/page.png").convert("RGB").save(FOLDER / f"{name}.png", optimize=True)


def work(page):
    """The tutorial, step by step."""
    at_work = AppPage(page)
    page.set_default_timeout(LONG_MS)
    page.locator(".refseg-sample").click()
    at_work.told("is open.")
    at_work.tab("segment")
    at_work.press("segment")
    at_work.told("Done. Check the result before you use it.", "success")
    page.locator(".refseg-doubt input").click()
    page.wait_for_timeout(3000)
    page.get_by_text("ml, doubt").first.click()
    page.wait_for_timeout(3000)
    picture(page, "app-1-segmented")
    page.locator(".refseg-doubt input").click()
    at_work.tab("correct")
    at_work.press("start")
    at_work.told("press Use limits")
    at_work.press("tool-points")
    at_work.click("axial", *INSIDE)
    at_work.until_title("undo", "Undo positive click")
    at_work.press("outside")
    at_work.click("axial", *OUTSIDE)
    at_work.until_title("undo", "Undo negative click")
    at_work.press("tool-points")
    at_work.press("next")
    at_work.told("press Slice is right if it is.")
    picture(page, "app-2-corrected")
    at_work.press("accept")
    at_work.told("Accepted and kept. It teaches the model or tests it, in the background.", "success")
    at_work.tab("learn")
    picture(page, "app-3-learning")


def main():
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        sys.exit("Chromium is not installed: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        app = RunningApp(Path(folder) / "home")
        try:
            with app.signed_in() as client:
                app.until_ready(client)
            browser = playwright.chromium.launch(
                executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"]
            )
            page = browser.new_page(viewport=SCREEN)
            page.goto(f"{app.url}/?token={app.token}", timeout=READY_MS)
            wait_for_views(page)
            work(page)
            browser.close()
        finally:
            app.end()


if __name__ == "__main__":
    main()
