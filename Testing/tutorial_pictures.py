# ruff: noqa: E402
"""The pictures of the tutorials in README.md: both panels, worked with as the tutorials say.

    python Testing/tutorial_pictures.py [--out Resources/pictures]        (make pictures)

Panels, engine service, shipped model and views are the real ones (drawn_window.py); the mouse clicks in the views. The
head is the ICBM 2009c average of many brains, which everybody may show (Resources/templates): no patient.
"""

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT / "RefSegSlicer"), str(ROOT / "InteractiveLearning")]

from drawn_window import Window  # isort: skip  # first: it says how to draw

import numpy as np
import slicer
from InteractiveLearningLib.demo.heads import TEMPLATES, atlas_folder
from InteractiveLearningLib.service.local import LocalService
from mouse_session import Mouse
from RefSegLib.models.store import ModelStore
from RefSegLib.volume.io import read_image
from RefSegSlicerLib import doubt, mrml, settings
from RefSegSlicerLib.checks import addVolume
from scipy.ndimage import binary_dilation
from slicer_standin import application

HEAD = "RefSegHead"  # as Sample Data calls the one of the tutorials
SEGMENT = "RefSeg_Left anterior hippocampus"
WIDTH = 105.0  # mm of the head that a slice view shows: both hippocampi and what is around them
CLOSE = 60.0  # one of them
WINDOW = (110.0, 58.0)  # window and level, so that white matter is not all white
FROM = (0.6, 1.0, 0.5)  # the 3D view looks from the front, the left and above
NEAR, FAR = 145.0, 430.0  # mm of the camera from what it looks at
CORNERS = 9  # clicks on a border
AHEAD = np.cos(np.radians(20))  # of a direction: what lies within 20 degrees of it


