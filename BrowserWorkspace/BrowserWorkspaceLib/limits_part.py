"""Where a structure begins and ends: the first and the last slice of it, the prompt that helps most."""

from InteractiveLearningSlicerLib import words
from RefSegSlicerLib.translation import tr as _
from trame.widgets import html
from trame.widgets.vuetify3 import VSelect, VTextField

from BrowserWorkspaceLib.widgets import action, heading, row

PLANES = "planes.map((title, value) => ({ title, value }))"


class LimitsPart:
    """app: WorkspaceApp; do(work): does work for a control while a session is open, and tells its errors."""

    def __init__(self, app, do):
        self._app, self._state, self._workspace, self._do = app, app.state, app.workspace, do
        self._axis = None
        self._state.update(
            {
                "planes": [],
                "limits_axis": 0,
                "limits_first": 0,
                "limits_last": 0,
                "limits_max": 0,
                "limits_why": "",
            }
        )
        self._state.change("limits_axis")(self._on_axis)

    def build(self):
        """Make the controls, where the page is being made."""
        heading(_("Where it begins and ends"))
        with row():
            with html.Div(title=_("In slices of which plane the limits are counted."), style="min-width: 132px;"):
                VSelect(
                    v_model=("limits_axis",),
                    items=(PLANES,),
                    density="compact",
                    hide_details=True,
                    label=_("Plane"),
                    classes="refseg-limits-plane",
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
                    __events=[("keyup_enter", "keyup.enter")],
                    keyup_enter=(self.show, f"[limits_axis, {name}]"),
                )
        with row():
            action(
                _("Use limits"),
                (self.use, "[limits_axis, limits_first, limits_last]"),
                "limits_why",
                words.useLimits(False),
                classes="refseg-limits",
            )

    def ask(self, identifier, before):
        """Ask people about a segment. before: sentences that come first."""
        workspace = self._workspace

        def asked(limits):
            axis, first, last, known = limits
            self._show(axis, first, last)
            plane = workspace.planes()[axis][0]
            question = words.limits(workspace.segmentName(identifier), plane, limits if known else None)
            self._app.say("\n".join([*before, question]))

        workspace.proposeLimits(asked)

    def use(self, axis, first, last):
        """The structure lies between two slices. What was typed comes with the call: the state may come later."""

        def work():
            self._workspace.setLimits(int(axis), *sorted((self._index(first), self._index(last))))
            self._app.say(_("Now correct where the mask is wrong, or press Next slice."))

        self._do(work)

    def show(self, axis, number):
        """Let the slice view show the slice that is named as a limit."""
        self._do(lambda: self._workspace.showSlice(int(axis), self._index(number)))

    def update(self, locked):
        """locked: the segment may not be changed."""
        self._state.limits_why = words.useLimits(True) if locked else ""

    def _index(self, number):
        """A number that was typed, as one of a slice that there is."""
        return min(max(int(number or 0), 0), self._state.limits_max)

    def _show(self, axis, first, last):
        state = self._state
        state.limits_axis, state.limits_first, state.limits_last = axis, first, last
        state.limits_max = self._workspace.planes()[axis][1] - 1
        self._axis = axis

    def _on_axis(self, limits_axis, **_options):
        """Limits are counted in other slices: all of them, to begin with."""
        if self._workspace.session is not None and limits_axis != self._axis:
            self._show(int(limits_axis), 0, self._workspace.planes()[int(limits_axis)][1] - 1)
