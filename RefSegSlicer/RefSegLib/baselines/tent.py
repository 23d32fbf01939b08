"""TENT: the network is made surer of its own mask."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from RefSegLib.baselines.shared import (
    Adapted,
    Array,
    blocks_of,
    broken,
    copy_of,
    image_statistics,
    predicted,
    with_batch_statistics,
)
from RefSegLib.inference.segmenter import Segmenter
from RefSegLib.progress import SILENT, Progress
from RefSegLib.reflection.adjust import norm_parameters
from RefSegLib.reflection.statistics import batch_norms, set_statistics

RATE = 1e-3
BETAS = (0.9, 0.999)
STEPS = 10


def tent(array: Array, probabilities: Array, segmenter: Segmenter, progress: Progress = SILENT) -> Adapted:
    """Entropy minimization at test time (Wang et al., ICLR 2021; settings of github.com/DequanWang/tent).

    array: (C, k, j, i), normalized; probabilities: (outputs, k, j, i), unadapted, given back if numbers break down.
    Adam, rate 1e-3, betas 0.9 and 0.999, no weight decay; the loss is the entropy of the softmax, mean over voxels;
    only scales and offsets of normalization layers move; batch norm uses the statistics of the image. As the paper
    does for segmentation: episodic, ten steps for each image, and the mask is that of the network after the last.

    Different here: an image of several blocks gives one step per pass over all of them; instance norm, which the paper
    does not have, moves its scales and offsets alike; dropout stays off. For networks without batch norm this is
    entropy minimization on instance-norm parameters.

    Raises NotApplicable for a network without normalization layers, Cancelled if the user asked to stop.
    """
    clone = copy_of(segmenter)
    blocks = blocks_of(array, segmenter.spec, next(clone.parameters()).device)
    parameters = [p.requires_grad_(True) for p in norm_parameters(clone)]
    optimizer = torch.optim.Adam(parameters, RATE, BETAS)
    voxels = sum(block.voxels for block in blocks)
    for step in range(STEPS):
        optimizer.zero_grad()
        with_batch_statistics(clone)
        for number, block in enumerate(blocks):
            done = (step + number / len(blocks)) / STEPS
            progress(0.7 * done, f"TENT: step {step + 1} of {STEPS}")
            with torch.enable_grad():
                logits = clone(block.patch)[(slice(None), slice(None), *block.inside)].float()
                entropy = -(logits.softmax(1) * F.log_softmax(logits, 1)).sum() / voxels
                entropy.backward()
        if not all(bool(torch.isfinite(p.grad).all()) for p in parameters if p.grad is not None):
            return broken(probabilities)
        optimizer.step()
    clone.eval()
    if batch_norms(clone):
        set_statistics(clone, image_statistics(clone, blocks, progress.part(0.7, 0.8)))
    return predicted(clone, segmenter, array, probabilities, progress.part(0.8, 1.0))
