"""The panel of learning: what the learner does, the versions it made, and which one is used."""

from InteractiveLearningSlicerLib import learning_words as words
from RefSegSlicerLib.translation import tr as _
from trame.widgets import html
from trame.widgets.vuetify3 import VProgressLinear, VSelect

from BrowserWorkspaceLib.chart import chart
from BrowserWorkspaceLib.kept_part import KeptPart
from BrowserWorkspaceLib.widgets import action, heading, row


class LearnPanel:
    """app: WorkspaceApp. Nothing is asked of the service while the panel is not shown, and nothing is being learnt."""

    key, title, tip = "learn", _("Learn"), _("What the model has learnt from accepted cases.")

    def __init__(self, app):
        self._app, self._state = app, app.state
        self._chosen = None
        self._learning = app.workspace.learning
        self._kept = KeptPart(app)
        self._state.update(
            {
                "learner": "",
                "learner_waiting": "",
                "learner_percent": None,
                "versions": [],
                "version": None,
                "version_details": "",
                "loss": "",
                "learn_why": {},
                "roll_back_title": "",
            }
        )
        self._learning.changed.connect(self.update)
        self._kept.watch(self._learning, "")
        self._state.change("panel", "model")(self._on_panel)
        self.update()

    def build(self):
        """Make the controls, where the page is being made."""
        with html.Div(title=_("Whose learning is shown.")):
            VSelect(v_model=("model",), items=("models",), label=_("Model"), density="compact", hide_details=True)
        html.Div("{{ learner }}", classes="text-body-2 mt-2 refseg-learner")
        VProgressLinear(
            v_if=("learner_percent !== null",),
            model_value=("learner_percent",),
            height=6,
            rounded=True,
            color="primary",
        )
        html.Div(
            "{{ learner_waiting }}",
            v_if=("learner_waiting",),
            classes="text-body-2 text-medium-emphasis mt-1",
            style="white-space: pre-line;",
        )
        heading(_("Versions"))
        with html.Table(classes="text-body-2 refseg-versions", style="width: 100%; border-collapse: collapse;"):
            with html.Tr(classes="text-medium-emphasis"):
                for text in (_("Version"), _("Made"), _("Dice"), _("State")):
                    html.Th(text, style="text-align: left; font-weight: normal;")
            with html.Tr(
                v_for="entry in versions",
                key="entry[0]",
                click=(self.choose, "[entry[0]]"),
                __events=[("keydown_enter", "keydown.enter")],
                keydown_enter=(self.choose, "[entry[0]]"),
                tabindex=0,
                title=_("Show all about this version."),
                style=("`cursor: pointer; ${entry[0] === version ? 'background: rgba(128, 128, 128, 0.3);' : ''}`",),
            ):
                html.Td("{{ cell }}", v_for="(cell, number) in entry", key="number", classes="pr-2")
        html.Div(
            "{{ version_details }}",
            v_if=("version_details",),
            classes="text-caption mt-2 refseg-version-details",
            style="white-space: pre-line;",
        )
        with row(classes="mt-2"):
            action(_("Roll back"), self.roll_back, "learn_why.back", ("roll_back_title",), classes="refseg-roll-back")
            action(
                _("Use this version"),
                self.use,
                "learn_why.use",
                _("Segment with the version that is selected from now on."),
                classes="refseg-use-version",
            )
        with html.Div(v_if=("loss",)):
            heading(_("Loss while it learns"))
            html.Div(v_html=("loss",), classes="refseg-loss")
        self._kept.build()

    def choose(self, version):
        """Show all about a version."""
        self._chosen = version if version != self._chosen else None
        self.update()

    def roll_back(self):
        """Return to the version that was in use before."""
        wanted = self._learning.state["previous"]
        self._do(self._learning.rollBack, lambda active: words.rolledBack(wanted, active))

    def use(self):
        """Use the version that is selected."""
        chosen = self._chosen
        told = _("Version {version} is active now.")
        self._do(lambda: self._learning.activate(chosen), lambda version: told.format(version=version))

    def poll(self):
        """Let news in."""
        self._kept.poll()

    def shown(self):
        """Another volume is worked on; what is learnt is the same."""

    def update(self):
        """Show what is known, enable what can succeed, and say why the rest cannot."""
        learning, state = self._learning, self._state
        known = learning.state if learning.model else {}
        state.learner = (
            words.learner(known, learning.trouble, learning.starting) if learning.model else _("Choose a model.")
        )
        state.learner_waiting = words.waiting(known)
        state.learner_percent = words.percent(known)
        state.versions = [[str(cell) for cell in words.row(entry)] for entry in learning.versions]
        entry = next((entry for entry in learning.versions if str(entry["version"]) == self._chosen), None)
        state.version = None if entry is None else self._chosen
        state.version_details = "" if entry is None else words.details(entry)
        state.roll_back_title = words.rollBack(known)
        state.learn_why = {"back": words.notRolledBack(learning), "use": words.notUsed(learning, entry)}
        state.loss = chart(_("Iteration"), _("Loss"), words.curves(learning, entry))

    def chosen(self) -> dict:
        """Nothing is selected here that would be worth keeping."""
        return {}

    def restore(self, chosen):
        """Select what `chosen` told."""

    def close(self):
        """The LearningLogic is its owner's to close."""
        self._kept.close()

    def _do(self, work, told):
        def begin():
            job = work()
            job.finished.connect(lambda result: self._app.say(told(result), "success"))
            job.finished.connect(lambda _result: self._app.workspace.catalog.refresh())
            job.failed.connect(self._app.failed)

        self._app.guarded(begin)
        self.update()

    def _on_panel(self, panel, model, **_options):
        if model != self._learning.model:
            self._chosen = None
            self._kept.watch(self._learning, model or "")
        (self._learning.watched.add if panel == self.key else self._learning.watched.discard)("learning")
        self._kept.show(panel == self.key)
