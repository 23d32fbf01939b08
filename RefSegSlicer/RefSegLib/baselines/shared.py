"""What the published ways of adapting to one image have in common: a copy of the network, and the image in blocks."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from monai.data.utils import dense_patch_slices
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from RefSegLib.errors import RefSegError
from RefSegLib.inference.segmenter import Segmenter, TorchSegmenter
from RefSegLib.inference.tiling import infer
from RefSegLib.models.networks import divisors
from RefSegLib.models.spec import SegmenterSpec
from RefSegLib.progress import SILENT, Progress
from RefSegLib.reflection.adjust import MOST_VOXELS, torch_module
from RefSegLib.reflection.drawing import padding
from RefSegLib.reflection.statistics import Statistics, batch_norms, set_statistics, statistics

Array = npt.NDArray[np.float32]


class NotApplicable(RefSegError):
    """The method has nothing to adapt in this network; the message says what is missing."""


@dataclass(frozen=True)
class Adapted:
    """probabilities: (outputs, k, j, i) float32; accepted: False where the first ones had to stand, reason says why."""

    probabilities: Array
    accepted: bool
    reason: str


@dataclass(frozen=True)
class Block:
    """patch: (1, C, k, j, i), padded for the network; inside: which of its voxels belong to the image."""

    patch: torch.Tensor
    inside: tuple[slice, slice, slice]

    @property
    def voxels(self) -> int:
        """How many voxels of the image there are in it."""
        return math.prod(axis.stop - axis.start for axis in self.inside)


def copy_of(segmenter: Segmenter) -> nn.Module:
    """A copy of the torch network behind a segmenter, in evaluation mode; the network itself is never touched.

    Raises NotApplicable where there is none, or none with normalization layers.
    """
    module = torch_module(segmenter)
    if module is None:
        raise NotApplicable("There is no torch network with normalization layers behind this model.")
    return copy.deepcopy(module).eval().requires_grad_(False)


def batch_norm_copy(segmenter: Segmenter) -> nn.Module:
    """As copy_of, of a network with batch norm. Raises NotApplicable for any other."""
    clone = copy_of(segmenter)
    if not batch_norms(clone):
        raise NotApplicable("This network has no batch normalization, so there are no stored statistics to adapt.")
    return clone


def blocks_of(array: Array, spec: SegmenterSpec, device: torch.device | str = "cpu") -> list[Block]:
    """The image (C, k, j, i) in as few blocks of one size as gradients fit for (MOST_VOXELS), together all of it.

    Whole where it fits; else blocks of whole slices for a network of slices, tiles of a patch for any other.
    """
    shape = array.shape[1:]
    size = shape
    if math.prod(shape) > MOST_VOXELS:
        size = spec.patch
        if spec.dimensions == 2 and math.prod(shape[1:]) <= MOST_VOXELS:
            size = (MOST_VOXELS // math.prod(shape[1:]), *shape[1:])
    blocks = []
    for place in dense_patch_slices(shape, size, size):
        part = array[(slice(None), *place)]
        margins, inside = padding(part.shape[1:], spec.patch, divisors(spec))
        padded = np.pad(part, [(0, 0), *margins], mode="edge").astype(np.float32)
        blocks.append(Block(torch.from_numpy(padded)[None].to(device), inside))
    return blocks


@torch.no_grad()
def image_statistics(module: nn.Module, blocks: Sequence[Block], progress: Progress = SILENT) -> Statistics:
    """What the batch-norm layers would normalize with if the image were their batch; the module is as it was after.

    Mean and variance over the blocks together. Layers before see each block by its own statistics: for an image of
    one block (all that fit for gradients) this is exact, for a larger one close.
    """
    layers, before = batch_norms(module), statistics(module)
    moments: dict[_BatchNorm, list[tuple[torch.Tensor, torch.Tensor]]] = {layer: [] for layer in layers}

    def note(layer: _BatchNorm, inputs: tuple[torch.Tensor, ...]) -> None:
        x = inputs[0].float()
        moments[layer].append(torch.var_mean(x, [0, *range(2, x.ndim)], correction=0))

    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        with_batch_statistics(module)
        for number, block in enumerate(blocks):
            progress(number / len(blocks), f"Measuring the image: part {number + 1} of {len(blocks)}")
            module(block.patch)
    finally:
        for hook in hooks:
            hook.remove()
        module.eval()
        set_statistics(module, before)
    found = []
    for layer in layers:
        variances, means = (torch.stack(kind) for kind in zip(*moments[layer], strict=True))
        found.append((means.mean(0), variances.mean(0) + means.var(0, correction=0)))
    return found


def with_batch_statistics(module: nn.Module) -> None:
    """Batch-norm layers normalize by what they see; everything else (dropout) stays in evaluation mode."""
    for layer in batch_norms(module):
        layer.train()


def predicted(
    module: nn.Module, segmenter: Segmenter, array: Array, unadapted: Array, progress: Progress = SILENT
) -> Adapted:
    """What the adapted `module` makes of the image, tile by tile as always; `unadapted` if its numbers broke down."""
    device = next(module.parameters()).device
    probabilities = infer(TorchSegmenter(segmenter.spec, module, device), array, progress)
    return checked(probabilities, unadapted)


def checked(probabilities: Array, unadapted: Array) -> Adapted:
    """The probabilities, if they are numbers."""
    if not np.isfinite(probabilities).all():
        return broken(unadapted)
    return Adapted(probabilities, True, "Adapted to this image.")


def broken(unadapted: Array) -> Adapted:
    """What is said and given where the numbers broke down."""
    return Adapted(unadapted, False, "The numbers broke down while adapting. First mask kept.")
