"""A model of what masks look like: a variational autoencoder, trained on masks alone."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from RefSegLib.bootstrapping.mask_pool import MaskPool
from RefSegLib.progress import SILENT, Progress
from RefSegLib.training.fit import fast_precision

LATENT = 32
FILTERS = (16, 32, 64)
BETA = 0.1  # of the divergence from N(0, 1), per mask; the dossier's range is 0.1 to 1
RATE, BATCH = 2e-3, 16


class MaskVae(nn.Module):
    """Masks (n, 1, j, i) in 0..1 to a normal distribution over `LATENT` numbers and back (Kingma & Welling 2014).

    j and i must be divisible by 8. No normalization: the size of a mask is what it must tell.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        self.shape = shape
        self.small = (FILTERS[-1], shape[0] // 8, shape[1] // 8)
        layers: list[nn.Module] = []
        for before, after in zip((1, *FILTERS), FILTERS, strict=False):
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(0.2)]
        size = self.small[0] * self.small[1] * self.small[2]
        self.encoder = nn.Sequential(*layers, nn.Flatten(), nn.Linear(size, 2 * LATENT))
        layers = [nn.Linear(LATENT, size), nn.ReLU(), nn.Unflatten(1, self.small)]
        for before, after in zip(FILTERS[::-1], (*FILTERS[-2::-1], 8), strict=False):
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
        self.decoder = nn.Sequential(*layers, nn.Conv2d(8, 1, 3, padding=1))

    def mean(self, masks: torch.Tensor) -> torch.Tensor:
        """The middle of the distribution of each mask: (n, LATENT)."""
        return self.encoder(masks)[:, :LATENT]

    def forward(self, masks: torch.Tensor) -> torch.Tensor:
        """The masks as this model would draw them, in 0..1."""
        return self.decoder(self.mean(masks)).sigmoid()

    def loss(self, masks: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Cross-entropy of the redrawn mask plus BETA times the divergence, per mask."""
        mean, log_variance = self.encoder(masks).float().chunk(2, 1)
        drawn = torch.randn(mean.shape, generator=generator).to(mean)
        logits = self.decoder(mean + (0.5 * log_variance).exp() * drawn).float()
        drawing = F.binary_cross_entropy_with_logits(logits, masks, reduction="none").sum((1, 2, 3))
        divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1)
        return (drawing + BETA * divergence).mean() / masks[0].numel()


def train_mask_vae(
    pool: MaskPool, shape: tuple[int, int], *, steps: int, seed: int, progress: Progress = SILENT
) -> MaskVae:
    """A MaskVae of the masks of `pool`, on a frame of `shape` (j, i). It comes back frozen."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vae = MaskVae(shape)
    optimizer = torch.optim.Adam(vae.parameters(), RATE)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, 1e-5)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        with fast_precision(torch.device("cpu")):
            loss = vae.loss(pool(BATCH, generator), generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        progress((step + 1) / steps, "learning what masks look like")
    return vae.eval().requires_grad_(False)


@torch.no_grad()
def plausibility(vae: MaskVae, masks: torch.Tensor) -> torch.Tensor:
    """How much masks (n, 1, j, i) resemble those the model knows: the soft Dice with what it redraws, (n,) in 0..1.

    An empty mask resembles none.
    """
    redrawn = vae(masks)
    return 2 * (masks * redrawn).sum((1, 2, 3)) / (masks + redrawn).sum((1, 2, 3)).clamp(min=1e-6)
