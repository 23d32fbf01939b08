"""Segmenting volume nodes: what the RefSeg Segmentation module does, without Qt, for any front end with a scene."""

from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.jobs import Signal

from RefSegSlicerLib import doubt, masks, mrml


class SegmentationLogic:
    """Turns nodes into jobs of a runner and their results into nodes.

    scene: where the nodes are; runner: a RefSegLib.jobs.Runner. Nothing here waits: somebody has to call
    the job's poll() in the thread that owns the scene.
    """

    def __init__(self, scene, runner=None):
        self.scene, self.runner = scene, runner

    volumeFromNode = staticmethod(mrml.volumeFromNode)
    doubtNode = staticmethod(doubt.doubtNode)

    def segment(self, volumeNode, model, *, reflect=None, roiNode=None, outputNode=None):
        """Start segmenting a volume; returns a SegmentationJob. Raises BadInput for a volume that cannot be used.

        model: NAME or NAME@VERSION; reflect: None where the model can; roiNode: only look in this box; outputNode:
        write into this segmentation (None: a new one). Where the mask is in doubt, if the model can tell, becomes a
        volume node as well: see `doubtNode` and `showDoubt`.
        """
        volume = mrml.volumeFromNode(volumeNode)
        volume.check(f"The volume '{volumeNode.GetName()}'")
        box = None if roiNode is None else mrml.boxFromRoi(roiNode, volumeNode)
        job = self.runner.segment(volume, model, reflect=reflect, roi=box, suspect=reflect is not False)
        return SegmentationJob(job, self.scene, volumeNode, outputNode)

    def showDoubt(self, shown):
        """Lay maps of doubt over their volumes in all slice views, or take them away again."""
        doubt.showDoubt(self.scene, shown)

    def closeRunner(self):
        """Nothing more is to be segmented; what the runner has started for it ends, unless others use it."""
        if self.runner is not None:
            self.runner.close()
            self.runner = None

    @staticmethod
    def serviceRunner(python, store, environment=None):
        """A runner on the engine service of this computer. Jobs start the service, in their threads, if it does not
        run: a process of `python`, with `environment` (None: this process's own), that other programs use as well."""
        from InteractiveLearningLib.service.local import LocalService, ServiceRunner

        return ServiceRunner(LocalService(store, python, environment))

    @staticmethod
    def modelNames(store):
        """Names of the models in a store (None: the default one)."""
        from RefSegLib.models.store import ModelStore

        return ModelStore(store).names()

    @staticmethod
    def modelDescription(model, store):
        """A sentence or two on what a model segments, and which version is in use."""
        from RefSegLib.models.store import ModelStore

        if not model:
            return ""
        version = ModelStore(store).load(model)
        labels = ", ".join(label.name for label in version.spec.labels)
        return f"{version.spec.description or labels} (version {version.version})".strip()


class SegmentationJob:
    """A running segmentation: progressed(fraction, message), then finished(node, report) or failed(error)."""

    def __init__(self, job, scene, volumeNode, outputNode):
        self._job, self._scene, self._volumeNode, self._outputNode = job, scene, volumeNode, outputNode
        self._geometry = mrml.worldGrid(volumeNode)
        self.progressed, self.finished, self.failed = job.progressed, Signal(), Signal()
        self.poll, self.cancel, self.wait = job.poll, job.cancel, job.wait
        job.finished.connect(self._write)
        job.failed.connect(self.failed)

    @property
    def open(self):
        """False once finished or failed was told."""
        return self._job.open

    def _write(self, result):
        try:
            node = self._checked(result)
        except RefSegError as error:
            self.failed(error)
            return
        self.finished(node, result.report)

    def _checked(self, result):
        """Write the result, unless what it belongs to has gone or moved in the meantime."""
        name = self._volumeNode.GetName()
        if not self._scene.IsNodePresent(self._volumeNode):
            raise BadInput(f"The volume '{name}' was removed while it was segmented; the result was dropped.")
        if self._volumeNode.GetImageData() is None or not mrml.worldGrid(self._volumeNode).same_as(self._geometry):
            raise BadInput(f"The volume '{name}' was moved or changed while it was segmented. Segment it again.")
        output = self._outputNode if self._outputNode and self._scene.IsNodePresent(self._outputNode) else None
        node = masks.labelsToSegmentation(result, self._volumeNode, output)
        doubt.writeDoubt(result.suspect, self._volumeNode)
        return node
