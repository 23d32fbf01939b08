"""What an annotator says, as values in patient space (LPS, mm), so that it survives the image being opened elsewhere.

Every prompt names the label it speaks about. `to_dict` gives what JSON can hold and `from_dict` takes it back; a mask
travels as its packed bits in base64 and is small (a 256-squared slice: 11 kB before compression).
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Union

import numpy as np
import numpy.typing as npt
from RefSegLib.errors import BadInput
from RefSegLib.volume.grid import Grid

Point = tuple[float, float, float]
MOST_PIXELS = 2**26


def _point(values: Any) -> Point:
    point = tuple(float(v) for v in values)
    if len(point) != 3 or not np.isfinite(point).all():
        raise BadInput(f"A point needs three finite numbers (LPS, mm), not {values!r}.")
    return point


def _direction(values: Any) -> Point | None:
    """A unit vector, turned so that its largest part is positive: both sides of a plane are the same view."""
    if values is None:
        return None
    vector = np.asarray(_point(values))
    length = float(np.linalg.norm(vector))
    if length < 1e-6:
        raise BadInput("The normal of a slice view has no length.")
    vector = vector / length * (np.sign(vector[np.abs(vector).argmax()]) or 1.0)
    return tuple(float(v) for v in vector)


def _settle_line(prompt: Scribble | Lasso) -> None:
    """Give a drawn line its points and the normal of its view as they are to be."""
    object.__setattr__(prompt, "points", tuple(_point(p) for p in prompt.points))
    object.__setattr__(prompt, "normal", _direction(prompt.normal))


@dataclass(frozen=True)
class Click:
    """This point is (positive) or is not part of the label.

    The view it was made in: the array axis it looks along, or, of an oblique view, the normal (LPS); neither is known
    of a point placed in 3D.
    """

    kind: ClassVar[str] = "click"
    point: Point
    positive: bool
    label: int
    axis: int | None = None
    normal: Point | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "point", _point(self.point))
        object.__setattr__(self, "normal", _direction(self.normal))


@dataclass(frozen=True)
class Scribble:
    """A drawn line, all of whose points are (positive) or are not part of the label. axis, normal: as of a Click."""

    kind: ClassVar[str] = "scribble"
    points: tuple[Point, ...]
    positive: bool
    label: int
    axis: int | None = None
    normal: Point | None = None

    def __post_init__(self) -> None:
        _settle_line(self)
        if not self.points:
            raise BadInput("A scribble needs at least one point.")


@dataclass(frozen=True)
class Lasso:
    """A rough closed line in one slice. Positive: in that slice the label lies inside of it; negative: none of it does.

    points: its corners, the last joined to the first. axis, normal: as of a Click.
    """

    kind: ClassVar[str] = "lasso"
    points: tuple[Point, ...]
    positive: bool
    label: int
    axis: int | None = None
    normal: Point | None = None

    def __post_init__(self) -> None:
        _settle_line(self)
        if len(self.points) < 3:
            raise BadInput("A lasso needs at least three points around what it is to enclose.")


@dataclass(frozen=True)
class Box:
    """The label lies inside the box with these two opposite corners (along the axes of the image)."""

    kind: ClassVar[str] = "box"
    corners: tuple[Point, Point]
    label: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "corners", tuple(_point(p) for p in self.corners))
        if len(self.corners) != 2:
            raise BadInput("A box needs two opposite corners.")


@dataclass(frozen=True)
class Limits:
    """The label's first and last slice along an array axis: `lower` and `upper` are points in them, in any order."""

    kind: ClassVar[str] = "limits"
    axis: int
    lower: Point
    upper: Point
    label: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "lower", _point(self.lower))
        object.__setattr__(self, "upper", _point(self.upper))

    @classmethod
    def on(cls, grid: Grid, axis: int, lower: int, upper: int, label: int) -> Limits:
        """The limits that slices `lower` and `upper` of a grid are."""
        middle = (np.asarray(grid.shape) - 1) / 2
        ends = []
        for index in (lower, upper):
            place = middle.copy()
            place[axis] = index
            ends.append(tuple(grid.to_world(place)))
        return cls(axis, *ends, label)

    def indices(self, grid: Grid) -> tuple[int, int]:
        """First and last slice on a grid, in order, inside the grid."""
        ends = [round(float(grid.to_index(p)[self.axis])) for p in (self.lower, self.upper)]
        low, high = (min(max(n, 0), grid.shape[self.axis] - 1) for n in sorted(ends))
        return low, high


