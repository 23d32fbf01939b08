"""The browser workspace as a person feels it: from a click to the mask on the screen, from the wheel to the next frame.

    python Testing/benchmarks/bench_app.py [--clicks 12] [--wheels 20] [--out FILE]

A real `refseg app`, its child and the engine service in processes of their own, a real headless Chromium on the same
machine; a T1 head of 256 x 256 x 256 voxels (the demonstration's, on a finer grid), its hippocampi segmented by the
shipped model, four views on a page of 1440 x 900. Times are the browser's own: from the event of the mouse to the load
event of the image in the view. A click counts until the frame after which the mask stays as it is: the last within
the time that the panel needs to name it in its Undo button.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE.parent), str(ROOT / "BrowserWorkspace")]

from app_page import AppPage  # noqa: E402
from browser import NAMES, SCREEN, wait_for_views  # noqa: E402
from InteractiveLearningLib.demo.heads import TEMPLATES, atlas_folder  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402
from RefSegLib.volume.grid import Grid  # noqa: E402
from RefSegLib.volume.io import read_image, write_image  # noqa: E402
from RefSegLib.volume.resample import resample_volume  # noqa: E402
from RefSegLib.volume.volume import Volume  # noqa: E402
from running_app import RunningApp  # noqa: E402

SIZE = 256
AFTER_MS = 150  # what is drawn so soon after the panel has named the click still belongs to it


def a_head(path: Path) -> Path:
    """The demonstration's head on 256 cubed voxels, as a file."""
    volume = read_image(atlas_folder() / TEMPLATES["MNI152"])
    grid = volume.grid
    spacing = tuple(n * s / SIZE for n, s in zip(grid.shape, grid.spacing, strict=True))
    fine = resample_volume(volume, Grid((SIZE,) * 3, spacing, grid.direction, grid.origin))
    write_image(Volume(np.round(fine.array).astype(np.int16), fine.grid), path)
    return path


def wheels(person: AppPage, count: int) -> list[float]:
    """Milliseconds from a step of the wheel to the first new frame in the large view."""
    person.page.mouse.move(*person.place("axial"))
    person.page.wait_for_timeout(1500)
    times = []
    for number in range(count):
        with person.frames("axial") as seen:
            person.page.mouse.wheel(0, 100 if number % 2 else -100)
            person.page.wait_for_function("window.frames_.length > 0", timeout=30_000)
            person.page.wait_for_timeout(900)
        times.append(seen[0])
    return times


def clicks(person: AppPage, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds from a click to the panel naming it, and to the last frame of its mask, in the large view."""
    named, shown = [], []
    for number in range(count):
        positive = number % 2 == 0
        person.press("inside" if positive else "outside")
        # Apart from each other: a click on a point that is there already would take hold of it.
        x, y = person.place("axial", 0.3 + 0.08 * (number % 6), 0.4 + 0.06 * (number // 6))
        person.page.wait_for_timeout(1200)
        person.page.mouse.move(x, y, steps=3)
        person.page.wait_for_timeout(200)
        with person.frames("axial") as seen:
            person.page.evaluate(NAMED)
            person.page.mouse.down()
            person.page.wait_for_timeout(30)
            person.page.mouse.up()
            person.page.wait_for_function("window.named_ !== null", timeout=60_000)
            person.page.wait_for_timeout(600)
        at = person.page.evaluate("window.named_")
        named.append(at)
        frames = [time for time in seen if time <= at + AFTER_MS]
        shown.append(max([*frames, *[time for time in seen if time > at][:1]], default=at))
    return named, shown


# Every click is one more in what can be undone: the panel then renews its button's title, or draws it anew.
NAMED = """() => {
    window.named_ = null;
    const panel = document.querySelector('.refseg-undo').parentElement;
    const watched = new MutationObserver(() => {
        watched.disconnect();
        window.named_ = performance.now() - window.start_;
    });
    watched.observe(panel, { attributes: true, subtree: true, attributeFilter: ['title'] });
}"""


def table(rows) -> str:
    """Markdown: what, median, 90th percentile, longest."""
    lines = ["| | median | 90 % | longest |", "|---|---|---|---|"]
    for name, times in rows.items():
        values = np.percentile(times, (50, 90, 100))
        lines.append(f"| {name} | " + " | ".join(f"{value:.0f} ms" for value in values) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clicks", type=int, default=12)
    parser.add_argument("--wheels", type=int, default=20)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench-app" / "app.json")
    options = parser.parse_args()
    import shutil

    program = next(filter(None, map(shutil.which, NAMES)))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        app = RunningApp(Path(folder) / "store", "--volume", str(a_head(Path(folder) / "head.nrrd")))
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"], headless=True
        )
        try:
            with app.signed_in() as client:
                app.until_ready(client)
            page = browser.new_page(viewport=SCREEN)
            page.goto(f"{app.url}/?token={app.token}")
            wait_for_views(page)
            person = AppPage(page)
            person.told("'head' is open.")
            person.page.wait_for_timeout(3000)
            rows = {"wheel to frame": wheels(person, options.wheels)}
            person.tab("segment")
            person.page.locator(".refseg-reflect input").click()
            person.press("segment")
            person.told("Done.", "success")
            rows["wheel to frame, with masks"] = wheels(person, options.wheels)
            person.tab("correct")
            person.press("start")
            person.told("hippocampus")
            person.press("next")  # where the masks are
            person.told("press Slice is right if it is.")
            person.press("tool-points")
            named, shown = clicks(person, options.clicks)
            rows |= {"click to its name in the panel": named, "click to mask on the screen": shown}
        finally:
            browser.close()
            app.end()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(rows, indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
