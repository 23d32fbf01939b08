"""From working grids back to the voxels of the image, and voxel for voxel where only axes were turned."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from RefSegLib.volume.grid import Grid
from RefSegLib.volume.resample import resample_array

# Voxels of the image restored at once where grids differ: bounds the memory for grids at an angle.
VOXELS_AT_ONCE = 2**23


@dataclass(frozen=True)
class Turn:
    """How the voxels of one grid are those of another: axes exchanged, flipped and cut, nothing in between.

    Along axis a of the target runs axis `axes[a]` of the source, in steps of `signs[a]`; voxel 0 of the target is
    voxel `offset[b]` of the source along source axis b.
    """

    axes: tuple[int, int, int]
    signs: tuple[int, int, int]
    offset: tuple[int, int, int]

    def overlap(
        self, source: tuple[int, ...], target: tuple[int, ...]
    ) -> tuple[tuple[slice, ...], tuple[slice, ...]] | None:
        """Slices of source (in source order, reversed where flipped) and of target that cover the same voxels."""
        cut_source, cut_target = [slice(0)] * 3, [slice(0)] * 3
        for a, (b, sign) in enumerate(zip(self.axes, self.signs, strict=True)):
            start = self.offset[b]
            # target t lies at source start + sign * t; both must be inside.
            first = max(0, -start) if sign > 0 else max(0, start - source[b] + 1)
            last = min(target[a], source[b] - start) if sign > 0 else min(target[a], start + 1)
            if first >= last:
                return None
            cut_target[a] = slice(first, last)
            low, high = start + sign * first, start + sign * (last - 1)
            cut_source[b] = slice(low, high + 1) if sign > 0 else slice(low, high - 1 if high else None, -1)
        return tuple(cut_source), tuple(cut_target)


def turn(source: Grid, target: Grid, tolerance: float = 1e-3) -> Turn | None:
    """The Turn from source to target if their voxels coincide within `tolerance` voxels, else None."""
    matrix = np.linalg.inv(source.affine) @ target.affine
    exact = np.round(matrix)
    drift = np.abs(matrix[:3, :3] - exact[:3, :3]) @ np.asarray(target.shape) + np.abs(matrix[:3, 3] - exact[:3, 3])
    steps = exact[:3, :3].astype(int)
    if drift.max() > tolerance or (np.abs(steps).sum(0) != 1).any() or (np.abs(steps).sum(1) != 1).any():
        return None
    axes = np.abs(steps).argmax(0)
    return Turn(tuple(axes.tolist()), tuple(steps[axes, range(3)].tolist()), tuple(exact[:3, 3].astype(int).tolist()))


def take(array: npt.NDArray, source: Grid, target: Grid, *, outside: float) -> npt.NDArray:
    """Values of `array` (k, j, i on source) at the voxels of target: moved, where voxels coincide, else linear.

    A view of `array` where it can be. Voxels of target outside source get `outside`.
    """
    turned = turn(source, target)
    if turned is None:
        return resample_array(array.astype(np.float32, copy=False), source, target, outside=outside)
    cut = turned.overlap(source.shape, target.shape)
    if cut is None:
        return np.full(target.shape, outside, array.dtype)
    values = array[cut[0]].transpose(turned.axes)
    if values.shape == target.shape:
        return values
    result = np.full(target.shape, outside, array.dtype)
    result[cut[1]] = values
    return result


class Painter:
    """Writes labels into an image, region by region and slab by slab; the more probable label wins where they meet.

    labels: (k, j, i) on `grid`, 0 wherever nothing was found.
    """

    def __init__(self, grid: Grid, largest: int, regions: int) -> None:
        self.grid = grid
        self.labels = np.zeros(grid.shape, np.uint8 if largest < 256 else np.uint16)
        # Only several regions can overlap. Zeros take memory only where they are written to.
        self._best = np.zeros(grid.shape, np.float32) if regions > 1 else None

    def paint(self, probabilities: npt.NDArray[np.float32], region: Grid, offset: int) -> None:
        """All of one region: probabilities (outputs, k, j, i) on the grid `region`."""
        self.paint_slabs([(0, probabilities)], region, offset)

    def paint_slabs(self, slabs: Iterable[tuple[int, npt.NDArray[np.float32]]], region: Grid, offset: int) -> None:
        """One region, in slabs (first slice, probabilities (outputs, slices, j, i)) that follow each other.

        Between slabs the last slice is kept: what lies between two slices needs both.
        """
        kept: npt.NDArray[np.float32] | None = None
        for start, slab in slabs:
            end = start + slab.shape[1]
            grid = region.crop((start, 0, 0), (end, *region.shape[1:]))
            if (turned := turn(grid, self.grid)) is not None:
                self._move(slab, turned, offset)
            else:
                first = start - (kept is not None)
                joined = slab if kept is None else np.concatenate([kept, slab], axis=1)
                grid = region.crop((first, 0, 0), (end, *region.shape[1:]))
                # The outer half of the outermost voxels belongs to the region too.
                lower = first if kept is not None else -0.5
                upper = end - 1 if end < region.shape[0] else end - 0.5
                self._resample(joined, grid, offset, lower - first, upper - first)
                kept = slab[:, -1:].copy()

    def _move(self, probabilities: npt.NDArray[np.float32], turned: Turn, offset: int) -> None:
        cut = turned.overlap(probabilities.shape[1:], self.grid.shape)
        if cut is not None:
            values = probabilities[(slice(None), *cut[0])].transpose(0, *(axis + 1 for axis in turned.axes))
            self._write(values, cut[1], None, offset)

    def _resample(
        self, probabilities: npt.NDArray[np.float32], grid: Grid, offset: int, lower: float, upper: float
    ) -> None:
        """Voxels of the image whose place along the slices of `grid` is in lower..upper (upper exclusive)."""
        corners = np.array(np.meshgrid((lower, upper), *[(-0.5, n - 0.5) for n in grid.shape[1:]])).reshape(3, -1).T
        found = self.grid.to_index(grid.to_world(corners))
        low = np.maximum(0, np.ceil(found.min(0) - 1e-3)).astype(int)
        high = np.minimum(self.grid.shape, np.floor(found.max(0) + 1e-3).astype(int) + 1)
        if (low >= high).any():
            return
        step = np.linalg.inv(grid.affine)[0] @ self.grid.affine  # place along the slices, of a voxel of the image
        thick = max(1, VOXELS_AT_ONCE // int(np.prod(high[1:] - low[1:])))
        for k in range(low[0], high[0], thick):
            first, last = (k, *low[1:]), (min(k + thick, high[0]), *high[1:])
            ranges = [np.arange(a, b) for a, b in zip(first, last, strict=True)]
            place = step[3] + step[0] * ranges[0][:, None, None] + step[1] * ranges[1][:, None] + step[2] * ranges[2]
            inside = (place >= lower - 1e-6) & (place < upper - 1e-6)
            if not inside.any():
                continue
            target = self.grid.crop(first, last)
            values = np.stack([resample_array(p, grid, target) for p in probabilities])
            self._write(values, tuple(slice(a, b) for a, b in zip(first, last, strict=True)), inside, offset)

    def _write(
        self,
        probabilities: npt.NDArray[np.float32],
        box: tuple[slice, ...],
        inside: npt.NDArray[np.bool_] | None,
        offset: int,
    ) -> None:
        """Labels of probabilities (outputs, k, j, i) into `box` of the image, where `inside` and nothing better is."""
        best = probabilities[0].copy()
        value = np.zeros(best.shape, self.labels.dtype)
        for output in range(1, len(probabilities)):  # twice as fast as argmax over the slowest axis
            better = probabilities[output] > best
            np.copyto(best, probabilities[output], where=better)
            value[better] = output + offset
        chosen = value > 0 if inside is None else (value > 0) & inside
        if self._best is not None:
            foreground = probabilities[1:].sum(axis=0)
            chosen &= foreground > self._best[box]
            np.copyto(self._best[box], foreground, where=chosen)
        np.copyto(self.labels[box], value, where=chosen)
