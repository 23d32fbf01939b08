"""The panel of the worklist: case after case, from a folder of the server or from the worklist of the service."""

from InteractiveLearningLib.service.local import LocalService
from InteractiveLearningSlicerLib import case_words, leaving
from InteractiveLearningSlicerLib.case_work import CaseWork
from InteractiveLearningSlicerLib.cases import FolderCases, ServerCases
from RefSegSlicerLib.translation import tr as _
from trame.widgets import html
from trame.widgets.vuetify3 import VList, VListItem, VProgressLinear, VSelect, VSwitch, VTextField

from BrowserWorkspaceLib.opening import folder_below
from BrowserWorkspaceLib.widgets import action, quoted, row

FOLDER, SERVICE = "folder", "service"
# Buttons by their names in case_words.hints: how the page names them.
BUTTONS = {
    "nextCaseButton": ("next-case", _("Next case")),
    "openButton": ("open-case", _("Open")),
    "skipButton": ("skip-case", _("Skip")),
    "rejectButton": ("reject-case", _("Reject")),
    "refreshButton": ("refresh-cases", _("Refresh")),
    "cancelLoadingButton": ("cancel-case", _("Cancel")),
}


class CasesPanel:
    """app: WorkspaceApp. What was decided about the cases of a folder is kept beside the user's workspace."""

    key, title, tip = "cases", _("Cases"), _("Work through a list of images, case after case.")

    def __init__(self, app):
        self._app, self._state = app, app.state
        self._work = CaseWork(
            app.scene,
            self._service,
            self._on_opened,
            app.leaving_reason,
            app.guarded,
            app.say,
            lambda: app.workspace.session is not None,
        )
        self._resume = None  # key of the case that was open when the workspace was saved
        self._state.update(
            {
                "cases_source": SERVICE if app.signed_in else FOLDER,  # whose folders are another's
                "cases_folder": "",
                "cases": [],
                "case_row": -1,
                "cases_status": "",
                "cases_percent": 0,
                "cases_opening": False,
                "cases_go_on": True,
                "cases_why": {},
            }
        )
        self._work.changed.connect(self.update)
        self._state.change("cases_source")(lambda **_: self._drop())
        self._state.change("case_row")(lambda **_: self.update())
        self._state.change("panel")(self._on_panel)
        self.update()

    def build(self):
        """Make the controls, where the page is being made."""
        sources = f"[{{ title: {quoted(_('A folder on the server'))}, value: '{FOLDER}' }}, "
        sources += f"{{ title: {quoted(_('The worklist of the service'))}, value: '{SERVICE}' }}]"
        with html.Div(title=_("Where the cases come from.")):
            VSelect(
                v_model=("cases_source",),
                items=(sources,),
                label=_("Cases"),
                density="compact",
                hide_details=True,
                classes="mb-2 refseg-cases-source",
            )
        with row(v_if=(f"cases_source === '{FOLDER}'",)):
            VTextField(
                v_model=("cases_folder",),
                label=_("Folder on the server"),
                density="compact",
                hide_details=True,
                title=case_words.folder(True),
                classes="refseg-cases-folder",
                __events=[("keydown_enter", "keydown.enter")],
                keydown_enter=self.look,
            )
            action(
                _("List"),
                self.look,
                "cases_folder.trim() ? '' : " + quoted(_("Write a folder first.")),
                _("Look for images and DICOM series in this folder."),
                holder="flex-grow-0",
                classes="refseg-list-cases",
            )
        html.Div("{{ cases_status }}", classes="text-body-2 mb-1 refseg-cases-status")
        VProgressLinear(v_if=("cases_opening",), model_value=("cases_percent",), height=6, color="primary")
        with (
            html.Div(title=_("A double click opens a case."), v_if=("cases.length",)),
            VList(
                density="compact",
                max_height=260,
                style="user-select: none;",
                classes="refseg-cases overflow-y-auto mb-2",
            ),
            VListItem(
                v_for="(text, number) in cases",
                key="number",
                active=("number === case_row",),
                click="case_row = number",
                dblclick=(self.open, "[number]"),
                min_height=28,
            ),
        ):
            html.Span("{{ text }}", classes="text-body-2")
        hints = case_words.hints()
        with html.Div(style="display: grid; grid-template-columns: 1fr 1fr; gap: 8px;", classes="mb-2"):
            for name in BUTTONS:
                self._button(name, hints[name])
        with html.Div(title=_("After a case was accepted in the panel Correct.")):
            VSwitch(
                v_model=("cases_go_on",),
                label=_("Open the next case after Accept"),
                density="compact",
                hide_details=True,
                color="primary",
                classes="refseg-go-on",
            )

    def look(self, *_args):
        """Look up the cases of the source that is chosen."""
        self._work.do(self._look)

    def open(self, number):
        """Open a case of the list."""
        self._state.case_row = number
        if not self._reasons()["openButton"]:
            self._press("openButton")

    def accepted(self):
        """What is open was accepted: the next case is opened, if wanted."""
        self._work.accepted(go=bool(self._state.cases_go_on))

    def poll(self):
        """Let news in."""
        self._work.poll()
        if self._resume is not None and self._work.cases:
            self._go_on(self._resume)

    def shown(self):
        """Another volume is worked on."""

    def update(self):
        """Show what can be done, and say why the rest cannot."""
        state, work = self._state, self._work
        before, state.cases = state.cases, work.texts()
        keys, present = [case.key for case in work.cases], work.present
        if before != state.cases and present is not None and present.key in keys:
            state.case_row = keys.index(present.key)
        state.case_row = min(state.case_row, len(keys) - 1)
        state.cases_why = self._reasons()
        state.cases_opening, state.cases_percent = work.opening, work.percent
        state.cases_status = work.status(self._missing())

    def chosen(self) -> dict:
        """What is selected here."""
        present, state = self._work.present, self._state
        listed = self._work.worklist is not None
        return {
            "cases": {
                "source": state.cases_source,
                "folder": state.cases_folder,
                "go_on": bool(state.cases_go_on),
                "listed": listed,
                "open": None if present is None else present.key,
            }
        }

    def restore(self, chosen):
        """Select what `chosen` told; a case that was open is open again."""
        said, state = chosen.get("cases") or {}, self._state
        state.cases_source, state.cases_folder = said.get("source", state.cases_source), said.get("folder", "")
        state.cases_go_on = bool(said.get("go_on", True))
        if said.get("listed"):
            self._resume = said.get("open")
            self.look()

    def close(self):
        """Leave nothing running; the list goes on where it was."""
        self._work.close()

    def _button(self, name, hint):
        short, text = BUTTONS[name]
        action(text, (self._press, f"['{name}']"), f"cases_why.{name}", hint, classes=f"refseg-{short}")

    def _press(self, name):
        work = self._work
        self._work.do(
            {
                "nextCaseButton": work.next,
                "openButton": lambda: work.open(self._state.case_row),
                "skipButton": work.skip,
                "rejectButton": work.reject,
                "refreshButton": self._look,
                "cancelLoadingButton": work.cancel,
            }[name]
        )

    def _reasons(self):
        # A list that is not there yet is looked up by Refresh, too.
        missing = self._missing()
        reasons = self._work.reasons(missing, self._state.case_row)
        return reasons | {"refreshButton": missing}

    def _missing(self):
        if self._state.cases_source == FOLDER and not (self._state.cases_folder or "").strip():
            return _("Write the folder of the images as this computer knows it.")
        return ""

    def _look(self):
        """Look up the cases; anew if it is another folder than before."""
        state, work = self._state, self._work
        if state.cases_source == SERVICE:
            if work.worklist is None:
                work.begin(ServerCases(self._service()))
            else:
                work.worklist.refresh()
            return
        folder = folder_below(state.cases_folder, self._app.images)
        if work.worklist is not None and work.worklist.source.folder == folder:
            work.worklist.refresh()
        else:
            work.begin(FolderCases(folder, self._app.folder))
        self._app.changed()

    def _drop(self):
        if self._work.worklist is not None and self._work.worklist.source.leased == (
            self._state.cases_source == SERVICE
        ):
            return
        self._work.drop()
        self.update()
        if self._state.cases_source == SERVICE:
            self.look()

    def _service(self):
        """A service of its own: it is left when the list is."""
        return LocalService(self._app.home, token=self._app.token)

    def _on_opened(self, volume_node, case):
        """A case is there: its image, and what was drawn on it if it was not kept elsewhere."""
        app, volumes = self._app, self._work.worklist.volumes
        drawn = leaving.segmentationsOf(volume_node)
        for node in drawn:
            if node.GetDisplayNode() is not None:
                node.GetDisplayNode().SetVisibility(True)
        # Cases that were skipped, with what was drawn on them, can be opened again.
        kept = [*volumes, *(node for volume in volumes for node in leaving.segmentationsOf(volume))]
        app.show(volume_node, drawn[0] if drawn else None, keep=kept)
        app.say(_("'{name}' is open.").format(name=case.name))
        if case.patient:
            app.state.patient = case.patient
        app.changed()

    def _go_on(self, key):
        """The workspace was restored: the case that was open is the one whose image is there."""
        self._resume = None
        case = next((case for case in self._work.cases if case.key == key), None)
        if case is not None and self._app.volume_node is not None:
            self._work.worklist.goOn(case, self._app.volume_node)

    def _on_panel(self, panel, **_options):
        if panel == self.key and self._work.worklist is None and not self._missing():
            self.look()
