"""The mouse's tools that draw prompts in the slice views: points, lines and shapes, of the inside or of the outside."""

from InteractiveLearningSlicerLib import words
from InteractiveLearningSlicerLib.tools import POINTS, SHAPES, UNSIGNED
from RefSegSlicerLib.translation import tr as _
from trame.widgets import html
from trame.widgets.vuetify3 import VBtn, VBtnToggle
from trame_slicer.segmentation import SegmentationEffectNoTool

from BrowserWorkspaceLib.widgets import heading, row

TOOLS = {
    POINTS: ("mdi-crosshairs-gps", _("Points")),
    "scribble": ("mdi-draw", _("Scribble")),
    "lasso": ("mdi-lasso", _("Lasso")),
    "curve": ("mdi-vector-polygon", _("Border")),
    "box": ("mdi-cube-outline", _("Box")),
}
assert set(TOOLS) == {POINTS, *SHAPES}


class DrawingPart:
    """app: WorkspaceApp; do(work): does work for a control while a session is open, and tells its errors."""

    def __init__(self, app, do):
        self._app, self._state, self._workspace, self._do = app, app.state, app.workspace, do
        self._editor = app.slicer_app.segmentation_editor
        self._state.update(
            {
                "tool": "",
                "tool_tips": dict.fromkeys(TOOLS, ""),
                "draw_why": "",
                "side": "inside",
                "side_mute": False,
                "side_tips": {"inside": "", "outside": ""},
            }
        )
        self._state.change("side")(self._on_side)
        self._editor.active_effect_name_changed.connect(self._on_effect)

    def build(self):
        """Make the controls, where the page is being made."""
        heading(_("Draw in the slice views"))
        with row():
            for tool, (icon, text) in TOOLS.items():
                with html.Span(title=(f"tool_tips.{tool}",)):
                    VBtn(
                        icon=icon,
                        size="small",
                        rounded=True,
                        variant=(f"tool === '{tool}' ? 'flat' : 'tonal'",),
                        color=(f"tool === '{tool}' ? 'primary' : undefined",),
                        disabled=("!!draw_why",),
                        click=(self.take, f"['{tool}']"),
                        raw_attrs=[f":aria-pressed=\"tool === '{tool}'\""],
                        aria_label=text,
                        classes=f"refseg-tool-{tool}",
                    )
        with (
            row(),
            html.Div(title=("side_mute ? side_tips.inside : ''",)),
            VBtnToggle(v_model=("side",), mandatory=True, density="compact", disabled=("side_mute",)),
        ):
            for side, text, icon in (("inside", _("Inside"), "plus"), ("outside", _("Outside"), "minus")):
                VBtn(
                    text=text,
                    value=side,
                    prepend_icon=f"mdi-{icon}-circle",
                    size="small",
                    title=(f"side_tips.{side}",),
                    classes=f"refseg-{side}",
                )
        html.Div(_("Or paint and erase with the tools on the very left."), classes="text-caption text-medium-emphasis")

    def end(self):
        """The session is over. The next begins with inside, as people expect of a first point."""
        self._state.tool, self._state.side = "", "inside"

    def take(self, tool):
        """Draw with a tool until its button is pressed again."""

        def work():
            if self._workspace.tools.tool == tool:
                self._workspace.tools.leave()
            else:
                self._editor.deactivate_effect()
                self._app.double_clicks.forget()
                self._workspace.tools.take(tool, self._state.side == "inside")

        self._do(work)

    def update(self, locked):
        """Show the tool in hand. locked: the segment may not be changed."""
        state, tool = self._state, self._workspace.tools.tool
        unsigned = tool in UNSIGNED
        state.tool, state.side_mute = tool or "", unsigned
        state.tool_tips = {name: words.tool(name, locked) for name in TOOLS}
        state.side_tips = {side: words.side(side == "inside", unsigned) for side in ("inside", "outside")}
        state.draw_why = words.tool(POINTS, True) if locked else ""

    def _on_side(self, side, **_options):
        tools = self._workspace.tools
        if tools is not None and tools.tool is not None and tools.tool not in UNSIGNED:
            self._do(lambda: tools.take(tools.tool, side == "inside"))

    def _on_effect(self, name):
        """Somebody paints: only one tool has the mouse."""
        tools = self._workspace.tools
        if tools is not None and tools.tool is not None and name != SegmentationEffectNoTool.get_effect_name():
            self._do(tools.leave)
