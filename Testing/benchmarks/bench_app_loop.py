"""How long the browser workspace's views stand still while images and masks are opened and saved.

    python Testing/benchmarks/bench_app_loop.py [--rounds 3] [--out FILE]

The application of one user on trame's own server, in this process and without a page, so that no time goes into drawing
frames; a T1 head of 256 x 256 x 256 voxels (the demonstration's, on a finer grid) with four structures. A task beats
every 5 ms in the event loop; the longest time between two beats is how long a mouse move would have waited. Beside it,
because other programs may keep the machine busy: the longest time that the loop's thread itself computed between two
beats, and beats while nothing is done. What held the loop over 50 ms is named by its innermost function of ours.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE.parent), str(HERE), str(ROOT / "BrowserWorkspace")]

from bench_app import a_head, table  # noqa: E402
from BrowserWorkspaceLib import saving  # noqa: E402
from BrowserWorkspaceLib.recovery import Recovery  # noqa: E402
from BrowserWorkspaceLib.workspace_app import WorkspaceApp  # noqa: E402
from RefSegLib.models.spec import Label  # noqa: E402
from RefSegLib.volume.io import read_image, write_labels  # noqa: E402
from RefSegLib.volume.volume import LabelMap  # noqa: E402
from trame.app import get_server  # noqa: E402

BEAT_SECONDS = 0.005
DEAF = 0.05
NAMES = [Label(value=n, name=f"structure {n}", color=(1, n / 5, 0)) for n in range(1, 5)]


class Heart:
    """Beats in the event loop, and knows who kept it from beating."""

    def __init__(self):
        self.gaps, self.own, self.held = {}, {}, Counter()
        self._phase, self._last, self._computed = None, time.monotonic(), 0.0
        self._main = threading.get_ident()
        threading.Thread(target=self._watch, daemon=True).start()

    async def beat(self):
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            now, computed = time.monotonic(), time.thread_time()
            if self._phase is not None:
                self.gaps.setdefault(self._phase, []).append(1000 * (now - self._last))
                self.own.setdefault(self._phase, []).append(1000 * (computed - self._computed))
            self._last, self._computed = now, computed

    @contextmanager
    def phase(self, name):
        """What is done now."""
        self._phase = name
        yield
        self._phase = None

    def _watch(self):
        while True:
            time.sleep(0.01)
            if self._phase is not None and time.monotonic() - self._last > DEAF:
                frames = traceback.extract_stack(sys._current_frames()[self._main])
                ours = [f for f in frames if "Lib/" in f.filename and "site-packages" not in f.filename]
                named = f"{Path(ours[-1].filename).name}:{ours[-1].lineno} {ours[-1].name}" if ours else "not ours"
                inner = frames[-1]
                self.held[f"{self._phase} | {named} | {Path(inner.filename).name}:{inner.lineno} {inner.name}"] += 1


def masks_of(head: Path, path: Path) -> Path:
    """Four balls in a head, as a file of Slicer's."""
    grid = read_image(head).grid
    places = np.ogrid[tuple(slice(0, count) for count in grid.shape)]
    array = np.zeros(grid.shape, np.uint8)
    for label in NAMES:
        center = np.array(grid.shape) // 2 + np.array([(label.value - 2.5) * 40, 0, 0])
        array[sum((place - c) ** 2 for place, c in zip(places, center, strict=True)) < 18**2] = label.value
    write_labels(LabelMap(array, grid), path, NAMES)
    return path


async def until(condition, seconds=300.0):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("waited in vain")
        await asyncio.sleep(0.01)


def sent(path: Path) -> list[dict]:
    """What a page sends of a file."""
    return [{"name": path.name, "content": path.read_bytes()}]


async def work(app: WorkspaceApp, heart: Heart, folder: Path, rounds: int) -> None:
    head = a_head(folder / "head.nrrd")
    masks = masks_of(head, folder / "masks.seg.nrrd")
    recovery = Recovery(app, folder / "saved")
    (folder / "saved").mkdir()
    beating = asyncio.create_task(heart.beat())
    await asyncio.sleep(3)
    with heart.phase("nothing is done"):
        await asyncio.sleep(5)
    for _ in range(rounds):
        before = app.volume_node
        with heart.phase("an image is opened"):
            app.uploaded(sent(head))
            await until(lambda before=before: app.volume_node is not before)
            await asyncio.sleep(1)
        with heart.phase("masks are opened"):
            shown = app.segmentation_node
            app.uploaded(sent(masks))
            await until(lambda shown=shown: app.segmentation_node is not shown)
            await asyncio.sleep(1)
        for name, make in (("seg.nrrd", saving.seg), ("NIfTI", saving.nifti), ("report", saving.report)):
            with heart.phase(f"downloaded: {name}"):
                await make(app.volume_node, app.segmentation_node)
                await asyncio.sleep(0.2)
        with heart.phase("saved by itself"):
            recovery.save()
            while recovery._job is not None:
                recovery.poll()
                await asyncio.sleep(0.01)
    beating.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench-app" / "loop.json")
    options = parser.parse_args()
    heart = Heart()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = get_server("bench")
        app = WorkspaceApp(server, folder / "store", folder)

        async def run():
            try:
                await work(app, heart, folder, options.rounds)
            finally:
                await server.stop()

        tasks = []
        server.controller.on_server_ready.add(lambda **_: tasks.append(asyncio.ensure_future(run())))
        server.start(host="127.0.0.1", port=0, open_browser=False, show_connection_info=False, timeout=0)
        app.close()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"gaps_ms": heart.gaps, "own_ms": heart.own, "held": heart.held}))
    print(table(heart.gaps | {f"{name}, its own time": times for name, times in heart.own.items()}))
    for place, count in heart.held.most_common(20):
        print(count, place)
    tasks[0].result()


if __name__ == "__main__":
    main()
