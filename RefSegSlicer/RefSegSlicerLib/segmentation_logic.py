"""Segmenting volume nodes: what the RefSeg Segmentation module does, without Qt, for any front end with a scene."""

from dataclasses import dataclass, replace
from datetime import datetime, timezone

from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.jobs import Job, Segmented, Signal
from RefSegLib.progress import Progress

from RefSegSlicerLib import doubt, masks, mrml, provenance
from RefSegSlicerLib.before import Before
from RefSegSlicerLib.translation import tr as _

WHOLE = "whole volume"


class SegmentationLogic:
    """Turns nodes into jobs of a runner and their results into nodes.

    scene: where the nodes are; runner: a RefSegLib.jobs.Runner; place: where that computes, in words. Nothing here
    waits: somebody has to call the job's poll() in the thread that owns the scene.
    """

    def __init__(self, scene, runner=None, place=""):
        self.scene, self.runner, self.place = scene, runner, place
        self.before = Before(scene)

    volumeFromNode = staticmethod(mrml.volumeFromNode)
    doubtNode = staticmethod(doubt.doubtNode)

    def segment(
        self, volumeNode, model, *, reflect=None, region=None, outputNode=None, frame=False, ready=lambda: None
    ):
        """Start segmenting a volume; returns a SegmentationJob. Raises BadInput for a volume that cannot be used.

        model: NAME or NAME@VERSION; reflect: None where the model can; region: None where the model itself looks for
        its structures, WHOLE for all of the volume, or a ROI node; outputNode: write into this segmentation (None: a
        new one); frame: the node shows a frame of a sequence, and other frames meanwhile and afterwards; ready: called
        before the result is written. Where the mask is in doubt, if the model can tell, becomes a volume node as well
        (see `doubtNode`), and the mask before reflection is kept, but for frames, which neither would follow.
        """
        volume = mrml.volumeFromNode(volumeNode)
        masks.check(outputNode, volumeNode)
        if frame:
            volume = replace(volume, array=volume.array.copy())
        box = region
        if region == WHOLE:
            box = (0, 0, 0, *volume.grid.shape)
        elif region is not None:
            box = mrml.boxFromRoi(region, volumeNode)
        options = {"reflect": reflect, "roi": box, "suspect": reflect is not False and not frame}
        name = _("The volume '{name}'").format(name=volumeNode.GetName())
        runner, place = self.runner, self.place

        def work(report, cancelled):
            volume.check(name)
            found = runner.segmented(volume, model, **options, progress=Progress(report, cancelled))
            done = _done(found, region if region in (None, WHOLE) else list(box), place)
            return _prepared(found, done)

        return SegmentationJob(Job(work), self, volumeNode, outputNode, frame, ready)

    def showDoubt(self, shown):
        """Lay maps of doubt over their volumes in all slice views, or take them away again."""
        doubt.showDoubt(self.scene, shown)

    def use(self, service):
        """Segment with a service (see connection.open_service) from now on."""
        from InteractiveLearningLib.service.local import ServiceRunner

        self.closeRunner()
        self.runner, self.place = ServiceRunner(service), service.place

    def closeRunner(self):
        """Nothing more is to be segmented; what the runner has started for it ends, unless others use it.

        Done in a thread: a server that does not answer is not waited for.
        """
        runner, self.runner = self.runner, None
        if runner is not None:
            Job(lambda report, cancelled: runner.close())


@dataclass(frozen=True)
class _Prepared:
    """A result as far as it can be made ready in the job's thread."""

    mask: masks.Crop
    first: masks.Crop | None
    suspect: object
    places: list
    done: dict


def _prepared(found: Segmented, done) -> _Prepared:
    from RefSegLib.quality.places import find_places  # and with it scipy: not at the start of Slicer

    labels, grid = found.labels.array, found.labels.grid
    places = []
    if found.suspect is not None:
        names = {label.value: label.name for label in found.names}
        places = find_places(found.suspect.array[0], labels, names, grid.spacing)
    first = None if found.before is None else masks.crop(found.before, found.names)
    suspect = None if found.suspect is None else mrml.imageData(found.suspect.array[0])
    return _Prepared(masks.crop(found.labels, found.names), first, suspect, places, done)


def _done(found: Segmented, region, place) -> dict:
    """What provenance.stamp is told: the contract's keys, and `found`, the image's entry in the report."""
    image = next(iter(found.report.get("images", ())), {})
    return {
        "model": found.report.get("model", ""),
        "version": found.report.get("version", ""),
        "refseg": found.report.get("refseg", ""),
        "made_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "image": found.image,
        "settings": {
            "reflect": any(part["reflection"] for part in image.get("regions", ())),
            "region": "automatic" if region is None else region,
        },
        "weights": found.report.get("weights", {}),
        "where": place,
        "found": image,
    }


class SegmentationJob:
    """A running segmentation: progressed(fraction, message), then finished(node, done) or failed(error).

    done: what provenance.stamped tells of the node; kept: names of segments that stayed, because people changed them.
    """

    def __init__(self, job, logic, volumeNode, outputNode, frame, ready):
        self._job, self._logic, self._volumeNode, self._outputNode = job, logic, volumeNode, outputNode
        self._geometry, self._frame, self._ready = mrml.worldGrid(volumeNode), frame, ready
        self.kept = ()
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
        self.finished(node, result.done)

    def _checked(self, result):
        """Write the result, unless what it belongs to has gone or moved in the meantime."""
        name, scene = self._volumeNode.GetName(), self._logic.scene
        if not scene.IsNodePresent(self._volumeNode):
            raise BadInput(
                _("The volume '{name}' was removed while it was segmented; the result was dropped.").format(name=name)
            )
        self._ready()
        if self._volumeNode.GetImageData() is None or not mrml.worldGrid(self._volumeNode).same_as(self._geometry):
            raise BadInput(
                _("The volume '{name}' was moved or changed while it was segmented. Segment it again.").format(
                    name=name
                )
            )
        output = self._outputNode if self._outputNode and scene.IsNodePresent(self._outputNode) else None
        self._logic.before.showResult()
        written = masks.write(result.mask, self._volumeNode, output)
        provenance.stamp(written.node, result.done)
        if not self._frame:
            self._logic.before.remember(written.node, self._volumeNode, result.first)
        doubt.writeDoubt(result.suspect, self._volumeNode, result.places)
        self.kept = written.kept
        return written.node
