"""The panel that corrects masks: a session begins, is corrected in, and is accepted or ended."""

import time

from InteractiveLearningSlicerLib.thinking import PATIENCE_SECONDS
from RefSegLib.errors import BadInput
from RefSegSlicerLib.translation import tr as _
from trame.widgets import html
from trame.widgets.vuetify3 import VProgressLinear, VSelect, VTextField

from BrowserWorkspaceLib.corrections_part import CorrectionsPart
from BrowserWorkspaceLib.widgets import action, heading, quoted, row

# trame-slicer tells of one stroke several times; this long after the last time it is through.
STROKE_SECONDS = 0.2


class InteractPanel:
    """app: WorkspaceApp."""

    key, title, tip = "correct", _("Correct"), _("Correct masks by a few clicks, lines or painted slices.")

    def __init__(self, app):
        self._app, self._state, self._workspace = app, app.state, app.workspace
        self._since, self._resume = None, False
        self._corrections = CorrectionsPart(app)
        self._state.update(
            {
                "session_running": False,
                "session_why": {},
                "session_percent": 0,
                "session_told": "",
                "session_thinks": False,
                "patient": "",
            }
        )
        self._state.change("patient", "model")(lambda **_: self.update())
        self._workspace.changed.connect(app.update)
        self._workspace.failed.connect(app.failed)
        self._workspace.edited.connect(self._on_edited)
        self.update()

    def build(self):
        """Make the controls, where the page is being made."""
        with row(), html.Div(v_if=("!session_running",), classes="d-flex ga-2 flex-grow-1"):
            action(
                _("Start"),
                self.start,
                "session_why.start",
                _("Begin to correct the segments."),
                color="primary",
                variant="flat",
                classes="refseg-start",
            )
            action(
                _("Add the model's segments"),
                self.add_segments,
                "session_why.add",
                _("Adds an empty segment for each structure that the model knows and that is not there yet."),
                classes="refseg-add-segments",
            )
        with html.Div(v_show=("session_thinks",), classes="mb-2"):
            VProgressLinear(
                model_value=("session_percent",), indeterminate=("!session_percent",), height=6, color="primary"
            )
            with row():
                told = f"{{{{ session_told || {quoted(_('Working on it.'))} }}}}"
                html.Div(told, classes="text-caption flex-grow-1 refseg-session-told")
                action(
                    _("Cancel"),
                    self._workspace.turns.stop,
                    "''",  # it is shown while there is something to cancel, and only then
                    _("What is being worked on comes to nothing."),
                    classes="refseg-session-cancel",
                )
        html.Div(
            "{{ session_why.start }}",
            v_show=("!session_running && session_why.start",),
            classes="text-body-2 text-medium-emphasis",
        )
        with html.Div(v_show=("session_running",)):
            self._corrections.build()
            heading(_("When the masks are right"))
            VTextField(
                v_model=("patient",),
                label=_("Patient"),
                density="compact",
                hide_details=True,
                classes="mb-2 refseg-patient",
                title=_("A name or a number; cases of one patient are never both learnt from and tested with."),
            )
            VSelect(
                v_model=("model",),
                items=("models",),
                label=_("Model that learns"),
                density="compact",
                hide_details=True,
                classes="mb-2",
            )
            # In sight on small screens, too, whose panel has to be scrolled.
            with row(style="position: sticky; bottom: 0; background: rgb(var(--v-theme-surface)); z-index: 1;"):
                action(
                    _("Accept"),
                    self.accept,
                    "session_why.accept",
                    _("Keep this case for good and let the model learn from it."),
                    color="primary",
                    variant="flat",
                    classes="refseg-accept",
                )
                action(
                    _("End"),
                    self.end,
                    "session_why.end",
                    _("End the session without accepting it. The masks stay."),
                    classes="refseg-end",
                )

    def draws(self) -> bool:
        """Whether a line is in hand, which a double click ends."""
        tools = self._workspace.tools
        return tools is not None and tools.tool in ("scribble", "lasso", "curve")

    def start(self):
        """Begin to correct the segments."""
        app = self._app

        def begin():
            reason = self._reason()
            if reason:
                raise BadInput(reason)
            app.segmentation.before.showResult()
            app.say(_("The session begins."))
            self._workspace.begin(app.volume_node, app.segmentation_node, self._state.model or "", self._on_begun)

        app.guarded(begin)
        app.update()

    def add_segments(self):
        """An empty segment for each structure of the model."""
        model, editor = self._app.segmenting.model, self._app.slicer_app.segmentation_editor
        there = set(editor.get_segment_names())
        for label in model.labels:
            if label.name not in there:
                editor.add_empty_segment(segment_name=label.name, segment_color=list(label.color))
        self._app.update()

    def accept(self):
        """Keep the case for good, end the session, and let the model learn."""

        def begin():
            self._app.say(_("The case is being kept."))
            self._workspace.accept(self._state.model, self._state.patient, self._on_accepted)

        self._app.guarded(begin)
        self._app.update()

    def end(self):
        """End the session without accepting it."""
        self._app.guarded(self._workspace.endSession)
        self._over()

    def poll(self):
        """Show what takes its time."""
        turns, state = self._workspace.turns, self._state
        if not turns.busy:
            if self._since is not None:
                self._since = None
                self._app.update()
            state.session_thinks = False
        elif self._since is None:
            self._since = time.monotonic()
        elif time.monotonic() - self._since > PATIENCE_SECONDS:
            fraction, sentence = turns.told
            state.session_thinks, state.session_percent, state.session_told = True, round(100 * fraction), sentence
        if self._resume and not self._reason() and self._state.model:
            self._resume = False
            self.start()

    def shown(self):
        """Another volume is worked on."""
        self._state.patient = self._workspace.patientOf(self._app.volume_node)

    def update(self):
        """Enable what can succeed, and say why the rest cannot."""
        state, running = self._state, self._workspace.session is not None
        model = self._app.segmenting.model
        able = str(state.patient or "").strip() and state.model
        state.session_running = running
        state.session_why = {
            "start": "" if running else self._reason(),
            "add": self._app.opened_reason() or ("" if model is not None else _("Choose a model first.")),
            "accept": "" if able else _("Name the patient and choose the model that learns."),
            "end": "",
        }
        self._corrections.update()

    def chosen(self) -> dict:
        """What is selected here."""
        return {"patient": self._state.patient, "session": self._workspace.session is not None}

    def restore(self, chosen):
        """Select what `chosen` told; a session that was open goes on."""
        self._state.patient = chosen.get("patient") or self._state.patient
        self._resume = bool(chosen.get("session"))

    def close(self):
        """Leave nothing behind; the session is kept."""

    def _on_begun(self, begun):
        self._corrections.begin(begun)
        self._app.changed()

    def _on_accepted(self, _identifier):
        self._workspace.learning.startLearner(self._state.model)
        self._over()
        self._app.say(_("Accepted and kept. It teaches the model or tests it, in the background."), "success")
        self._app.cases.accepted()

    def _over(self):
        self._corrections.end()
        self._app.edit()
        self._app.update()
        self._app.changed()

    def _on_edited(self):
        self._app.pump.once("stroke", STROKE_SECONDS, self._corrections.take_edits)

    def _reason(self):
        """Why a session cannot be started; empty if it can."""
        app = self._app
        if app.opened_reason():
            return app.opened_reason()
        if app.segmenting.busy:
            return _("Segmenting. Press Cancel to stop.")
        if self._workspace.turns.busy:
            return _("Wait until it is done.")
        if not app.segmentation_node.GetSegmentation().GetNumberOfSegments():
            return _("There are no segments yet. Segment the image, or add a segment for each structure.")
        return ""
