"""Annotating one volume: what is drawn or painted becomes prompts of a session, its masks become segments.

Points come in world space and are brought to voxels of the volume wherever it lies by then; the session keeps the place
it had when it was started.
"""

import json
import shutil
from pathlib import Path

import numpy as np
from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.jobs import Signal
from RefSegSlicerLib import mrml
from RefSegSlicerLib.doubt import doubtArray

from InteractiveLearningSlicerLib import masking, shapes, views
from InteractiveLearningSlicerLib.annotation import Annotation
from InteractiveLearningSlicerLib.beginning import begin
from InteractiveLearningSlicerLib.clicks import ClickNodes
from InteractiveLearningSlicerLib.learning_logic import LearningLogic
from InteractiveLearningSlicerLib.tools import Tools


class SessionLogic:
    """One session at a time in a scene.

    changed(): prompts, masks or the tool in hand are no longer what they were; failed(RefSegError): what was drawn
    could not be used; edited(): another tool has touched the segments: call takeEdits when it is through (any other
    call does so, too). later: runs the work it is given after the event at hand; None: at once, for scripts.
    """

    def __init__(self, scene, later=None):
        self.scene, self.session, self.activeSegment = scene, None, None
        self.learning = self.tools = None
        self.changed, self.failed, self.edited = Signal(), Signal(), Signal()
        self._later = later or (lambda work: work())
        self._annotation = self._clicks = None

    def openStore(self, store, python, environment=None):
        """Models and accepted cases are in `store` from now on (None: the default one); `python` runs the service."""
        from RefSegLib.models.store import ModelStore

        home = ModelStore(store).home
        if self.learning is None or (self.learning.home, self.learning.python) != (home, python):
            self.stopLearner()
            self.learning = LearningLogic(store, python, environment)

    def stopLearner(self):
        """Need the service that learns no more, if there is one."""
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
        """Begin to correct the segments of a segmentation. Returns what of it people should know: see Begun.

        folder: under it the session is saved with every prompt. spec: of the model that will learn; probabilities:
        (1 + segments, k, j, i) of the model, background first, or None to start from the segments as they are.
        What was said about the segments in earlier sessions is known to this one; it cannot be undone any more.
        """
        self.endSession()
        begun = begin(volumeNode, segmentationNode, folder, spec, probabilities)
        self.session, self.activeSegment = begun.session, next(iter(begun.labels))
        self._annotation = Annotation(begun, volumeNode, segmentationNode, self.edited)
        self._clicks = ClickNodes(self.scene, self._onClick)
        self.tools = Tools(self.scene, self._clicks.nodes, self._onDrawn, self.changed, self._later)
        self._show()
        return begun

    def endSession(self, *, keep=False):
        """Leave nothing of the session in the scene but the masks and their prompts. keep: its log stays on the disk,
        to go on later."""
        if self.session is not None:
            for part in (self.tools, self._clicks):
                part.remove()
            self._annotation.remove(ended=not keep)
            self.session.close()
            if not keep:
                shutil.rmtree(self.session.folder, ignore_errors=True)
        self.session = self.tools = self.activeSegment = self._annotation = self._clicks = None
        self.changed()

    @property
    def clickNodes(self):
        """The fiducial nodes by polarity: True for points inside, False for points outside."""
        return self._clicks.nodes

    @property
    def activeLabel(self):
        """Label value of the segment that prompts speak of."""
        return self._annotation.labels[self.activeSegment].value

    def segmentIds(self):
        """Ids of the segments of the session."""
        return list(self._annotation.labels)

    def segmentName(self, identifier):
        """Name of a segment of the session."""
        return self._annotation.labels[identifier].name

    def isLocked(self, identifier):
        """True if no correction of another segment may change this one."""
        return masking.isLocked(self._annotation.segment(identifier))

    def setLocked(self, identifier, locked):
        """Lock a segment, or unlock it."""
        self._check()
        self._annotation.setLocked(identifier, locked)
        self.changed()

    def click(self, point, positive):
        """A point (world RAS) is, or is not, part of the active segment."""
        self._ready()
        self._apply(shapes.clickAt(point, positive, self._canvas()))

    def draw(self, tool, positive, drawn):
        """A shape of one of the Tools is finished: see Tools.drawn."""
        self._ready()
        self._apply(shapes.promptOf(tool, positive, drawn, self._canvas()))

    def setLimits(self, axis, lower, upper):
        """The active segment lies between these slices of an array axis, both included."""
        from InteractiveLearningLib.prompts import Limits

        self._ready()
        self._apply(Limits.on(self.session.grid, axis, lower, upper, self.activeLabel))

    def proposeLimits(self):
        """(axis, first, last slice) between which the active segment seems to lie; None if nothing tells."""
        self._ready()
        limits = self.session.propose_limits(self.activeLabel)
        return None if limits is None else (limits.axis, *limits.indices(self.session.grid))

    def planes(self):
        """(name of the anatomical plane, number of slices) along each array axis."""
        from InteractiveLearningLib.advice import plane_name

        grid = self.session.grid
        return [(plane_name(grid, axis), count) for axis, count in enumerate(grid.shape)]

    def takeEdits(self):
        """Take in what other tools did to the segments; returns how many slices became outlines."""
        self._check()
        count = self._annotation.takeEdits()
        self._show()
        return count

    def undo(self):
        """Take the last step back: a click, a shape, or a stroke of many slices, with its masks."""
        self._ready()
        self._annotation.undo()
        self._show()

    def redo(self):
        """Bring back what was taken back last."""
        self._ready()
        self._annotation.redo()
        self._show()

    def nextSlice(self, axis=None):
        """Where to look next, along an axis or the best one: jumps there and returns the Suggestion, or a sentence if
        nowhere. What reflection doubted of the image counts, too."""
        self._ready()
        suggestion = self.session.suggest(self.activeLabel, axis, doubtArray(self._annotation.volumeNode))
        if not isinstance(suggestion, str):
            self.showSlice(suggestion.axis, suggestion.index)
        return suggestion

    def showSlice(self, axis, index):
        """Jump to a slice, where the active segment is in it."""
        self._check()
        here = (self._annotation.mask == self.activeLabel).take(index, axis)
        middle = np.argwhere(here).mean(axis=0) if here.any() else (np.array(here.shape) - 1) / 2
        point = mrml.worldFromIndex(np.insert(middle, axis, index), self._annotation.volumeNode)
        views.jumpTo(self.scene, point, axis, self._annotation.volumeNode)

    def confirmSlice(self, axis, index):
        """The mask of the active segment is right in this slice: it becomes an outline as it is."""
        from InteractiveLearningLib.prompts import Outline

        self._ready()
        mask = (self._annotation.mask == self.activeLabel).take(index, axis)
        self._apply(Outline.on(self.session.grid, axis, index, mask, self.activeLabel))

    def estimatedDice(self):
        """Dice to be expected of the active segment's mask, 0..1, from how well each outlined slice is predicted by the
        others; None if nothing can be told yet."""
        outlined = self.session.state(self.activeLabel).outlines
        return self.session.result(self.activeLabel).estimated_dice if outlined else None

    def exportLog(self, path):
        """Write everything that happened in the session to a JSON file, for an audit."""
        from RefSegLib.durable import write_durably

        self._check()
        try:
            write_durably(Path(path), json.dumps(self.session.export_log(), indent=1).encode())
        except OSError as error:
            raise RefSegError(f"The log could not be written to '{path}': {error.strerror}.") from error

    def accept(self, model, patient):
        """Keep the case for good, then end the session; returns the id under which it is kept."""
        identifier = self.learning.accept(self.acceptedCase(model, patient, self.spec(model)))
        self.endSession()
        return identifier

    def acceptedCase(self, model, patient, spec):
        """What the replay store is to keep of this session. spec: of the model that learns from it."""
        from InteractiveLearningLib.accepting import accepted_case

        self._ready()
        return accepted_case(self.session, model, patient, spec)

    def _onClick(self, point, positive):
        self._later(lambda: self._used(lambda: self.click(point, positive)))

    def _onDrawn(self, tool, positive, drawn):
        self._used(lambda: self.draw(tool, positive, drawn))

    def _used(self, work):
        """Errors of what the mouse did go to the panel: an exception in an observer would go nowhere."""
        try:
            if self.session is not None:
                work()
        except RefSegError as error:
            self._showClicks()
            self.failed(error)

    def _canvas(self):
        """What shapes need to know to become prompts."""
        return shapes.Canvas(self.scene, self._annotation.volumeNode, self.session.grid, self.activeLabel)

    def _apply(self, prompt):
        self._annotation.apply(prompt)
        self._show()

    def _check(self):
        """Raise BadInput if there is no session, or its nodes are gone."""
        if self.session is None:
            raise BadInput("No session has been started.")
        self._annotation.check(self.scene)

    def _ready(self):
        """Check, and take in what other tools did."""
        self._check()
        self._annotation.takeEdits()

    def _show(self):
        self._showClicks()
        self.changed()

    def _showClicks(self):
        from InteractiveLearningLib.prompts import Click

        clicks = [prompt for prompt in self._annotation.prompts() if isinstance(prompt, Click)]
        places = [self.session.grid.to_index(click.point) for click in clicks]
        points = [mrml.worldFromIndex(place, self._annotation.volumeNode) for place in places]
        self._clicks.show([(point, click.positive) for point, click in zip(points, clicks, strict=True)])
