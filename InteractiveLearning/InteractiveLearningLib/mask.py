"""What was said about one label -> its mask: annotated slices exactly, clicks, what registration carries, the model.

A function of the scene and the state alone, so that a log replayed anywhere gives the same voxels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.resample import resample_array

from InteractiveLearningLib.frames import frame_box, sample_slice, voxels_on
from InteractiveLearningLib.propagation import FlowCache, fuse, propagate
from InteractiveLearningLib.propagation.propagate import FARTHEST, MARGIN, RASTER, ProxyMask
from InteractiveLearningLib.scene import LabelResult, LabelState, Mask, Region, Scene, SliceKey, on_slice
from InteractiveLearningLib.strokes import Stroke, corrected

# A model's own opinion is worth this share of its margin when somebody learns from it; what clicks changed, more.
MODEL_TRUST = 0.5
CLICK_TRUST = 0.8
# How far, in mm, a click's change is carried to other slices. At 4 mm every sixth click of an imprecise hand made the
# mask of a hippocampus worse by more than 0.01 Dice, at 2 mm every fiftieth, with more gained (5 training patients).
CLICK_REACH = 2.0


def working_region(scene: Scene, value: int, state: LabelState) -> Region:
    """The part of the image a label can lie in: around the model's mask and all that was said, on a raster."""
    lower, upper = np.asarray(scene.grid.shape), np.zeros(3, int)

    def include(low: npt.ArrayLike, high: npt.ArrayLike) -> None:
        nonlocal lower, upper
        lower, upper = np.minimum(lower, low), np.maximum(upper, np.asarray(high) + 1)

    if value in scene.extents:
        extent = scene.extents[value]
        include([s.start for s in extent], [s.stop - 1 for s in extent])
    for pin in state.pins:
        include(pin.voxel, pin.voxel)
    for (axis, index), mask in [*state.outlines.items(), *((k, a | r) for k, (a, r) in state.changes.items())]:
        found = np.nonzero(mask)
        if not found[0].size:
            continue
        # Without a model and without limits the mask may go far beyond the outermost slice.
        reach = 0 if axis in state.limits or scene.probabilities is not None else FARTHEST
        low, high = [int(f.min()) for f in found], [int(f.max()) for f in found]
        low.insert(min(axis, 3) % 3, index - reach)
        high.insert(min(axis, 3) % 3, index + reach)
        if axis >= 3:
            low, high = _around(state.frames[axis - 3], low, high, scene.grid)
        include(low, high)
    for axis, (low, high) in state.limits.items():
        lower[axis], upper[axis] = min(lower[axis], low), max(upper[axis], high + 1)
    for axis, index in state.outlines:
        if axis < 3:
            lower[axis], upper[axis] = min(lower[axis], index), max(upper[axis], index + 1)
    if (lower >= upper).any():
        if not state.outlines:
            return (slice(0, 0),) * 3
        # Empty outlines alone: somebody looked and found nothing, anywhere in the slice.
        lower, upper = np.minimum(lower, 0), np.maximum(upper, scene.grid.shape)
    return tuple(
        slice(max((int(a) - MARGIN) // RASTER * RASTER, 0), min(-(-(int(b) + MARGIN) // RASTER) * RASTER, n))
        for a, b, n in zip(lower, upper, scene.grid.shape, strict=True)
    )


def _around(frame: Grid, low: list[int], high: list[int], grid: Grid) -> tuple[npt.NDArray, npt.NDArray]:
    """First and last voxels of an image around a box of voxels of a frame."""
    places = grid.to_index(frame.to_world(np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(3, -1).T))
    last = np.asarray(grid.shape) - 1
    return tuple(np.clip(f(places, axis=0).round().astype(int), 0, last) for f in (np.min, np.max))


def mask_of(scene: Scene, value: int, state: LabelState, cache: FlowCache) -> LabelResult:
    """The mask of one label after all that was said about it."""
    region = working_region(scene, value, state)
    if any(s.start == s.stop for s in region):
        nothing = np.zeros((0, 0, 0), np.float32)
        return LabelResult(region, nothing.astype(bool), nothing, nothing, None, None)
    prior = scene.prior(value, region)
    work = _Work(scene, state, region, cache)
    proxy = work.proxy(prior) if state.outlines else None
    probability = prior if proxy is None else proxy.probability
    confidence = (
        (np.zeros(work.grid.shape, np.float32) if prior is None else MODEL_TRUST * np.abs(2 * prior - 1))
        if proxy is None
        else proxy.confidence.copy()
    )
    probability, touched = work.with_changes(probability)
    origin = np.array([s.start for s in region])
    if state.strokes:
        strokes = [Stroke(stroke.voxels - origin, stroke.positive) for stroke in state.strokes]
        probability, turned = corrected(probability, work.image, work.grid.spacing, strokes)
        touched = np.maximum(touched, turned)
    confidence = np.maximum(confidence, np.float32(CLICK_TRUST) * touched)
    mask = probability > 0.5
    _cut(mask, confidence, state, region)
    for key, drawn in state.outlines.items():
        work.paste(key, drawn, mask, confidence)
    for pin in state.pins:
        at = tuple(pin.voxel - origin)
        mask[at], confidence[at] = pin.positive, 1.0
    estimate, method = (proxy.estimated_dice, proxy.method) if proxy else (None, None)
    return LabelResult(region, mask, probability, confidence.astype(np.float32), estimate, method)


class _Work:
    """One label in its region of the image."""

    def __init__(self, scene: Scene, state: LabelState, region: Region, cache: FlowCache) -> None:
        self.state, self.region, self.cache = state, region, cache
        self.image, self.shape = scene.image[region], scene.grid.shape
        self.grid = scene.grid.crop([s.start for s in region], [s.stop for s in region])

    def proxy(self, prior: npt.NDArray[np.float32] | None) -> ProxyMask:
        """What the outlined slices say of the region, fused over the axes they lie along."""
        axes = sorted({axis for axis, _ in self.state.outlines})
        return fuse([self._carried(axis, self.state.outlines, prior) for axis in axes])

    def with_changes(self, probability: npt.NDArray | None) -> tuple[npt.NDArray, npt.NDArray]:
        """Carry what clicks changed in their slices to the neighboring slices. Returns probability, trust in it: 0..1.

        Only the change is carried, and it fades within millimeters: a click says something about its surroundings and
        nothing about the far end of the structure. Without any mask to change, the clicked slices are all there is.
        """
        touched = np.zeros(self.grid.shape, np.float32)
        changes_made = {k: c for k, c in self.state.changes.items() if c[0].any() or c[1].any()}
        for axis in sorted({axis for axis, _ in changes_made}):
            changed = {k: c for k, c in changes_made.items() if k[0] == axis}
            if probability is None:
                added = {key: plus for key, (plus, _) in changed.items()}
                proxy = self._carried(axis, added, None, method="intensity")
                probability, touched = proxy.probability, np.maximum(touched, proxy.confidence)
                continue
            slices = {
                key: (self._slice_of(key, probability > 0.5) | plus) & ~minus for key, (plus, minus) in changed.items()
            }
            slices |= {key: mask for key, mask in self.state.outlines.items() if key[0] == axis}
            proxy = self._carried(axis, slices, probability, reach=CLICK_REACH, method="model")
            changes = (proxy.probability > 0.5) != (probability > 0.5)
            for key, (plus, minus) in changed.items():
                at, said = self._voxels(key, plus | minus)
                changes[at] |= said
            touched = np.maximum(touched, changes * proxy.confidence)
            probability = proxy.probability
        return (touched if probability is None else probability), touched

    def paste(self, key: SliceKey, drawn: Mask, mask: Mask, confidence: npt.NDArray[np.float32]) -> None:
        """An outlined slice as it was drawn, for certain."""
        at, said = self._voxels(key, drawn)
        mask[at], confidence[at] = said, 1.0
        if key in self.state.drawn:
            exact = self.state.drawn[key]
            at, said = voxels_on(exact.plane, 0, exact.mask, self.grid)
            mask[at], confidence[at] = said, 1.0

    def _carried(
        self, axis: int, slices: Mapping[SliceKey, Mask], prior: npt.NDArray | None, **settings: object
    ) -> ProxyMask:
        """Slices along one axis carried through the region; those of other axes are left out."""
        masks = {index: mask for (a, index), mask in slices.items() if a == axis}
        if axis < 3:
            start = self.region[axis].start
            plane = tuple(s for a, s in enumerate(self.region) if a != axis)
            masks = {index - start: mask[plane] for index, mask in masks.items()}
            limits = self.state.limits.get(axis)
            if limits is not None and settings.get("method") != "model":
                settings["limits"] = tuple(n - start for n in limits)
            settings |= {"spacing": self.grid.spacing, "cache": self.cache, "prior": prior}
            return propagate(self.image, axis, masks, **settings)
        frame = self.state.frames[axis - 3]
        lower, upper = frame_box(frame, self.grid)
        turned = frame.crop(lower, upper)
        image = resample_array(self.image.astype(np.float32), self.grid, turned, outside=float(self.image.min()))
        given = None if prior is None else resample_array(prior, self.grid, turned)
        window = tuple(slice(a, b) for a, b in zip(lower[1:], upper[1:], strict=True))
        masks = {index - int(lower[0]): mask[window] for index, mask in masks.items()}
        settings |= {"spacing": turned.spacing, "cache": self.cache, "prior": given}
        found = propagate(image, 0, masks, **settings)
        probability, confidence = (resample_array(a, turned, self.grid) for a in (found.probability, found.confidence))
        for index, mask in masks.items():
            at, said = voxels_on(turned, index, mask, self.grid)
            probability[at], confidence[at] = said, 1.0
        whole = tuple(slice(0, n) for n in self.grid.shape)
        return ProxyMask(probability > 0.5, probability, confidence, found.estimated_dice, found.method, whole)

    def _slice_of(self, key: SliceKey, mask: Mask) -> Mask:
        """A mask of the region as the whole slice sees it."""
        axis, index = key
        if axis < 3:
            whole = np.zeros([n for a, n in enumerate(self.shape) if a != axis], bool)
            at = on_slice(axis, index - self.region[axis].start)
            whole[tuple(s for a, s in enumerate(self.region) if a != axis)] = mask[at]
            return whole
        frame = self.state.frames[axis - 3]
        return sample_slice(mask.view(np.uint8), self.grid, frame, index, nearest=True).astype(bool)

    def _voxels(self, key: SliceKey, drawn: Mask) -> tuple[tuple, Mask]:
        """The voxels of the region in a slice, and what a mask of the whole slice says of them."""
        axis, index = key
        if axis < 3:
            plane = tuple(s for a, s in enumerate(self.region) if a != axis)
            return on_slice(axis, index - self.region[axis].start), drawn[plane]
        frame = self.state.frames[axis - 3]
        return voxels_on(frame, index, drawn, self.grid)


def _cut(mask: Mask, confidence: npt.NDArray[np.float32], state: LabelState, region: Region) -> None:
    """Nothing outside the limits or the box; that the label is not there is then certain."""
    spans = dict(state.limits)
    if state.box is not None:
        for axis, (low, high) in enumerate(zip(*state.box, strict=True)):
            before = spans.get(axis, (low, high))
            spans[axis] = max(low, before[0]), min(high, before[1])
    for axis, (low, high) in spans.items():
        start = region[axis].start
        for outside in (slice(0, max(low - start, 0)), slice(max(high + 1 - start, 0), None)):
            at = tuple(outside if a == axis else slice(None) for a in range(3))
            mask[at], confidence[at] = False, 1.0
