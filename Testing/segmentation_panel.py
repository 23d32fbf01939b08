"""What tests of the RefSeg Segmentation panel share: a store, its settings, the panel, and a runner that can wait."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import shiboken6
import slicer
from RefSegLib.errors import Cancelled
from RefSegLib.jobs import Segmented
from RefSegLib.models.spec import Label
from RefSegLib.progress import SILENT
from RefSegLib.volume.volume import LabelMap, Volume
from RefSegSlicerLib import settings as keys
from slicer_standin import application

FOLDER = Path(__file__).parents[1] / "RefSegSlicer"


@pytest.fixture(scope="module")
def a_home(tmp_path_factory):
    """A store with a tiny model of random weights that reflects, and one that cannot."""
    import torch
    from benchmarks.tiny_learning import SPEC, arrays
    from RefSegLib.models.networks import build_segmenter, build_synthesizer
    from RefSegLib.models.store import ModelStore
    from RefSegLib.reflection.settings import ReflectionSettings

    torch.manual_seed(2)
    home = tmp_path_factory.mktemp("home")
    store = ModelStore(home)
    eager = ReflectionSettings(margin=0.0).model_dump(mode="json")  # takes any other mask for better
    spec = SPEC.model_copy(update={"description": "Two balls in noise"})
    store.add(spec, arrays(build_segmenter(spec)), arrays(build_synthesizer(spec)), reflection=eager)
    plain = SPEC.model_copy(update={"name": "plain"})
    store.add(plain, arrays(build_segmenter(plain)))
    for name in ("balls", "plain"):
        store.activate(name, "1")
    return home


@pytest.fixture
def settings(a_home, tmp_path, monkeypatch):
    """The application's settings name that store."""
    monkeypatch.setattr(slicer.app, "temporaryPath", str(tmp_path))
    keys.choose(keys.STORE_KEY, a_home)
    yield slicer.app.settings()
    slicer.app.settings().clear()


@pytest.fixture
def a_panel(an_empty_scene, settings):
    """The panel, entered, with the models of the store in it."""
    widget = opened()
    yield widget
    closed(widget)


def opened():
    """Open the module as a person does."""
    widget = application.open_module("RefSegSlicer", FOLDER)
    until(lambda: widget.models.catalog is None or not widget.models.catalog.refreshing)
    return widget


def closed(widget):
    """Delete a panel now: Python would do so at any time, even while its selectors answer to the scene."""
    widget.cleanup()
    shiboken6.delete(widget.parent)


def until(true, seconds=60):
    """Let the application run until something is true."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        slicer.app.processEvents()
        time.sleep(0.01)
    assert true()


class Gate:
    """A runner that waits until it is let through, and then finds one label, with doubt at one of its corners."""

    def __init__(self, error=None, *, open=False, moved=True):
        self.open, self.error, self.moved, self.asked = threading.Event(), error, moved, []
        if open:
            self.open.set()

    def segmented(self, volume, model, *, reflect=None, roi=None, suspect=False, progress=SILENT):
        self.asked.append({"model": model, "reflect": reflect, "roi": roi})
        progress(0.4, "Looking for the region")
        while not self.open.wait(0.01):
            if progress.cancelled():
                raise Cancelled
        if self.error:
            raise self.error
        labels = LabelMap(a_mask(volume, 3), volume.grid)
        names = (Label(value=1, name="bright", color=(1, 0, 0)),)
        entry = {"labels": [{"name": "bright", "voxels": 27, "milliliters": 1.25}], "regions": []}
        report = {"model": model, "version": "7", "refseg": "0.1.0", "weights": {"segmenter.safetensors": "ab" * 32}}
        report["images"] = [entry]
        if not suspect:
            return Segmented(labels, names, report, image="cd" * 32)
        said = "Mask replaced (gamma 2): its score is 0.840, that of the first mask 0.810."
        judged = [{"name": n, "similarity": s} for n, s in (("identity", 0.81), ("gamma 2", 0.84), ("broken", None))]
        told = {"estimated_dice": {"1": 0.88}, "estimated_interval": {"1": [0.83, 0.92]}}
        told |= {"candidates": judged, "trace": [0.84, 0.85]}
        entry["regions"] = [{"side": None, "labels": {"1": "bright"}, "reflection": told, "said": said}]
        doubt = np.full(volume.grid.shape, 0.2, np.float32)
        doubt[5:7, 5:7, 5:7] = 0.8
        first = LabelMap(a_mask(volume, 4), volume.grid) if self.moved else None
        return Segmented(labels, names, report, Volume(doubt, volume.grid), first, "cd" * 32)

    def close(self):
        """Nothing to end."""


def a_mask(volume, start):
    """A cube of 27 voxels."""
    array = np.zeros(volume.grid.shape, np.uint8)
    array[(slice(start, start + 3),) * 3] = 1
    return array
