"""What is kept of accepted cases, and the patient that is forgotten in two presses."""

from InteractiveLearningSlicerLib.kept_cases import KeptCases
from RefSegSlicerLib.translation import tr as _
from trame.widgets import html
from trame.widgets.vuetify3 import VTextField

from BrowserWorkspaceLib.widgets import action, heading, row


class KeptPart:
    """app: WorkspaceApp."""

    def __init__(self, app):
        self._app, self._state = app, app.state
        self._kept = KeptCases(app.say)
        self._state.update(
            {
                "kept_summary": "",
                "kept_rows": [],
                "kept_lost": "",
                "kept_why": {},
                "kept_check": "",
                "forget_patient": "",
                "forget_text": "",
                "forget_told": "",
                "forget_asked": False,
            }
        )
        self._kept.changed.connect(self.update)
        self._kept.forgotten.connect(self._on_forgotten)
        self._state.change("forget_patient")(self._on_typed)
        self.update()

    def build(self):
        """Make the controls, where the page is being made."""
        heading(_("Kept cases"))
        html.Div("{{ kept_summary }}", classes="text-body-2 refseg-kept")
        with html.Table(
            v_if=("kept_rows.length",), classes="text-body-2 my-2 refseg-kept-table", style="border-collapse: collapse;"
        ):
            with html.Tr(classes="text-medium-emphasis"):
                for text in ("", _("To learn from"), _("To validate with")):
                    html.Th(text, classes="pr-4", style="text-align: left; font-weight: normal;")
            with html.Tr(v_for="(cells, number) in kept_rows", key="number"):
                html.Td("{{ cell }}", v_for="(cell, column) in cells", key="column", classes="pr-4")
        html.Div("{{ kept_lost }}", v_if=("kept_lost",), classes="text-body-2 text-warning mb-2 refseg-kept-lost")
        with row():
            action(
                ("kept_check",),
                self._guarded(self._kept.check),
                "kept_why.check",
                _("Read every case that is kept to its last byte. Missing files are found without this."),
                classes="refseg-check-kept",
            )
        html.Div("{{ forget_told }}", v_if=("forget_told",), classes="text-body-2 mb-2 refseg-forget-told")
        with row():
            VTextField(
                v_model=("forget_patient",),
                label=_("Patient"),
                density="compact",
                hide_details=True,
                autocomplete="off",
                title=_("The name or number, as it was written when the cases were accepted."),
                classes="refseg-forget-patient",
            )
            action(
                ("forget_text",),
                self._guarded(lambda: self._kept.forget(self._patient)),
                "kept_why.forget",
                _("Remove every image and mask of this patient, of all models."),
                color=("forget_asked ? 'error' : undefined",),
                holder="flex-grow-0",
                classes="refseg-forget",
            )

    def show(self, shown):
        """Whether the panel is shown; else nothing is asked."""
        self._kept.show(shown)

    def watch(self, learning, model):
        """Whose cases are meant: LearningLogic, and the model's name."""
        self._kept.watch(learning, model)

    def poll(self):
        """Let news in."""
        self._kept.poll()

    def update(self):
        """Show what is known, enable what can succeed, and say why the rest cannot."""
        state, kept = self._state, self._kept
        state.kept_summary, state.kept_lost = kept.summary(), kept.lost()
        state.kept_rows = [list(cells) for cells in kept.rows()]
        state.kept_check, state.forget_text = kept.checkText(), kept.forgetText()
        state.kept_why = {"check": kept.notChecked(), "forget": kept.notForgotten(self._patient)}
        state.forget_told, state.forget_asked = kept.told, kept.asked

    def close(self):
        """Leave nothing behind."""
        self._kept.close()

    @property
    def _patient(self):
        return self._state.forget_patient or ""

    def _guarded(self, work):
        return lambda *_args: self._app.guarded(work)

    def _on_typed(self, forget_patient, **_options):
        if forget_patient:
            self._kept.typed()
        else:
            self.update()

    def _on_forgotten(self):
        self._state.forget_patient = ""  # no name stays on the page; what came of it does
