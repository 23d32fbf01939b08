"""The panel of the image: how bright it is shown, and what it is."""

from RefSegSlicerLib import mrml
from RefSegSlicerLib.translation import tr as _
from trame.widgets import html
from trame.widgets.vuetify3 import VRangeSlider
from trame_slicer.core import VolumeWindowLevel

from BrowserWorkspaceLib.widgets import action, heading, row


class ImagePanel:
    """app: WorkspaceApp."""

    key, title, tip = "image", _("Image"), _("What is open, and how bright it is shown.")

    def __init__(self, app):
        self._app, self._state = app, app.state
        self._state.update(
            {"image_range": [0, 1], "image_window": [0, 1], "image_step": 1, "image_facts": [], "image_why": ""}
        )
        self._shown = None
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
            title=_("The darkest and the brightest value that are told apart. Or drag in a view with the left button."),
        )
        with row():
            action(_("Automatic"), self.automatic, "image_why", _("Show nearly all values, as when it was opened."))
            action(_("Fit views"), self.fit, "image_why", _("Show all of the image in every view."))
        heading(_("The image"))
        with html.Table(classes="text-body-2"), html.Tr(v_for="fact in image_facts", key="fact[0]"):
            html.Td("{{ fact[0] }}", classes="pr-3 text-medium-emphasis", style="vertical-align: top;")
            html.Td("{{ fact[1] }}")

    def shown(self):
        """Another volume is worked on."""
        node, state = self._app.volume_node, self._state
        low, high = VolumeWindowLevel.get_volume_scalar_range(node)
        grid = mrml.worldGrid(node)
        state.image_range = [low, high]
        state.image_step = 1 if float(low).is_integer() and high - low > 20 else (high - low) / 500 or 1
        state.image_facts = [
            [_("Name"), node.GetName()],
            [_("Voxels"), " x ".join(str(count) for count in grid.shape[::-1])],
            [_("Spacing"), " x ".join(f"{size:.3g}" for size in grid.spacing[::-1]) + " mm"],
            [_("Values"), f"{low:g} … {high:g}"],
        ]
        self._shown = None

    def automatic(self):
        """Show nearly all values."""
        node = self._app.volume_node
        VolumeWindowLevel.set_volume_node_display_min_max_range(
            node, *VolumeWindowLevel.get_volume_auto_min_max_range(node)
        )

    def fit(self):
        """Show all of the image."""
        self._app.slicer_app.display_manager.reset_views()

    def poll(self):
        """A drag in a view may have changed the window."""
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
