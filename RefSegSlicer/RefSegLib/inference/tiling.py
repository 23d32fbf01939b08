"""Images larger than a network's patch: overlapping tiles, blended with Gaussian weights.

The method of nnU-Net (Isensee et al., Nature Methods 2021), with the tiles where MONAI's `sliding_window_inference`
puts them, so that both give the same labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from monai.data.utils import compute_importance_map

from RefSegLib.errors import is_out_of_memory
from RefSegLib.inference.segmenter import Segmenter
from RefSegLib.progress import SILENT, Progress

OVERLAP = 0.25
SIGMA = 0.125  # of the patch, as in nnU-Net and MONAI
FLOOR = 1e-3  # the least weight of a voxel, the center having 1, as in MONAI
# Patches given to the network at once, in voxels: one of 96 cubed on a CPU (more gains 3 %, measured), many on a GPU.
VOXELS_AT_ONCE = {"cpu": 2**20, "mps": 2**21, "cuda": 2**23}


Item = TypeVar("Item")


def _starts(size: int, patch: int, overlap: float) -> list[int]:
    """Where tiles start along one axis; the last one is moved back to end with the image."""
    step = max(1, int(patch * (1 - overlap)))
    count = 1 if size <= patch else -(-(size - patch) // step) + 1
    return [min(number * step, size - patch) for number in range(count)]


def _weights(patch: tuple[int, int, int], device: torch.device) -> torch.Tensor:
    """The weight of each voxel of a tile, (k, j, i)."""
    weights = compute_importance_map(patch, mode="gaussian", sigma_scale=SIGMA, device=device)
    return weights.clamp_(min=FLOOR)


class _Rolling:
    """Sums of weighted logits, and of weights, for the slices that a row of tiles covers; forgets finished slices."""

    def __init__(self, outputs: int, shape: tuple[int, int, int], weights: torch.Tensor) -> None:
        self.weights = weights
        self.sums = torch.zeros(outputs + 1, *shape, device=weights.device)
        self.start = 0

    def add(self, place: tuple[slice, slice, slice], logits: torch.Tensor) -> None:
        """Add the logits (outputs, k, j, i) of the tile at `place`."""
        k, j, i = place
        window = self.sums[:, k.start - self.start : k.stop - self.start, j, i]
        window[:-1].addcmul_(logits, self.weights)
        window[-1] += self.weights

    def finish(self, until: int) -> torch.Tensor:
        """Probabilities (outputs, k, j, i) of the slices before `until`; the window then begins there."""
        count = until - self.start
        done = self.sums[:, :count]
        result = torch.softmax(done[:-1].div_(done[-1]), dim=0)
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
    axes = [_starts(n, p, overlap) for n, p in zip(array.shape[1:], patch, strict=True)]
    at_once = max(1, VOXELS_AT_ONCE.get(device.type, 2**20) // math.prod(patch))
    rows = _groups(axes[0], max(1, at_once // (len(axes[1]) * len(axes[2]))))
    height = max(row[-1] - row[0] for row in rows) + patch[0]
    rolling = _Rolling(segmenter.spec.outputs, (height, *array.shape[2:]), _weights(patch, device))
    network = _Network(segmenter)
    total, done = math.prod(map(len, axes)), 0
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        for batch in _groups(list(product(row, *axes[1:])), at_once):
            progress(done / total, f"Segmenting: tile {done + 1} of {total}")
            places = [tuple(slice(s, s + p) for s, p in zip(starts, patch, strict=True)) for starts in batch]
            for place, logits in zip(places, network([source[(slice(None), *p)] for p in places]), strict=True):
                rolling.add(place, logits)
            done += len(batch)
        start = rolling.start
        yield start, rolling.finish(following[0] if following else array.shape[1])
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
        firsts = {value: n for n, value in reversed(list(enumerate(values))) if value is not None}
        asked = [n for n, v in enumerate(values) if v is None or (v not in self.flat and firsts[v] == n)]
        fresh: dict[int, torch.Tensor] = {}
        if asked:
            stack = torch.stack if isinstance(tiles[0], torch.Tensor) else np.stack
            answers = self._logits(stack([tiles[n] for n in asked]))
            fresh = {n: torch.as_tensor(answer) for n, answer in zip(asked, answers, strict=True)}
        # Those of this call only: a tile of air is mostly followed by another one.
        self.flat = {v: self.flat[v] if v in self.flat else fresh[n] for v, n in firsts.items()} or self.flat
        return [fresh[n] if value is None else self.flat[value] for n, value in enumerate(values)]

    def _logits(self, patches: npt.NDArray[np.float32] | torch.Tensor) -> npt.NDArray[np.float32] | torch.Tensor:
        """Of all patches at once, or one by one where memory is short."""
        try:
            return self.segmenter.logits(patches)
        except (MemoryError, RuntimeError) as error:
            if len(patches) == 1 or not is_out_of_memory(error):
                raise
        stack = torch.cat if isinstance(patches, torch.Tensor) else np.concatenate
        return stack([self.segmenter.logits(patches[n : n + 1]) for n in range(len(patches))])


def _value(tile: npt.NDArray[np.float32] | torch.Tensor) -> tuple[float, ...] | None:
    """The value of each channel if the tile is flat."""
    first = tile[:, :1, :1, :1]
    # The middle slice first: most tiles are told from flat ones by it.
    if not bool((tile[:, tile.shape[1] // 2] == first[:, 0]).all()) or not bool((tile == first).all()):
        return None
    return tuple(float(value) for value in first.ravel())


def _groups(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
