"""What was said so far and one more prompt of one label -> what is said now.

A function of the scene, the state and the displayed labels alone, so that a log replayed anywhere gives the same state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from RefSegLib.errors import BadInput
from RefSegLib.volume.grid import Grid
from skimage.draw import polygon2mask

from InteractiveLearningLib.frames import mask_on, sample_slice, view_of
from InteractiveLearningLib.prompts import Box, Click, Lasso, Limits, ObliqueOutline, Outline, Prompt, Scribble
from InteractiveLearningLib.scene import LabelState, Mask, Pin, Scene, SliceKey, Voxel, on_slice
from InteractiveLearningLib.slices import inside_box, inside_lasso, slice_mask
from InteractiveLearningLib.strokes import Stroke

# Two oblique views that differ by less than this (degrees) are one.
SAME_VIEW = 0.5


def said(scene: Scene, value: int, state: LabelState, prompt: Prompt, labels: npt.NDArray) -> LabelState:
    """The state of label `value` after a prompt. labels: the label map (k, j, i) as it is displayed.

    Raises BadInput if the prompt lies outside the image.
    """
    if isinstance(prompt, Outline):
        plane = tuple(n for a, n in enumerate(scene.grid.shape) if a != prompt.axis)
        if not 0 <= prompt.index < scene.grid.shape[prompt.axis] or prompt.mask.shape != plane:
            raise BadInput(f"The outline of slice {prompt.index} does not fit an image of {scene.grid.shape} voxels.")
        return _outlined(scene, state, (prompt.axis, prompt.index), prompt.mask)
    if isinstance(prompt, ObliqueOutline):
        axis, state = _axis_of(scene.grid, state, None, prompt.plane.direction[0])
        if axis < 3:
            raise BadInput("This outline lies along the slices of the image; give it as an outline of one of them.")
        index, mask = mask_on(prompt.mask, prompt.plane, state.frames[axis - 3])
        state = _outlined(scene, state, (axis, index), mask)
        return replace(state, drawn=dict(state.drawn) | {(axis, index): prompt})
    if isinstance(prompt, Limits):
        return replace(state, limits=dict(state.limits) | {prompt.axis: prompt.indices(scene.grid)})
    if isinstance(prompt, Box):
        return _boxed(scene, value, state, prompt, labels)
    axis, state = _axis_of(scene.grid, state, prompt.axis, prompt.normal)
    if isinstance(prompt, Lasso):
        return _lassoed(scene, value, state, axis, prompt, labels)
    points = (prompt.point,) if isinstance(prompt, Click) else prompt.points
    pins = [_pin(scene.grid, state, axis, point, prompt) for point in points]
    for key in dict.fromkeys(pin.slice for pin in pins):
        here = [pin for pin in pins if pin.slice == key]
        if _corrects(scene, value, state, key, prompt.positive, labels):
            state = _stroked(state, here, prompt.positive)
        else:
            state = _clicked(scene, value, state, key, here, labels)
    return state


def _corrects(scene: Scene, value: int, state: LabelState, key: SliceKey, positive: bool, labels: npt.NDArray) -> bool:
    """Whether a click in a slice corrects the mask around it in 3D, rather than making or editing that slice's own."""
    if key in state.outlines:
        return False
    if scene.probabilities is not None or state.outlines:
        return True
    if not state.changes or key in state.changes:
        return False
    return not positive or bool(_slice(scene, value, state, key, labels).shown.any())


def _stroked(state: LabelState, pins: list[Pin], positive: bool) -> LabelState:
    voxels = {pin.voxel for pin in pins}
    kept = tuple(pin for pin in state.pins if pin.voxel not in voxels)
    stroke = Stroke(np.array([pin.voxel for pin in pins]), positive)
    return replace(state, pins=(*kept, *pins), strokes=(*state.strokes, stroke))


def main_axis(grid: Grid, state: LabelState) -> int:
    """The axis a label is annotated along: that of its outlines or limits, else the one with the thickest slices."""
    for known in (state.outlines, state.limits):
        for key in known:
            axis = key[0] if isinstance(key, tuple) else key
            if axis < 3:
                return axis
    return int(np.argmax(grid.spacing))


def _axis_of(
    grid: Grid, state: LabelState, axis: int | None, normal: tuple[float, ...] | None
) -> tuple[int, LabelState]:
    """The axis of a view, and the state with the frame of an oblique one."""
    view = view_of(grid, axis, normal)
    if view is None:
        return main_axis(grid, state), state
    if isinstance(view, int):
        return view, state
    for number, frame in enumerate(state.frames):
        if np.dot(frame.direction[0], view.direction[0]) >= np.cos(np.radians(SAME_VIEW)):
            return 3 + number, state
    return 3 + len(state.frames), replace(state, frames=(*state.frames, view))


