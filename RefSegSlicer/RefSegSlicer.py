"""RefSeg Segmentation: automatic segmentation that reflects on its own result. The module as Slicer sees it."""

import qt
import slicer
from RefSegLib.errors import RefSegError
from RefSegSlicerLib import packages, words
from RefSegSlicerLib.segmentation_logic import SegmentationLogic
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

POLL_MILLISECONDS = 50


class RefSegSlicer(ScriptedLoadableModule):
    """The module's entry in Slicer's list."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("RefSeg Segmentation")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["Segmentations", "Terminologies"]
        self.parent.contributors = ["The RefSeg contributors"]
        self.parent.helpText = _(
            "Segments an image and then reflects on the result: an image is made up from the mask, compared with the "
            "real one, and the mask is improved where they differ. Not for diagnostic use."
        )
        self.parent.acknowledgementText = _("See the README for the publications behind the methods.")


@parameterNodeWrapper
class RefSegSlicerParameterNode:
    """What the panel is set to; saved with the scene."""

    inputVolume: slicer.vtkMRMLScalarVolumeNode
    outputSegmentation: slicer.vtkMRMLSegmentationNode
    region: slicer.vtkMRMLMarkupsROINode
    model: str
    reflect: bool = True
    showDoubt: bool = False


class RefSegSlicerWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel. Every decision is the logic's; this class moves values, and time, to it and back."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = self.job = self._parameterNode = self._guiTag = None
        self._message, self._missing = "", []
        self._spokenOf, self._doubtShown = None, False

    def setup(self):
        """Build the panel, once."""
        ScriptedLoadableModuleWidget.setup(self)
        panel = slicer.util.loadUI(self.resourcePath("UI/RefSegSlicer.ui"))
        self.layout.addWidget(panel)
        self.layout.addStretch(1)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.logic = RefSegSlicerLogic(slicer.mrmlScene)
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MILLISECONDS)
        self._timer.connect("timeout()", self.onPoll)
        self.ui.segmentButton.connect("clicked(bool)", self.onSegment)
        self.ui.cancelButton.connect("clicked(bool)", self.onCancel)
        self.ui.installButton.connect("clicked(bool)", self.onInstall)
        self.ui.modelSelector.connect("currentIndexChanged(int)", self.onModelChosen)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.updateModels)
        self._watchParameters()
        self.updateModels()

    def cleanup(self):
        """Leave nothing behind."""
        self.onCancel()
        self.logic.closeRunner()
        self._timer.stop()
        self._unwatchParameters()
        self.removeObservers()

    def enter(self):
        """Models may have been published since the last visit."""
        self.updateModels()

    def onSceneStartClose(self, caller=None, event=None):
        """A result could not be shown any more."""
        self.onCancel()
        self._unwatchParameters()
        self._spokenOf, self._doubtShown = None, False

    def onSceneEndClose(self, caller=None, event=None):
        """The parameter node has been emptied: start over with its defaults."""
        self._message = ""
        self._watchParameters()
        self.updateModels()

    def updateModels(self, caller=None, event=None):
        """Fill the list of models from the store."""
        self._missing = packages.missingPackages(self.resourcePath("RefSegSlicerRequirements.txt"))
        self.ui.installButton.visible = bool(self._missing)
        self.ui.installButton.toolTip = _("Installs {packages}").format(packages=", ".join(self._missing))
        names = [] if self._missing else self.logic.modelNames(packages.store())
        chosen = self._parameterNode.model if self._parameterNode.model in names else (names or [""])[0]
        self.ui.modelSelector.blockSignals(True)
        self.ui.modelSelector.clear()
        self.ui.modelSelector.addItems(names)
        self.ui.modelSelector.setCurrentIndex(names.index(chosen) if chosen else -1)
        self.ui.modelSelector.blockSignals(False)
        self._parameterNode.model = chosen
        self.onModelChosen()

    def onModelChosen(self, index=None):
        """Say what the model is for."""
        self._parameterNode.model = self.ui.modelSelector.currentText
        text = self._guarded(lambda: self.logic.modelDescription(self._parameterNode.model, packages.store()))
        self.ui.modelLabel.text = text or ""
        self.updateButtons()

    def onParametersChanged(self, caller=None, event=None):
        """What was said of the inputs before is said no more."""
        values = self._parameterNode
        inputs = values.inputVolume, values.outputSegmentation, values.region, values.model, values.reflect
        if self.job is None and inputs != self._spokenOf:
            self._message = ""
        self._spokenOf = inputs
        if values.showDoubt != self._doubtShown:  # only then: a person may put something else in front meanwhile
            self._doubtShown = values.showDoubt
            self.logic.showDoubt(values.showDoubt)
        self.updateButtons()

    def updateButtons(self):
        """Enable what can succeed, and say why the rest cannot."""
        reason = self._reason()
        self.ui.segmentButton.enabled = not reason
        self.ui.segmentButton.toolTip = reason or _("Segment the volume; it can be canceled at any time.")
        self.ui.cancelButton.enabled = self.job is not None
        self.ui.cancelButton.toolTip = (
            _("Stop and keep everything as it was.") if self.job else _("Nothing is running.")
        )
        known = self.logic.doubtNode(self._parameterNode.inputVolume) is not None
        self.ui.doubtBox.enabled = known or self.ui.doubtBox.checked
        self.ui.doubtBox.toolTip = (
            _("Colors what may be wrong, from yellow (look twice) to red, in the slice views that show the volume.")
            if known
            else _("Segment the volume with a model that reflects on its result; then this shows what may be wrong.")
        )
        self.ui.progressBar.visible = self.job is not None
        self.ui.inputs.enabled = self.job is None
        self.ui.statusLabel.text = self._message or reason

    def onSegment(self, checked=False):
        """Start."""
        values = self._parameterNode
        self._message = ""
        self.logic.runner = self.logic.runner or self.logic.serviceRunner(
            packages.python(), packages.store(), packages.environment()
        )
        self.job = self._guarded(
            lambda: self.logic.segment(
                values.inputVolume,
                values.model,
                reflect=None if values.reflect else False,
                roiNode=values.region,
                outputNode=values.outputSegmentation,
            )
        )
        if self.job is not None:
            self.job.progressed.connect(self.onProgress)
            self.job.finished.connect(self.onFinished)
            self.job.failed.connect(self.onFailed)
            self.ui.progressBar.setValue(0)
            self._timer.start()
        self.updateButtons()

    def onPoll(self):
        """Deliver what the job has to say, in the only thread that may touch nodes and widgets."""
        if self.job is not None:
            self.job.poll()

    def onProgress(self, fraction, message):
        """Show how far it is."""
        self.ui.progressBar.setValue(round(100 * fraction))
        self._message = message
        self.ui.statusLabel.text = message

    def onFinished(self, segmentationNode, report):
        """Show the result."""
        self._parameterNode.outputSegmentation = segmentationNode
        if self._parameterNode.showDoubt:
            self.logic.showDoubt(True)
        self._done(words.summary(report))

    def onFailed(self, error):
        """Say what went wrong, where the user looks anyway."""
        self._done(str(error))

    def onCancel(self, checked=False):
        """Stop; nothing of the job runs when this returns."""
        if self.job is not None:
            self.job.cancel()
            self.job.poll()

    def onInstall(self, checked=False):
        """Install what is missing, after a question."""
        if self._guarded(lambda: packages.installPackages(self.resourcePath("RefSegSlicerRequirements.txt"))):
            self._message = ""
        self.updateModels()

    def _done(self, message):
        self._timer.stop()
        self.job, self._message = None, message
        self.updateButtons()

    def _reason(self):
        """Why Segment cannot be pressed; empty if it can."""
        if self.job is not None:
            return _("Segmenting. Press Cancel to stop.")
        if self._missing:
            return _("Some Python packages are missing. Press Install.")
        if self._parameterNode.inputVolume is None:
            return _("Choose a volume.")
        if not self._parameterNode.model:
            return _("There is no model in the store. Import or train one.")
        return ""

    def _guarded(self, work):
        """Run `work`; an error for people goes to the panel, and the result is then None."""
        try:
            return work()
        except RefSegError as error:
            self._message = str(error)
            return None

    def _watchParameters(self):
        self._parameterNode = RefSegSlicerParameterNode(self.logic.getParameterNode())
        self._guiTag = self._parameterNode.connectGui(self.ui)
        self._observed = self._parameterNode.parameterNode
        self.addObserver(self._observed, "ModifiedEvent", self.onParametersChanged)

    def _unwatchParameters(self):
        if self._guiTag is not None:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(self._observed, "ModifiedEvent", self.onParametersChanged)
            self._guiTag = None


class RefSegSlicerLogic(SegmentationLogic, ScriptedLoadableModuleLogic):
    """What the module does, for scripts as well: see SegmentationLogic. scene: the one to work in."""

    def __init__(self, scene, runner=None):
        ScriptedLoadableModuleLogic.__init__(self)
        SegmentationLogic.__init__(self, scene, runner)


class RefSegSlicerTest(ScriptedLoadableModuleTest):
    """The checks that the project's own tests run as well, here inside Slicer (button "Reload and Test")."""

    def runTest(self):
        """Run them all, each in an empty scene."""
        from RefSegSlicerLib import checks

        for check in checks.CHECKS:
            slicer.mrmlScene.Clear()
            check(slicer.mrmlScene)
            self.delayDisplay(f"{check.__name__}: passed")
        slicer.mrmlScene.Clear()