@dataclass(frozen=True, eq=False)
class Outline:
    """The whole mask of one slice, as drawn.

    axis, index: which slice of the grid it was drawn on. mask: bool, the other two axes in array order.
    plane: the slice's own grid (one voxel thick along `axis`) in patient space.
    """

    kind: ClassVar[str] = "outline"
    axis: int
    index: int
    mask: npt.NDArray[np.bool_]
    label: int
    plane: Grid | None = None

    def __post_init__(self) -> None:
        mask = np.array(self.mask, bool)
        if mask.ndim != 2:
            raise BadInput(f"An outline is the mask of one slice, not an array of {mask.ndim} axes.")
        mask.flags.writeable = False
        object.__setattr__(self, "mask", mask)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Outline):
            return NotImplemented
        same = (self.axis, self.index, self.label, self.plane) == (other.axis, other.index, other.label, other.plane)
        return same and np.array_equal(self.mask, other.mask)

    __hash__ = None

    @classmethod
    def on(cls, grid: Grid, axis: int, index: int, mask: npt.ArrayLike, label: int) -> Outline:
        """An outline of slice `index` of a grid, with the place of that slice in the patient."""
        lower, upper = [0, 0, 0], list(grid.shape)
        lower[axis], upper[axis] = index, index + 1
        return cls(axis, index, np.asarray(mask, bool), label, grid.crop(lower, upper))


@dataclass(frozen=True, eq=False)
class ObliqueOutline:
    """The whole mask of an oblique slice, as drawn: mask, bool (h, w), on `plane`, a grid of (1, h, w) voxels whose
    first axis is the normal of the slice. Raises BadInput if they do not fit."""

    kind: ClassVar[str] = "oblique outline"
    mask: npt.NDArray[np.bool_]
    label: int
    plane: Grid

    def __post_init__(self) -> None:
        mask = np.array(self.mask, bool)
        if (1, *mask.shape) != self.plane.shape:
            raise BadInput(f"A mask of {mask.shape} pixels does not fit a plane of {self.plane.shape} voxels.")
        mask.flags.writeable = False
        object.__setattr__(self, "mask", mask)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ObliqueOutline):
            return NotImplemented
        return (self.label, self.plane) == (other.label, other.plane) and np.array_equal(self.mask, other.mask)

    __hash__ = None


Prompt = Union[Click, Scribble, Lasso, Box, Limits, Outline, ObliqueOutline]  # noqa: UP007 (a value at run time, also on Python 3.10)
_KINDS: dict[str, type] = {c.kind: c for c in (Click, Scribble, Lasso, Box, Limits, Outline, ObliqueOutline)}


def to_dict(prompt: Prompt) -> dict[str, Any]:
    """A prompt as plain values for JSON."""
    if isinstance(prompt, Outline | ObliqueOutline):
        values = {"label": prompt.label, "shape": list(prompt.mask.shape)}
        if isinstance(prompt, Outline):
            values |= {"axis": prompt.axis, "index": prompt.index}
        values["bits"] = base64.b64encode(zlib.compress(np.packbits(prompt.mask).tobytes())).decode()
        values["plane"] = None if prompt.plane is None else prompt.plane.to_dict()
    else:
        values = asdict(prompt)
    return {"kind": prompt.kind} | values


def from_dict(values: Mapping[str, Any]) -> Prompt:
    """The inverse of to_dict. Raises BadInput if the values describe no prompt."""
    try:
        kind = _KINDS[values["kind"]]
        if kind in (Outline, ObliqueOutline):
            shape = tuple(int(n) for n in values["shape"])
            pixels = math.prod(shape)
            if len(shape) != 2 or min(shape) < 1 or pixels > MOST_PIXELS:
                raise BadInput(f"A slice of {shape} pixels cannot be outlined.")
            # Never more than the mask itself: what unpacks to gigabytes may come from anywhere.
            bits = zlib.decompressobj().decompress(base64.b64decode(values["bits"]), pixels // 8 + 1)
            mask = np.unpackbits(np.frombuffer(bits, np.uint8), count=pixels).reshape(shape).astype(bool)
            plane = None if values["plane"] is None else Grid.from_dict(values["plane"])
            label = int(values["label"])
            if kind is ObliqueOutline:
                return ObliqueOutline(mask, label, plane)
            return Outline(int(values["axis"]), int(values["index"]), mask, label, plane)
        return kind(**{f.name: values[f.name] for f in fields(kind) if f.name in values})
    except (KeyError, TypeError, ValueError, AttributeError, zlib.error) as error:
        raise BadInput(f"This is not a prompt RefSeg knows: {dict(values)!r:.200} ({error}).") from error


def name_of(prompt: Prompt, label: str) -> str:
    """What undo shows, for example "outline of slice 12 of anterior"."""
    if isinstance(prompt, Outline):
        return f"outline of slice {prompt.index} of {label}"
    if isinstance(prompt, ObliqueOutline):
        return f"outline of an oblique slice of {label}"
    if isinstance(prompt, Click | Scribble | Lasso):
        return f"{'positive' if prompt.positive else 'negative'} {prompt.kind} for {label}"
    return f"{prompt.kind} of {label}"
