"""Interactive Learning: what is drawn or painted becomes 3D masks, accepted cases are learnt. As Slicer sees it."""

from pathlib import Path

import qt
import slicer
from InteractiveLearningSlicerLib.corrections import Corrections
from InteractiveLearningSlicerLib.editor_section import EditorSection
from InteractiveLearningSlicerLib.learning_section import LearningSection
from InteractiveLearningSlicerLib.replay_section import ReplaySection
from InteractiveLearningSlicerLib.server_section import ServerSection
from InteractiveLearningSlicerLib.shortcuts import Shortcuts, tip
from InteractiveLearningSlicerLib.thinking import Thinking
from InteractiveLearningSlicerLib.worklist_section import WorklistSection
from InteractiveLearningSlicerLib.workspace import Workspace
from RefSegLib.errors import RefSegError
from RefSegSlicerLib import packages
from RefSegSlicerLib.connection import open_service
from RefSegSlicerLib.first_use import FirstUse
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

POLL_MILLISECONDS = 100
# Slicer tells of one stroke several times; this long after the last time it is through.
STROKE_MILLISECONDS = 200
REQUIREMENTS = "InteractiveLearningRequirements.txt"


class InteractiveLearning(ScriptedLoadableModule):
    """The module's entry in Slicer's list."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Interactive Learning")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["RefSegSlicer", "Segmentations", "Markups"]
        self.parent.contributors = ["The RefSeg contributors"]
        self.parent.helpText = _(
            "Corrects masks by a few clicks, lines, or painted slices, asks for the slice that is worth looking at "
            "next, and lets the model learn from what you accept. Not for diagnostic use."
        )
        self.parent.acknowledgementText = _("See the README for the publications behind the methods.")


@parameterNodeWrapper
class InteractiveLearningParameterNode:
    """What the panel is set to; saved with the scene."""

    inputVolume: slicer.vtkMRMLScalarVolumeNode
    segmentation: slicer.vtkMRMLSegmentationNode
    model: str
    patient: str


class InteractiveLearningWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel. Every decision is the logic's; this class moves values, and time, to it and its sections and back."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = self._parameterNode = self._guiTag = self._observed = None
        self._message, self._shown = "", False

    def setup(self):
        """Build the panel, once."""
        ScriptedLoadableModuleWidget.setup(self)
        self.logic = InteractiveLearningLogic(slicer.mrmlScene, lambda work: qt.QTimer.singleShot(0, work))
        self.logic.changed.connect(self.updatePanel)
        self.logic.failed.connect(self.onFailed)
        self.logic.edited.connect(self.onEdited)
        self.firstUse = FirstUse(
            self._load("RefSegFirstUse", packages.__file__), self.resourcePath(REQUIREMENTS), self._guarded, self._say
        )
        self.firstUse.changed.connect(self.openService)
        self.worklist = WorklistSection(
            self._load("InteractiveLearningWorklist"),
            slicer.mrmlScene,
            Path(slicer.app.slicerUserSettingsFilePath).parent,
            open_service,
            self.onCaseOpened,
            self._leaving,
            self._guarded,
            self._say,
            lambda: self.logic.session is not None,
        )
        self.ui = self._load("InteractiveLearning")
        self.learning = LearningSection(
            self._load("InteractiveLearningLearning"),
            slicer.mrmlScene,
            qt.QTableWidgetItem,
            self._guarded,
            self._say,
        )
        self.replay = ReplaySection(
            self._load("InteractiveLearningReplay"), qt.QTableWidgetItem, self._guarded, self._say
        )
        self.server = ServerSection(self._load("InteractiveLearningServer"), self._leaving, self._guarded)
        self.server.changed.connect(self.openService)
        self.layout.addStretch(1)
        self.sections = self.firstUse, self.worklist, self.learning, self.replay, self.server
        self.editor = EditorSection(self.ui, slicer.mrmlScene)
        self.corrections = Corrections(self.ui, self.logic, self.editor, self._guarded, self._say)
        self.shortcuts = Shortcuts(self.ui, _shortcut, _unmake, slicer.util.mainWindow)
        self.thinking = Thinking(self.ui, self.logic.turns, _timer, self.updatePanel)
        self._polling = _timer(POLL_MILLISECONDS, self.onPoll)
        self._strokes = _timer(STROKE_MILLISECONDS, lambda: self._guarded(self.corrections.takeEdits))
        self._strokes.setSingleShot(True)
        buttons = {
            "startButton": self.onStart,
            "exportButton": self.onExport,
            "acceptButton": self.onAccept,
            "endButton": self.onEnd,
            "cancelButton": self.logic.turns.stop,
        }
        for name, action in buttons.items():
            getattr(self.ui, name).connect("clicked(bool)", lambda *_, action=action: self._guarded(action))
        self.ui.modelSelector.connect("currentIndexChanged(int)", self.onModelChosen)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        self._watchParameters()

    def cleanup(self):
        """Leave nothing behind; a session that was not finished can go on later, and so does what was being learnt."""
        self.exit()
        for timer in (self._polling, self._strokes):
            timer.stop()
            timer.deleteLater()  # else it and what it calls would keep each other for ever
        self.thinking.close()
        self.logic.endSession(keep=True)
        for section in self.sections:
            section.close()
        self.logic.closeService()
        self.logic.turns.close()
        self._unwatchParameters()
        self.removeObservers()

    def enter(self):
        """Models may have been published since the last visit, and settings changed."""
        self._shown = True
        for section in (*self.sections, self.editor, self.shortcuts):
            section.enter()
        self.openService()
        self._polling.start()

    def exit(self):
        """Nothing is clicked and nothing polled while another module is shown; the session stays."""
        if not self._shown:
            return
        self._shown = False
        self._polling.stop()
        if self.logic.tools is not None:
            self.logic.tools.leave()
        for section in (*self.sections, self.editor, self.shortcuts):
            section.exit()

    def openService(self):
        """Work with the service of the settings, once it can be."""
        if not self.firstUse.needed():
            self._guarded(self._open)
        self.updatePanel()

    def _open(self):
        if self.logic.openService(open_service()):
            self.logic.catalog.changed.connect(self.updateModels)
            self.logic.catalog.failed.connect(self.onFailed)
        self.logic.catalog.refresh()

    def updateModels(self):
        """Fill the list of models from what is known of them."""
        names = [model.name for model in self.logic.catalog.models]
        wanted = self._parameterNode.model
        chosen = wanted if wanted in names else (names or [""])[0]
        self.ui.modelSelector.blockSignals(True)
        self.ui.modelSelector.clear()
        self.ui.modelSelector.addItems(names)
        self.ui.modelSelector.setCurrentIndex(names.index(chosen) if chosen else -1)
        self.ui.modelSelector.blockSignals(False)
        if self.logic.catalog.broken:
            self._message = "\n".join(self.logic.catalog.broken)
        self.onModelChosen()

    def onModelChosen(self, index=None):
        """The model that learns what is accepted."""
        self._parameterNode.model = self.ui.modelSelector.currentText
        for section in (self.learning, self.replay):
            section.watch(self.logic.learning, self._parameterNode.model)
        self.updatePanel()

    def onSceneStartClose(self, caller=None, event=None):
        """The session's nodes are about to go; the session stays where it is kept."""
        self.logic.endSession(keep=True)
        self._over()
        self.editor.exit()
        self._unwatchParameters()

    def onSceneEndClose(self, caller=None, event=None):
        """The parameter node has been emptied: start over with its defaults."""
        self._message = ""
        self._watchParameters()
        self.onSceneEndImport()

    def onSceneEndImport(self, caller=None, event=None):
        """A scene may bring a Segment Editor, and values of the panel."""
        if self._shown:
            self.editor.enter()
        if self.logic.catalog is not None:
            self.updateModels()
        self.updatePanel()

    def onStart(self):
        """Begin to correct the chosen segmentation."""
        values = self._parameterNode
        self._message = _("The session begins.")
        self.logic.begin(values.inputVolume, values.segmentation, values.model, self.onBegun)

    def onBegun(self, begun):
        """There is a session."""
        values = self._parameterNode
        if not values.patient:
            values.patient = self.logic.patientOf(values.inputVolume)
        self.ui.inputs.collapsed = True
        self.corrections.begin(begun)

    def onCaseOpened(self, volumeNode, case):
        """A case of the worklist is there."""
        self._parameterNode.inputVolume = volumeNode
        self._parameterNode.patient = case.patient
        self.ui.inputs.collapsed = False

    def onEdited(self):
        """Somebody paints in the segments: wait until the stroke is over."""
        self._strokes.start()

    def onExport(self):
        """Write the session's log where the user wants it."""
        name = f"{self.logic.volumeNode.GetName()} RefSeg log.json"
        path = qt.QFileDialog.getSaveFileName(None, _("Export the log of this session"), name, "JSON (*.json)")
        if path:
            told = _("The log was written to {path}.").format(path=path)
            self.logic.exportLog(path, lambda _nothing: self._say(told))

    def onAccept(self):
        """Keep the case for good, end the session, and let the model learn."""
        self._message = _("The case is being kept.")
        self.logic.accept(self._parameterNode.model, self._parameterNode.patient, self.onAccepted)

    def onAccepted(self, identifier):
        """The case is on the disk."""
        self._parameterNode.patient = ""
        self._over()
        self._say(_("Accepted and kept. It teaches the model or tests it, in the background."))
        self.logic.learning.startLearner(self._parameterNode.model)
        self.worklist.accepted()

    def onEnd(self):
        """End the session without accepting it."""
        self.logic.endSession()
        self._over()

    def _over(self):
        self.corrections.end()
        self.ui.inputs.collapsed = False
        self.updatePanel()

    def onFailed(self, error):
        """Say what went wrong, where the user looks anyway."""
        self._say(str(error))

    def onParametersChanged(self, caller=None, event=None):
        """What was said of the inputs before is said no more."""
        if self.logic.session is None and not self.logic.turns.busy:
            self._message = ""
        self.updatePanel()

    def onPoll(self):
        """Let the sections hear what their threads have found."""
        for section in self.sections:
            section.poll()
        if self.logic.catalog is not None:
            self.logic.catalog.poll()

    def updatePanel(self):
        """Enable what can succeed, and say why the rest cannot."""
        running, busy, reason = self.logic.session is not None, self.logic.turns.busy, self._reason()
        self.ui.startButton.visible = not running
        self.ui.startButton.enabled = not running and not busy and not reason
        self.ui.startButton.toolTip = reason or _("Begin to correct the segments of the segmentation.")
        self.ui.inputs.enabled = not running and not busy
        self.ui.inputs.toolTip = _("End the session to choose others.") if running else ""
        self.ui.editor.enabled = running
        self.ui.editor.toolTip = "" if running else _("Press Start first.")
        self.corrections.update()
        if running:
            able = bool(self._parameterNode.patient.strip() and self._parameterNode.model)
            self.ui.acceptButton.enabled = able
            self.ui.acceptButton.toolTip = (
                tip("acceptButton", _("Keep this case for good and let the model learn from it."))
                if able
                else _("Name the patient and choose the model that learns.")
            )
        self.ui.statusLabel.text = self._message or ("" if running else reason)
        self.worklist.update()
        self.server.update()

    def _say(self, sentence):
        self._message = sentence
        self.updatePanel()

    def _leaving(self):
        """Why the case at hand, or the service, cannot be left now; empty if it can."""
        if self.logic.session is not None or self.logic.turns.busy:
            return _("A session is open. Accept it, or end it, first.")
        return ""

    def _reason(self):
        """Why a session cannot be started; empty if it can."""
        if self.firstUse.reason():
            return self.firstUse.reason()
        if self.logic.service is None:
            return _("Nothing can segment or learn: see the section Engine and server.")
        if self._parameterNode.inputVolume is None:
            return _("Choose a volume.")
        if self._parameterNode.segmentation is None:
            return _("Choose or create a segmentation with a segment for each structure.")
        return ""

    def _guarded(self, work):
        """Run `work`; an error for people goes to the panel, and the result is then None."""
        try:
            return work()
        except RefSegError as error:
            self._message = str(error)
            return None
        finally:
            if self._guiTag is not None:
                self.updatePanel()

    def _load(self, name, beside=None):
        """Put the widgets of a .ui file into the panel; returns them by name. beside: a file of the module it is of."""
        folder = Path(beside).parents[1] / "Resources" if beside else Path(self.resourcePath(""))
        panel = slicer.util.loadUI(str(folder / "UI" / f"{name}.ui"))
        panel.layout().setContentsMargins(0, 0, 0, 0)
        self.layout.addWidget(panel)
        if hasattr(panel, "setMRMLScene"):
            panel.setMRMLScene(slicer.mrmlScene)
        return slicer.util.childWidgetVariables(panel)

    def _watchParameters(self):
        self._parameterNode = InteractiveLearningParameterNode(self.logic.getParameterNode())
        self._guiTag = self._parameterNode.connectGui(self.ui)
        self._observed = self._parameterNode.parameterNode
        self.addObserver(self._observed, "ModifiedEvent", self.onParametersChanged)

    def _unwatchParameters(self):
        if self._guiTag is not None:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(self._observed, "ModifiedEvent", self.onParametersChanged)
            self._guiTag = None


