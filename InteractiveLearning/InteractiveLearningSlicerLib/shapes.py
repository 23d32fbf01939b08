"""What was drawn in the slice views, in world space, as prompts of a session, wherever the volume lies by now."""

from dataclasses import dataclass

import numpy as np
from RefSegLib.errors import BadInput
from RefSegLib.volume.grid import Grid
from RefSegSlicerLib import mrml
from RefSegSlicerLib.translation import tr as _

from InteractiveLearningSlicerLib import views

# A line says something about every voxel it passes: it is read at steps of this many voxels.
STEP = 0.5


@dataclass(frozen=True)
class Canvas:
    """What is drawn on. grid: the session's; label: the value that is spoken of."""

    scene: object
    volumeNode: object
    grid: Grid
    label: int

    def indices(self, points):
        """Voxels k, j, i (n, 3; with fractions) of points in world RAS."""
        return np.array([mrml.indexFromWorld(point, self.volumeNode) for point in np.reshape(points, (-1, 3))])

    def view(self, points):
        """axis and normal of the view that points were drawn in, as prompts say it; empty if nobody knows."""
        axis, normal = views.drawnIn(self.scene, points, self.volumeNode)
        if normal is None:
            return {"axis": axis}
        # Two directions in the plane are moved, not the normal: a volume may be stretched by its transform.
        along = np.linalg.svd(normal[None])[2][1:]
        start, *ends = self.grid.to_world(self.indices([points[0], *(points[0] + along)]))
        across = np.cross(ends[0] - start, ends[1] - start)
        return {"normal": tuple(across / np.linalg.norm(across))}


def clickAt(point, positive, canvas):
    """The Click of a point (world RAS). Raises BadInput if it lies outside the volume."""
    from InteractiveLearningLib.prompts import Click

    place = canvas.indices(point)
    if not _inside(place, canvas.grid).all():
        raise BadInput(_("The click lies outside the volume; click inside of it."))
    view = canvas.view(np.reshape(point, (1, 3)))
    return Click(tuple(canvas.grid.to_world(place)[0]), bool(positive), canvas.label, **view)


def promptOf(tool, positive, drawn, canvas):
    """The prompt that a finished shape is: see Tools.drawn. Raises BadInput if it does not reach the volume."""
    from InteractiveLearningLib.curves import outline_of
    from InteractiveLearningLib.prompts import Box, Lasso, Scribble

    grid, label = canvas.grid, canvas.label
    if tool == "box":
        box = mrml.boxFromRoi(drawn, canvas.volumeNode)
        return Box(tuple(map(tuple, grid.to_world([box[:3], np.subtract(box[3:], 1)]))), label)
    places = canvas.indices(drawn)
    if tool == "scribble":
        passed = _everyVoxel(places)
        passed = passed[_inside(passed, grid)]
        if not len(passed):
            raise BadInput(_("The scribble lies outside the volume; draw inside of it."))
        return Scribble(tuple(map(tuple, grid.to_world(passed))), bool(positive), label, **canvas.view(drawn))
    points = tuple(map(tuple, grid.to_world(places)))
    if tool == "lasso":
        return Lasso(points, bool(positive), label, **canvas.view(drawn))
    return outline_of(grid, points, label)


def _inside(places, grid):
    """Which places (n, 3) lie in a voxel of the grid."""
    return ((np.rint(places) >= 0) & (np.rint(places) < grid.shape)).all(axis=1)


def _everyVoxel(places):
    """Along a line (n, 3): a place in each voxel that it passes, once."""
    lengths = np.linalg.norm(np.diff(places, axis=0), axis=1)
    at = np.concatenate([[0.0], np.cumsum(lengths)])
    dense = np.linspace(0.0, at[-1], int(np.ceil(at[-1] / STEP)) + 1)
    found = np.stack([np.interp(dense, at, places[:, axis]) for axis in range(3)], axis=1)
    first = np.unique(np.rint(found).astype(int), axis=0, return_index=True)[1]
    return found[np.sort(first)]
