# ruff: noqa: E402
"""What a person sees at a screen: a module's panel at the left, Slicer's slice views and a 3D view at the right.

The panel is the real one on the stand-in for Slicer; the views are MRML's own, drawn off screen by trame-slicer from
the scene that the panel works on. Nothing else is drawn but the gaps between them.

Import this before `slicer` and `vtk`: VTK chooses how to draw when it is loaded.
"""

import os

os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")

import numpy as np
import slicer
import vtk
from slicer_standin import application

application.start()

import qt
from PIL import Image
from trame_slicer.core.view_manager import ViewManager
from trame_slicer.views import DirectViewFactory, ViewLayoutDefinition
from vtk.util.numpy_support import vtk_to_numpy

SIZE = (1280, 720)
PANEL_WIDTH = 420
GAP = 4
BACKGROUND = (38, 38, 38)
COLORS = 256  # of a picture; the views are gray with few colors
RED, GREEN, YELLOW = (getattr(ViewLayoutDefinition, f"{name}_view") for name in ("axial", "coronal", "sagittal"))


class Window:
    """Four views of the application's scene, as Slicer's layout Four-Up has them, and room for one panel."""

    def __init__(self):
        scene, logic = slicer.mrmlScene, slicer.app.applicationLogic()
        crosshair = slicer.vtkMRMLCrosshairNode()
        crosshair.SetCrosshairName("default")
        scene.AddNode(crosshair)
        logic.SetSliceLogics(vtk.vtkCollection())
        logic.SetViewLogics(vtk.vtkCollection())
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)  # the patient's right is at the left
        for kind in ("ThreeD", "Slice"):
            factory = getattr(slicer, f"vtkMRML{kind}ViewDisplayableManagerFactory").GetInstance()
            factory.SetMRMLApplicationLogic(logic)
        self._manager = ViewManager(scene, logic)
        self._manager.register_factory(DirectViewFactory(do_render_offscreen=True))
        self._size = ((SIZE[0] - PANEL_WIDTH - 2 * GAP) // 2, (SIZE[1] - GAP) // 2)
        self.red, self.threed, self.green, self.yellow = (
            self._manager.create_view(definition)
            for definition in (RED(), ViewLayoutDefinition.threed_view(), GREEN(), YELLOW())
        )
        self.slices = (self.red, self.green, self.yellow)
        for view in (*self.slices, self.threed):
            view.render_window().SetSize(*self._size)
            view.set_mapped_in_layout(True)
        for view in self.slices:
            self.node(view).SetSliceVisible(False)
        self._scroll = qt.QScrollArea()
        self._scroll.setWidgetResizable(True)
        self._scroll.setHorizontalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
        self._scroll.setFrameShape(qt.QFrame.NoFrame)
        self._scroll.resize(PANEL_WIDTH, SIZE[1])

    def node(self, view):
        """The MRML node of a view."""
        return slicer.mrmlScene.GetNodeByID(view.get_view_node_id())

    def show_panel(self, widget):
        """Put a module's panel (its widget) to the left, in the place of another."""
        self._scroll.takeWidget()
        self._scroll.setWidget(widget.parent)
        self._scroll.show()

    def show_volume(self, volume):
        """Show a volume in all slice views, whole."""
        for view in self.slices:
            view.set_background_volume_id(volume.GetID())
            view.fit_view_to_content()

    def show_slices_in_3d(self, shown):
        """What the eyes in the bars of the slice views do."""
        for view in self.slices:
            self.node(view).SetSliceVisible(shown)

    def look_at(self, point, width):
        """Center all slice views on a point (world RAS); width: of what they show, mm."""
        self.zoom(width)
        for view in self.slices:
            self.node(view).JumpSliceByCentering(*point)

    def zoom(self, width):
        """Let all slice views show so many mm, around where they are."""
        for view in self.slices:
            node = self.node(view)
            node.SetFieldOfView(width, width * self._size[1] / self._size[0], node.GetFieldOfView()[2])

    def look_around(self, point, direction, distance):
        """Let the 3D view look at a point (world RAS) from so many mm along a direction (RAS)."""
        camera = self.threed.get_camera_node()
        along = np.asarray(direction, float) / np.linalg.norm(direction)
        camera.SetFocalPoint(*point)
        camera.SetPosition(*(np.asarray(point) + distance * along))
        camera.SetViewUp(0, 0, 1)
        camera.ResetClippingRange()

    def scroll_to(self, control=None):
        """Scroll the panel as far as it takes to see a control at its lower end; without one, to its top."""
        self._settle()
        bar = self._scroll.verticalScrollBar()
        if control is None:
            bar.setValue(0)
        else:
            lower = control.mapTo(self._scroll.widget(), qt.QPoint(0, 0)).y() + control.height + 12
            bar.setValue(max(0, lower - SIZE[1]))
        slicer.app.processEvents()

    def picture(self, path):
        """Write what is seen, as a PNG of few colors."""
        self._settle()
        image = Image.new("RGB", SIZE, BACKGROUND)
        image.paste(_pixels_of_widget(self._scroll), (0, 0))
        left, top = PANEL_WIDTH + GAP, self._size[1] + GAP
        right = left + self._size[0] + GAP
        places = ((left, 0), (right, 0), (left, top), (right, top))
        for view, place in zip((self.red, self.threed, self.green, self.yellow), places, strict=True):
            image.paste(_pixels_of_view(view), place)
        image.quantize(COLORS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(path, optimize=True)

    def close(self):
        """Leave the panels to their modules."""
        self._scroll.takeWidget()
        for view in (*self.slices, self.threed):
            view.finalize()

    def _settle(self):
        for _ in range(4):  # what was hidden, and words that are wrapped, know their height some events later
            slicer.app.processEvents()


def _pixels_of_widget(widget):
    picture = widget.grab().toImage().convertToFormat(qt.QImage.Format_RGB888)
    rows = np.frombuffer(picture.constBits(), np.uint8).reshape(picture.height(), picture.bytesPerLine())
    return Image.fromarray(rows[:, : 3 * picture.width()].reshape(picture.height(), picture.width(), 3).copy())


def _pixels_of_view(view):
    view.render()
    grabber = vtk.vtkWindowToImageFilter()
    grabber.SetInput(view.render_window())
    grabber.ReadFrontBufferOff()
    grabber.Update()
    image = grabber.GetOutput()
    width, height, _ = image.GetDimensions()
    values = vtk_to_numpy(image.GetPointData().GetScalars())
    return Image.fromarray(np.ascontiguousarray(values.reshape(height, width, -1)[::-1, :, :3]))
