"""The panel's section of the worklist: which case is open, and what becomes of it. Knows the widgets, not Qt."""

import time
from pathlib import Path

import slicer
from RefSegSlicerLib import settings
from RefSegSlicerLib.translation import tr as _

from InteractiveLearningSlicerLib import case_words
from InteractiveLearningSlicerLib.cases import (
    ACCEPTED,
    REJECTED,
    SKIPPED,
    FolderCases,
    SceneCases,
    ServerCases,
)
from InteractiveLearningSlicerLib.reviews import Reviews
from InteractiveLearningSlicerLib.worklist import Worklist

SOURCE_KEY, FOLDER_KEY = "RefSeg/WorklistSource", "RefSeg/WorklistFolder"
FOLDER, SCENE, SERVER = range(3)  # in the order of the selector
TYPING_SECONDS = 0.5  # a folder is looked into that long after the last letter of its name
NAMES = ("folder", "scene", "server")  # as they are kept in the settings


class WorklistSection:
    """ui: the widgets of InteractiveLearningWorklist.ui by name; scene: where cases are opened; home: folder under
    which the states of folders are kept; openService: gives the service of the settings (connection.open_service);
    opened(volumeNode, case): a case is there; leaving() -> str: why the open case cannot be left now, "" if it can;
    guarded(work): runs work and tells its errors; say(sentence): tells it; kept() -> bool: see Worklist.
    """

    def __init__(self, ui, scene, home, openService, opened, leaving, guarded, say, kept=lambda: False):
        self.ui, self.scene, self._home, self._openService = ui, scene, Path(home), openService
        self._opened, self._leaving, self._guarded, self._say, self._kept = opened, leaving, guarded, say, kept
        self.worklist, self._service, self._message = None, None, ""
        self._reviews = Reviews(openService, say)
        self._shown = self._due = None
        chosen = settings.chosen(SOURCE_KEY)
        ui.sourceSelector.setCurrentIndex(NAMES.index(chosen) if chosen in NAMES else FOLDER)
        ui.folderEdit.currentPath = settings.chosen(FOLDER_KEY)
        buttons = {
            "refreshButton": self.onRefresh,
            "openButton": self.onOpen,
            "nextCaseButton": self.onNext,
            "skipButton": self.onSkip,
            "rejectButton": self.onReject,
            "cancelLoadingButton": self.onCancel,
        }
        for name, action in buttons.items():
            getattr(ui, name).connect("clicked(bool)", lambda *_, action=action: self._do(action))
        ui.casesList.connect("itemActivated(QListWidgetItem*)", lambda *_: self._do(self.onOpen))
        ui.casesList.connect("currentRowChanged(int)", lambda *_: self.update())
        ui.sourceSelector.connect("currentIndexChanged(int)", lambda *_: self._do(self.onSource))
        ui.folderEdit.connect("currentPathChanged(QString)", lambda *_: self._do(self.onSource))
        ui.worklist.connect("contentsCollapsed(bool)", lambda *_: self._do(self._look))
        self.update()

    def enter(self):
        """The module is shown: the settings may name another server by now."""
        self._do(self._look)

    def exit(self):
        """Another module is shown; what is being opened is shown when this one is shown again."""

    def poll(self):
        """Deliver what has happened, in the main thread."""
        self._reviews.poll()
        if self._due is not None and time.monotonic() > self._due:
            self._due = None
            self._do(self._look)
        if self.worklist is None:
            return
        self.worklist.poll()
        if self.worklist.source.inScene and not self.ui.worklist.collapsed:
            cases = self.worklist.source.cases(None)
            if cases != self.worklist.cases:
                self.worklist.refresh()

    def close(self):
        """Leave nothing running; the list goes on where it was."""
        self._reviews.close()
        self._drop()

    def accepted(self):
        """The open case has been accepted: the model that made its mask is told; the next case is opened, if wanted.

        Without an open case of the list nothing happens.
        """
        if self._present() is not None:
            self._do(lambda: self._decide(ACCEPTED, go=self.ui.nextBox.checked))

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

    def onOpen(self):
        """Open the case that is selected."""
        self.worklist.open(self.worklist.cases[self.ui.casesList.currentRow])

    def onNext(self):
        """Open the next case about which nothing was decided."""
        self.worklist.next()

    def onSkip(self):
        """Decide about this case another time."""
        self._decide(SKIPPED, go=True)

    def onReject(self):
        """This case cannot be used; the model that made its mask is told."""
        self._decide(REJECTED, go=True)

    def onCancel(self):
        """Stop opening a case."""
        self.worklist.cancel()

    def update(self):
        """Show what can be done, and say why the rest cannot."""
        ui, cases = self.ui, [] if self.worklist is None else self.worklist.cases
        ui.folderEdit.enabled = ui.sourceSelector.currentIndex == FOLDER
        ui.folderEdit.toolTip = case_words.folder(ui.folderEdit.enabled)
        self._showCases(cases)
        missing, present = self._missing(), self._present()
        opening = self.worklist is not None and self.worklist.opening
        busy = "" if self.worklist is None else self.worklist.unkept
        if opening:
            busy = _("A case is being opened. Wait for it, or press Cancel.")
        row = ui.casesList.currentRow
        other = cases[row].other if 0 <= row < len(cases) else ""
        theirs = _("{person} works on this case.").format(person=other) if other else ""
        unselected = "" if 0 <= row < len(cases) else _("Select a case in the list.")
        none = "" if present is not None else _("Open a case of the list first.")
        done = "" if cases and self.worklist.waiting() else _("Nothing is left to do: every case has been decided.")
        why = {
            "refreshButton": missing,
            "openButton": missing or busy or unselected or theirs,
            "nextCaseButton": missing or busy or done,
            "skipButton": missing or busy or none,
            "rejectButton": missing or busy or none,
            "cancelLoadingButton": "" if opening else _("No case is being opened."),
        }
        for name, reason in why.items():
            button = getattr(ui, name)
            button.enabled = not reason
            button.toolTip = reason or case_words.hints()[name]
        ui.loadingBar.textVisible = opening
        if not opening:
            ui.loadingBar.value = 0
        ui.worklistLabel.text = self._status(cases)

    def _do(self, action):
        """Run an action of the person; errors are told by the panel and leave the section as it should be."""
        self._message = ""
        self._guarded(action)
        self.update()

    def _decide(self, state, go):
        reason = self._leaving() if state != ACCEPTED else ""
        if reason:
            self._say(reason)
            return
        if state == ACCEPTED:
            # It is in the store, whatever the list says.
            self._reviews.tell(self.worklist.segmentations(), accepted=True)
        self.worklist.decide(state, lambda: self._do(lambda: self._decided(state, go)))

    def _decided(self, state, go):
        """The source has kept what was decided; had it refused, the case would stay open."""
        if state == REJECTED:
            self._reviews.tell(self.worklist.segmentations(), accepted=False)
        if go and self.worklist.waiting():
            self.worklist.next()
        elif go:
            self._say(_("That was the last case: every case has been decided."))

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
            self._begin(sources[kind]())

    def _begin(self, source):
        self.worklist = Worklist(self.scene, source, self._leaving, self._kept)
        self.worklist.changed.connect(self.update)
        self.worklist.progressed.connect(self._onProgress)
        self.worklist.failed.connect(self._onFailed)
        self.worklist.opened.connect(self._onOpened)
        self.worklist.refresh()

    def _drop(self):
        if self.worklist is not None:
            self.worklist.close()
        self.worklist = self._service = None

    def _onProgress(self, fraction, message):
        self._message = message
        self.ui.loadingBar.value = round(100 * fraction)
        self.update()

    def _onFailed(self, error):
        self._message = ""
        self._say(str(error))

    def _onOpened(self, volumeNode, case):
        self._message = ""
        logic = slicer.app.applicationLogic()
        logic.GetSelectionNode().SetActiveVolumeID(volumeNode.GetID())
        logic.PropagateVolumeSelection(1)
        self._guarded(lambda: self._opened(volumeNode, case))
        self.update()

    def _present(self):
        return None if self.worklist is None or self.worklist.node is None else self.worklist.present

    def _missing(self):
        """Why there is no list; "" if there is one, or will be."""
        if self.ui.sourceSelector.currentIndex == FOLDER and not self.ui.folderEdit.currentPath.strip():
            return _("Choose a folder of images.")
        if self._service is not None and self._service.home is not None:
            return _("Only a site's server has a worklist, and this computer's own engine is in use.")
        return ""

    def _showCases(self, cases):
        """Only what changed, so that the list does not jump under the hand."""
        present = self._present()
        texts = [case_words.case(case, present is not None and case.key == present.key) for case in cases]
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

    def _status(self, cases):
        if self._missing():
            return self._missing()
        if self.worklist is None:
            return ""
        if self.worklist.unkept or self.worklist.waitsFor:
            return self.worklist.unkept or self.worklist.waitsFor
        if self._message:
            return self._message
        if not cases:
            return _("Looking for cases...") if self.worklist.listing else _("There are no cases here.")
        return case_words.progress(cases, self._present())
