"""Batch-norm networks that meet another scanner: part of the statistics they normalize with, taken from the image.

Schneider et al. (NeurIPS 2020) and InTEnt (Dong et al., 2024) mix the statistics of training with those of the image.
How much of which is right differs from image to image; here each mixture is one more candidate that reflection judges.
"""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from RefSegLib.inference.segmenter import Segmenter, TorchSegmenter
from RefSegLib.inference.tiling import infer
from RefSegLib.progress import SILENT, Progress

Statistics = list[tuple[torch.Tensor, torch.Tensor]]  # mean and variance of each batch-norm layer, in order

SHARES = (0.3, 0.6, 1.0)  # of the image's own statistics


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """The layers that normalize with stored statistics, in order."""
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]


def statistics(module: nn.Module) -> Statistics:
    """What the batch-norm layers normalize with now."""
    return [(layer.running_mean.clone(), layer.running_var.clone()) for layer in batch_norms(module)]


def set_statistics(module: nn.Module, chosen: Statistics) -> None:
    """Normalize with `chosen` from now on."""
    for layer, (mean, variance) in zip(batch_norms(module), chosen, strict=True):
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(variance)


def mixed(source: Statistics, own: Statistics, share: float) -> Statistics:
    """`share` of `own` and the rest of `source`."""
    return [tuple(a.lerp(b, share) for a, b in zip(x, y, strict=True)) for x, y in zip(source, own, strict=True)]


def has_batch_norm(segmenter: Segmenter) -> bool:
    """Whether there are statistics to mix."""
    module = getattr(segmenter, "module", None)
    return isinstance(module, nn.Module) and bool(batch_norms(module))


class MixedStatistics:
    """A network that can look at one image (C, k, j, i), normalized, with any share of that image's statistics.

    They are measured once, in a pass over all tiles of the image with every layer normalizing by its own tiles (the
    mean over the tiles of mean and variance). The network that was given is never changed.

    whole: probabilities (outputs, k, j, i) with nothing but the image's own statistics, as that pass gave them;
    None for an image of more tiles than the network sees at once, where each tile was seen with its own.
    """

    def __init__(self, segmenter: Segmenter, array: npt.NDArray[np.float32], progress: Progress = SILENT) -> None:
        device = getattr(segmenter, "device", "cpu")
        self._network = TorchSegmenter(segmenter.spec, copy.deepcopy(segmenter.module), device)
        self._source = statistics(self._network.module)
        for layer in batch_norms(self._network.module):
            layer.reset_running_stats()
            layer.momentum = None  # a plain mean over all tiles
            layer.train()
        probabilities = infer(self._network, array, progress)
        at_once = all(int(layer.num_batches_tracked) == 1 for layer in batch_norms(self._network.module))
        self.whole = probabilities if at_once else None
        self._network.module.eval()
        self._own = statistics(self._network.module)

    def network(self, share: float) -> TorchSegmenter:
        """The network with `share` of the image's statistics; the one given before is changed with it."""
        set_statistics(self._network.module, mixed(self._source, self._own, share))
        return self._network
