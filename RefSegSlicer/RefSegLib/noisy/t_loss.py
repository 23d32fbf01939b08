"""T-Loss, a peer: the error of an image as a draw from a heavy-tailed t-distribution, so that images far off count
less; how heavy the tails are is learned. Gonzalez-Jimenez 2023 (MICCAI, arXiv 2306.00753), with their identity matrix.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F


class TLoss(nn.Module):
    """A network with the one more parameter of its loss: degrees of freedom, softplus(freedom) > 0."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.freedom = nn.Parameter(torch.tensor(1.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The network's logits (n, outputs, k, j, i)."""
        return self.network(images)

    @staticmethod
    def loss(module: TLoss, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Negative log-likelihood per voxel of the difference between probabilities and labels (n, k, j, i)."""
        logits = module(images).float()
        target = F.one_hot(labels.long(), logits.shape[1]).movedim(-1, 1)
        error = (logits.softmax(1) - target)[:, 1:].flatten(1)
        size, nu = error.shape[1], F.softplus(module.freedom) + 1e-3
        likelihood = (
            torch.lgamma((nu + size) / 2)
            - torch.lgamma(nu / 2)
            - size / 2 * torch.log(math.pi * nu)
            - (nu + size) / 2 * torch.log1p((error**2).sum(1) / nu)
        )
        return -likelihood.mean() / size
