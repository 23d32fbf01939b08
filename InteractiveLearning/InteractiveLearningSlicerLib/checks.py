"""Checks of clicks and masks that run both inside Slicer (self test) and in the project's own tests.

Each takes an empty scene; it fails by AssertionError.
"""

import tempfile

import numpy as np
import slicer
from RefSegLib.volume.grid import Grid
from RefSegSlicerLib import mrml
from RefSegSlicerLib.checks import MOVE, TURN, addVolume

from InteractiveLearningSlicerLib.session_logic import SessionLogic

GRID = Grid((14, 16, 18), (1.5, 1.0, 1.0), TURN, (4.0, -9.0, 30.0))


def ball(grid, center, radius):
    """Voxels within a radius (in voxels) of a center."""
    offsets = np.indices(grid.shape) - np.reshape(center, (3, 1, 1, 1))
    return (offsets**2).sum(axis=0) <= radius**2


def addCase(scene, grid=GRID, parent=MOVE):
    """A volume with a bright ball in it, and a segmentation with the empty segments "ball" and "rest"."""
    inside = ball(grid, np.array(grid.shape) / 2, 0.25 * min(grid.shape))
    noise = np.random.default_rng(0).normal(0, 8, grid.shape)
    volume = addVolume(scene, grid, (100 + 300 * inside + noise).astype(np.int16), parent)
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "masks")
    mrml.prepareSegmentation(segmentation, volume)
    for name in ("ball", "rest"):
        segmentation.GetSegmentation().AddEmptySegment(name, name)
    return volume, segmentation, inside


def deskIn(folder):
    """Where sessions are without a service."""
    from InteractiveLearningLib.desk import FolderDesk

    return FolderDesk(folder)


def checkClicksLandOnTheirVoxels(scene, grid=GRID, parent=MOVE):
    """A point set down in world space becomes a click on its voxel, and the mask holds that voxel."""
    volume, segmentation, inside = addCase(scene, grid, parent)
    logic = SessionLogic(scene)
    index = tuple(np.argwhere(inside)[inside.sum() // 2].tolist())
    with tempfile.TemporaryDirectory() as folder:
        logic.startSession(volume, segmentation, deskIn(folder))
        try:
            logic.clickNodes[True].AddControlPointWorld(*mrml.worldFromIndex(index, volume), "")
            (click,) = logic.session.prompts()
            assert np.allclose(mrml.worldGrid(volume).to_index(click.point), index, atol=1e-4)
            mask = logic.session.labels().array == 1
            assert mask[index]
            assert np.array_equal(mrml.segmentArray(segmentation, "ball", volume), mask)
            assert not mrml.segmentArray(segmentation, "rest", volume).any()
        finally:
            logic.endSession()


def checkNeighborsAndUndo(scene, grid=GRID, parent=MOVE):
    """A segment that is not of the session keeps every voxel under clicks, and undo brings back what was."""
    volume, segmentation, inside = addCase(scene, grid, parent)
    logic = SessionLogic(scene)
    index = tuple(np.argwhere(inside)[inside.sum() // 2].tolist())
    with tempfile.TemporaryDirectory() as folder:
        logic.startSession(volume, segmentation, deskIn(folder))
        try:
            mine = segmentation.GetSegmentation().AddEmptySegment("mine", "mine")
            array = inside.astype(np.uint8)
            slicer.util.updateSegmentBinaryLabelmapFromArray(array, segmentation, mine, volume)
            for step, positive in ((logic.click, True), (logic.click, False)):
                step(mrml.worldFromIndex(index, volume), positive)
                assert np.array_equal(mrml.segmentArray(segmentation, mine, volume), inside)
            logic.undo()
            logic.undo()
            assert not mrml.segmentArray(segmentation, "ball", volume).any()
        finally:
            logic.endSession()


def checkPaintingAndReopening(scene, grid=GRID, parent=MOVE):
    """Painted slices become outlines by themselves; a session that begins later knows them, and no voxel changes."""
    volume, segmentation, inside = addCase(scene, grid, parent)
    logic, drawn = SessionLogic(scene), np.zeros_like(inside)
    middle = grid.shape[0] // 2
    drawn[[middle - 1, middle + 1]] = inside[[middle - 1, middle + 1]]
    with tempfile.TemporaryDirectory() as folder:
        logic.startSession(volume, segmentation, deskIn(folder))
        try:
            slicer.util.updateSegmentBinaryLabelmapFromArray(drawn.astype(np.uint8), segmentation, "ball", volume)
            assert logic.takeEdits() == 2
            mask = mrml.segmentArray(segmentation, "ball", volume)
            assert (
                np.array_equal(mask[[middle - 1, middle + 1]], drawn[[middle - 1, middle + 1]]) and mask[middle].any()
            )
            logic.endSession()
            logic.startSession(volume, segmentation, deskIn(folder))
            assert np.array_equal(mrml.segmentArray(segmentation, "ball", volume), mask)
            assert [outline.index for outline in logic.session.earlier] == [middle - 1, middle + 1]
        finally:
            logic.endSession()


CHECKS = (checkClicksLandOnTheirVoxels, checkNeighborsAndUndo, checkPaintingAndReopening)
