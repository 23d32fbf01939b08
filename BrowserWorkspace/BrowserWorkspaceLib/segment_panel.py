"""The panel that segments: which model, whether it reflects, how far it is; below it what was found."""

from RefSegLib.progress import TimeLeft
from RefSegSlicerLib import words
from RefSegSlicerLib.translation import tr as _
from trame.widgets import html
from trame.widgets.vuetify3 import VProgressLinear, VSelect, VSwitch

from BrowserWorkspaceLib.region_part import RegionPart
from BrowserWorkspaceLib.result_part import ResultPart
from BrowserWorkspaceLib.widgets import action, heading, row


class SegmentPanel:
    """app: WorkspaceApp. `model` is the one that is chosen for all panels (catalog.Model), None if there is none."""

    key, title, tip = "segment", _("Segment"), _("Segment with a model that reflects on its own result.")

    def __init__(self, app):
        self._app, self._state = app, app.state
        self._job = self._left = None
        self._region, self._result = RegionPart(app), ResultPart(app)
        app.workspace.catalog.changed.connect(self._on_models)
        self._state.update(
            {
                "models": [],
                "model": None,
                "model_about": "",
                "reflect": True,
                "reflect_why": "",
                "segment_why": "",
                "segment_cancel_why": "",
                "segment_running": False,
                "segment_percent": 0,
                "segment_told": "",
            }
        )
        self._state.change("model", "reflect")(lambda **_: self.update())
        self.update()

    @property
    def busy(self) -> bool:
        """Whether something is being segmented."""
        return self._job is not None

    @property
    def model(self):
        """The model that is chosen."""
        return self._app.workspace.catalog.find(self._state.model)

    def build(self):
        """Make the controls, where the page is being made."""
        VSelect(
            v_model=("model",),
            items=("models",),
            label=_("Model"),
            density="compact",
            hide_details=True,
            disabled=("segment_running",),
            classes="refseg-model",
        )
        html.Div("{{ model_about }}", classes="text-caption text-medium-emphasis mb-1")
        with html.Div(title=("reflect_why",)):
            VSwitch(
                v_model=("reflect",),
                label=_("Reflect on the result"),
                density="compact",
                hide_details=True,
                color="primary",
                disabled=("segment_running || !!model_mute",),
                classes="refseg-reflect",
            )
        self._region.build()
        with row():
            action(
                _("Segment"),
                self.segment,
                "segment_why",
                _("Segment the volume; it can be canceled at any time."),
                color="primary",
                variant="flat",
                classes="refseg-segment",
            )
            action(
                _("Cancel"),
                self.cancel,
                "segment_cancel_why",
                _("Stop. What was there before stays as it was."),
                classes="refseg-segment-cancel",
            )
        with html.Div(v_if=("segment_running",)):
            VProgressLinear(model_value=("segment_percent",), height=6, rounded=True, color="primary")
            html.Div("{{ segment_told }}", classes="text-caption refseg-segment-told")
        heading(_("Result"))
        self._result.build()

    def segment(self):
        """Begin to segment what is open."""
        app = self._app

        def begin():
            job = app.segmentation.segment(
                app.volume_node,
                self._state.model,
                reflect=None if self._state.reflect else False,
                region=self._region.chosen_region(),
                outputNode=app.segmentation_node,
            )
            self._job, self._left = job, TimeLeft()
            job.progressed.connect(self._on_progress)
            job.finished.connect(self._on_finished)
            job.failed.connect(self._on_failed)
            self._state.segment_percent, self._state.segment_told = 0, ""

        app.guarded(begin)
        app.update()

    def cancel(self):
        """Stop; the work itself ends in the background."""
        if self._job is not None:
            self._job.cancel()
            self._job.poll()

    def poll(self):
        """Let in what the thread has found."""
        self._region.poll()
        if self._job is not None:
            self._job.poll()

    def shown(self):
        """Another volume is worked on."""
        self._region.shown()
        self._result.shown()

    def update(self):
        """Enable what can succeed, and say why the rest cannot."""
        state, model = self._state, self.model
        state.segment_running = self.busy
        state.segment_why = self._reason()
        state.segment_cancel_why = "" if self.busy else _("Nothing is running.")
        state.model_mute = model is None or not model.reflects
        state.model_about = ""
        if model is not None:
            what = model.description or ", ".join(label.name for label in model.labels)
            state.model_about = _("{what} (version {version})").format(what=what, version=model.version)
        state.reflect_why = words.aboutReflection(model)
        self._region.update()

    def settled(self):
        """Segments have changed."""
        self._result.update()

    def chosen(self) -> dict:
        """What is selected here."""
        return {"model": self._state.model, "reflect": self._state.reflect} | self._region.chosen()

    def restore(self, chosen):
        """Select what `chosen` told."""
        self._state.model = chosen.get("model") or self._state.model
        self._state.reflect = bool(chosen.get("reflect", True))
        self._region.restore(chosen)

    def close(self):
        """Leave nothing behind."""
        self.cancel()

    def _on_models(self):
        catalog, state = self._app.workspace.catalog, self._state
        state.models = [model.name for model in catalog.models]
        if state.models and state.model not in state.models:
            state.model = state.models[0]
        if catalog.broken:
            self._app.say("\n".join(catalog.broken), "warning")
        self._app.update()

    def _on_progress(self, fraction, message):
        self._left.told(fraction)
        told = [part for part in (message, words.left(self._left.seconds)) if part]
        self._state.segment_percent, self._state.segment_told = round(100 * fraction), ", ".join(told)

    def _on_finished(self, node, done):
        kept, self._job = self._job.kept, None
        self._app.edit()
        self._app.say(words.finished(done, kept), "success")
        self._result.update()
        self._app.update()
        self._app.changed()

    def _on_failed(self, error):
        self._job = None
        self._app.failed(error)
        self._app.update()

    def _reason(self):
        """Why nothing can be segmented now; empty if it can."""
        app = self._app
        if self.busy:
            return _("Segmenting. Press Cancel to stop.")
        if app.opened_reason():
            return app.opened_reason()
        if app.workspace.session is not None or app.workspace.turns.busy:
            return _("A session is open. Accept it, or end it, first.")
        if self.model is None:
            refreshing = app.workspace.catalog.refreshing
            return _("Looking for models.") if refreshing else _("There is no model in the store. Import or train one.")
        return ""
