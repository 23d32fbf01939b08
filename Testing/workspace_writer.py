"""Saving a workspace again and again, to be killed meanwhile."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import slicer
from BrowserWorkspaceLib.recovery import Recovery
from RefSegLib.jobs import Signal
from RefSegSlicerLib import mrml

SHAPE = (40, 48, 56)


class Bench:
    """What Recovery needs of a workspace: a scene, two nodes, and what is selected. told: what went wrong."""

    def __init__(self, scene, volume_node=None, segmentation_node=None):
        self.scene, self.volume_node, self.segmentation_node = scene, volume_node, segmentation_node
        self.changed, self.chosen, self.told = Signal(), {}, []

    def restored(self, volume_node, segmentation_node, chosen):
        """See WorkspaceApp."""
        self.volume_node, self.segmentation_node, self.chosen = volume_node, segmentation_node, chosen


def mask(number: int) -> np.ndarray:
    """What the segment of a state looks like: noise, so that no part of one can pass for another's."""
    return np.random.default_rng(number).integers(0, 2, SHAPE).astype(np.uint8)


def save_for_ever(folder: Path, tell: Callable[[int], None]) -> None:
    """Save states 1, 2, 3, ... and tell the number of each that is saved; goes on from the state in the folder."""
    scene = slicer.vtkMRMLScene()
    bench = Bench(scene)
    recovery = Recovery(bench, folder)
    recovery.failed.connect(bench.told.append)
    if not recovery.restore():
        bench.volume_node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "image")
        bench.volume_node.SetAndObserveImageData(mrml.imageData(mask(0).astype(np.int16)))
        bench.segmentation_node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "masks")
        mrml.prepareSegmentation(bench.segmentation_node, bench.volume_node)
        bench.chosen = {"state": 0}
    segmentation, grid = bench.segmentation_node.GetSegmentation(), mrml.ownGrid(bench.volume_node)
    while not bench.told:
        number = bench.chosen["state"] + 1
        bench.chosen = {"state": number}
        segmentation.RemoveAllSegments()
        segment = slicer.vtkSegment()
        segment.SetName(f"state {number}")
        segment.AddRepresentation(mrml.REPRESENTATION, mrml.orientedImage(mask(number), grid))
        segmentation.AddSegment(segment, "segment")
        bench.changed()
        recovery.close()
        tell(number)
