"""A real headless Chromium, the system's own, driven through Playwright. A test file asks for its fixtures by

pytest_plugins = ("browser",)
"""

import os
import shutil
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
SCREEN = {"width": 1440, "height": 900}
READY_MS = 120_000
# Half red over black, as masks lie that hide their image, is none.
RED_OVER_GRAY = """() => [...document.querySelectorAll("img")].some((image) => {
  if (image.naturalWidth < 100) return false;
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight).getContext("2d");
  canvas.drawImage(image, 0, 0);
  const { data } = canvas.getImageData(0, 0, image.naturalWidth, image.naturalHeight);
  let found = 0;
  for (let i = 0; i < data.length; i += 4)
    found += data[i] - data[i + 1] > 60 && data[i + 1] > 40 && Math.abs(data[i + 1] - data[i + 2]) < 20;
  return found > 500;
})"""


@pytest.fixture(scope="module")
def a_browser():
    """A Chromium for the tests of one file; they are skipped where there is none."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("Chromium is not installed: apt-get install chromium (make test does so on Debian as root)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is missing: pip install 'refseg[tests]'")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"], headless=True
        )
        yield browser
        browser.close()


@pytest.fixture
def a_page(a_browser):
    """Makes pages, each of a browser of its own as far as cookies go. The test fails if a script on one of them did
    (unless may_fail: trame's own does when its connection breaks), or if one asked anything of another machine."""
    contexts, faults = [], []

    def watched(page, origin, may_fail):
        if not may_fail:
            page.on("pageerror", lambda error: faults.append(f"{page.url}: {error}"))
        local = (origin, origin.replace("http", "ws", 1), "data:", "blob:")
        page.on("request", lambda asked: None if asked.url.startswith(local) else faults.append(f"asked {asked.url}"))

    def make(address, may_fail=False):
        context = a_browser.new_context(viewport=SCREEN, accept_downloads=True)
        contexts.append(context)
        page = context.new_page()
        watched(page, "/".join(address.split("/")[:3]), may_fail)
        page.goto(address)
        return page

    yield make
    for context in contexts:
        context.close()
    assert not faults, faults


def wait_for_views(page):
    """Until the page shows what the views have drawn."""
    page.wait_for_function(
        "[...document.querySelectorAll('img')].some((image) => image.naturalWidth > 100)", timeout=READY_MS
    )


def wait_for_red_over_gray(page):
    """Until a view shows a red mask through which its image is seen."""
    page.wait_for_function(RED_OVER_GRAY, timeout=READY_MS)


def picture(page, name):
    """The page as it is now, as a file for people."""
    root = Path(__file__).parents[1]
    folder = Path(os.environ.get("REFSEG_SCREENSHOTS", root / "out" / "screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(folder / f"{name}.png"))
