"""Consistency of two augmented views, in the manner of DG-TTA.

Measured on one core, U-Net 16..128 over 10 slices of 256 x 216: inference 1.1 s, this 9.6 s (TENT 6.9 s, InTEnt 1.6 s).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from RefSegLib.baselines.shared import (
    Adapted,
    Array,
    broken,
    copy_of,
    predicted,
    with_batch_statistics,
)
from RefSegLib.inference.segmenter import Segmenter
from RefSegLib.models.spec import SegmenterSpec
from RefSegLib.progress import SILENT, Progress

RATE = 1e-5
EPOCHS = 12
STARTS = 1  # the first epoch only looks, as in the published code
PATCHES = 16  # accumulated for one step
STRENGTH = 0.05  # standard deviation of the entries of the affine matrix
SEED = 0


def consistency(array: Array, probabilities: Array, segmenter: Segmenter, progress: Progress = SILENT) -> Adapted:
    """The network is moved until two views of the image are segmented alike (DG-TTA, Weihsbach et al., 2023).

    array: (C, k, j, i), normalized; probabilities: (outputs, k, j, i), unadapted, given back if numbers break down.
    Settings of the template plan of github.com/multimodallearning/DG-TTA: all weights, AdamW, rate 1e-5, 12 epochs of
    which the first takes no step, 16 random patches for a step, two random affine views of each (entries of the
    matrix normal, 0.05), predictions mapped back, 1 - soft Dice of the structures, gradients through both views.

    Not taken over: their training (GIN augmentation, MIND features), as the network is given; the mean over three
    adapted networks, which triples the time; their stop by the histogram of the weights. Voxels that either view lost
    at its border are left out by a mask of their own, where they look for logits whose sum is not positive. Networks
    of slices take slices for patches and move them within the slice. Batch norm uses the statistics of each patch and
    keeps a running mean of them, as theirs would in training mode; dropout stays off.

    Raises NotApplicable for a network without normalization layers, Cancelled if the user asked to stop.
    """
    clone = copy_of(segmenter).requires_grad_(True)
    device = next(clone.parameters()).device
    parameters = list(clone.parameters())
    optimizer = torch.optim.AdamW(parameters, RATE)
    generator = torch.Generator().manual_seed(SEED)
    spec = segmenter.spec
    for epoch in range(STARTS, EPOCHS):
        optimizer.zero_grad()
        with_batch_statistics(clone)
        for number in range(PATCHES):
            done = (epoch - STARTS + number / PATCHES) / (EPOCHS - STARTS)
            progress(0.9 * done, f"Consistency: epoch {epoch + 1} of {EPOCHS}")
            patch = _patch(array, spec, generator).to(device)
            with torch.enable_grad():
                (disagreement(clone, patch, generator) / PATCHES).backward()
        if not all(bool(torch.isfinite(p.grad).all()) for p in parameters if p.grad is not None):
            return broken(probabilities)
        optimizer.step()
    return predicted(clone.eval(), segmenter, array, probabilities, progress.part(0.9, 1.0))


def _patch(array: Array, spec: SegmenterSpec, generator: torch.Generator) -> torch.Tensor:
    """A random patch of the image, padded by its border where it is smaller: (1, C, k, j, i); in 2D (1, C, j, i)."""
    margins = [(m // 2, m - m // 2) for m in (max(0, p - n) for p, n in zip(spec.patch, array.shape[1:], strict=True))]
    padded = np.pad(array, [(0, 0), *margins], mode="edge")
    rooms = [n - p + 1 for n, p in zip(padded.shape[1:], spec.patch, strict=True)]
    starts = [int(torch.randint(room, (1,), generator=generator)) for room in rooms]
    part = padded[(slice(None), *(slice(s, s + p) for s, p in zip(starts, spec.patch, strict=True)))]
    patch = torch.from_numpy(part.astype(np.float32))[None]
    return patch[:, :, 0] if spec.dimensions == 2 else patch


def disagreement(module: nn.Module, patch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """1 - soft Dice, mean over structures, of two random views of a patch, (1, C, j, i) or (1, C, k, j, i)."""
    (first, seen), (second, also) = (_view(module, patch, generator) for _ in range(2))
    a, b = (logits.softmax(1) * seen * also for logits in (first, second))
    axes = list(range(2, a.ndim))
    both, squares = (2 * a * b).mean(axes), ((a + b) ** 2 / 2).mean(axes)
    # No constant in the quotient, as published; the clamp is only for a structure whose probabilities are all 0.
    return 1 - (both / squares.clamp_min(1e-30))[:, 1:].mean()


def _view(module: nn.Module, patch: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a randomly moved view of the patch, moved back, and where they are known (1) or lost (0)."""
    axes = patch.ndim - 2
    matrix = torch.eye(axes + 1)[None]
    matrix[:, :axes] += STRENGTH * torch.randn(1, axes, axes + 1, generator=generator)
    there, back = (m[:, :axes].to(patch.device) for m in (matrix, torch.linalg.inv(matrix)))
    grid = F.affine_grid(there, list(patch.shape), align_corners=False)
    moved = F.grid_sample(patch, grid, padding_mode="border", align_corners=False)
    logits = (module(moved[:, :, None])[:, :, 0] if axes == 2 else module(moved)).float()
    grid = F.affine_grid(back, list(logits.shape), align_corners=False)
    known = F.grid_sample(torch.ones_like(logits[:, :1]), grid, mode="nearest", align_corners=False)
    return F.grid_sample(logits, grid, padding_mode="border", align_corners=False), known
