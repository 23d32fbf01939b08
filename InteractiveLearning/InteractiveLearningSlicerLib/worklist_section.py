"""The panel's section of the worklist: which case is open, and what becomes of it. Knows the widgets, not Qt."""

import time
from pathlib import Path

import slicer
from RefSegSlicerLib import settings
from RefSegSlicerLib.translation import tr as _

from InteractiveLearningSlicerLib import case_words
from InteractiveLearningSlicerLib.case_work import CaseWork
from InteractiveLearningSlicerLib.cases import FolderCases, SceneCases, ServerCases

SOURCE_KEY, FOLDER_KEY = "RefSeg/WorklistSource", "RefSeg/WorklistFolder"
FOLDER, SCENE, SERVER = range(3)  # in the order of the selector
TYPING_SECONDS = 0.5  # a folder is looked into that long after the last letter of its name
NAMES = ("folder", "scene", "server")  # as they are kept in the settings


class WorklistSection:
    """ui: the widgets of InteractiveLearningWorklist.ui by name; scene: where cases are opened; home: folder under
    which the states of folders are kept; openService: gives the service of the settings (connection.open_service);
    opened(volumeNode, case): a case is there; the others: see CaseWork.
    """

    def __init__(self, ui, scene, home, openService, opened, leaving, guarded, say, kept=lambda: False):
        self.ui, self.scene, self._home, self._openService = ui, scene, Path(home), openService
        self._opened, self._service = opened, None
        self.work = CaseWork(scene, openService, self._onOpened, leaving, guarded, say, kept)
        self._shown = self._due = None
        chosen = settings.chosen(SOURCE_KEY)
        ui.sourceSelector.setCurrentIndex(NAMES.index(chosen) if chosen in NAMES else FOLDER)
        ui.folderEdit.currentPath = settings.chosen(FOLDER_KEY)

        def onOpen():
            self.work.open(ui.casesList.currentRow)

        buttons = {
            "refreshButton": self.onRefresh,
            "openButton": onOpen,
            "nextCaseButton": self.work.next,
            "skipButton": self.work.skip,
            "rejectButton": self.work.reject,
            "cancelLoadingButton": self.work.cancel,
        }
        do = self.work.do
        for name, action in buttons.items():
            getattr(ui, name).connect("clicked(bool)", lambda *_, action=action: do(action))
        ui.casesList.connect("itemActivated(QListWidgetItem*)", lambda *_: do(onOpen))
        ui.casesList.connect("currentRowChanged(int)", lambda *_: self.update())
        ui.sourceSelector.connect("currentIndexChanged(int)", lambda *_: do(self.onSource))
        ui.folderEdit.connect("currentPathChanged(QString)", lambda *_: do(self.onSource))
        ui.worklist.connect("contentsCollapsed(bool)", lambda *_: do(self._look))
        self.work.changed.connect(self.update)
        self.update()

    @property
    def worklist(self):
        """The Worklist that is worked through; None without one."""
        return self.work.worklist

    def enter(self):
        """The module is shown: the settings may name another server by now."""
        self.work.do(self._look)

    def exit(self):
        """Another module is shown; what is being opened is shown when this one is shown again."""

    def poll(self):
        """Deliver what has happened, in the main thread."""
        if self._due is not None and time.monotonic() > self._due:
            self._due = None
            self.work.do(self._look)
        self.work.poll()
        if self.worklist is not None and self.worklist.source.inScene and not self.ui.worklist.collapsed:
            cases = self.worklist.source.cases(None)
            if cases != self.worklist.cases:
                self.worklist.refresh()

    def close(self):
        """Leave nothing running; the list goes on where it was."""
        self.work.close()
        self._service = None

    def accepted(self):
        """The open case has been accepted: the next one is opened, if wanted."""
        self.work.accepted(go=self.ui.nextBox.checked)

    def onRefresh(self):
        """Look for the cases again."""
        if self.worklist is None:
            self._look()
        else:
            self.worklist.refresh()

    def onSource(self):
        """Cases come from elsewhere, or from a folder whose name is still being typed."""
        settings.choose(SOURCE_KEY, NAMES[self.ui.sourceSelector.currentIndex])
        settings.choose(FOLDER_KEY, self.ui.folderEdit.currentPath)
        self._drop()
        self._due = time.monotonic() + TYPING_SECONDS

    def update(self):
        """Show what can be done, and say why the rest cannot."""
        ui, missing = self.ui, self._missing()
        ui.folderEdit.enabled = ui.sourceSelector.currentIndex == FOLDER
        ui.folderEdit.toolTip = case_words.folder(ui.folderEdit.enabled)
        self._showCases()
        for name, reason in self.work.reasons(missing, ui.casesList.currentRow).items():
            button = getattr(ui, name)
            button.enabled = not reason
            button.toolTip = reason or case_words.hints()[name]
        ui.loadingBar.textVisible = self.work.opening
        ui.loadingBar.value = self.work.percent if self.work.opening else 0
        ui.worklistLabel.text = self.work.status(missing)

    def _look(self):
        """Look up the cases of the source that is chosen, once the section is open."""
        if self.ui.worklist.collapsed:
            return
        kind = self.ui.sourceSelector.currentIndex
        if kind == SERVER:
            service = self._openService()
            if self._service is None or self._service.about != service.about:
                self._drop()
                self._service = service
        if self.worklist is None and not self._missing():
            folder = self.ui.folderEdit.currentPath
            sources = {
                FOLDER: lambda: FolderCases(folder, self._home),
                SCENE: lambda: SceneCases(self.scene),
                SERVER: lambda: ServerCases(self._service),
            }
            self.work.begin(sources[kind]())

    def _drop(self):
        self.work.drop()
        self._service = None

    def _onOpened(self, volumeNode, case):
        logic = slicer.app.applicationLogic()
        logic.GetSelectionNode().SetActiveVolumeID(volumeNode.GetID())
        logic.PropagateVolumeSelection(1)
        self._opened(volumeNode, case)

    def _missing(self):
        """Why there is no list; "" if there is one, or will be."""
        if self.ui.sourceSelector.currentIndex == FOLDER and not self.ui.folderEdit.currentPath.strip():
            return _("Choose a folder of images.")
        if self._service is not None and self._service.home is not None:
            return _("Only a site's server has a worklist, and this computer's own engine is in use.")
        return ""

    def _showCases(self):
        """Only what changed, so that the list does not jump under the hand."""
        cases, present, texts = self.work.cases, self.work.present, self.work.texts()
        if texts == self._shown:
            return
        box, row = self.ui.casesList, self.ui.casesList.currentRow
        box.blockSignals(True)
        if self._shown is not None and len(texts) == len(self._shown):
            for number, text in enumerate(texts):
                if text != self._shown[number]:
                    box.item(number).setText(text)
        else:
            box.clear()
            box.addItems(texts)
            box.setCurrentRow(min(max(row, 0), len(texts) - 1))
        if present is not None and present.key in [case.key for case in cases]:
            box.setCurrentRow([case.key for case in cases].index(present.key))
        box.blockSignals(False)
        self._shown = texts
