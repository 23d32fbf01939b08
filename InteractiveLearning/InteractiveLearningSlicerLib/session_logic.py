"""Annotating one volume: what is drawn or painted becomes prompts of a session, its masks become segments.

Points come in world space and are brought to voxels of the volume wherever it lies by then; the session keeps the place
it had when it was started.
"""

import json
from pathlib import Path

import numpy as np
from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.jobs import Signal
from RefSegSlicerLib import mrml
from RefSegSlicerLib.doubt import doubtArray
from RefSegSlicerLib.translation import tr as _

from InteractiveLearningSlicerLib import masking, shapes, views
from InteractiveLearningSlicerLib.annotation import Annotation
from InteractiveLearningSlicerLib.beginning import begin
from InteractiveLearningSlicerLib.clicks import ClickNodes
from InteractiveLearningSlicerLib.tools import Tools
from InteractiveLearningSlicerLib.turns import AtOnce, Turns


class SessionLogic:
    """One session at a time in a scene.

    changed(): prompts, masks or the tool in hand are no longer what they were; failed(RefSegError): what was asked for
    could not be done; edited(): another tool has touched the segments: call takeEdits when it is through (any other
    call does so, too).

    later: runs the work it is given after the event at hand. With it, nothing here waits for a session: what takes time
    is done when `turns` is polled often enough, in order, and whoever wants its value gives `then`, a function to be
    called with it. Without it, for scripts, everything is done when a method returns, with its value.
    """

    def __init__(self, scene, later=None):
        self.scene, self.session, self.activeSegment, self.tools = scene, None, None, None
        self.changed, self.failed, self.edited = Signal(), Signal(), Signal()
        self.turns = AtOnce() if later is None else Turns(self._failed)
        self._later = later or (lambda work: work())
        self._annotation = self._clicks = self._desk = None

    @staticmethod
    def patientOf(volumeNode):
        """The patient, as far as the name of a volume tells."""
        from RefSegLib.training.split import patient_of

        return patient_of(volumeNode.GetName())

    def startSession(self, volumeNode, segmentationNode, desk, *, known=None, then=None):
        """Begin to correct the segments of a segmentation. Value: what of it people should know, see Begun.

        desk: where the session is saved with every prompt, see InteractiveLearningLib/desk.py; known: label values of
        the model that will learn, by the names of its segments. What was said about the segments in earlier sessions is
        known to this one; it cannot be undone any more.
        """
        self.endSession()
        return self.turns.take(self._start(volumeNode, segmentationNode, desk, known or {}), then)

    def _start(self, volumeNode, segmentationNode, desk, known):
        opened, annotation = [], None
        try:
            begun = yield from begin(volumeNode, segmentationNode, desk, known, opened.append, self.turns.progress)
            annotation = Annotation(begun, volumeNode, segmentationNode, self.edited, lambda: self.turns.stopped)
            annotation.check(self.scene)
            yield from annotation.begin()
        except BaseException:  # also when nobody waits for it any more
            if annotation is not None:
                annotation.remove(ended=False)
            self.turns.aside(lambda: [session.close() for session in opened])
            raise
        self.session, self.activeSegment = begun.session, next(iter(begun.labels))
        self._annotation, self._desk = annotation, desk
        self._clicks = ClickNodes(self.scene, self._onClick)
        self.tools = Tools(self.scene, self._clicks.nodes, self._onDrawn, self.changed, self._later)
        self._show()
        return begun

    def endSession(self, *, keep=False):
        """Leave nothing of the session in the scene but the masks and their prompts. keep: it can go on later."""
        session, desk = self.session, self._desk
        self._leave(ended=not keep)
        if session is not None:
            self.turns.aside(session.close if keep else lambda: desk.discard(session))

    def _leave(self, *, ended):
        self.turns.drop()
        if self.session is not None:
            for part in (self.tools, self._clicks):
                part.remove()
            self._annotation.remove(ended=ended)
        self.session = self.tools = self.activeSegment = self._annotation = self._clicks = self._desk = None
        self.changed()

    @property
    def clickNodes(self):
        """The fiducial nodes by polarity: True for points inside, False for points outside."""
        return self._clicks.nodes

    @property
    def volumeNode(self):
        """The volume of the session; None without one."""
        return None if self._annotation is None else self._annotation.volumeNode

    @property
    def segmentationNode(self):
        """The segmentation of the session; None without one."""
        return None if self._annotation is None else self._annotation.segmentationNode

    @property
    def undoName(self):
        """What undo would take back, in words; None if nothing."""
        return None if self._annotation is None else self._annotation.news.undoName

    @property
    def redoName(self):
        """What redo would bring back, in words; None if nothing."""
        return None if self._annotation is None else self._annotation.news.redoName

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

    def say(self, prompt):
        """A prompt in the session's own space (InteractiveLearningLib/prompts.py)."""
        self._check()
        return self._turn(self._annotation.apply(prompt))

    def click(self, point, positive):
        """A point (world RAS) is, or is not, part of the active segment."""
        self._check()
        return self.say(shapes.clickAt(point, positive, self._canvas()))

    def draw(self, tool, positive, drawn):
        """A shape of one of the Tools is finished: see Tools.drawn."""
        self._check()
        return self.say(shapes.promptOf(tool, positive, drawn, self._canvas()))

    def setLimits(self, axis, lower, upper):
        """The active segment lies between these slices of an array axis, both included."""
        from InteractiveLearningLib.prompts import Limits

        self._check()
        return self.say(Limits.on(self.session.grid, axis, lower, upper, self.activeLabel))

    def confirmSlice(self, axis, index):
        """The mask of the active segment is right in this slice: it becomes an outline as it is."""
        self._check()
        return self._turn(self._confirmed(axis, index, self.activeLabel))

    def _confirmed(self, axis, index, label):
        from InteractiveLearningLib.prompts import Outline

        mask = self._annotation.mask.take(index, axis) == label
        yield from self._annotation.apply(Outline.on(self.session.grid, axis, index, mask, label))

    def proposeLimits(self, then=None):
        """Value: (axis, first, last slice, True) between which the active segment seems to lie; if nothing tells, all
        slices of the handiest axis, and False."""
        self._check()
        return self._turn(self._proposed(self.activeLabel), then)

    def _proposed(self, label):
        session = self.session

        def think():
            limits = session.propose_limits(label)
            if limits is not None:
                return (limits.axis, *limits.indices(session.grid), True)
            axis = session.handiest_axis()
            return axis, 0, session.grid.shape[axis] - 1, False

        return (yield think)

    def planes(self):
        """(name of the anatomical plane, number of slices) along each array axis."""
        return self._annotation.planes

    def takeEdits(self, then=None):
        """Take in what other tools did to the segments. Value: how many slices became outlines."""
        self._check()
        return self.turns.take(self._taken(), then)

    def _taken(self):
        self._check()
        count = yield from self._annotation.takeEdits()
        self._show()
        return count

    def undo(self):
        """Take the last step back: a click, a shape, or a stroke of many slices, with its masks."""
        self._check()
        return self._turn(self._annotation.undo())

    def redo(self):
        """Bring back what was taken back last."""
        self._check()
        return self._turn(self._annotation.redo())

    def nextSlice(self, axis=None, then=None):
        """Where to look next, along an axis or the best one: jumps there. Value: the Suggestion, or a sentence if
        nowhere. What reflection doubted of the image counts, too."""
        self._check()
        return self._turn(self._next(self.activeLabel, axis), then)

    def _next(self, label, axis):
        session, doubt = self.session, doubtArray(self._annotation.volumeNode)
        suggestion = yield lambda: session.suggest(label, axis, doubt)
        if not isinstance(suggestion, str):
            self.showSlice(suggestion.axis, suggestion.index)
        return suggestion

    def showSlice(self, axis, index):
        """Jump to a slice, where the active segment is in it."""
        self._check()
        here = self._annotation.mask.take(index, axis) == self.activeLabel
        middle = np.argwhere(here).mean(axis=0) if here.any() else (np.array(here.shape) - 1) / 2
        point = mrml.worldFromIndex(np.insert(middle, axis, index), self._annotation.volumeNode)
        views.jumpTo(self.scene, point, axis, self._annotation.volumeNode)

    def estimatedDice(self):
        """Dice to be expected of the active segment's mask, 0..1, from how well each outlined slice is predicted by the
        others; None if nothing can be told yet."""
        return self._annotation.news.dice.get(self.activeLabel)

    def exportLog(self, path, then=None):
        """Write everything that happened in the session to a JSON file, for an audit."""
        self._check()
        session = self.session

        def think():
            from RefSegLib.durable import write_durably

            try:
                write_durably(Path(path), json.dumps(session.export_log(), indent=1).encode())
            except OSError as error:
                text = _("The log could not be written to '{path}': {reason}.")
                raise RefSegError(text.format(path=path, reason=error.strerror)) from error

        def turn():
            yield think

        return self.turns.take(turn(), then)

    def accept(self, model, patient, then=None):
        """Keep the case for good, then end the session. Value: the id under which it is kept."""
        self._check()
        return self._turn(self._accepted(model, patient), then)

    def _accepted(self, model, patient):
        session, desk = self.session, self._desk
        identifier = yield lambda: desk.accept(session, model, patient)
        self._leave(ended=True)
        return identifier

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
            self._failed(error)

    def _failed(self, error):
        if self.session is not None:
            self._showClicks()
        self.failed(error)

    def _canvas(self):
        """What shapes need to know to become prompts."""
        return shapes.Canvas(self.scene, self._annotation.volumeNode, self.session.grid, self.activeLabel)

    def _check(self):
        """Raise BadInput if there is no session, or its nodes are gone."""
        if self.session is None:
            raise BadInput(_("No session has been started."))
        self._annotation.check(self.scene)

    def _turn(self, work, then=None):
        """Take in what other tools did, then do the work of a session."""
        return self.turns.take(self._inOrder(work), then)

    def _inOrder(self, work):
        self._check()
        yield from self._annotation.takeEdits()
        value = yield from work
        if self.session is not None:
            self._show()
        return value

    def _show(self):
        self._showClicks()
        self.changed()

    def _showClicks(self):
        if self.turns.waiting:  # points whose turn has not come are no less true
            return
        from InteractiveLearningLib.prompts import Click

        clicks = [prompt for prompt in self._annotation.news.prompts if isinstance(prompt, Click)]
        places = [self.session.grid.to_index(click.point) for click in clicks]
        points = [mrml.worldFromIndex(place, self._annotation.volumeNode) for place in places]
        self._clicks.show([(point, click.positive) for point, click in zip(points, clicks, strict=True)])
