"""Prompts in the tags of their segments, so that whoever opens the case later still has them.

They are JSON in patient space (LPS, mm) of the volume without the transforms above it, in the order in which they were
given. An outline of a slice is stored without its mask, which is the segment's own slice: as drawn, or as somebody has
changed it since. So it takes 0.4 kB whatever its size.
"""

import json
from contextlib import suppress
from dataclasses import replace

import numpy as np
import vtk
from RefSegLib.errors import BadInput
from RefSegLib.volume.grid import Grid
from RefSegSlicerLib.translation import tr as _

TAG = "RefSeg.Prompts"
SCHEMA = 1
# A stored slice is one of the volume if it is nearer than this (voxels) to it and turned by less (cosine).
NEAR, PARALLEL = 0.25, 0.9999


def textsOf(prompts, grid, own, values):
    """The tags that hold prompts: text by segment id, empty where nothing was said. Touches no node.

    prompts: in order; grid: of the volume in their space, own: the same before the transforms above the volume; values:
    label value by segment id. An oblique outline of a volume whose transform stretches it unevenly has no square pixels
    there: it is not stored, its mask is.
    """
    matrix = own.affine @ np.linalg.inv(grid.affine)
    found = {identifier: [] for identifier in values}
    identifiers = {value: identifier for identifier, value in values.items()}
    for number, prompt in enumerate(prompts):
        with suppress(BadInput):
            found[identifiers[prompt.label]].append(_toDict(moved(prompt, matrix)) | {"number": number})
    return {
        identifier: json.dumps({"schema": SCHEMA, "axes": own.direction, "prompts": mine}, separators=(",", ":"))
        if mine
        else ""
        for identifier, mine in found.items()
    }


def remember(segmentationNode, texts):
    """Write tags (see `textsOf`) into the segments that are still there."""
    for identifier, text in texts.items():
        segment = segmentationNode.GetSegmentation().GetSegment(identifier)
        if segment is None or text == stored(segment):
            continue
        if text:
            segment.SetTag(TAG, text)
        else:
            segment.RemoveTag(TAG)


def stored(segment):
    """The tag of a segment (vtkSegment) as it is; empty if it has none."""
    text = vtk.reference("")
    return str(text.get()) if segment.GetTag(TAG, text) else ""


def storedOf(segmentationNode, values):
    """What `recall` wants to know: (name of the segment, its tag, its label value) of each segment.

    values: label value by segment id.
    """
    found = [(segmentationNode.GetSegmentation().GetSegment(identifier), value) for identifier, value in values.items()]
    return [(segment.GetName(), stored(segment), value) for segment, value in found]


def recall(tags, labels, grid, own):
    """(prompts, unreadable): those of all segments in order, and the names of segments whose tag is damaged.

    tags: see `storedOf`; labels: label map (k, j, i) of the segments as they are; the others as of `remember`. What
    lies outside the volume, or in slices that it does not have, is left out: it may be another one than then. Touches
    no node. Raises BadInput if a tag was written by a newer RefSeg.
    """
    found, unreadable = {}, []
    for name, text, value in tags:
        try:
            tag = json.loads(text or '{"schema": 0, "axes": [], "prompts": []}')
            newer = tag["schema"] > SCHEMA
            axes = [_parallel(axis, own) for axis in tag["axes"]]
            for entry in () if newer else tag["prompts"]:
                prompt = _fromDict(entry | {"label": value}, axes, labels, grid, own)
                if prompt is not None:
                    found[int(entry["number"]), value] = prompt
        except (ValueError, KeyError, TypeError, IndexError, BadInput):
            unreadable.append(name)
            continue
        if newer:
            raise BadInput(
                _("The prompts of '{name}' were given in a newer RefSeg. Update this one.").format(name=name)
            )
    return [found[key] for key in sorted(found)], unreadable


def moved(prompt, matrix):
    """A prompt in another space. matrix: 4x4, LPS to LPS.

    Raises BadInput for an oblique outline if the matrix stretches its plane unevenly.
    """
    changes = {}
    for name in ("point", "lower", "upper"):
        if hasattr(prompt, name):
            changes[name] = _points([getattr(prompt, name)], matrix)[0]
    for name in ("points", "corners"):
        if hasattr(prompt, name):
            changes[name] = _points(getattr(prompt, name), matrix)
    if getattr(prompt, "normal", None) is not None:
        changes["normal"] = tuple(np.linalg.solve(matrix[:3, :3].T, prompt.normal))
    if getattr(prompt, "plane", None) is not None:
        flip = np.diag([-1.0, -1.0, 1.0, 1.0])
        changes["plane"] = Grid.from_ijk_to_ras(flip @ matrix @ flip @ prompt.plane.ijk_to_ras(), prompt.plane.shape)
    return replace(prompt, **changes)


def _points(points, matrix):
    found = np.asarray(points) @ matrix[:3, :3].T + matrix[:3, 3]
    return tuple(tuple(point) for point in found.tolist())


def _parallel(direction, grid):
    """The array axis of a grid that a direction (LPS) lies along, None if there is none."""
    along = np.abs(np.asarray(grid.direction) @ direction)
    return int(along.argmax()) if along.max() > PARALLEL else None


def _toDict(prompt):
    from InteractiveLearningLib.prompts import Outline, to_dict

    values = to_dict(prompt)
    if isinstance(prompt, Outline):
        del values["bits"]
    return values


def _fromDict(values, axes, labels, grid, own):
    """A stored prompt in the session's space; None if it does not lie in this volume. axes: what the array axes of then
    are now."""
    from InteractiveLearningLib.prompts import Limits, Outline, from_dict

    axis = axes[values["axis"]] if values.get("axis") is not None else None
    if values["kind"] == Outline.kind:
        plane = Grid.from_dict(values["plane"])
        place = own.to_index(plane.to_world((np.asarray(plane.shape) - 1) / 2))
        index = None if axis is None else round(float(place[axis]))
        if axis is None or abs(place[axis] - index) > NEAR or not 0 <= index < grid.shape[axis]:
            return None
        return Outline.on(grid, axis, index, labels.take(index, axis) == values["label"], values["label"])
    prompt = from_dict(values | ({"axis": axis} if "axis" in values else {}))
    points = [getattr(prompt, "point", None), *getattr(prompt, "points", ()), *getattr(prompt, "corners", ())]
    places = own.to_index([point for point in points if point is not None] or [own.origin])
    if (
        (np.rint(places) < 0).any()
        or (np.rint(places) >= own.shape).any()
        or (isinstance(prompt, Limits) and axis is None)
    ):
        return None
    return moved(prompt, grid.affine @ np.linalg.inv(own.affine))
