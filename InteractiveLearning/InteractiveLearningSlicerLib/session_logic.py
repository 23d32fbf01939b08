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

from InteractiveLearningSlicerLib import accepting, edits, masking, memory, segments, shapes, views
from InteractiveLearningSlicerLib.beginning import SESSION, begin, valuesOf
from InteractiveLearningSlicerLib.clicks import ClickNodes
from InteractiveLearningSlicerLib.learning_logic import LearningLogic
from InteractiveLearningSlicerLib.steps import Steps
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
        self._clicks = self._watch = self._steps = self._volumeNode = self._segmentationNode = self._mask = None
        self._labels, self._touched = {}, False

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
        """Begin to correct the segments of a segmentation. Returns what of it people should know: see Begun.

        folder: under it the session is saved with every prompt. spec: of the model that will learn; probabilities:
        (1 + segments, k, j, i) of the model, background first, or None to start from the segments as they are.
        What was said about the segments in earlier sessions is known to this one; it cannot be undone any more.
        """
        self.endSession()
        begun = begin(volumeNode, segmentationNode, folder, spec, probabilities)
        self.session, self._labels, self._mask = begun.session, begun.labels, begun.shown
        self._volumeNode, self._segmentationNode = volumeNode, segmentationNode
        self.activeSegment = next(iter(begun.labels))
        self._steps = Steps(self.session)
        self._clicks = ClickNodes(self.scene, self._onClick)
        self.tools = Tools(self.scene, self._clicks.nodes, self._onDrawn, self.changed, self._later)
        self._watch = edits.Watch(segmentationNode.GetSegmentation(), self._onTouched)
        self._show()
        return begun

    def endSession(self, *, keep=False):
        """Leave nothing of the session in the scene but the masks and their prompts. keep: its log stays on the disk,
        to go on later."""
        for part in (self.tools, self._watch, self._clicks):
            if part is not None:
                part.remove()
        if self.session is not None:
            self.session.close()
            if not keep:
                shutil.rmtree(self.session.folder, ignore_errors=True)
                self._segmentationNode.RemoveAttribute(SESSION)
        self.session = self.tools = self._watch = self._clicks = self._steps = self._mask = None
        self._volumeNode = self._segmentationNode = self.activeSegment = None
        self._labels, self._touched = {}, False
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

    def isLocked(self, identifier):
        """True if no correction of another segment may change this one."""
        return masking.isLocked(self._segmentationNode.GetSegmentation().GetSegment(identifier))

    def setLocked(self, identifier, locked):
        """Lock a segment, or unlock it."""
        self._check()
        with self._watch.ours():
            masking.setLocked(self._segmentationNode.GetSegmentation().GetSegment(identifier), locked)
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

    def takeEdits(self):
        """Take what other tools did to the segments into the session; returns how many slices became outlines.

        The slices that were painted in stay as they are now; between and beside them the mask follows. If the Segment
        Editor's own undo or redo brought back a mask the session has had, the session goes back to it.
        """
        if self.session is None or not self._touched:
            return 0
        self._check()
        self._touched = False
        values = valuesOf(self._labels)
        known, shown = self._mask, segments.shownLabels(self._segmentationNode, self._volumeNode, values, self._mask)
        changed = known != shown
        if not changed.any():
            return 0
        self._mask = shown
        outlines = [] if self._steps.find(shown) else edits.outlinesOf(known, shown, self.session.grid)
        if outlines:
            editable, locked = self._bounds({outline.label for outline in outlines})
            # What somebody painted himself is his will, whatever is locked or masked; what follows from it is not.
            editable = editable if editable is None else editable | changed
            spoken = np.unique([known[changed], shown[changed]])
            self.session.apply(outlines, editable=editable, locked=[v for v in locked if v not in spoken])
            self._steps.done()
        self._show()
        return len({(outline.axis, outline.index) for outline in outlines})

    def undo(self):
        """Take the last step back: a click, a shape, or a stroke of many slices, with its masks."""
        self._ready()
        self._steps.undo()
        self._show()

    def redo(self):
        """Bring back what was taken back last."""
        self._ready()
        self._steps.redo()
        self._show()

    def nextSlice(self):
        """Where to look next: jumps there and returns the Suggestion, or a sentence if nowhere."""
        self._ready()
        suggestion = self.session.suggest(self.activeLabel)
        if isinstance(suggestion, str):
            return suggestion
        here = (self._mask == self.activeLabel).take(suggestion.index, suggestion.axis)
        middle = np.argwhere(here).mean(axis=0) if here.any() else (np.array(here.shape) - 1) / 2
        point = mrml.worldFromIndex(np.insert(middle, suggestion.axis, suggestion.index), self._volumeNode)
        views.jumpTo(self.scene, point, suggestion.axis, self._volumeNode)
        return suggestion

    def estimatedDice(self):
        """What leaving out one outlined slice after another tells of the active segment's mask, 0..1; None if nothing
        can be told yet."""
        return self.session.result(self.activeLabel).estimated_dice

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
        self._ready()
        return accepting.acceptedCase(self.session, model, patient, spec)

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

    def _onTouched(self):
        self._touched = True
        self.edited()

    def _canvas(self):
        """What shapes need to know to become prompts."""
        return shapes.Canvas(self.scene, self._volumeNode, self.session.grid, self.activeLabel)

    def _apply(self, prompt):
        editable, locked = self._bounds({prompt.label})
        self.session.apply(prompt, editable=editable, locked=locked)
        self._steps.done()
        self._show()

    def _bounds(self, spoken):
        """(editable, locked) for prompts about these label values: see Session.apply."""
        values = valuesOf(self._labels)
        active = [identifier for identifier, value in values.items() if value in spoken]
        masks = [masking.editable(self._segmentationNode, identifier, self._volumeNode) for identifier in active]
        kept = masking.lockedSegments(self._segmentationNode, active)
        locked = [value for identifier, value in values.items() if identifier in kept]
        return None if masks[0] is None else np.logical_and.reduce(masks), locked

    def _show(self):
        """Bring the segments, their prompts and the clicks to what the session says."""
        after = self.session.labels().array
        lower, upper = mrml.boundingBox(self._mask != after)
        box = tuple(map(slice, lower, upper))
        values = valuesOf(self._labels)
        with self._watch.ours():
            nodes = self._segmentationNode, self._volumeNode
            segments.writeBox(self._mask[box], after[box], lower, *nodes, values)
            prompts, own = [*self.session.earlier, *self.session.prompts()], mrml.ownGrid(self._volumeNode)
            memory.remember(self._segmentationNode, prompts, self.session.grid, own, values)
            self._segmentationNode.SetAttribute(SESSION, f"{self.session.folder.name} {self._steps.mask}")
        self._mask = after
        self._showClicks()
        self.changed()

    def _check(self):
        """Raise BadInput if there is no session, or its nodes are gone."""
        if self.session is None:
            raise BadInput("No session has been started.")
        for node in (self._volumeNode, self._segmentationNode):
            if not self.scene.IsNodePresent(node):
                raise BadInput(f"'{node.GetName()}' was removed from the scene. End the session.")
        for identifier, label in self._labels.items():
            if self._segmentationNode.GetSegmentation().GetSegment(identifier) is None:
                raise BadInput(
                    f"The segment '{label.name}' was removed. End the session, and start it without that segment."
                )

    def _ready(self):
        """Check, and take in what other tools did."""
        self._check()
        self.takeEdits()

    def _showClicks(self):
        from InteractiveLearningLib.prompts import Click

        clicks = [p for p in (*self.session.earlier, *self.session.prompts()) if isinstance(p, Click)]
        points = [mrml.worldFromIndex(self.session.grid.to_index(c.point), self._volumeNode) for c in clicks]
        self._clicks.show([(point, click.positive) for point, click in zip(points, clicks, strict=True)])
