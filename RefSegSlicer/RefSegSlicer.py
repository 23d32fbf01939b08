"""RefSeg Segmentation: automatic segmentation that reflects on its own result. The module as Slicer sees it."""

import qt
import slicer
from RefSegLib.errors import RefSegError
from RefSegLib.progress import TimeLeft
from RefSegSlicerLib import connection, first_use, startup, words
from RefSegSlicerLib.batch_section import BatchSection
from RefSegSlicerLib.model_section import AUTOMATIC, ModelSection
from RefSegSlicerLib.result_section import ResultSection
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

POLL_MILLISECONDS = 100
REQUIREMENTS = "RefSegSlicerRequirements.txt"


class RefSegSlicer(ScriptedLoadableModule):
    """The module's entry in Slicer's list."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("RefSeg Segmentation")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["Segmentations", "Terminologies", "Plots", "Sequences"]
        self.parent.contributors = ["The RefSeg contributors"]
        self.parent.helpText = _(
            "Segments an image and then reflects on the result: an image is made up from the mask, compared with the "
            "real one, and the mask is improved where they differ. Not for diagnostic use."
        )
        self.parent.acknowledgementText = _("See the README for the publications behind the methods.")
        slicer.app.connect("startupCompleted()", startup.register)


@parameterNodeWrapper
class RefSegSlicerParameterNode:
    """What the panel is set to; saved with the scene."""

    inputVolume: slicer.vtkMRMLScalarVolumeNode
    outputSegmentation: slicer.vtkMRMLSegmentationNode
    regionKind: str = AUTOMATIC
    region: slicer.vtkMRMLMarkupsROINode
    model: str
    reflect: bool = True
    showDoubt: bool = False


class RefSegSlicerWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: sections that know their controls, and here the one job that runs, and time."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = self.job = self._parameterNode = self._guiTag = None
        self._service, self._message, self._left, self._entered = None, "", None, False
        self._spokenOf, self._doubtShown = None, False

    def setup(self):
        """Build the panel, once."""
        ScriptedLoadableModuleWidget.setup(self)
        firstUse = slicer.util.loadUI(str(first_use.UI_FILE))
        panel = slicer.util.loadUI(self.resourcePath("UI/RefSegSlicer.ui"))
        self.layout.addWidget(firstUse)
        self.layout.addWidget(panel)
        self.layout.addStretch(1)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.logic = RefSegSlicerLogic(slicer.mrmlScene)
        self.firstUse = first_use.FirstUse(
            slicer.util.childWidgetVariables(firstUse), self.resourcePath(REQUIREMENTS), self._guarded, self._say
        )
        self.firstUse.changed.connect(self.openService)
        values = self._values
        self.models = ModelSection(self.ui, values, self.updatePanel)
        self.result = ResultSection(self.ui, self.logic, values, self._guarded)
        states = qt.Qt.Checked, qt.Qt.Unchecked
        self.batch = BatchSection(
            self.ui, self.logic, self._options, lambda make: self._begin(make, self.onBatchFinished), *states
        )
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MILLISECONDS)
        self._timer.connect("timeout()", self.onPoll)
        self.ui.segmentButton.connect("clicked(bool)", lambda *_: self._begin(self._single, self.onFinished))
        self.ui.cancelButton.connect("clicked(bool)", self.onCancel)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.StartSaveEvent, self.onSceneStartSave)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndImport)
        self._watchParameters()
        self.updatePanel()

    def cleanup(self):
        """Leave nothing behind."""
        self._timer.stop()
        self._timer.deleteLater()  # else it and what it calls would keep each other for ever
        self.onCancel()
        self.firstUse.close()
        self.models.close()
        self.result.close()
        self.logic.closeRunner()
        self._unwatchParameters()
        self.removeObservers()

    def enter(self):
        """Settings may have been changed and models published since the last visit."""
        self.firstUse.enter()
        self.logic.before.showResult()
        self.result.enter()
        self.openService()
        self.updatePanel()
        self._entered = True
        self._timer.start()

    def exit(self):
        """What is being segmented goes on."""
        self.result.exit()
        self.firstUse.exit()
        self._entered = False

    def openService(self):
        """Use the service of the settings, unless something runs: then it comes to its end where it began."""
        if self.job is not None or self.firstUse.busy:
            return
        service = None if self.firstUse.needed() else self._guarded(connection.open_service)
        if service is None:
            self._service = None
            self.logic.closeRunner()
            self.models.use(None)
        elif self._service is None or service.about != self._service.about:
            self._service = service
            self.logic.use(service)
            self.models.use(service)
        self.models.enter()
        self.updatePanel()

    def onSceneStartClose(self, caller=None, event=None):
        """A result could not be shown any more."""
        job, self.job = self.job, None
        if job is not None:
            job.cancel()
        self._unwatchParameters()
        self.logic.before.forget()
        self._spokenOf, self._doubtShown = None, False

    def onSceneEndClose(self, caller=None, event=None):
        """The parameter node has been emptied: start over with its defaults."""
        self._message = ""
        self._watchParameters()
        self.models.onModels()

    def onSceneStartSave(self, caller=None, event=None):
        """What is saved is the result."""
        self.result.exit()
        self.updatePanel()

    def onSceneEndImport(self, caller=None, event=None):
        """Of a scene that was saved while the first mask was shown, the result is shown."""
        self.logic.before.showResult()
        self.models.onModels()

    def onParametersChanged(self, caller=None, event=None):
        """What was said of the inputs before is said no more."""
        values = self._parameterNode
        inputs = values.inputVolume, values.outputSegmentation, values.region, values.regionKind, values.model
        if self.job is None and inputs != self._spokenOf:
            self._message = ""
        self._spokenOf = inputs
        if values.showDoubt != self._doubtShown:  # only then: a person may put something else in front meanwhile
            self._doubtShown = values.showDoubt
            self.logic.showDoubt(values.showDoubt)
        self.updatePanel()

    def updatePanel(self):
        """Enable what can succeed, and say why the rest cannot."""
        self.models.update()
        self.result.update()
        general = self._reason()
        reason = general or (_("Choose a volume.") if self._parameterNode.inputVolume is None else "")
        self.batch.update(general)
        self.ui.segmentButton.enabled = not reason
        self.ui.segmentButton.toolTip = reason or _("Segment the volume; it can be canceled at any time.")
        self.ui.cancelButton.enabled = self.job is not None
        self.ui.cancelButton.toolTip = (
            _("Stop. What was there before stays as it was.") if self.job else _("Nothing is running.")
        )
        self.ui.progressBar.visible = self.job is not None
        self.ui.inputs.enabled = self.job is None
        self.ui.inputs.toolTip = _("Segmenting. Cancel to choose something else.") if self.job else ""
        self.ui.statusLabel.text = self._message or reason

    def onPoll(self):
        """Deliver what has happened, in the only thread that may touch nodes and widgets."""
        for part in (self.job, self.models, self.firstUse, self.batch):
            if part is not None:
                part.poll()
        if not self._entered and self.job is None:
            self._timer.stop()

    def onProgress(self, fraction, message):
        """Show how far it is, and how long it will still take."""
        self._left.told(fraction)
        self.ui.progressBar.setValue(round(100 * fraction))
        self._message = ", ".join(part for part in (message, words.left(self._left.seconds)) if part)
        self.ui.statusLabel.text = self._message

    def onFinished(self, segmentationNode, done):
        """Show the result of one volume."""
        kept = self.job.kept
        self._over(segmentationNode, words.finished(done, kept))

    def onBatchFinished(self, segmentationNode, summary):
        """Show the last result of several."""
        self._over(segmentationNode, words.batch(summary))

    def onFailed(self, error):
        """Say what went wrong, where the user looks anyway."""
        self._over(None, str(error))

    def onCancel(self, checked=False):
        """Stop; the work itself ends in the background."""
        if self.job is not None:
            self.job.cancel()
            self.job.poll()

    def _single(self):
        values = self._parameterNode
        return self.logic.segment(values.inputVolume, outputNode=values.outputSegmentation, **self._options())

    def _options(self):
        return {"model": self._parameterNode.model, **self.models.options()}

    def _begin(self, make, finished):
        """Start the job that make() gives; finished: who hears of its result."""
        self._message = ""
        job = self._guarded(make)
        if job is not None:
            self.job, self._left = job, TimeLeft()
            job.progressed.connect(self.onProgress)
            job.finished.connect(finished)
            job.failed.connect(self.onFailed)
            self.ui.progressBar.setValue(0)
            self._timer.start()
        self.updatePanel()

    def _over(self, segmentationNode, message):
        """A job has come to its end."""
        self.job = None
        if segmentationNode is not None:
            self._parameterNode.outputSegmentation = segmentationNode
            if self._parameterNode.showDoubt:
                self.logic.showDoubt(True)
        self._message = message
        self.openService()  # the settings may have been changed meanwhile

    def _reason(self):
        """Why nothing at all can be segmented now; empty if it can."""
        if self.job is not None:
            return _("Segmenting. Press Cancel to stop.")
        return self.firstUse.reason() or self.models.reason()

    def _say(self, sentence):
        self._message = sentence
        self.updatePanel()

    def _guarded(self, work):
        """Run `work`; an error for people goes to the panel, and the result is then None."""
        try:
            return work()
        except RefSegError as error:
            self._message = str(error)
            self.ui.statusLabel.text = self._message
            return None

    def _values(self):
        return self._parameterNode

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
