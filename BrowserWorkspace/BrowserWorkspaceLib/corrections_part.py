"""What a session is told with: segments, limits, the mouse's tools, the next slice, undo and redo."""

from InteractiveLearningSlicerLib import words
from InteractiveLearningSlicerLib.tools import POINTS, SHAPES, UNSIGNED
from RefSegSlicerLib.translation import tr as _
from trame.widgets import html
from trame.widgets.vuetify3 import Template, VBtn, VBtnToggle, VRadio, VRadioGroup, VSelect, VSwitch, VTextField
from trame_slicer.segmentation import SegmentationEffectNoTool

from BrowserWorkspaceLib.widgets import action, heading, quoted, row

TOOLS = {
    POINTS: ("mdi-crosshairs-gps", _("Points")),
    "scribble": ("mdi-draw", _("Scribble")),
    "lasso": ("mdi-lasso", _("Lasso")),
    "curve": ("mdi-vector-polygon", _("Border")),
    "box": ("mdi-cube-outline", _("Box")),
}
PLANES = "planes.map((title, value) => ({ title, value }))"
assert set(TOOLS) == {POINTS, *SHAPES}


class CorrectionsPart:
    """app: WorkspaceApp."""

    def __init__(self, app):
        self._app, self._state, self._workspace = app, app.state, app.workspace
        self._suggestion = None
        self._editor = app.slicer_app.segmentation_editor
        self._state.update(
            {
                "segments": [],
                "active_segment": None,
                "locked": False,
                "tool": "",
                "tool_tips": dict.fromkeys(TOOLS, ""),
                "side": "inside",
                "side_mute": False,
                "planes": [],
                "plane": -1,
                "limits_axis": 0,
                "limits_first": 0,
                "limits_last": 0,
                "limits_max": 0,
                "correct_why": {},
                "undo_title": "",
                "redo_title": "",
                "estimate": "",
            }
        )
        for name, action_ in (
            ("active_segment", self._on_segment),
            ("locked", self._on_locked),
            ("side", self._on_side),
            ("limits_axis", self._on_axis),
        ):
            self._state.change(name)(action_)
        self._editor.active_effect_name_changed.connect(self._on_effect)
        self._editor.active_segment_id_changed.connect(self._on_editor_segment)

    def build(self):
        """Make the controls, where the page is being made."""
        with (
            VRadioGroup(v_model=("active_segment",), density="compact", hide_details=True, classes="refseg-segments"),
            VRadio(v_for="segment in segments", key="segment.id", value=("segment.id",), color=("segment.color",)),
            Template(v_slot_label=True),
        ):
            html.Span("&#9632;", style=("`color: ${segment.color}; margin-right: 6px;`",))
            html.Span("{{ segment.name }}", classes="text-body-2")
        VSwitch(
            v_model=("locked",),
            label=_("Locked"),
            density="compact",
            hide_details=True,
            color="primary",
            title=_("No correction of another segment may change this one."),
            classes="refseg-locked",
        )
        html.Div("{{ estimate }}", classes="text-caption refseg-estimate")
        heading(_("Where it begins and ends"))
        with row():
            VSelect(
                v_model=("limits_axis",),
                items=(PLANES,),
                density="compact",
                hide_details=True,
                label=_("Plane"),
                style="min-width: 132px;",
            )
            for name, text in (("limits_first", _("First")), ("limits_last", _("Last"))):
                VTextField(
                    v_model_number=(name,),
                    type="number",
                    min=0,
                    max=("limits_max",),
                    label=text,
                    density="compact",
                    hide_details=True,
                    classes=f"refseg-{name.replace('_', '-')}",
                    title=_("The view goes there when Enter is pressed."),
                    keyup_enter=(self.show_limit, f"['{name}']"),
                )
        with row():
            action(
                _("Use limits"),
                self.limits,
                "correct_why.limits",
                _("The structure lies in these slices and nowhere else."),
                classes="refseg-limits",
            )
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
                        disabled=("!!correct_why.draw",),
                        click=(self.take, f"['{tool}']"),
                        aria_label=text,
                        classes=f"refseg-tool-{tool}",
                    )
        with row(), VBtnToggle(v_model=("side",), mandatory=True, density="compact", disabled=("side_mute",)):
            for side, text, icon in (("inside", _("Inside"), "plus"), ("outside", _("Outside"), "minus")):
                VBtn(text=text, value=side, prepend_icon=f"mdi-{icon}-circle", size="small", classes=f"refseg-{side}")
        html.Div(_("Or paint and erase with the tools on the very left."), classes="text-caption text-medium-emphasis")
        heading(_("Next"))
        with row():
            VSelect(
                v_model=("plane",),
                items=(f"[{{ title: {quoted(_('best plane'))}, value: -1 }}, ...{PLANES}]",),
                density="compact",
                hide_details=True,
                style="max-width: 140px;",
            )
            action(
                _("Next slice"),
                self.next,
                "correct_why.next",
                _("Go to the slice where another outline helps most, and say why."),
                classes="refseg-next",
            )
            action(
                _("Slice is right"),
                self.confirm,
                "correct_why.confirm",
                _("The mask is right in the slice that was asked for: take it as an outline."),
                classes="refseg-confirm",
            )
        with row():
            action(
                _("Undo"), self._do(self._workspace.undo), "correct_why.undo", ("undo_title",), classes="refseg-undo"
            )
            action(
                _("Redo"), self._do(self._workspace.redo), "correct_why.redo", ("redo_title",), classes="refseg-redo"
            )

    def begin(self, begun):
        """A session has begun: see beginning.Begun."""
        workspace, state = self._workspace, self._state
        state.planes = [plane for plane, _count in workspace.planes()]
        state.plane = -1
        segmentation = workspace.segmentationNode.GetSegmentation()
        state.segments = [
            {
                "id": identifier,
                "name": workspace.segmentName(identifier),
                "color": _color(segmentation.GetSegment(identifier).GetColor()),
            }
            for identifier in workspace.segmentIds()
        ]
        state.active_segment = workspace.activeSegment
        self._ask(workspace.activeSegment, words.begun(begun))

    def end(self):
        """The session is over."""
        self._suggestion = None
        self._state.segments, self._state.active_segment, self._state.tool = [], None, ""

    def take(self, tool):
        """Draw with a tool until its button is pressed again."""

        def work():
            if self._workspace.tools.tool == tool:
                self._workspace.tools.leave()
            else:
                self._editor.deactivate_effect()
                self._app.double_clicks.forget()
                self._workspace.tools.take(tool, self._state.side == "inside")

        self._do(work)()

    def limits(self):
        """The structure lies between two slices."""

        def work():
            first, last = int(self._state.limits_first), int(self._state.limits_last)
            self._workspace.setLimits(int(self._state.limits_axis), min(first, last), max(first, last))
            self._app.say(_("Now correct where the mask is wrong, or press Next slice."))

        self._do(work)()

    def show_limit(self, name):
        """Let the slice view show the slice that is named as a limit."""
        index = min(max(int(self._state[name] or 0), 0), self._state.limits_max)
        self._do(lambda: self._workspace.showSlice(int(self._state.limits_axis), index))()

    def next(self):
        """Go where another outline helps most, in the chosen plane or in the best."""
        plane = int(self._state.plane)
        self._do(lambda: self._workspace.nextSlice(plane if plane >= 0 else None, self._suggested))()

    def confirm(self):
        """The slice that was asked for is right as it is."""

        def work():
            self._workspace.confirmSlice(self._suggestion.axis, self._suggestion.index)
            self._suggestion = None
            self._app.say(_("Taken as an outline. Press Next slice to go on."))

        self._do(work)()

    def take_edits(self):
        """What was painted enters the session."""
        if self._workspace.session is not None:
            self._workspace.takeEdits(lambda count: self._app.say(words.edits(count)) if count else None)

    def update(self):
        """Show what can be done, and say why the rest cannot."""
        workspace, state = self._workspace, self._state
        if workspace.session is None:
            state.correct_why = {}
            return
        tool, undo, redo = workspace.tools.tool, workspace.undoName, workspace.redoName
        locked = workspace.isLocked(workspace.activeSegment)
        asked = self._suggestion is not None
        state.tool, state.locked, state.side_mute = tool or "", locked, tool in UNSIGNED
        state.tool_tips = {name: words.tool(name, locked) for name in TOOLS}
        state.undo_title = _("Undo {what}").format(what=undo)
        state.redo_title = _("Redo {what}").format(what=redo)
        lock = words.tool(POINTS, True) if locked else ""
        state.correct_why = {
            "draw": lock,
            "limits": lock,
            "next": "",
            "confirm": "" if asked and not locked else words.confirm(None, locked),
            "undo": "" if undo else _("There is nothing to undo."),
            "redo": "" if redo else _("There is nothing to redo."),
        }
        state.estimate = words.estimate(workspace.estimatedDice())

    def _do(self, work):
        """Work for a button: errors are told, and all is shown as it is then."""

        def done(*_args):
            if self._workspace.session is not None:
                self._app.guarded(work, quiet=True)
                self._app.update()

        return done

    def _suggested(self, suggestion):
        self._suggestion = None if isinstance(suggestion, str) else suggestion
        self._app.say(suggestion if isinstance(suggestion, str) else words.suggested(suggestion))
        self._app.update()

    def _on_segment(self, active_segment, **_options):
        workspace = self._workspace
        if workspace.session is not None and active_segment and active_segment != workspace.activeSegment:
            self._app.guarded(lambda: self._ask(active_segment, []))

    def _ask(self, identifier, before):
        """Turn to a segment; where it begins and ends is asked first. before: sentences that come first."""
        workspace = self._workspace
        workspace.activeSegment, self._suggestion = identifier, None
        if self._editor.get_active_segment_id() != identifier:
            self._editor.set_active_segment_id(identifier)

        def asked(limits):
            axis, first, last, known = limits
            self._show_limits(axis, first, last)
            plane = workspace.planes()[axis][0]
            question = words.limits(workspace.segmentName(identifier), plane, limits if known else None)
            self._app.say("\n".join([*before, question]))

        workspace.proposeLimits(asked)
        self._app.update()

    def _show_limits(self, axis, first, last):
        state = self._state
        state.limits_axis, state.limits_first, state.limits_last = axis, first, last
        state.limits_max = self._workspace.planes()[axis][1] - 1
        self._axis = axis

    def _on_axis(self, limits_axis, **_options):
        """Limits are counted in other slices: all of them, to begin with."""
        if self._workspace.session is not None and limits_axis != self._axis:
            self._show_limits(int(limits_axis), 0, self._workspace.planes()[int(limits_axis)][1] - 1)

    def _on_locked(self, locked, **_options):
        workspace = self._workspace
        if workspace.session is not None and bool(locked) != workspace.isLocked(workspace.activeSegment):
            self._do(lambda: (workspace.tools.leave(), workspace.setLocked(workspace.activeSegment, bool(locked))))()

    def _on_side(self, side, **_options):
        tools = self._workspace.tools
        if tools is not None and tools.tool is not None and tools.tool not in UNSIGNED:
            self._do(lambda: tools.take(tools.tool, side == "inside"))()

    def _on_effect(self, name):
        """Somebody paints: only one tool has the mouse."""
        tools = self._workspace.tools
        if tools is not None and tools.tool is not None and name != SegmentationEffectNoTool.get_effect_name():
            self._do(tools.leave)()

    def _on_editor_segment(self, identifier):
        """The segment that is painted in is the one that is spoken of."""
        if self._workspace.session is not None and identifier in self._workspace.segmentIds():
            self._state.active_segment = identifier


def _color(color) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in color)
