"""T-Loss: the error of an image as a draw from a heavy-tailed t-distribution, so that images far off count less; how
heavy the tails are is learned. Gonzalez-Jimenez 2023 (MICCAI, arXiv 2306.00753), with their identity matrix.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from RefSegLib.training.losses import one_hot


class TLoss(nn.Module):
    """A network with the one more parameter of its loss: degrees of freedom, softplus(freedom) > 0."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.freedom = nn.Parameter(torch.tensor(1.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The network's logits (n, outputs, k, j, i)."""
        return self.network(images)

    def likelihood(
        self, logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The negative log-likelihood per voxel, one number.

        logits, target: (n, outputs, k, j, i), target are probabilities; weight: (n,), how much each image counts.
        """
        error = (logits.float().softmax(1) - target)[:, 1:].flatten(1)
        size, nu = error.shape[1], F.softplus(self.freedom) + 1e-3
        values = (
            torch.lgamma(nu / 2)
            - torch.lgamma((nu + size) / 2)
            + size / 2 * torch.log(math.pi * nu)
            + (nu + size) / 2 * torch.log1p((error**2).sum(1) / nu)
        ) / size
        return values.mean() if weight is None else (weight * values).sum() / weight.sum()

    @staticmethod
    def loss(module: TLoss, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """For `train_segmenter`: labels (n, k, j, i) taken as they are."""
        logits = module(images)
        return module.likelihood(logits, one_hot(labels, logits.shape[1]))