def _timer(milliseconds, action):
    """A timer, not started yet."""
    timer = qt.QTimer()
    timer.setInterval(milliseconds)
    timer.connect("timeout()", action)
    return timer


def _shortcut(key, action):
    """A key of the main window, wherever the mouse is."""
    shortcut = qt.QShortcut(slicer.util.mainWindow())
    shortcut.setKey(qt.QKeySequence(key))
    shortcut.connect("activated()", action)
    return shortcut


def _unmake(shortcut):
    shortcut.setParent(None)
    shortcut.deleteLater()


class InteractiveLearningLogic(Workspace, ScriptedLoadableModuleLogic):
    """What the module does, for scripts as well: see Workspace."""

    def __init__(self, scene, later=None):
        ScriptedLoadableModuleLogic.__init__(self)
        Workspace.__init__(self, scene, later)


class InteractiveLearningTest(ScriptedLoadableModuleTest):
    """The checks that the project's own tests run as well, here inside Slicer (button "Reload and Test")."""

    def runTest(self):
        """Run them all, each in an empty scene."""
        from InteractiveLearningSlicerLib import checks

        for check in checks.CHECKS:
            slicer.mrmlScene.Clear()
            check(slicer.mrmlScene)
            self.delayDisplay(f"{check.__name__}: passed")
        slicer.mrmlScene.Clear()
