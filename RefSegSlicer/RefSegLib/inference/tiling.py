"""Images larger than a network's patch: overlapping tiles, blended with Gaussian weights.

The method of nnU-Net (Isensee et al., Nature Methods 2021), with the tiles where MONAI's `sliding_window_inference`
puts them, so that both give the same labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from RefSegLib.inference.segmenter import Segmenter
from RefSegLib.progress import SILENT, Progress

OVERLAP = 0.25
SIGMA = 0.125  # of the patch, as in nnU-Net and MONAI
FLOOR = 1e-3  # weight of a corner against the center
# Patches given to the network at once, in voxels: one of 96 cubed on a CPU (more gains 3 %, measured), many on a GPU.
VOXELS_AT_ONCE = {"cpu": 2**20, "mps": 2**21, "cuda": 2**23}


Item = TypeVar("Item")


class _Axis:
    """Where tiles start along one axis, and their weights there, scaled so that they sum to 1 in every voxel.

    Gaussian weights are products over the axes and the tiles form a grid, so the sum over all tiles is a product of
    sums along each axis: no map of summed weights is needed, nor a division at the end.
    """

    def __init__(self, size: int, patch: int, overlap: float, device: torch.device) -> None:
        step = max(1, int(patch * (1 - overlap)))
        count = 1 if size <= patch else -(-(size - patch) // step) + 1
        self.starts = [min(number * step, size - patch) for number in range(count)]
        bell = np.exp(-0.5 * ((np.arange(patch) - (patch - 1) / 2) / (SIGMA * patch)) ** 2)
        bell = np.maximum(bell, FLOOR)
        total = np.zeros(size)
        for start in self.starts:
            total[start : start + patch] += bell
        weights = [(bell / total[start : start + patch]).astype(np.float32) for start in self.starts]
        self.weights = [torch.from_numpy(w).to(device) for w in weights]


class _Rolling:
    """Sums of weighted logits for the slices that a row of tiles covers; forgets slices that are finished."""

    def __init__(self, outputs: int, shape: tuple[int, int, int], device: torch.device) -> None:
        self.sums = torch.zeros(outputs, *shape, device=device)
        self.start = 0

    def add(self, place: tuple[slice, slice, slice], logits: torch.Tensor, weights: torch.Tensor) -> None:
        """Add the weighted logits (outputs, k, j, i) of the tile at `place`."""
        k, j, i = place
        self.sums[:, k.start - self.start : k.stop - self.start, j, i].addcmul_(logits, weights)

    def finish(self, until: int) -> torch.Tensor:
        """Probabilities (outputs, k, j, i) of the slices before `until`; the window then begins there."""
        count = until - self.start
        result = torch.softmax(self.sums[:, :count], dim=0)
        rest = self.sums.shape[1] - count
        # Slice by slice: source and target overlap, and a copy of the whole would double the memory.
        for k in range(rest):
            self.sums[:, k] = self.sums[:, k + count]
        self.sums[:, rest:] = 0
        self.start = until
        return result


def infer(
    segmenter: Segmenter, array: npt.NDArray[np.float32], progress: Progress = SILENT, *, overlap: float = OVERLAP
) -> npt.NDArray[np.float32]:
    """Probabilities (outputs, k, j, i) float32 of a normalized image (C, k, j, i) of any size.

    overlap: share of a patch that neighboring tiles have in common. Raises Cancelled between tiles.
    """
    result = np.empty((segmenter.spec.outputs, *array.shape[1:]), np.float32)
    for start, probabilities in slabs(segmenter, array, progress, overlap=overlap):
        result[:, start : start + probabilities.shape[1]] = probabilities
    return result


def slabs(
    segmenter: Segmenter, array: npt.NDArray[np.float32], progress: Progress = SILENT, *, overlap: float = OVERLAP
) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """What `infer` gives, in pieces: (first slice, probabilities (outputs, slices, j, i)), each slice once, in order.

    Never more than a patch's height of slices is in work, however long the image is. Images smaller than a patch
    are padded on both sides by their border values, as in training.
    """
    patch = segmenter.spec.patch
    missing = [max(0, p - n) for p, n in zip(patch, array.shape[1:], strict=True)]
    margins = [(m // 2, m - m // 2) for m in missing]
    padded = np.pad(array, [(0, 0), *margins], mode="edge") if any(missing) else array
    inside = tuple(slice(low, low + n) for (low, _), n in zip(margins, array.shape[1:], strict=True))
    for start, probabilities in _slabs(segmenter, padded, progress, overlap):
        lower = max(start, inside[0].start)
        upper = min(start + probabilities.shape[1], inside[0].stop)
        if lower < upper:
            piece = probabilities[:, lower - start : upper - start, inside[1], inside[2]]
            yield lower - inside[0].start, piece.cpu().numpy()


@torch.inference_mode()
def _slabs(
    segmenter: Segmenter, array: npt.NDArray[np.float32], progress: Progress, overlap: float
) -> Iterator[tuple[int, torch.Tensor]]:
    patch = segmenter.spec.patch
    device = torch.device(getattr(segmenter, "device", "cpu"))
    source = array if device.type == "cpu" else torch.from_numpy(np.array(array, np.float32)).to(device)
    axes = [_Axis(n, p, overlap, device) for n, p in zip(array.shape[1:], patch, strict=True)]
    at_once = max(1, VOXELS_AT_ONCE.get(device.type, 2**20) // int(np.prod(patch)))
    rows = _groups(range(len(axes[0].starts)), max(1, at_once // (len(axes[1].starts) * len(axes[2].starts))))
    height = max(axes[0].starts[row[-1]] - axes[0].starts[row[0]] for row in rows) + patch[0]
    rolling = _Rolling(segmenter.spec.outputs, (height, *array.shape[2:]), device)
    total, done = int(np.prod([len(axis.starts) for axis in axes])), 0
    network = _Network(segmenter)
    for number, row in enumerate(rows):
        for batch in _groups(list(product(row, *(range(len(axis.starts)) for axis in axes[1:]))), at_once):
            progress(done / total, f"Segmenting: tile {done + 1} of {total}")
            places = [
                tuple(slice(axis.starts[n], axis.starts[n] + p) for axis, n, p in zip(axes, tile, patch, strict=True))
                for tile in batch
            ]
            answers = network([source[(slice(None), *place)] for place in places])
            for tile, place, logits in zip(batch, places, answers, strict=True):
                k, j, i = (axis.weights[n] for axis, n in zip(axes, tile, strict=True))
                rolling.add(place, logits, k[:, None, None] * (j[:, None] * i))
            done += len(batch)
        last = number + 1 == len(rows)
        until = array.shape[1] if last else axes[0].starts[rows[number + 1][0]]
        start = rolling.start
        yield start, rolling.finish(until)
    progress(1.0, "Segmented")


class _Network:
    """Calls the segmenter, but for tiles of one single value (air, padding) only once per value.

    The network is still asked what such a tile is: not every model calls it background.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self.flat: dict[tuple[float, ...], torch.Tensor] = {}

    def __call__(self, tiles: Sequence[npt.NDArray[np.float32] | torch.Tensor]) -> list[torch.Tensor]:
        values = [_value(tile) for tile in tiles]
        known = [self.flat.get(value) if value is not None else None for value in values]
        asked = [n for n, answer in enumerate(known) if answer is None]
        if asked:
            stack = torch.stack if isinstance(tiles[0], torch.Tensor) else np.stack
            for n, answer in zip(asked, self.segmenter.logits(stack([tiles[n] for n in asked])), strict=True):
                known[n] = torch.as_tensor(answer)
                if values[n] is not None:
                    self.flat = {values[n]: known[n]}  # the last value only: it is nearly always the same one
        return known


def _value(tile: npt.NDArray[np.float32] | torch.Tensor) -> tuple[float, ...] | None:
    """The value of each channel if the tile is flat."""
    first = tile[:, :1, :1, :1]
    # The middle slice first: most tiles are told from flat ones by it.
    if not bool((tile[:, tile.shape[1] // 2] == first[:, 0]).all()) or not bool((tile == first).all()):
        return None
    return tuple(float(value) for value in first.ravel())


def _groups(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
