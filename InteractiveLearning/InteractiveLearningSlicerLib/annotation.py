"""A session and the segments it corrects, kept the same: whatever either of them says, the other follows."""

import numpy as np
from RefSegLib.errors import BadInput
from RefSegSlicerLib import mrml

from InteractiveLearningSlicerLib import edits, masking, memory, segments
from InteractiveLearningSlicerLib.beginning import SESSION, valuesOf
from InteractiveLearningSlicerLib.steps import Steps


class Annotation:
    """begun: see beginning.Begun. touched(): another tool has touched the segments. mask: label map (k, j, i) that the
    segments show."""

    def __init__(self, begun, volumeNode, segmentationNode, touched):
        self.session, self.labels, self.mask = begun.session, begun.labels, begun.shown
        self.volumeNode, self.segmentationNode = volumeNode, segmentationNode
        self._values, self._steps = valuesOf(begun.labels), Steps(begun.session)
        self._touched, self._notify = False, touched
        self._watch = edits.Watch(segmentationNode.GetSegmentation(), self._onTouched)
        self._write()

    def remove(self, *, ended):
        """Watch no more. ended: the session is over for good."""
        self._watch.remove()
        if ended:
            self.segmentationNode.RemoveAttribute(SESSION)

    def check(self, scene):
        """Raise BadInput if nodes or segments are gone."""
        for node in (self.volumeNode, self.segmentationNode):
            if not scene.IsNodePresent(node):
                raise BadInput(f"'{node.GetName()}' was removed from the scene. End the session.")
        for identifier, label in self.labels.items():
            if self.segment(identifier) is None:
                raise BadInput(
                    f"The segment '{label.name}' was removed. End the session, and start it without that segment."
                )

    def segment(self, identifier):
        """The vtkSegment of that id; None if it was removed."""
        return self.segmentationNode.GetSegmentation().GetSegment(identifier)

    def setLocked(self, identifier, locked):
        """Lock a segment, or unlock it."""
        with self._watch.ours():
            masking.setLocked(self.segment(identifier), locked)

    def prompts(self):
        """All that hold, those of earlier sessions first."""
        return [*self.session.earlier, *self.session.prompts()]

    def apply(self, prompt):
        """Say something; nothing changes that is locked or masked."""
        editable, locked = self._bounds({prompt.label})
        self.session.apply(prompt, editable=editable, locked=locked)
        self._steps.done()
        self._write()

    def undo(self):
        """Take the last step back: a prompt, or a stroke of many slices, with its masks."""
        self._steps.undo()
        self._write()

    def redo(self):
        """Bring back what was taken back last."""
        self._steps.redo()
        self._write()

    def takeEdits(self):
        """Take what other tools did to the segments into the session; returns how many slices became outlines.

        The slices that were painted in stay as they are now; between and beside them the mask follows. If the Segment
        Editor's own undo or redo brought back a mask the session has had, the session goes back to it.
        """
        if not self._touched:
            return 0
        known = self.mask
        shown = segments.shownLabels(self.segmentationNode, self.volumeNode, self._values, known)
        changed = known != shown
        outlines = []
        if not changed.any():
            self._touched = False
            return 0
        if not self._steps.find(shown):
            outlines = edits.outlinesOf(known, shown, self.session.grid)
            editable, locked = self._bounds({outline.label for outline in outlines})
            # What somebody painted himself is his will, whatever is locked or masked; what follows from it is not.
            editable = editable if editable is None else editable | changed
            spoken = np.unique([known[changed], shown[changed]])
            self.session.apply(outlines, editable=editable, locked=[v for v in locked if v not in spoken])
            self._steps.done()
        self.mask, self._touched = shown, False
        self._write()
        return len({outline.index for outline in outlines})

    def _onTouched(self):
        self._touched = True
        self._notify()

    def _bounds(self, spoken):
        """(editable, locked) for prompts about these label values: see Session.apply."""
        active = [identifier for identifier, value in self._values.items() if value in spoken]
        masks = [masking.editable(self.segmentationNode, identifier, self.volumeNode) for identifier in active]
        kept = masking.lockedSegments(self.segmentationNode, active)
        locked = [value for identifier, value in self._values.items() if identifier in kept]
        return None if masks[0] is None else np.logical_and.reduce(masks), locked

    def _write(self):
        """Bring the segments and their prompts to what the session says."""
        after = self.session.labels().array
        lower, upper = mrml.boundingBox(self.mask != after)
        box = tuple(map(slice, lower, upper))
        nodes, own = (self.segmentationNode, self.volumeNode), mrml.ownGrid(self.volumeNode)
        with self._watch.ours():
            segments.writeBox(self.mask[box], after[box], lower, *nodes, self._values)
            memory.remember(self.segmentationNode, self.prompts(), self.session.grid, own, self._values)
            self.segmentationNode.SetAttribute(SESSION, f"{self.session.folder.name} {self._steps.mask}")
        self.mask = after