def _outlined(scene: Scene, state: LabelState, key: SliceKey, mask: Mask) -> LabelState:
    """Drawn last, valid last: what was clicked in this slice before is taken back."""
    pins = tuple(p for p in state.pins if _index_on(scene.grid, state, key[0], p.voxel) != key[1])
    changes = {k: v for k, v in state.changes.items() if k != key}
    outlines = {k: v for k, v in state.outlines.items() if k != key} | {key: mask}
    strokes = _strokes_without(state, lambda voxel: _index_on(scene.grid, state, key[0], voxel) == key[1])
    return replace(state, outlines=outlines, changes=changes, pins=pins, strokes=strokes)


def _strokes_without(state: LabelState, gone: Callable[[Voxel], bool]) -> tuple[Stroke, ...]:
    """The strokes less the voxels that speak no longer."""
    left = []
    for stroke in state.strokes:
        voxels = np.array([v for v in stroke.voxels if not gone(tuple(v))], int).reshape(-1, 3)
        if len(voxels):
            left.append(Stroke(voxels, stroke.positive))
    return tuple(left)


def _index_on(grid: Grid, state: LabelState, axis: int, voxel: Voxel) -> int:
    """The slice along an axis that a voxel lies in."""
    if axis < 3:
        return voxel[axis]
    return round(float(state.frames[axis - 3].to_index(grid.to_world(voxel))[0]))


def _pin(grid: Grid, state: LabelState, axis: int, point: tuple, prompt: Click | Scribble) -> Pin:
    voxel = tuple(int(v) for v in np.rint(grid.to_index(point)))
    if any(not 0 <= v < n for v, n in zip(voxel, grid.shape, strict=True)):
        raise BadInput("The click lies outside the image; click inside of it.")
    crossed = [k for k in state.outlines if _index_on(grid, state, k[0], voxel) == k[1]]
    key = (axis, _index_on(grid, state, axis, voxel))
    return Pin(voxel, prompt.positive, key if key in crossed or not crossed else crossed[-1])


@dataclass(frozen=True)
class _Slice:
    """One slice (h, w) of a scene as a view shows it. spacing: mm of a pixel."""

    image: npt.NDArray
    probability: npt.NDArray[np.float32] | None
    shown: Mask
    spacing: tuple[float, float]


def _slice(scene: Scene, value: int, state: LabelState, key: SliceKey, labels: npt.NDArray) -> _Slice:
    axis, index = key
    if axis < 3:
        at = on_slice(axis, index)
        part = tuple(slice(index, index + 1) if a == axis else slice(None) for a in range(3))
        prior = scene.prior(value, part)
        spacing = tuple(s for a, s in enumerate(scene.grid.spacing) if a != axis)
        probability = None if prior is None else prior.squeeze(axis)
        return _Slice(scene.image[at], probability, labels[at] == value, spacing)
    frame = state.frames[axis - 3]
    probability = None
    if scene.probabilities is not None:
        given = scene.probabilities[scene.values.index(value) + 1]
        probability = sample_slice(given, scene.grid, frame, index) / np.float32(255)
    image = sample_slice(scene.image, scene.grid, frame, index)
    shown = sample_slice(labels, scene.grid, frame, index, nearest=True) == value
    return _Slice(image, probability, shown, frame.spacing[1:])


def _pixel(grid: Grid, state: LabelState, axis: int, place: npt.ArrayLike) -> tuple[float, float]:
    """Row and column, in slices along an axis, of a (fractional) voxel of the image."""
    if axis < 3:
        row, column = (float(v) for a, v in enumerate(place) if a != axis)
    else:
        row, column = (float(v) for v in state.frames[axis - 3].to_index(grid.to_world(place))[1:])
    return row, column


def _changed(state: LabelState, key: SliceKey, before: Mask, after: Mask) -> LabelState:
    """A slice of which the mask was `before` and is `after`: drawn anew if it was drawn, else a change."""
    if key in state.outlines:
        drawn = {k: v for k, v in state.drawn.items() if k != key}
        return replace(state, outlines=dict(state.outlines) | {key: after}, drawn=drawn)
    nothing = np.zeros(after.shape, bool)
    added, removed = state.changes.get(key, (nothing, nothing))
    added, removed = (added | (after & ~before)) & after, (removed | (before & ~after)) & ~after
    return replace(state, changes=dict(state.changes) | {key: (added, removed)})


