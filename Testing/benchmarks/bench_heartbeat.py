"""How long Slicer's window is deaf while both modules work: segmenting, clicking, painting, learning.

    python Testing/benchmarks/bench_heartbeat.py [--clicks 12] [--rounds 1] [--out FILE]

Both panels on the stand-in for Slicer (real MRML, real Qt, real panels), a T1 head of 256 x 256 x 256 voxels (the
demonstration's, on a finer grid), the shipped model, the real engine service in its own process. A timer of 5 ms beats
in the application's thread; the longest time between two beats is how long a mouse move would have waited. Beside it,
in the same run: beats while nothing is done. What held the thread is named by its innermost function of ours.

Slicer's own drawing of views, closed surfaces and Segment Editor are not part of it: the stand-in has none.
"""

from __future__ import annotations

import argparse
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
sys.path[:0] = [str(HERE.parent), str(ROOT / "RefSegSlicer"), str(ROOT / "InteractiveLearning")]

import slicer  # noqa: E402
from slicer_standin import application  # noqa: E402

application.start()

import qt  # noqa: E402
from InteractiveLearningLib.demo.heads import demo_heads  # noqa: E402
from InteractiveLearningLib.service.local import LocalService  # noqa: E402
from RefSegLib.models.store import ModelStore  # noqa: E402
from RefSegLib.volume.grid import Grid  # noqa: E402
from RefSegLib.volume.resample import resample_volume  # noqa: E402
from RefSegSlicerLib import mrml, settings  # noqa: E402
from RefSegSlicerLib.checks import addVolume  # noqa: E402

BEAT_MILLISECONDS = 5
DEAF = 0.05  # seconds from which on it is looked for who holds the thread
SIZE = 256


class Heart:
    """Beats in the application's thread, and knows who kept it from beating."""

    def __init__(self):
        self.gaps, self.held, self._phase = {}, Counter(), None
        self._last, self._main = time.monotonic(), threading.get_ident()
        self._timer = qt.QTimer()
        self._timer.setInterval(BEAT_MILLISECONDS)
        self._timer.connect("timeout()", self._beat)
        self._timer.start()
        threading.Thread(target=self._watch, daemon=True).start()

    @contextmanager
    def phase(self, name):
        """What is done now."""
        self._phase, self._last = name, time.monotonic()
        began = time.monotonic()
        yield
        self._beat()
        print(f"{name}: {time.monotonic() - began:.1f} s, longest {1000 * max(self.gaps[name]):.0f} ms", flush=True)
        self._phase = None

    def _beat(self):
        now = time.monotonic()
        if self._phase is not None:
            self.gaps.setdefault(self._phase, []).append(now - self._last)
        self._last = now

    def _watch(self):
        while True:
            time.sleep(0.01)
            if self._phase is not None and time.monotonic() - self._last > DEAF:
                frames = traceback.extract_stack(sys._current_frames()[self._main])
                ours = [
                    f
                    for f in frames
                    if "SlicerLib" in f.filename or f.filename.endswith(("RefSegSlicer.py", "InteractiveLearning.py"))
                ]
                inner = frames[-1]
                named = f"{Path(ours[-1].filename).name}:{ours[-1].name}" if ours else "outside of the modules"
                self.held[f"{self._phase} | {named} | {Path(inner.filename).name}:{inner.lineno} {inner.name}"] += 1

    def rows(self):
        """Per phase: beats, the longest gap and the 99th percentile in milliseconds."""
        return {
            name: {
                "beats": len(gaps),
                "longest_ms": round(1000 * max(gaps), 1),
                "p99_ms": round(1000 * float(np.percentile(gaps, 99)), 1),
            }
            for name, gaps in self.gaps.items()
        }


