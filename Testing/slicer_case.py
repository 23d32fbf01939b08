"""A session to try things on: a volume under a transform, segments, and the logic. For tests of the Slicer layer."""

import numpy as np
import pytest
import slicer
from InteractiveLearningSlicerLib import checks
from InteractiveLearningSlicerLib.session_logic import SessionLogic
from RefSegLib.volume.grid import Grid
from RefSegSlicerLib import mrml
from RefSegSlicerLib.checks import MOVE, TURN, addVolume

GRID = Grid((20, 24, 28), (1.5, 1.0, 1.0), TURN, (4.0, -9.0, 30.0))


class Case:
    """A volume with two balls, a segmentation with an empty segment for each, and the logic."""

    def __init__(self, scene, folder, grid=GRID, parent=MOVE):
        self.grid = grid
        shape = np.array(self.grid.shape)
        self.balls = [checks.ball(self.grid, shape * share, 0.22 * shape.min()) for share in (0.35, 0.65)]
        self.balls[1] &= ~self.balls[0]
        noise = np.random.default_rng(0).normal(0, 8, self.grid.shape)
        self.image = (100 + 200 * self.balls[0] + 400 * self.balls[1] + noise).astype(np.int16)
        self.volume = addVolume(scene, self.grid, self.image, parent)
        self.segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "masks")
        mrml.prepareSegmentation(self.segmentation, self.volume)
        self.scene, self.folder = scene, folder
        self.ids = [self.add(name) for name in ("bright", "dim")]
        self.logic = SessionLogic(scene)
        self.told, self.views = [], []
        self.logic.failed.connect(lambda error: self.told.append(str(error)))

    def add(self, name, mask=None):
        identifier = self.segmentation.GetSegmentation().AddEmptySegment(name, name, (0.2, 0.6, 0.4))
        if mask is not None:
            self.paint(identifier, mask)
        return identifier

    def paint(self, identifier, mask):
        """What a script does, or a stroke in the Segment Editor that touches one segment."""
        array = mask.astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(array, self.segmentation, identifier, self.volume)

    def start(self, **options):
        return self.logic.startSession(self.volume, self.segmentation, checks.deskIn(self.folder), **options)

    def world(self, index):
        return mrml.worldFromIndex(index, self.volume)

    def segment(self, identifier):
        return self.segmentation.GetSegmentation().GetSegment(identifier)

    def voxels(self, identifier):
        return mrml.segmentArray(self.segmentation, identifier, self.volume)

    def prompts(self, kind):
        return [prompt for prompt in self.logic.session.prompts() if isinstance(prompt, kind)]

    def check_node_shows_session(self):
        mask = self.logic.session.labels().array
        for identifier in self.logic.segmentIds():
            value = self.logic._annotation.labels[identifier].value
            assert np.array_equal(self.voxels(identifier), mask == value), identifier

    def view(self, matrix, name="view"):
        """A slice view with this SliceToRAS."""
        view = self.scene.AddNewNodeByClass("vtkMRMLSliceNode")
        view.SetLayoutName(name)
        view.GetSliceToRAS().DeepCopy(slicer.util.vtkMatrixFromArray(matrix))
        view.UpdateMatrices()
        self.views.append(view)
        return view

    def close(self):
        """Views are singletons: emptying the scene leaves them in it."""
        self.logic.endSession()
        for view in self.views:
            if self.scene.IsNodePresent(view):
                self.scene.RemoveNode(view)

    def slice_to_ras(self, point, axis, tilt=0.0):
        """Of a view through a point that looks along an array axis, tilted by degrees towards the next one."""
        directions = np.asarray(mrml.worldGrid(self.volume).direction) * mrml.RAS_TO_LPS
        normal, beside = directions[axis], directions[axis - 1]
        angle = np.radians(tilt)
        matrix = np.eye(4)
        matrix[:3, 2] = np.cos(angle) * normal + np.sin(angle) * beside
        matrix[:3, 0] = np.cos(angle) * beside - np.sin(angle) * normal
        matrix[:3, 1] = np.cross(matrix[:3, 2], matrix[:3, 0])
        matrix[:3, 3] = point + 3 * matrix[:3, 0]
        return matrix


@pytest.fixture
def a_case(an_empty_scene, tmp_path):
    """Two balls to segment, nothing segmented yet."""
    case = Case(an_empty_scene, tmp_path / "sessions")
    yield case
    case.close()
