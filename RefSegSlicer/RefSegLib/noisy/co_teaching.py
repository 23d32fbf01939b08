"""Small-loss co-teaching, a peer: two networks, each learns the voxels the other finds easy. Han 2018 (NeurIPS, arXiv
1804.06872) for voxels as in PyMIC, whose share that is kept is the default: it falls from all to KEEP while training
begins. The share of noise is not told to it unless somebody gives `keep`.
"""

from __future__ import annotations

import torch
from torch import nn

from RefSegLib.training.losses import dice_ce, one_hot

KEEP = 0.8
RAMP = 0.2  # share of the training until so little is kept


class CoTeaching(nn.Module):
    """Two networks of one kind that start from different weights; the first is the one that is used.

    second: the other one, of the same layers. steps: of the whole training, over which the kept share falls.
    """

    def __init__(self, first: nn.Module, second: nn.Module, steps: int, keep: float = KEEP) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.steps, self.keep = steps, keep
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The first network's logits (n, outputs, k, j, i)."""
        return self.first(images)

    @staticmethod
    def loss(module: CoTeaching, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Both networks' Dice + cross-entropy, each over the voxels (n, k, j, i) with the other's smallest losses."""
        share = 1 - (1 - module.keep) * min(1.0, float(module.step) / max(1.0, RAMP * module.steps))
        module.step += 1
        logits = [module.first(images).float(), module.second(images).float()]
        target = one_hot(labels, logits[0].shape[1])
        kept = [_easiest(one.detach(), labels, share) for one in logits]
        return dice_ce(logits[0], target, kept[1]) + dice_ce(logits[1], target, kept[0])


def _easiest(logits: torch.Tensor, labels: torch.Tensor, share: float) -> torch.Tensor:
    """1 at the `share` of the voxels of a batch with the smallest cross-entropy, else 0: (n, 1, k, j, i)."""
    losses = nn.functional.cross_entropy(logits, labels.long(), reduction="none")
    limit = losses.flatten().kthvalue(max(1, round(share * losses.numel()))).values
    return (losses <= limit).float()[:, None]
