"""What a session is told with: which segment is spoken of, and the parts with limits, tools, suggestions and undo."""

from InteractiveLearningSlicerLib import words
from RefSegSlicerLib.translation import tr as _
from trame.widgets import html
from trame.widgets.vuetify3 import Template, VRadio, VRadioGroup, VSwitch

from BrowserWorkspaceLib.drawing_part import DrawingPart
from BrowserWorkspaceLib.guidance_part import GuidancePart
from BrowserWorkspaceLib.limits_part import LimitsPart
from BrowserWorkspaceLib.widgets import action, row


class CorrectionsPart:
    """app: WorkspaceApp."""

    def __init__(self, app):
        self._app, self._state, self._workspace = app, app.state, app.workspace
        self._editor = app.slicer_app.segmentation_editor
        self._last = None  # name of what was said last
        self._drawing = DrawingPart(app, self._do)
        self._limits = LimitsPart(app, self._do)
        self._guidance = GuidancePart(app, self._do)
        self._state.update(
            {
                "segments": [],
                "active_segment": None,
                "locked": False,
                "undo_why": "",
                "redo_why": "",
                "undo_title": "",
                "redo_title": "",
                "estimate": "",
            }
        )
        self._state.change("active_segment")(self._on_segment)
        self._state.change("locked")(self._on_locked)
        self._editor.active_segment_id_changed.connect(self._on_editor_segment)

    def build(self):
        """Make the controls, where the page is being made."""
        with (
            html.Div(title=_("What is drawn speaks of the segment that is chosen here.")),
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
        self._limits.build()
        self._drawing.build()
        self._guidance.build()
        with row():
            for name, text, work in (
                ("undo", _("Undo"), self._workspace.undo),
                ("redo", _("Redo"), self._workspace.redo),
            ):
                action(text, self._doing(work), f"{name}_why", (f"{name}_title",), classes=f"refseg-{name}")

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
        self._guidance.begin()
        self._drawing.end()
        self._state.segments, self._state.active_segment = [], None

    def take_edits(self):
        """What was painted enters the session."""
        if self._workspace.session is not None:
            self._workspace.takeEdits(lambda count: self._app.say(words.edits(count)) if count else None)

    def update(self):
        """Show what can be done, and say why the rest cannot."""
        workspace, state = self._workspace, self._state
        if workspace.session is None:
            return
        state.locked = locked = workspace.isLocked(workspace.activeSegment)
        for part in (self._limits, self._drawing, self._guidance):
            part.update(locked)
        undo, redo = workspace.undoName, workspace.redoName
        if undo != self._last and state.notice_kind == "error":
            state.notice = ""  # what could not be done is no news any more once something else was
        self._last = undo
        state.undo_title = _("Undo {what}").format(what=undo)
        state.redo_title = _("Redo {what}").format(what=redo)
        state.undo_why = "" if undo else _("There is nothing to undo.")
        state.redo_why = "" if redo else _("There is nothing to redo.")
        state.estimate = words.estimate(workspace.estimatedDice())

    def _do(self, work):
        """Errors are told, and all is shown as it is then."""
        if self._workspace.session is not None:
            self._app.guarded(work, quiet=True)
            self._app.update()

    def _doing(self, work):
        return lambda *_args: self._do(work)

    def _ask(self, identifier, before):
        """Turn to a segment; where it begins and ends is asked first. before: sentences that come first."""
        self._workspace.activeSegment = identifier
        self._guidance.begin()
        if self._editor.get_active_segment_id() != identifier:
            self._editor.set_active_segment_id(identifier)
        self._limits.ask(identifier, before)
        self._app.update()

    def _on_segment(self, active_segment, **_options):
        workspace = self._workspace
        if workspace.session is not None and active_segment and active_segment != workspace.activeSegment:
            self._app.guarded(lambda: self._ask(active_segment, []))

    def _on_locked(self, locked, **_options):
        workspace = self._workspace
        if workspace.session is not None and bool(locked) != workspace.isLocked(workspace.activeSegment):
            self._do(lambda: (workspace.tools.leave(), workspace.setLocked(workspace.activeSegment, bool(locked))))

    def _on_editor_segment(self, identifier):
        """The segment that is painted in is the one that is spoken of."""
        if self._workspace.session is not None and identifier in self._workspace.segmentIds():
            self._state.active_segment = identifier


def _color(color) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in color)
