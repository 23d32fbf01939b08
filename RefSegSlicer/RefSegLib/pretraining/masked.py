"""Masked autoencoding: hide most of an image and let the whole segmenter draw what is hidden.

The peer of the tile-wise autoencoder, after what did best for convolutional networks in three dimensions (Wald et al.,
OpenMind, ICCV 2025, arXiv 2412.17041, and its code nnssl): 75 % of blocks hidden, mean squared error where they are,
encoder and decoder kept and only the output layer left out. Blocks are as large as a voxel of the deepest level.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from RefSegLib.models.networks import build_segmenter, divisors
from RefSegLib.models.spec import SegmenterSpec

HIDDEN = 0.75


class MaskedAutoencoder(nn.Module):
    """A segmenter of `spec` that draws images: its first outputs are the channels."""

    def __init__(self, spec: SegmenterSpec) -> None:
        super().__init__()
        self.channels, self.block = len(spec.channels), divisors(spec)
        labels = max(1, self.channels - 1)
        self.network = build_segmenter(_with_labels(spec, labels))
        # What depends on the number of labels is the output layer.
        other = build_segmenter(_with_labels(spec, labels + 1)).state_dict()
        self._other = {name: value.shape for name, value in other.items()}

    def forward(self, images: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Images (n, C, k, j, i), drawn again from what is not `hidden` (n, 1, k, j, i) bool."""
        return self.network(covered(images, hidden))[:, : self.channels].float()

    def loss(self, images: torch.Tensor, seen: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """The mean squared error, over what was hidden, of `images` drawn from the rest of them as they are `seen`."""
        wrong = (self(seen, hidden) - images).square().mean(1, keepdim=True)
        return (wrong * hidden).sum() / hidden.sum().clamp(min=1)

    def shown(self, images: torch.Tensor, seen: torch.Tensor, hidden: torch.Tensor) -> dict[str, torch.Tensor]:
        """Pictures (n, C, k, j, i) for people."""
        return {"image": images, "what is seen of it": covered(seen, hidden), "drawn": self(seen, hidden)}

    def drawn_for(self, images: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """What `loss` takes beside the images: what is hidden (n, 1, k, j, i) bool."""
        return (hidden_blocks(images.shape, self.block, generator),)

    def kept(self) -> list[str]:
        """The names of the weights of `network` that a segmenter of any labels can start from: all but the output."""
        return [name for name, value in self.network.state_dict().items() if self._other[name] == value.shape]


def covered(images: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Images (n, C, k, j, i) with the mean of what is seen where they are hidden."""
    seen = ~hidden
    mean = (images * seen).sum((2, 3, 4), keepdim=True) / seen.sum((2, 3, 4), keepdim=True).clamp(min=1)
    return torch.where(hidden, mean, images)


def hidden_blocks(shape: torch.Size, block: tuple[int, int, int], generator: torch.Generator) -> torch.Tensor:
    """Where images of shape (n, C, k, j, i) are hidden: exactly 75 % (rounded) of the blocks of each, at random."""
    n, _, *size = shape
    counts = [-(-s // b) for s, b in zip(size, block, strict=True)]
    order = torch.rand(n, counts[0] * counts[1] * counts[2], generator=generator).argsort(1)
    hidden = (order < round(HIDDEN * order.shape[1])).reshape(n, 1, *counts)
    whole = F.interpolate(hidden.float(), [c * b for c, b in zip(counts, block, strict=True)], mode="nearest") > 0
    return whole[:, :, : size[0], : size[1], : size[2]]


def _with_labels(spec: SegmenterSpec, count: int) -> SegmenterSpec:
    labels = tuple(spec.labels[0].model_copy(update={"value": value}) for value in range(1, count + 1))
    return spec.model_copy(update={"labels": labels})