def _clicked(
    scene: Scene, value: int, state: LabelState, key: SliceKey, pins: list[Pin], labels: npt.NDArray
) -> LabelState:
    """Clicks in one slice become a change of that slice's mask."""
    axis, index = key
    seen = _slice(scene, value, state, key, labels)
    kept = tuple(p for p in state.pins if p.voxel not in {q.voxel for q in pins})
    in_slice = [p for p in kept if _index_on(scene.grid, state, axis, p.voxel) == index] + pins
    clicks = [(*_pixel(scene.grid, state, axis, p.voxel), p.positive) for p in in_slice]
    before = np.array(state.outlines.get(key, seen.shown))
    new = scene.probabilities is None and state.box is None and not state.outlines
    if new and not set(state.changes) - {key}:
        # The first slice of a new structure: all its clicks together (Dice after four .79; corrected one by one .72).
        after = slice_mask(seen.image, None, clicks, spacing=seen.spacing)
        return _changed(replace(state, pins=(*kept, *pins)), key, before, after)
    agreeing = (labels == value) == pins[-1].positive
    nearest = _distance_to(agreeing, pins[-1].voxel, scene.grid.spacing, min(seen.spacing))
    after = slice_mask(seen.image, seen.probability, clicks, before, seen.spacing, nearest)
    return _changed(replace(state, pins=(*kept, *pins)), key, before, after)


def _lassoed(scene: Scene, value: int, state: LabelState, axis: int, prompt: Lasso, labels: npt.NDArray) -> LabelState:
    """Inside of the line, or none of it."""
    grid = scene.grid
    places = grid.to_index(prompt.points)
    if axis < 3:
        index = round(float(places[:, axis].mean()))
    else:
        index = round(float(state.frames[axis - 3].to_index(prompt.points)[:, 0].mean()))
    length = grid.shape[axis] if axis < 3 else state.frames[axis - 3].shape[0]
    if not 0 <= index < length:
        raise BadInput("The lasso lies outside the image; draw it inside.")
    key = axis, index
    seen = _slice(scene, value, state, key, labels)
    enclosed = polygon2mask(seen.image.shape, [_pixel(grid, state, axis, place) for place in places])
    before = np.array(state.outlines.get(key, seen.shown))
    if prompt.positive:
        after = inside_lasso(seen.image, seen.probability, enclosed, before, seen.spacing)
    else:
        after = before & ~enclosed

    def gone(voxel: Voxel) -> bool:
        """What was pointed at as part of the structure and lies where the lasso says it is not."""
        if _index_on(grid, state, axis, voxel) != index:
            return False
        row, column = (round(v) for v in _pixel(grid, state, axis, voxel))
        return bool(enclosed[row, column]) != prompt.positive

    pins = tuple(pin for pin in state.pins if not (pin.positive and gone(pin.voxel)))
    strokes = tuple(s for s in state.strokes if not (s.positive and any(gone(tuple(v)) for v in s.voxels)))
    return _changed(replace(state, pins=pins, strokes=strokes), key, before, after)


def _boxed(scene: Scene, value: int, state: LabelState, prompt: Box, labels: npt.NDArray) -> LabelState:
    """Nothing outside the box; around a structure nobody has seen yet, its middle slice is a first guess."""
    corners = np.rint(scene.grid.to_index(prompt.corners)).astype(int)
    if (corners.max(axis=0) < 0).any() or (corners.min(axis=0) >= scene.grid.shape).any():
        raise BadInput("The box lies outside the image; draw it inside.")
    corners = np.clip(corners, 0, np.asarray(scene.grid.shape) - 1)
    low, high = corners.min(axis=0), corners.max(axis=0)
    state = replace(state, box=(tuple(map(int, low)), tuple(map(int, high))))
    inside = tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))
    if state.outlines or state.changes or (labels[inside] == value).any():
        return state
    axis = main_axis(scene.grid, state)
    key = axis, int(low[axis] + high[axis]) // 2
    seen = _slice(scene, value, state, key, labels)
    rectangle = np.zeros(seen.shown.shape, bool)
    rectangle[tuple(s for a, s in enumerate(inside) if a != axis)] = True
    found = inside_box(seen.image, seen.probability, rectangle, seen.spacing)
    return _changed(state, key, seen.shown, found)


def _distance_to(mask: Mask, voxel: Voxel, spacing: tuple[float, float, float], unit: float) -> float | None:
    """How far a voxel is from a mask, in units of `unit` mm; None if there is nothing of it within 16 voxels."""
    near = tuple(slice(max(v - 16, 0), v + 17) for v in voxel)
    places = np.argwhere(mask[near]) + [s.start for s in near]
    if not len(places):
        return None
    return float(np.sqrt((((places - voxel) * spacing) ** 2).sum(axis=1).min())) / unit
