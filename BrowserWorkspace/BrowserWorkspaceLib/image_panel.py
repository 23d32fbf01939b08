"""The panel of the image: how bright it is shown, and what it is."""

import numpy as np
from InteractiveLearningSlicerLib.volumes import windowOf
from RefSegLib.jobs import Job
from RefSegSlicerLib import mrml
from RefSegSlicerLib.translation import tr as _
from trame.widgets import html
from trame.widgets.vuetify3 import VRangeSlider
from trame_slicer.core import VolumeWindowLevel
from trame_slicer.segmentation import SegmentationEffectNoTool

from BrowserWorkspaceLib.widgets import action, heading, row


class ImagePanel:
    """app: WorkspaceApp."""

    key, title, tip = "image", _("Image"), _("What is open, and how bright it is shown.")

    def __init__(self, app):
        self._app, self._state = app, app.state
        self._state.update(
            {
                "image_range": [0, 1],
                "image_window": [0, 1],
                "image_step": 1,
                "image_facts": [],
                "image_why": "",
                "image_drags": False,
            }
        )
        self._shown = self._job = None
        editor = app.slicer_app.segmentation_editor
        editor.active_effect_name_changed.connect(self._on_effect)
        self._state.change("image_window")(self._on_window)
        self.update()

    def build(self):
        """Make the controls, where the page is being made."""
        html.Div(
            _("Open an image: files, a folder, or drop it on the views. It stays on the server."),
            v_if=("!volume_name",),
            classes="text-body-2 mb-2",
        )
        heading(_("Window and level"))
        VRangeSlider(
            v_model=("image_window",),
            min=("image_range[0]",),
            max=("image_range[1]",),
            step=("image_step",),
            strict=True,
            thumb_label=True,
            hide_details=True,
            density="compact",
            disabled=("!!image_why",),
            classes="refseg-window mx-2",
            title=_("The darkest and the brightest value that are told apart."),
        )
        html.Div(
            "{{ image_window[0] }} … {{ image_window[1] }}",
            v_show=("!image_why",),
            classes="text-caption text-center mb-1 refseg-window-values",
        )
        with row():
            tip = _("Show nearly all values, as when it was opened.")
            action(_("Automatic"), self.automatic, "image_why", tip, classes="refseg-automatic")
            action(
                _("Drag in views"),
                self.drag,
                "image_why",
                _("The left button in a slice view then changes them: sideways the width, up and down the level."),
                variant=("image_drags ? 'flat' : 'tonal'",),
                color=("image_drags ? 'primary' : undefined",),
                classes="refseg-window-drag",
            )
        with row():
            tip = _("Show all of the image in every view.")
            action(_("Fit views"), self.fit, "image_why", tip, classes="refseg-fit")
        heading(_("The image"))
        with html.Table(classes="text-body-2"), html.Tr(v_for="fact in image_facts", key="fact[0]"):
            html.Td("{{ fact[0] }}", classes="pr-3 text-medium-emphasis", style="vertical-align: top;")
            html.Td("{{ fact[1] }}")

    def shown(self):
        """Another volume is worked on."""
        node, state = self._app.volume_node, self._state
        grid = mrml.worldGrid(node)
        facts = state.image_facts = [
            [_("Name"), node.GetName()],
            [_("Voxels"), " x ".join(str(count) for count in grid.shape[::-1])],
            [_("Spacing"), " x ".join(f"{size:.3g}" for size in grid.spacing[::-1]) + " mm"],
        ]
        self._shown = None
        array = mrml.volumeFromNode(node).array
        self._job = Job(lambda _report, _cancelled: _range(array))  # 70 ms for 256 cubed voxels, in views' own time
        self._job.finished.connect(lambda found: self._on_range(facts, *found))

    def drag(self):
        """Let the left button change the window in slice views, until this is called again."""
        node = _interaction(self._app.scene)
        on = node.GetCurrentInteractionMode() != node.AdjustWindowLevel
        if on:  # only one tool has the mouse
            if self._app.workspace.tools is not None:
                self._app.workspace.tools.leave()
            self._app.slicer_app.segmentation_editor.deactivate_effect()
        node.SetCurrentInteractionMode(node.AdjustWindowLevel if on else node.ViewTransform)
        self._app.update()

    def automatic(self):
        """Show nearly all values."""
        node = self._app.volume_node
        window = windowOf(mrml.volumeFromNode(node).array)
        VolumeWindowLevel.set_volume_node_display_min_max_range(node, *window)

    def fit(self):
        """Show all of the image."""
        self._app.fitting.fit()

    def poll(self):
        """A drag in a view may have changed the window, and another tool may have taken the mouse."""
        if self._job is not None:
            self._job.poll()
        node = _interaction(self._app.scene)
        drags = node.GetCurrentInteractionMode() == node.AdjustWindowLevel
        if drags != self._state.image_drags:
            self._state.image_drags = drags
        if self._app.volume_node is not None:
            window = [round(value, 3) for value in VolumeWindowLevel.get_volume_display_range(self._app.volume_node)]
            if window != self._shown:
                self._shown = window
                self._state.image_window = window

    def chosen(self) -> dict:
        """What is selected here."""
        return {"window": self._shown}

    def restore(self, chosen):
        """Select what `chosen` told."""
        if chosen.get("window"):
            VolumeWindowLevel.set_volume_node_display_min_max_range(self._app.volume_node, *chosen["window"])

    def close(self):
        """Nothing is left behind."""

    def _on_window(self, image_window, **_):
        if self._app.volume_node is not None and self._shown is not None and list(image_window) != self._shown:
            self._shown = list(image_window)
            VolumeWindowLevel.set_volume_node_display_min_max_range(self._app.volume_node, *image_window)

    def update(self):
        """Enable what can succeed, and say why the rest cannot."""
        self._state.image_why = self._app.opened_reason()

    def _on_range(self, facts, low, high):
        state = self._state
        state.image_range = [low, high]
        state.image_step = 1 if float(low).is_integer() and high - low > 20 else (high - low) / 500 or 1
        state.image_facts = [*facts, [_("Values"), f"{low:g} … {high:g}"]]

    def _on_effect(self, name):
        """Somebody paints: only one tool has the mouse."""
        node = _interaction(self._app.scene)
        painting = name != SegmentationEffectNoTool.get_effect_name()
        if painting and node.GetCurrentInteractionMode() == node.AdjustWindowLevel:
            node.SetCurrentInteractionMode(node.ViewTransform)


def _interaction(scene):
    """The node that tells what the mouse does in views."""
    return scene.GetSingletonNode("Singleton", "vtkMRMLInteractionNode")


def _range(array) -> list[float]:
    """Smallest and largest of the voxels that are numbers."""
    if array.dtype.kind == "f":
        array = array[np.isfinite(array)]
    return [array.min().item(), array.max().item()] if array.size else [0, 1]
