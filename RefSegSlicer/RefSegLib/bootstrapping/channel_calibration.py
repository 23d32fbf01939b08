"""Discriminator-guided generator channel calibration: what the discriminator sees in a mask re-weighs the generator's
channels before it draws the mask again (Wang, Guo, Wang, Zhang, TMI 2021; rebuilt from its description)."""

from __future__ import annotations

import torch
from torch import nn


class ChannelCalibration(nn.Module):
    """From features (n, inputs, j, i) of a discriminator to a factor 1 to 2 for each channel: (n, channels, 1, 1).

    The features are taken as they are: the discriminator does not learn to please the generator through this.
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, channels // 2, 1), nn.ReLU(), nn.Conv2d(channels // 2, channels, 1), nn.Sigmoid()
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Global average pooling, two 1x1 convolutions, 1 + sigmoid."""
        return 1 + self.layers(features.detach().mean((2, 3), keepdim=True))
