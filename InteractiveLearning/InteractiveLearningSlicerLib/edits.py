"""Painting, erasing and all else that other tools do to the segments of a session, as prompts of that session."""

from contextlib import contextmanager

import numpy as np
import slicer

# The Segment Editor's own undo fires the second alone; several come with one stroke.
EVENTS = ("SourceRepresentationModified", "SegmentModified")


class Watch:
    """Notices that somebody else may have changed a segmentation. touched: called with nothing, once per event."""

    def __init__(self, segmentation, touched):
        self._segmentation, self._touched, self._ours = segmentation, touched, 0
        events = [getattr(slicer.vtkSegmentation, name) for name in EVENTS]
        self._tags = [segmentation.AddObserver(event, self._onEvent) for event in events]

    def remove(self):
        """Notice nothing any more."""
        for tag in self._tags:
            self._segmentation.RemoveObserver(tag)
        self._tags = []

    @contextmanager
    def ours(self):
        """What happens inside of this is our own doing."""
        self._ours += 1
        try:
            yield
        finally:
            self._ours -= 1

    def _onEvent(self, caller, event):
        if not self._ours:
            self._touched()


def paintedSlices(changed):
    """(axis, indices) of the slices in which something changed (bool k, j, i), along the axis along which they are
    fewest."""
    slices = [np.flatnonzero(changed.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    axis = int(np.argmin([len(found) for found in slices]))
    return axis, slices[axis].tolist()


def outlinesOf(known, shown, grid):
    """The outlines that lead from one label map (k, j, i) to another: of the slices that were painted in alone.

    A label that only lost voxels to another one was not spoken of: the outline of the other takes them.
    """
    from InteractiveLearningLib.prompts import Outline

    changed = known != shown
    axis, indices = paintedSlices(changed)
    found = []
    for index in indices:
        before, after = known.take(index, axis), shown.take(index, axis)
        spoken = np.union1d(after[before != after], before[(before != after) & (after == 0)])
        found += [Outline.on(grid, axis, index, after == value, int(value)) for value in spoken if value]
    return found
