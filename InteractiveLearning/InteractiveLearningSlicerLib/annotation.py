"""A session and the segments it corrects, kept the same: whatever either of them says, the other follows.

What takes time runs in the thread of turns.py; methods that say so are turns, or parts of turns.
"""

from dataclasses import dataclass

import numpy as np
from RefSegLib.errors import BadInput
from RefSegSlicerLib import mrml
from RefSegSlicerLib.translation import tr as _

from InteractiveLearningSlicerLib import edits, masking, memory, segments
from InteractiveLearningSlicerLib.beginning import SESSION, valuesOf
from InteractiveLearningSlicerLib.steps import Steps


@dataclass(frozen=True)
class News:
    """How a session stands. mask: label map (k, j, i); changes: from the mask that is shown; prompts: all that hold,
    those of earlier sessions first; texts: the same as tags, by segment id; undoName, redoName: what can be taken back
    or brought back, None if nothing; dice: estimated Dice by label value; step: name of the mask."""

    mask: np.ndarray
    changes: list
    prompts: list
    texts: dict
    undoName: str
    redoName: str
    dice: dict
    step: str


class Annotation:
    """begun: see beginning.Begun. touched(): another tool has touched the segments. stopped(): what is being said is to
    come to nothing. mask: label map (k, j, i) that the segments show; news: the last News."""

    def __init__(self, begun, volumeNode, segmentationNode, touched, stopped):
        self.session, self.labels, self.mask, self.planes = begun.session, begun.labels, begun.shown, begun.planes
        self.volumeNode, self.segmentationNode = volumeNode, segmentationNode
        self._values, self._steps = valuesOf(begun.labels), None
        self._touched, self._notify, self._stopped = False, touched, stopped
        self._own = mrml.ownGrid(volumeNode)
        self._watch = edits.Watch(segmentationNode.GetSegmentation(), self._onTouched)
        self.news = None

    def remove(self, *, ended):
        """Watch no more. ended: the session is over for good."""
        self._watch.remove()
        if ended:
            self.segmentationNode.RemoveAttribute(SESSION)

    def check(self, scene):
        """Raise BadInput if nodes or segments are gone."""
        for node in (self.volumeNode, self.segmentationNode):
            if not scene.IsNodePresent(node):
                text = _("'{name}' was removed from the scene. End the session.")
                raise BadInput(text.format(name=node.GetName()))
        self._own = mrml.ownGrid(self.volumeNode)
        for identifier, label in self.labels.items():
            if self.segment(identifier) is None:
                raise BadInput(segments.removed(label.name))

    def segment(self, identifier):
        """The vtkSegment of that id; None if it was removed."""
        return self.segmentationNode.GetSegmentation().GetSegment(identifier)

    def setLocked(self, identifier, locked):
        """Lock a segment, or unlock it."""
        with self._watch.ours():
            masking.setLocked(self.segment(identifier), locked)

    def begin(self):
        """Part of a turn: bring the segments to what the session says."""

        def think():
            self._steps = Steps(self.session)
            return self._news()

        self._write((yield think))

    def apply(self, prompt):
        """Part of a turn: say something; nothing changes that is locked or masked."""
        editable, locked = self._bounds({prompt.label})
        yield from self._say(lambda: self.session.apply(prompt, editable=editable(), locked=locked))

    def undo(self):
        """Part of a turn: take the last step back, a prompt or a stroke of many slices, with its masks."""
        self._write((yield lambda: (self._steps.undo(), self._news())[1]))

    def redo(self):
        """Part of a turn: bring back what was taken back last."""
        self._write((yield lambda: (self._steps.redo(), self._news())[1]))

    def takeEdits(self):
        """Part of a turn: take what other tools did to the segments into the session; its value is how many slices
        became outlines.

        The slices that were painted in stay as they are now; between and beside them the mask follows. If the Segment
        Editor's own undo or redo brought back a mask the session has had, the session goes back to it.
        """
        if not self._touched:
            return 0
        self._touched = False  # painting that comes while this is thought about is taken next
        known = self.mask
        try:
            parts = segments.snapshot(self.segmentationNode, self.volumeNode, self._values)
            shown, changed, outlines = yield lambda: self._read(parts, known)
            if changed is None:
                return 0
            if outlines:
                editable, locked = self._bounds({outline.label for outline in outlines})
                yield from self._say(lambda: self._paint(known, shown, changed, outlines, editable, locked), shown)
            else:
                self._write((yield lambda: self._news(shown)))
        except BaseException:
            self._touched = True
            raise
        return len({outline.index for outline in outlines})

    def _read(self, parts, known):
        """What was painted: (label map, where it changed or None, outlines of that; none if the session had it)."""
        shown = segments.labelMap(parts, known.shape, known)
        changed = known != shown
        if not changed.any():
            return shown, None, []
        if self._steps.find(shown):
            return shown, changed, []
        return shown, changed, edits.outlinesOf(known, shown, self.session.grid)

    def _paint(self, known, shown, changed, outlines, editable, locked):
        # What somebody painted himself is his will, whatever is locked or masked; what follows from it is not.
        allowed = editable()
        allowed = None if allowed is None else allowed | changed
        spoken = np.unique([known[changed], shown[changed]])
        self.session.apply(outlines, editable=allowed, locked=[v for v in locked if v not in spoken])

    def _say(self, say, shown=None):
        def think():
            say()
            self._steps.done()
            if self._stopped():  # a session cannot be stopped in the middle of a mask, but it can take it back
                self._steps.undo()
            return self._news(shown)

        self._write((yield think))

    def _news(self, shown=None):
        """How the session stands, in its thread. shown: label map that the segments show, if it is not `mask`."""
        session, before = self.session, self.mask if shown is None else shown
        mask = session.labels().array
        prompts = [*session.earlier, *session.prompts()]
        spoken = {prompt.label for prompt in prompts}
        dice = {value: session.estimated_dice(value) for value in self._values.values() if value in spoken}
        changes = segments.changesOf(before, mask, self._values.values())
        texts = memory.textsOf(prompts, session.grid, self._own, self._values)
        return News(mask, changes, prompts, texts, session.undo_name, session.redo_name, dice, self._steps.mask)

    def _onTouched(self):
        self._touched = True
        self._notify()

    def _bounds(self, spoken):
        """(editable, locked) for prompts about these label values: see Session.apply. editable: a function that gives
        the mask, in the thread; what it gives is None if everything may change."""
        active = [identifier for identifier, value in self._values.items() if value in spoken]
        masks = [masking.editable(self.segmentationNode, identifier, self.volumeNode) for identifier in active]
        kept = masking.lockedSegments(self.segmentationNode, active)
        locked = [value for identifier, value in self._values.items() if identifier in kept]
        return lambda: None if masks[0] is None else np.logical_and.reduce([mask() for mask in masks]), locked

    def _write(self, news):
        """Bring the segments and their prompts to what the session says."""
        with self._watch.ours():
            segments.write(news.changes, self.segmentationNode, self.volumeNode, self._values)
            memory.remember(self.segmentationNode, news.texts)
            self.segmentationNode.SetAttribute(SESSION, f"{self.session.id} {news.step}")
        self.mask, self.news = news.mask, news
