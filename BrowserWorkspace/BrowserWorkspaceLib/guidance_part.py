"""Where to look next: the slice in which another outline helps most, and why."""

from InteractiveLearningSlicerLib import words
from RefSegSlicerLib.translation import tr as _
from trame.widgets import html
from trame.widgets.vuetify3 import VSelect

from BrowserWorkspaceLib.limits_part import PLANES
from BrowserWorkspaceLib.widgets import action, heading, quoted, row


class GuidancePart:
    """app: WorkspaceApp; do(work): does work for a control while a session is open, and tells its errors."""

    def __init__(self, app, do):
        self._app, self._state, self._workspace, self._do = app, app.state, app.workspace, do
        self._suggestion = None
        self._state.update({"plane": -1, "confirm_why": "", "confirm_title": ""})

    def build(self):
        """Make the controls, where the page is being made."""
        heading(_("Next"))
        with row():
            with html.Div(title=_("The plane in which slices are suggested."), style="max-width: 140px;"):
                VSelect(
                    v_model=("plane",),
                    items=(f"[{{ title: {quoted(_('best plane'))}, value: -1 }}, ...{PLANES}]",),
                    density="compact",
                    hide_details=True,
                    aria_label=_("Plane"),
                    classes="refseg-plane",
                )
            action(
                _("Next slice"),
                self.next,
                "''",
                _("Go to the slice where another outline helps most, and say why."),
                classes="refseg-next",
            )
            action(_("Slice is right"), self.confirm, "confirm_why", ("confirm_title",), classes="refseg-confirm")

    def begin(self):
        """A session has begun, or people have turned to another segment: nothing has been suggested."""
        self._suggestion = None

    def next(self):
        """Go where another outline helps most, in the chosen plane or in the best."""
        plane = int(self._state.plane)
        self._do(lambda: self._workspace.nextSlice(plane if plane >= 0 else None, self._suggested))

    def confirm(self):
        """The slice that was asked for is right as it is."""

        def work():
            self._workspace.confirmSlice(self._suggestion.axis, self._suggestion.index)
            self._suggestion = None
            self._app.say(_("Taken as an outline. Press Next slice to go on."))

        self._do(work)

    def update(self, locked):
        """locked: the segment may not be changed."""
        index = None if self._suggestion is None else self._suggestion.index
        told = words.confirm(index, locked)
        self._state.confirm_title = told
        self._state.confirm_why = told if locked or index is None else ""

    def _suggested(self, suggestion):
        self._suggestion = None if isinstance(suggestion, str) else suggestion
        self._app.say(suggestion if isinstance(suggestion, str) else words.suggested(suggestion))
        self._app.update()