def until(true, seconds=600.0):
    """Let the application run until something is true."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise SystemExit("waited in vain")
        slicer.app.processEvents()
        time.sleep(0.001)


def wait(seconds):
    """Let the application run for a while."""
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() > end)


def head_node():
    """A volume node of 256 cubed voxels over the whole head."""
    volume = demo_heads()[0].volume
    grid = volume.grid
    spacing = tuple(n * s / SIZE for n, s in zip(grid.shape, grid.spacing, strict=True))
    fine = Grid((SIZE,) * 3, spacing, grid.direction, grid.origin)
    array = resample_volume(volume, fine).array[0]
    return addVolume(slicer.mrmlScene, fine, np.round(array).astype(np.int16))


def paint(segmentation, identifier, volume, indices):
    """Strokes of a person in some slices: each is the slice before, moved by a voxel."""
    mask = mrml.segmentArray(segmentation, identifier, volume)
    for index in indices:
        mask[index] = np.roll(mask[index], 1, axis=1)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), segmentation, identifier, volume)


def run(heart, clicks, home):
    """The whole script, phase by phase."""
    slicer.app.settings().setValue(settings.STORE_KEY, str(home))
    with heart.phase("nothing is done"):
        wait(3)
    segmenting = application.open_module("RefSegSlicer", ROOT / "RefSegSlicer")
    until(lambda: segmenting.ui.modelSelector.currentText)
    node = head_node()
    segmenting.ui.volumeSelector.setCurrentNode(node)
    with heart.phase("segmenting and reflecting"):
        segmenting.ui.segmentButton.click()
        until(lambda: segmenting.job is None)
    segmentation = segmenting.ui.outputSelector.currentNode()
    assert segmentation is not None, segmenting.ui.statusLabel.text
    segmenting.exit()
    panel = application.open_module("InteractiveLearning", ROOT / "InteractiveLearning")
    panel.ui.volumeSelector.setCurrentNode(node)
    panel.ui.segmentationSelector.setCurrentNode(segmentation)
    until(lambda: panel.ui.startButton.enabled)
    idle = lambda: not panel.logic.turns.busy  # noqa: E731
    with heart.phase("a session begins"):
        panel.ui.startButton.click()
        until(idle)
    assert panel.logic.session is not None, panel.ui.statusLabel.text
    first = panel.logic.activeSegment
    mask = mrml.segmentArray(segmentation, first, node)
    border = np.argwhere(mask & ~np.roll(mask, 2, axis=2))
    rng = np.random.default_rng(0)
    took = []
    with heart.phase("clicking"):
        panel.ui.pointsButton.click()
        for place in rng.permutation(border)[:clicks]:
            began = time.monotonic()
            panel.logic.clickNodes[True].AddControlPointWorld(
                *mrml.worldFromIndex(np.subtract(place, (0, 0, 2)), node), ""
            )
            wait(0.02)
            until(idle)
            took.append(time.monotonic() - began)
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    paint(segmentation, first, node, slices[:: max(1, len(slices) // 3)][:3])  # what the brush itself takes is Slicer's
    with heart.phase("what was painted in three slices enters"):
        wait(0.3)
        until(idle)
    with heart.phase("next slice, undo, redo"):
        for name in ("nextButton", "undoButton", "redoButton"):
            getattr(panel.ui, name).click()
            until(idle)
    with heart.phase("accepting"):
        panel.ui.patientEdit.text = "somebody"
        panel.ui.acceptButton.click()
        until(idle)
    assert panel.logic.session is None, panel.ui.statusLabel.text
    for name in ("learning", "replay"):
        getattr(getattr(panel, name).ui, "learning" if name == "learning" else "replay").collapsed = False
    with heart.phase("learning is watched"):
        until(panel.logic.learning.learnerRuns)
        wait(15)
    with heart.phase("segmenting while it learns"):
        segmenting.enter()
        segmenting.ui.segmentButton.click()
        wait(10)
        segmenting.ui.cancelButton.click()
        until(lambda: segmenting.job is None)
    panel.cleanup()
    segmenting.cleanup()
    return took


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clicks", type=int, default=12)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench-heartbeat" / "heartbeat.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        store = ModelStore(home)
        store.names()  # the shipped model enters the store
        service = LocalService(home)
        service.client()
        heart = Heart()
        took = run(heart, options.clicks, home)
        service.leave()
    result = {
        "phases": heart.rows(),
        "click_to_mask_ms": [round(1000 * seconds) for seconds in took],
        "held": dict(heart.held.most_common(25)),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
