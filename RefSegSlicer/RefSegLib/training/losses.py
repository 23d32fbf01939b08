"""What training makes small."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def one_hot(labels: torch.Tensor, outputs: int) -> torch.Tensor:
    """Label numbers (n, k, j, i) as probabilities (n, outputs, k, j, i) float32."""
    return F.one_hot(labels.long(), outputs).movedim(-1, 1).float()


def noise_weighted_dice(probabilities: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Soft Dice loss over the whole batch in which a voxel counts as much as it is believed; mean of the channels.

    probabilities and target: (n, channels, k, j, i) in 0..1; weight: (n, 1, k, j, i), 0 or more. One number, 0 is best:
    1 - 2 sum(w p y) / sum(w (p + y)). The idea: Wang 2021 (arXiv 2012.14584); Dice itself: Milletari 2016.
    """
    axes = (0, 2, 3, 4)
    overlap = (weight * probabilities * target).sum(axes)
    total = (weight * (probabilities + target)).sum(axes)
    return 1 - ((2 * overlap + 1e-5) / (total + 1e-5)).mean()


def dice_ce(logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Soft Dice of the structures over the whole batch plus cross-entropy, one number.

    logits and target: (n, outputs, k, j, i), target are probabilities, soft or hard; weight: (n, 1, k, j, i), how much
    a voxel is to be believed. Without a weight and with hard targets it is MONAI's DiceCELoss(softmax=True, batch=True,
    include_background=False), which knows no weights (the tests compare the two). Milletari 2016, Isensee 2021.
    """
    logits = logits.float()
    weight = torch.ones_like(logits[:, :1]) if weight is None else weight
    log_probabilities = logits.log_softmax(1)
    dice = noise_weighted_dice(log_probabilities.exp()[:, 1:], target[:, 1:], weight)
    cross_entropy = -(weight * (target * log_probabilities).sum(1, keepdim=True)).sum() / weight.sum()
    return dice + cross_entropy
