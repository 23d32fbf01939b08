"""Annotating one volume: clicks, painted slices and limits become prompts of a session, its masks become segments.

Points come in world space and are brought to voxels of the volume wherever it lies by then; the session keeps the place
it had when it was started.
"""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import slicer
from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.jobs import Signal
from RefSegSlicerLib import mrml

from InteractiveLearningSlicerLib import segments
from InteractiveLearningSlicerLib.clicks import ClickNodes, clickedAxis
from InteractiveLearningSlicerLib.learning_logic import LearningLogic

# How sure a mask without probabilities is taken to be: corrections near a click win against it.
DRAWN = 0.9


class SessionLogic:
    """One session at a time in a scene.

    changed(): prompts or masks are no longer what they were; failed(RefSegError): a click could not be used.
    """

    def __init__(self, scene):
        self.scene, self.session, self.activeSegment = scene, None, None
        self.learning = None
        self.changed, self.failed = Signal(), Signal()
        self._clicks = self._volumeNode = self._segmentationNode = None
        self._labels = {}

    def openStore(self, store, python, environment=None):
        """Models and accepted cases are in `store` from now on (None: the default one); `python` runs the learner."""
        from RefSegLib.models.store import ModelStore

        home = ModelStore(store).home
        if self.learning is None or (self.learning.home, self.learning.python) != (home, python):
            self.stopLearner()
            self.learning = LearningLogic(store, python, environment)

    def stopLearner(self):
        """End the learner's process, if there is one."""
        if self.learning is not None:
            self.learning.stopLearner()

    def spec(self, model):
        """What a model expects and gives; None without a model."""
        return self.learning.models.load(model).spec if model and self.learning is not None else None

    @staticmethod
    def patientOf(volumeNode):
        """The patient, as far as the name of a volume tells."""
        from RefSegLib.training.split import patient_of

        return patient_of(volumeNode.GetName())

    @staticmethod
    def sessionFolder(temporary):
        """Where sessions are saved until they end: a folder of this user alone, for they hold the image."""
        folder = Path(temporary) / "RefSegSessions"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def startSession(self, volumeNode, segmentationNode, folder, *, spec=None, probabilities=None):
        """Begin to correct the segments of a segmentation; returns True if a session that was cut off goes on.

        folder: under it the session is saved with every click. spec: of the model that will learn; probabilities:
        (1 + segments, k, j, i) of the model, background first, or None to start from the segments as they are.
        """
        from InteractiveLearningLib.session import Session

        self.endSession()
        volume = mrml.volumeFromNode(volumeNode)
        labels = segments.labelsOf(segmentationNode, spec)
        mrml.prepareSegmentation(segmentationNode, volumeNode)
        shown = self._shown(segmentationNode, volumeNode, labels)
        if probabilities is None and shown.any():
            probabilities = _certain(shown, [label.value for label in labels.values()])
        place = Path(folder) / _fingerprint(volume, labels, probabilities)
        resumed = (place / "session.jsonl").exists()
        session = Session.open(place) if resumed else None
        if session is None:
            session = Session.create(place, volume, list(labels.values()), probabilities)
        self.session, self._labels = session, labels
        self._volumeNode, self._segmentationNode = volumeNode, segmentationNode
        self.activeSegment = next(iter(labels))
        self._clicks = ClickNodes(self.scene, self._onClick)
        mask = session.labels().array
        if not np.array_equal(mask, shown):
            self._write(mask, mrml.boundingBox(mask != shown))
        self._showClicks()
        self.changed()
        return resumed

    def endSession(self, *, keep=False):
        """Leave nothing of the session in the scene but the masks. keep: its log stays on the disk, to go on later."""
        if self._clicks is not None:
            self._clicks.remove()
        if self.session is not None:
            self.session.close()
            if not keep:
                shutil.rmtree(self.session.folder, ignore_errors=True)
        self.session = self._clicks = self._volumeNode = self._segmentationNode = self.activeSegment = None
        self._labels = {}
        self.changed()

    @property
    def clickNodes(self):
        """The fiducial nodes by polarity: True for points inside, False for points outside."""
        return self._clicks.nodes

    @property
    def activeLabel(self):
        """Label value of the segment that prompts speak of."""
        return self._labels[self.activeSegment].value

    def segmentIds(self):
        """Ids of the segments of the session."""
        return list(self._labels)

    def segmentName(self, identifier):
        """Name of a segment of the session."""
        return self._labels[identifier].name

    def click(self, point, positive):
        """A point (world RAS) is, or is not, part of the active segment."""
        from InteractiveLearningLib.prompts import Click

        index = np.rint(mrml.indexFromWorld(point, self._volumeNode))
        if (index < 0).any() or (index >= self.session.grid.shape).any():
            raise BadInput("The click lies outside the volume; click inside of it.")
        axis = clickedAxis(self.scene, point, self._volumeNode)
        inside = self.session.grid.to_world(mrml.indexFromWorld(point, self._volumeNode))
        self._apply(Click(tuple(inside), bool(positive), self.activeLabel, axis))

    def usePaintedSlices(self):
        """Take the slices that were painted in the active segment as its outlines; returns (axis, indices)."""
        from InteractiveLearningLib.prompts import Outline

        self._check()
        painted = mrml.segmentArray(self._segmentationNode, self.activeSegment, self._volumeNode)
        before = self.session.labels().array
        axis, indices = segments.paintedSlices(painted, before == self.activeLabel)
        for index in indices:
            mask = painted.take(index, axis)
            self.session.apply(Outline.on(self.session.grid, axis, index, mask, self.activeLabel))
        mask = self.session.labels().array
        self._write(mask, mrml.boundingBox((mask != before) | (painted != (before == self.activeLabel))))
        self._showClicks()
        self.changed()
        return axis, indices

    def setLimits(self, axis, lower, upper):
        """The active segment lies between these slices of an array axis, both included."""
        from InteractiveLearningLib.prompts import Limits

        self._check()
        self._apply(Limits.on(self.session.grid, axis, lower, upper, self.activeLabel))

    def undo(self):
        """Take the last prompt back, its click and its masks."""
        self._check()
        self._changed(self.session.undo())

    def redo(self):
        """Bring back what was taken back last."""
        self._check()
        self._changed(self.session.redo())

    def nextSlice(self):
        """Where to look next: jumps there in all slice views and returns the Suggestion, or a sentence if nowhere."""
        self._check()
        suggestion = self.session.suggest(self.activeLabel)
        if isinstance(suggestion, str):
            return suggestion
        here = (self.session.labels().array == self.activeLabel).take(suggestion.index, suggestion.axis)
        middle = np.argwhere(here).mean(axis=0) if here.any() else (np.array(here.shape) - 1) / 2
        point = mrml.worldFromIndex(np.insert(middle, suggestion.axis, suggestion.index), self._volumeNode)
        for view in slicer.util.getNodesByClass("vtkMRMLSliceNode", self.scene):
            view.JumpSliceByCentering(*point)
        return suggestion

    def accept(self, model, patient):
        """Keep the case for good, then end the session; returns the id under which it is kept."""
        identifier = self.learning.accept(self.acceptedCase(model, patient, self.spec(model)))
        self.endSession()
        return identifier

    def acceptedCase(self, model, patient, spec):
        """What the replay store is to keep of this session. spec: of the model that learns from it.

        Segments that the model does not know are left out of it. Raises BadInput if none is left.
        """
        from InteractiveLearningLib.accepted import AcceptedCase

        self._check()
        names = {value: name for name, value in segments.namedValues(spec).items()}
        result = self.session.accepted()
        known = np.isin(result.labels.array, list(names))
        if not known.any():
            raise BadInput(
                f"None of the segments has a mask that '{model}' could learn. It knows: {', '.join(names.values())}."
            )
        foreign = ~known & (result.labels.array != 0)
        array = np.where(foreign, 0, result.labels.array).astype(result.labels.array.dtype)
        return AcceptedCase(
            model,
            self.session.volume,
            type(result.labels)(array, self.session.grid),
            patient,
            tuple(names.get(value, f"label {value}") for value in range(1, max(names) + 1)),
            np.where(foreign, 0, result.confidence).astype(np.float32),
            result.annotated,
            result.effort,
        )

    def _onClick(self, point, positive):
        """A person placed a point. Errors go to the panel: an exception in an observer would go nowhere."""
        try:
            self.click(point, positive)
        except RefSegError as error:
            self._showClicks()
            self.failed(error)

    def _apply(self, prompt):
        self._check()
        self._changed(self.session.apply(prompt))

    def _changed(self, bounds):
        if bounds is not None:
            self._write(self.session.labels().array, bounds)
        self._showClicks()
        self.changed()

    def _check(self):
        """Raise BadInput if there is no session, or its nodes are gone."""
        if self.session is None:
            raise BadInput("No session has been started.")
        for node in (self._volumeNode, self._segmentationNode):
            if not self.scene.IsNodePresent(node):
                raise BadInput(f"'{node.GetName()}' was removed from the scene. End the session.")

    def _write(self, mask, bounds):
        values = {identifier: label.value for identifier, label in self._labels.items()}
        segments.writeBox(mask, bounds, self._segmentationNode, self._volumeNode, values)

    def _showClicks(self):
        from InteractiveLearningLib.prompts import Click

        clicks = [prompt for prompt in self.session.prompts() if isinstance(prompt, Click)]
        points = [mrml.worldFromIndex(self.session.grid.to_index(c.point), self._volumeNode) for c in clicks]
        self._clicks.show([(point, click.positive) for point, click in zip(points, clicks, strict=True)])

    @staticmethod
    def _shown(segmentationNode, volumeNode, labels):
        """The segments as a label map with the session's values."""
        counted = mrml.labelsFromSegmentation(segmentationNode, labels, volumeNode).array
        return np.array([0, *(label.value for label in labels.values())], np.uint16)[counted]


def _certain(labels, values):
    """Probabilities that say what a label map says: (1 + values, k, j, i)."""
    found = np.stack([np.isin(labels, values, invert=True), *(labels == value for value in values)])
    return np.where(found, np.float16(DRAWN), np.float16((1 - DRAWN) / len(values)))


def _fingerprint(volume, labels, probabilities):
    """A name for a session: the same image and the same masks to start from give the same."""
    about = [volume.grid.to_dict(), [(label.value, label.name) for label in labels.values()]]
    digest = hashlib.sha256(repr(about).encode())
    digest.update(np.ascontiguousarray(volume.array))
    if probabilities is not None:
        digest.update(np.ascontiguousarray(probabilities))
    return digest.hexdigest()[:32]
