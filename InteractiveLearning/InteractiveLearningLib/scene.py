"""The values a session is made of: the scene that never changes, and what was said about each label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from RefSegLib.volume.grid import Grid
from scipy import ndimage

from InteractiveLearningLib.prompts import ObliqueOutline
from InteractiveLearningLib.strokes import Stroke

Mask = npt.NDArray[np.bool_]
Voxel = tuple[int, int, int]
SliceKey = tuple[int, int]
Region = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Scene:
    """Image and model of a session.

    image: one channel (k, j, i). probabilities: uint8 (outputs, k, j, i), 255 is certain, background first; or None.
    base: the label map of the model, (k, j, i). Output n + 1 belongs to values[n].
    """

    image: npt.NDArray
    grid: Grid
    values: tuple[int, ...]
    probabilities: npt.NDArray[np.uint8] | None
    base: npt.NDArray[np.unsignedinteger]
    extents: Mapping[int, Region]

    def prior(self, value: int, region: Region) -> npt.NDArray[np.float32] | None:
        """The model's probability of a label in a region, above 0.5 exactly where its label map shows the label."""
        if self.probabilities is None:
            return None
        given = self.probabilities[(self.values.index(value) + 1, *region)].astype(np.float32) / 255
        shown = self.base[region] == value
        return np.where(shown, np.maximum(given, 0.51), np.minimum(given, 0.49)).astype(np.float32)

    def limited(self, limits: Mapping[int, Mapping[int, tuple[int, int]]]) -> Scene:
        """The scene once {label: {axis: (first, last slice)}} are known: beyond its limits a label's probability goes
        to the others in proportion. Without this a gap would open where one part of a structure ends too late."""
        if self.probabilities is None or not any(limits.values()):
            return self
        probabilities = self.probabilities.copy()
        for value, spans in limits.items():
            own = self.values.index(value) + 1
            for axis, (low, high) in spans.items():
                for beyond in (slice(0, low), slice(high + 1, None)):
                    at = tuple(beyond if a == axis else slice(None) for a in range(3))
                    part = probabilities[(slice(None), *at)].astype(np.uint16)
                    rest = 255 - part[own]
                    part[own] = 0
                    part[0, rest == 0] = 255
                    shared = np.minimum(part * 255 // np.maximum(rest, 1), 255)
                    probabilities[(slice(None), *at)] = np.where(rest > 0, shared, part)
        return scene_of(self.image, self.grid, self.values, probabilities)


@dataclass(frozen=True)
class Pin:
    """A voxel somebody pointed at, and the slice in which they looked at it."""

    voxel: Voxel
    positive: bool
    slice: SliceKey


@dataclass(frozen=True)
class LabelState:
    """All that was said about one label. Masks in `outlines` and `changes` (added, removed) are never written to.

    pins: voxels that were pointed at. strokes: clicks and scribbles that say something of the voxels around them, too;
    changes: what clicks on a structure nobody knows yet, lassos and boxes did to single slices.

    Slices are (axis, index). Axis 3 + n is the first axis of frames[n]: the slices of an oblique view. `drawn` has the
    outlines of oblique slices on the planes they were drawn on.
    """

    outlines: Mapping[SliceKey, Mask] = field(default_factory=dict)
    changes: Mapping[SliceKey, tuple[Mask, Mask]] = field(default_factory=dict)
    pins: tuple[Pin, ...] = ()
    limits: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    box: tuple[Voxel, Voxel] | None = None
    frames: tuple[Grid, ...] = ()
    drawn: Mapping[SliceKey, ObliqueOutline] = field(default_factory=dict)
    strokes: tuple[Stroke, ...] = ()

    @property
    def said(self) -> bool:
        """Anything at all."""
        return bool(self.outlines or self.changes or self.pins or self.limits or self.box)


@dataclass(frozen=True)
class LabelResult:
    """One label by itself inside `region`: mask, probability and confidence (float32, 0..1).

    estimated_dice, method: of its proxy mask, None if nothing is outlined.
    """

    region: Region
    mask: Mask
    probability: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32]
    estimated_dice: float | None
    method: str | None


def on_slice(axis: int, index: int) -> tuple:
    """The index of a whole slice along an axis of the image."""
    return tuple(index if a == axis else slice(None) for a in range(3))


def scene_of(
    image: npt.NDArray, grid: Grid, values: tuple[int, ...], probabilities: npt.NDArray[np.uint8] | None
) -> Scene:
    """The scene of an image (k, j, i), its labels and a model's probabilities, if there is a model."""
    dtype = np.uint8 if max(values) < 256 else np.uint16
    base = np.zeros(grid.shape, dtype)
    if probabilities is not None:
        base = np.asarray((0, *values), dtype)[probabilities.argmax(axis=0)]
    found = ndimage.find_objects(base)
    extents = {v: found[v - 1] for v in values if v <= len(found) and found[v - 1] is not None}
    return Scene(image, grid, values, probabilities, base, extents)
