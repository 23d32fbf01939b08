"""Interactive Learning: what is drawn or painted becomes 3D masks, accepted cases are learnt. As Slicer sees it."""

import qt
import slicer
from InteractiveLearningSlicerLib.corrections import Corrections
from InteractiveLearningSlicerLib.session_logic import SessionLogic
from RefSegLib.errors import RefSegError
from RefSegSlicerLib import packages
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

STATUS_MILLISECONDS = 1000
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
    """The panel. Every decision is the logic's; this class moves values, and time, to it and back."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = self._parameterNode = self._guiTag = None
        self._message, self._missing = "", []

    def setup(self):
        """Build the panel, once."""
        ScriptedLoadableModuleWidget.setup(self)
        panel = slicer.util.loadUI(self.resourcePath("UI/InteractiveLearning.ui"))
        self.layout.addWidget(panel)
        self.layout.addStretch(1)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.logic = InteractiveLearningLogic(slicer.mrmlScene, lambda work: qt.QTimer.singleShot(0, work))
        self.logic.changed.connect(self.updatePanel)
        self.logic.failed.connect(self.onFailed)
        self.logic.edited.connect(self.onEdited)
        self._timer, self._strokes = qt.QTimer(), qt.QTimer()
        self._timer.setInterval(STATUS_MILLISECONDS)
        self._timer.connect("timeout()", self.updateLearning)
        self._strokes.setSingleShot(True)
        self._strokes.setInterval(STROKE_MILLISECONDS)
        self.corrections = Corrections(self.ui, self.logic, self._guarded, self._say)
        self._strokes.connect("timeout()", lambda: self._guarded(self.corrections.takeEdits))
        buttons = {
            "startButton": self.onStart,
            "exportButton": self.onExport,
            "acceptButton": self.onAccept,
            "endButton": self.logic.endSession,
            "rollBackButton": self.onRollBack,
            "installButton": self.onInstall,
        }
        for name, action in buttons.items():
            getattr(self.ui, name).connect("clicked(bool)", lambda *_, action=action: self._guarded(action))
        self.ui.modelSelector.connect("currentIndexChanged(int)", self.onModelChosen)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self._watchParameters()
        self.enter()

    def cleanup(self):
        """Leave nothing behind; a session that was not finished can go on later, and so does what was being learnt."""
        self._timer.stop()
        self._strokes.stop()
        self.logic.endSession(keep=True)
        self.logic.stopLearner()
        self._unwatchParameters()
        self.removeObservers()

    def enter(self):
        """Models may have been published since the last visit."""
        self._missing = packages.missingPackages(self.resourcePath(REQUIREMENTS))
        self.ui.installButton.visible = bool(self._missing)
        self.ui.installButton.toolTip = _("Installs {packages}").format(packages=", ".join(self._missing))
        names = []
        if not self._missing:
            self._guarded(lambda: self.logic.openStore(packages.store(), packages.python(), packages.environment()))
            names = self.logic.learning.models.names()
        chosen = self._parameterNode.model if self._parameterNode.model in names else (names or [""])[0]
        self.ui.modelSelector.blockSignals(True)
        self.ui.modelSelector.clear()
        self.ui.modelSelector.addItems(names)
        self.ui.modelSelector.setCurrentIndex(names.index(chosen) if chosen else -1)
        self.ui.modelSelector.blockSignals(False)
        self._timer.start()
        self.onModelChosen()

    def exit(self):
        """Nothing is clicked and nothing polled while another module is shown; the session stays."""
        self._timer.stop()
        if self.logic.tools is not None:
            self.logic.tools.leave()

    def onSceneStartClose(self, caller=None, event=None):
        """The session's nodes are about to go; its log stays."""
        self.logic.endSession(keep=True)
        self._unwatchParameters()

    def onSceneEndClose(self, caller=None, event=None):
        """The parameter node has been emptied: start over with its defaults."""
        self._message = ""
        self._watchParameters()
        self.onModelChosen()

    def onStart(self):
        """Begin to correct the chosen segmentation."""
        values = self._parameterNode
        begun = self.logic.startSession(
            values.inputVolume,
            values.segmentation,
            self.logic.sessionFolder(slicer.app.temporaryPath),
            spec=self.logic.spec(values.model),
        )
        if not values.patient:
            values.patient = self.logic.patientOf(values.inputVolume)
        self.corrections.begin(begun)

    def onModelChosen(self, index=None):
        """The model that learns what is accepted."""
        self._parameterNode.model = self.ui.modelSelector.currentText
        self.updateLearning()
        self.updatePanel()

    def onEdited(self):
        """Somebody paints in the segments: wait until the stroke is over."""
        self._strokes.start()

    def onExport(self):
        """Write the session's log where the user wants it."""
        name = f"{self._parameterNode.inputVolume.GetName()} RefSeg log.json"
        path = qt.QFileDialog.getSaveFileName(None, _("Export the log of this session"), name, "JSON (*.json)")
        if path:
            self.logic.exportLog(path)
            self._message = _("The log was written to {path}.").format(path=path)

    def onAccept(self):
        """Keep the case for good, end the session, and let the model learn."""
        model = self._parameterNode.model
        self.logic.accept(model, self._parameterNode.patient)
        self._parameterNode.patient = ""
        self._message = _("Accepted and kept. The model learns in the background.")
        self.logic.learning.startLearner(model)
        self.updateLearning()

    def onRollBack(self):
        """Return to the version that was active before."""
        version = self.logic.learning.rollBack(self._parameterNode.model)
        self._message = _("Version {version} is active again.").format(version=version)
        self.updateLearning()

    def onInstall(self):
        """Install what is missing, after a question."""
        if packages.installPackages(self.resourcePath(REQUIREMENTS)):
            self.enter()

    def onFailed(self, error):
        """Say what went wrong, where the user looks anyway."""
        self._message = str(error)
        self.updatePanel()

    def onParametersChanged(self, caller=None, event=None):
        """What was said of the inputs before is said no more."""
        self._message = ""
        self.updatePanel()

    def updatePanel(self):
        """Enable what can succeed, and say why the rest cannot."""
        running = self.logic.session is not None
        reason = self._reason()
        self.ui.startButton.enabled = not running and not reason
        self.ui.startButton.toolTip = reason or _("Begin to correct the segments of the segmentation.")
        self.ui.inputs.enabled = not running
        self.ui.corrections.enabled = running
        if running:
            self.corrections.update()
            able = bool(self._parameterNode.patient.strip() and self._parameterNode.model)
            self.ui.acceptButton.enabled = able
            self.ui.acceptButton.toolTip = (
                _("Keep this case for good and let the model learn from it.")
                if able
                else _("Name the patient and choose the model that learns.")
            )
        self.ui.statusLabel.text = self._message or ("" if running else reason)

    def updateLearning(self):
        """Show what the learner does, and the versions of the model."""
        learning, model = self.logic.learning, self._parameterNode.model
        if learning is None or not model:
            return
        self.ui.learnerLabel.text = self._guarded(lambda: learning.status(model)) or ""
        versions = self._guarded(lambda: learning.versions(model)) or []
        lines = [
            f"{version}{' (active)' if active else ''}{': ' if reason else ''}{reason}"
            for version, active, reason in versions
        ]
        if lines != [self.ui.versionsList.item(n).text() for n in range(self.ui.versionsList.count)]:
            self.ui.versionsList.clear()
            self.ui.versionsList.addItems(lines)
        self.ui.rollBackButton.enabled = len(lines) > 1

    def _say(self, sentence):
        self._message = sentence

    def _reason(self):
        """Why a session cannot be started; empty if it can."""
        if self._missing:
            return _("Some Python packages are missing. Press Install.")
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


class InteractiveLearningLogic(SessionLogic, ScriptedLoadableModuleLogic):
    """What the module does, for scripts as well: see SessionLogic."""

    def __init__(self, scene, later=None):
        ScriptedLoadableModuleLogic.__init__(self)
        SessionLogic.__init__(self, scene, later)


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