def until(true, seconds=600.0):
    """Let the application run until something is true."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise SystemExit("waited in vain")
        slicer.app.processEvents()
        time.sleep(0.002)


def wait(seconds):
    """Let the application run for a while: the panels ask what is new every 0.1 s, and strokes end after 0.2 s."""
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() > end)


class Tutorials:
    """The hands of a person. folder: where the pictures go."""

    def __init__(self, folder):
        self.folder, self.window = folder, Window()
        image = read_image(atlas_folder() / TEMPLATES["ICBM2009c"])
        self.volume = addVolume(slicer.mrmlScene, image.grid, image.array[0])
        self.volume.SetName(HEAD)
        self.volume.CreateDefaultDisplayNodes()
        display = self.volume.GetDisplayNode()
        display.AutoWindowLevelOff()
        display.SetWindowLevel(*WINDOW)
        self.segmentation = None

    def picture(self, name):
        self.window.picture(self.folder / f"{name}.png")
        print(name, flush=True)

    def segment(self):
        """RefSeg Segmentation: a first mask in five minutes."""
        window = self.window
        panel = application.open_module("RefSegSlicer", ROOT / "RefSegSlicer")
        ui = panel.ui
        window.show_panel(panel)
        window.show_volume(self.volume)
        window.show_slices_in_3d(True)
        window.look_around(self.middle(), FROM, FAR)
        until(lambda: ui.modelSelector.currentText == "hippocampus")
        ui.volumeSelector.setCurrentNode(self.volume)
        self.picture("segmentation-1-inputs")
        ui.segmentButton.click()
        until(lambda: ui.progressBar.value > 40 and "left" in ui.statusLabel.text)
        self.picture("segmentation-2-running")
        until(lambda: panel.job is None)
        self.segmentation = ui.outputSelector.currentNode()
        assert self.segmentation is not None, ui.statusLabel.text
        self.segmentation.CreateClosedSurfaceRepresentation()  # what the button Show 3D does
        window.show_slices_in_3d(False)
        self.look_at_all()
        window.look_around(self.center(*self.identifiers()), FROM, NEAR)
        window.scroll_to(ui.plotButton)
        self.picture("segmentation-3-result")
        ui.doubtBox.click()
        ui.placesList.setCurrentRow(0)
        window.zoom(CLOSE)
        self.picture("segmentation-4-doubt")
        ui.doubtBox.click()
        ui.doneSection.collapsed = False
        ui.inputs.collapsed = True
        self.look_at_all()
        window.scroll_to(ui.doneLabel)
        self.picture("segmentation-5-what-was-done")
        panel.exit()
        return panel

    def correct(self):
        """Interactive Learning: correct, accept, let it learn."""
        window = self.window
        panel = application.open_module("InteractiveLearning", ROOT / "InteractiveLearning")
        ui, logic = panel.ui, panel.logic

        def settle():
            wait(0.4)
            until(lambda: not logic.turns.busy)
            wait(0.2)

        window.show_panel(panel)
        self.look_at_all()
        ui.volumeSelector.setCurrentNode(self.volume)
        ui.segmentationSelector.setCurrentNode(self.segmentation)
        until(lambda: ui.startButton.enabled)
        self.picture("learning-1-start")
        ui.startButton.click()
        settle()
        assert logic.session is not None, ui.statusLabel.text
        window.look_at(self.center(SEGMENT), CLOSE)
        first = ui.firstSliceBox.value
        ui.firstSliceBox.value = first - 1  # to look at it
        ui.firstSliceBox.value = first
        self.picture("learning-2-limits")
        ui.limitsButton.click()
        settle()
        self.click_where_it_is_doubtful(ui, settle)
        self.picture("learning-3-points")
        ui.pointsButton.click()
        ui.nextButton.click()
        settle()
        hand, last = self.draw_border(ui)
        self.picture("learning-4-border")
        hand.double_click(last)
        settle()
        hand.right_click(last)
        settle()
        for _ in range(2):
            ui.nextButton.click()
            settle()
            ui.confirmButton.click()
            settle()
        self.picture("learning-5-quality")
        ui.acceptButton.click()
        settle()
        assert logic.session is None, ui.statusLabel.text
        learning = panel.learning.ui
        learning.learning.collapsed = False
        until(lambda: learning.learnerProgress.value > 5 and "iteration" in learning.learnerLabel.text)
        window.scroll_to()
        self.picture("learning-6-learning")
        return panel

    def click_where_it_is_doubtful(self, ui, settle):
        """A point inside, and one outside, of the segment that is spoken of, where the map of doubt is high."""
        mask = mrml.segmentArray(self.segmentation, SEGMENT, self.volume)
        taken = np.any([mrml.segmentArray(self.segmentation, s, self.volume) for s in self.identifiers()], axis=0)
        unsure = doubt.doubtArray(self.volume)
        k = round(float(np.argwhere(mask)[:, 0].mean()))
        red = Mouse(self.window.red, slicer.mrmlScene)
        ui.pointsButton.click()
        for button, where in (
            (ui.insideButton, binary_dilation(mask, iterations=2) & ~taken),
            (ui.outsideButton, mask),
        ):
            button.click()
            place = np.unravel_index(np.argmax(np.where(where[k], unsure[k], -1)), where[k].shape)
            point = mrml.worldFromIndex((k, *place), self.volume)
            red.node.JumpSlice(*point)
            self.window.red.render()
            red.click(point)
            settle()
        red.interactor.InvokeEvent("LeaveEvent")  # else the next point hovers where the mouse is

    def draw_border(self, ui):
        """Click the border of the segment, as the mask has it, in the slice that the panel asks for."""
        plane, index = re.match(r"(\w+) slice (\d+) ", ui.statusLabel.text).groups()
        view = {"Axial": self.window.red, "Coronal": self.window.green, "Sagittal": self.window.yellow}[plane]
        axis = ui.axisSelector.findText(plane.lower())
        mask = mrml.segmentArray(self.segmentation, SEGMENT, self.volume)
        places = np.argwhere(np.take(mask, int(index), axis=axis))
        beside = places - places.mean(axis=0)
        ui.curveButton.click()
        hand = Mouse(view, slicer.mrmlScene)
        for angle in np.arange(CORNERS) * 2 * np.pi / CORNERS:
            direction = np.array([np.sin(angle), np.cos(angle)])
            along = beside @ direction
            reach = along[along > AHEAD * np.linalg.norm(beside, axis=1)].max() + 0.5  # to the end of the last pixel
            place = places.mean(axis=0) + reach * direction
            point = mrml.worldFromIndex(np.insert(place, axis, int(index)), self.volume)
            hand.click(point)
        return hand, point

    def look_at_all(self):
        """Show both hippocampi, and from the side the left one."""
        self.window.look_at(self.center(*self.identifiers()), WIDTH)
        self.window.node(self.window.yellow).JumpSliceByCentering(*self.center(SEGMENT))

    def middle(self):
        """The middle of the volume, world RAS."""
        return np.array(mrml.worldFromIndex(np.array(slicer.util.arrayFromVolume(self.volume).shape) / 2, self.volume))

    def identifiers(self):
        """The segments."""
        return list(self.segmentation.GetSegmentation().GetSegmentIDs())

    def center(self, *identifiers):
        """The middle of segments, world RAS."""
        found = np.any([mrml.segmentArray(self.segmentation, s, self.volume) for s in identifiers], axis=0)
        return np.array(mrml.worldFromIndex(np.argwhere(found).mean(axis=0), self.volume))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "Resources" / "pictures")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        slicer.app.settings().setValue(settings.STORE_KEY, home)
        ModelStore(Path(home)).names()  # the shipped model enters the store
        service = LocalService(Path(home))
        service.client()
        tutorials = Tutorials(folder)
        panels = [tutorials.segment(), tutorials.correct()]
        tutorials.window.close()
        for panel in panels:
            panel.cleanup()
        service.leave()


if __name__ == "__main__":
    main()
