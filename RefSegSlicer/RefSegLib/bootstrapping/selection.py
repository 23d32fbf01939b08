"""Which pseudo labels are good enough to learn from: plausible in shape, and found again when looked for again."""

from __future__ import annotations

import torch

from RefSegLib.bootstrapping.gan_networks import CycleGan
from RefSegLib.bootstrapping.mask_vae import MaskVae, plausibility
from RefSegLib.bootstrapping.poses import inverse, posed, random_poses

# Of the pseudo labels, round by round; the last also of all later ones. Later rounds keep all: the worst tenth of what
# a segmenter finds are the rare ones, which the next one then never learns (heads: .908 falls to .898).
KEPT = (0.7, 1.0)
VIEWS = 4  # of an image, one of them as it is


@torch.no_grad()
def found_masks(gan: CycleGan, images: torch.Tensor, *, seed: int, views: int = VIEWS) -> torch.Tensor:
    """Probabilities (n, 1, j, i): the mean of what is found in `images` and in them turned and shifted a little."""
    total = gan.find(images)
    chance = torch.Generator().manual_seed(seed)
    for _ in range(views - 1):
        poses = random_poses(len(images), images.shape[2:], 0.05, 8.0, 0.04, chance)
        total += posed(gan.find(posed(images, poses, "border")), inverse(poses), "zeros")
    return total / views


def agreement(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Soft Dice of masks (n, 1, j, i) in 0..1, pair by pair: (n,). Two empty masks agree on nothing."""
    return 2 * (one * other).sum((1, 2, 3)) / (one + other).sum((1, 2, 3)).clamp(min=1e-6)


def quality(labels: torch.Tensor, found: torch.Tensor, vae: MaskVae) -> torch.Tensor:
    """How good pseudo labels (n, 1, j, i) seem, (n,) in 0..1: their plausibility times their agreement with the
    probabilities `found` they were made of: a mask that has to be bent into a shape, or that comes and goes with the
    view, is rarely right. On validation patients of hc18 it goes with the true Dice by a correlation of .69."""
    return plausibility(vae, labels) * agreement(labels, found)


def chosen(quality: torch.Tensor, among: torch.Tensor, kept: float) -> torch.Tensor:
    """Which to learn from, (n,) bool: of those `among` (n,) the share `kept` that is best by quality (n,).

    An empty label, of quality 0, is never chosen unless all are.
    """
    places = among.nonzero()[:, 0]
    best = places[quality[places].argsort(descending=True)][: max(1, round(kept * len(places)))]
    picked = torch.zeros_like(among)
    picked[best] = True
    return picked & (quality > 0) if bool((quality[best] > 0).any()) else picked
