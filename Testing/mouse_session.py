"""A session worked at with a mouse, in Slicer's own slice views, drawn off screen. A program: fails by an exception.

python Testing/mouse_session.py FOLDER      FOLDER: where pictures of the views go
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import slicer
import vtk
from InteractiveLearningLib.prompts import Box, Click, Lasso, ObliqueOutline, Outline, Scribble
from InteractiveLearningSlicerLib.checks import addCase, deskIn
from InteractiveLearningSlicerLib.session_logic import SessionLogic
from RefSegLib.volume.grid import Grid
from RefSegSlicerLib import mrml
from trame_slicer.core import SlicerApp
from trame_slicer.views import DirectViewFactory, ViewLayoutDefinition

# Axes along those of the views, so that nothing is oblique unless a view is turned.
GRID = Grid((30, 40, 44), (1.5, 1.0, 1.0), ((0, 0, 1), (0, 1, 0), (1, 0, 0)), (4.0, -9.0, 30.0))
MIDDLE = (15, 20, 22)


class Mouse:
    """A hand on one slice view."""

    def __init__(self, view, scene):
        self.view, self.node = view, scene.GetNodeByID(view.get_view_node_id())
        self.interactor = view.interactor()

    def to(self, world, *events):
        """Move to a point (world RAS) and do something there."""
        toView = vtk.vtkMatrix4x4()
        toView.DeepCopy(self.node.GetXYToRAS())
        toView.Invert()
        place = [round(v) for v in toView.MultiplyPoint([*world, 1.0])[:2]]
        for event in ("MouseMoveEvent", *events):
            self.interactor.SetEventInformation(*place)
            self.interactor.InvokeEvent(event)

    def click(self, world):
        self.to(world, "LeftButtonPressEvent", "LeftButtonReleaseEvent")

    def double_click(self, world):
        self.click(world)
        self.to(world, "LeftButtonDoubleClickEvent", "LeftButtonReleaseEvent")

    def right_click(self, world):
        self.to(world, "RightButtonPressEvent", "RightButtonReleaseEvent")

    def picture(self, path):
        self.view.render()
        window, writer = vtk.vtkWindowToImageFilter(), vtk.vtkPNGWriter()
        window.SetInput(self.view.render_window())
        writer.SetInputConnection(window.GetOutputPort())
        writer.SetFileName(str(path))
        writer.Write()


def main(folder: Path, work: Path) -> None:
    app = SlicerApp()
    slicer.mrmlScene = app.scene
    app.view_manager.register_factory(DirectViewFactory(do_render_offscreen=True))
    volume, segmentation, _ = addCase(app.scene, GRID, None)
    waiting, told = [], []
    logic = SessionLogic(app.scene, waiting.append)
    logic.failed.connect(told.append)
    middle = np.array(mrml.worldFromIndex(MIDDLE, volume))
    hands = []
    for definition in (ViewLayoutDefinition.axial_view(), ViewLayoutDefinition.sagittal_view()):
        view = app.view_manager.create_view(definition)
        view.render_window().SetSize(400, 400)
        view.set_background_volume_id(volume.GetID())
        view.fit_view_to_content()
        hands.append(Mouse(view, app.scene))
        hands[-1].node.JumpSliceByCentering(*middle)
        view.render()
    axial, sagittal = hands
    logic.startSession(volume, segmentation, deskIn(work))

    def settle():
        """As Slicer does when it has time."""
        while waiting or logic.turns.busy:
            while waiting:
                waiting.pop(0)()
            logic.turns.poll()
            time.sleep(0.005)

    settle()

    def said():
        """What the mouse has led to since the last call, once the events are over."""
        settle()
        assert not told, told
        new = logic.session.prompts()[said.count :]
        said.count += len(new)
        return new

    said.count = 0
    circle = [middle + 9 * np.array([np.cos(a), np.sin(a), 0]) for a in np.linspace(0, 6, 8)]
    beside, corner = middle + np.array([6.0, 3.0, 0.0]), np.array([12.0, 12.0, 0.0])

    logic.tools.take("points")
    axial.to(beside)
    assert not said()  # hovering is no click
    axial.click(beside)
    sagittal.click(middle)  # both views show this point: it was drawn where the mouse is
    first, second = said()
    assert isinstance(first, Click) and (first.axis, second.axis) == (0, 2)
    assert np.allclose(logic.session.grid.to_index(second.point), MIDDLE, atol=0.6)
    axial.right_click(middle)
    said()
    assert logic.tools.tool is None

    for tool, kind, points in (
        ("scribble", Scribble, circle[:3]),
        ("lasso", Lasso, circle),
        ("curve", Outline, circle),
    ):
        nodes = app.scene.GetNumberOfNodes()
        logic.tools.take(tool)
        for point in points[:-1]:
            axial.click(point)
        axial.to(points[-1])
        axial.picture(folder / f"views-{tool}.png")
        axial.double_click(points[-1])
        (prompt,) = said()
        assert isinstance(prompt, kind) and prompt.axis == 0, prompt
        assert logic.tools.tool == tool  # the next one may follow
        axial.right_click(middle)
        assert not said() and logic.tools.tool is None
        assert app.scene.GetNumberOfNodes() == nodes
    drawn = mrml.segmentArray(segmentation, "ball", volume)[MIDDLE[0]]
    assert 0.9 < drawn.sum() / (np.pi * 81) < 1.1

    logic.tools.take("box")
    axial.click(middle - corner)
    axial.click(middle + corner)
    (box,) = said()
    assert isinstance(box, Box)
    size = np.abs(np.diff(logic.session.grid.to_index(box.corners), axis=0))[0]
    assert np.allclose(size[1:], 23, atol=1.5), size  # the voxels whose centers are in it
    axial.right_click(middle)
    said()

    turn = vtk.vtkTransform()
    turn.SetMatrix(axial.node.GetSliceToRAS())
    turn.RotateX(25)
    axial.node.GetSliceToRAS().DeepCopy(turn.GetMatrix())
    axial.node.UpdateMatrices()
    matrix = slicer.util.arrayFromVTKMatrix(axial.node.GetSliceToRAS())
    logic.tools.take("curve")
    for angle in np.linspace(0, 6, 8):
        point = matrix[:3, 3] + 8 * (np.cos(angle) * matrix[:3, 0] + np.sin(angle) * matrix[:3, 1])
        axial.click(point)
    axial.picture(folder / "views-oblique.png")
    axial.double_click(point)
    (outline,) = said()
    assert isinstance(outline, ObliqueOutline)
    assert abs(outline.plane.direction[0] @ (matrix[:3, 2] * mrml.RAS_TO_LPS)) > 0.999
    axial.right_click(middle)
    said()
    axial.picture(folder / "views-done.png")
    logic.endSession()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as work:
        main(Path(sys.argv[1]), Path(work))
