"""The tile-wise autoencoder (T-AE): what an encoder can learn about images without a single mask.

An image is cut into tiles, these may change places, and one encoder sees them one by one. From what it says of each,
one head tells in which order they are, and one decoder draws the whole mosaic again, which ties the tiles together; the
latents are drawn towards a standard normal by the sliced Wasserstein distance. Y. Chen, TAE-Seg, IEEE TIM 71, 2022
(arXiv 2108.03823); weights of the losses as in its code. Ours: quantiles instead of drawn normals, a decoder of the
size of the segmenter's encoder, images of one channel or more, two and three dimensions.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from RefSegLib.errors import BadInput
from RefSegLib.models.networks import divisors, levels
from RefSegLib.models.spec import SegmenterSpec
from RefSegLib.pretraining.encoder import build_decoder, encode, encoder_names
from RefSegLib.pretraining.sliced_wasserstein import sliced_wasserstein

ORDERS = 100  # besides the natural one
NATURAL = 0.7  # how often tiles stay in their places for certain
ORDER_WEIGHT, IMAGE_WEIGHT, LATENT_WEIGHT = 1.0, 1.0, 0.01
Grid = tuple[int, int, int]


class TileAutoencoder(nn.Module):
    """The encoder of `network`, a segmenter of `spec`, with a head for the order of tiles and a decoder for mosaics."""

    def __init__(self, network: nn.Module, spec: SegmenterSpec) -> None:
        super().__init__()
        self.network = network
        kept = set(encoder_names(network))
        for name, value in network.named_parameters():
            value.requires_grad_(name in kept)  # the way up has no part in this
        self.grid, self.tile = tiling(spec)
        self.decoder = build_decoder(spec)
        self.register_buffer("orders", torch.from_numpy(orders(math.prod(self.grid))), persistent=False)
        filters, _ = levels(spec)
        self.summary = nn.Linear(filters[-1], 128)
        self.order = nn.Linear(128 * len(self.orders[0]), len(self.orders))

    def kept(self) -> list[str]:
        """The names of the weights of `network` that a segmenter can start from: the encoder."""
        return encoder_names(self.network)

    def drawn_for(self, images: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """What `loss` takes beside the images: which of `orders` the tiles of each are put in (n,), natural in 70 % and
        else any, and seeds of directions (n,)."""
        count = len(images)
        natural = torch.rand(count, generator=generator) < NATURAL
        order = torch.where(natural, 0, torch.randint(len(self.orders), (count,), generator=generator))
        return order, torch.randint(1 << 31, (count,), generator=generator)

    def mosaic(self, images: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
        """The tiles (n, tiles, C, k, j, i) of images (n, C, k, j, i) of the patch size, in `order` (n,) of `orders`."""
        tiles = cut(images, self.grid, self.tile)
        rows = torch.arange(len(tiles), device=tiles.device)[:, None]
        return tiles[rows, self.orders[order]]

    def forward(self, images: torch.Tensor, order: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of the mosaics of images: drawn again (n, C, k, j, i), the logits of the order (n, orders), the latents
        (n, tiles, filters, k, j, i)."""
        tiles = self.mosaic(images, order)
        latents = encode(self.network, tiles.flatten(0, 1))
        summary = self.summary(latents.flatten(2).mean(2)).reshape(len(tiles), -1)
        latents = latents.unflatten(0, tiles.shape[:2])
        return self.decoder(joined(latents, self.grid)).float(), self.order(F.leaky_relu(summary)).float(), latents

    def loss(self, images: torch.Tensor, seen: torch.Tensor, order: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        """What training makes small, of `images` drawn from how they are `seen`; the first of `seeds` (n,) is that of
        the directions."""
        drawn, told, latents = self(seen, order)
        wrong = drawn - joined(self.mosaic(images, order), self.grid)
        image = wrong.abs().mean() + wrong.square().mean()
        clouds = latents.flatten(3).permute(1, 0, 3, 2).flatten(1, 2)  # (tiles, n * voxels, filters)
        cloud = sliced_wasserstein(clouds, torch.Generator().manual_seed(int(seeds[0]))).sum()
        return ORDER_WEIGHT * F.cross_entropy(told, order) + IMAGE_WEIGHT * image + LATENT_WEIGHT * cloud

    def shown(
        self, images: torch.Tensor, seen: torch.Tensor, order: torch.Tensor, seeds: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Pictures (n, C, k, j, i) for people."""
        mosaic = joined(self.mosaic(seen, order), self.grid)
        return {"image": images, "its tiles as they are seen": mosaic, "drawn again": self(seen, order)[0]}


def tiling(spec: SegmenterSpec) -> tuple[Grid, Grid]:
    """How many tiles a patch has along k, j, i, and their size in voxels: 3 x 3 in two dimensions, 2 x 2 x 2 in three.

    The encoder must be able to halve a tile as often as a patch, so tiles may leave a rim of the patch out; along an
    axis too short for that there are fewer. Raises BadInput if no two tiles fit, or if nothing is left of a tile in
    the deepest level but one voxel, of which an instance norm knows nothing.
    """
    smallest = divisors(spec)
    wanted = (1, 3, 3) if spec.dimensions == 2 else (2, 2, 2)
    grid = tuple(max(1, min(w, n // d)) for w, n, d in zip(wanted, spec.patch, smallest, strict=True))
    tile = tuple(n // g // d * d for n, g, d in zip(spec.patch, grid, smallest, strict=True))
    left = math.prod(n // d for n, d in zip(tile, smallest, strict=True))
    if math.prod(grid) < 2 or left < 2:
        raise BadInput(
            f"The patch {spec.patch} of model '{spec.name}' is too small to cut into tiles: its network halves it down "
            f"by {smallest}. Use a larger patch or fewer levels of filters, or pretrain with --method masked."
        )
    return grid, tile


def orders(tiles: int) -> np.ndarray:
    """The orders (m, tiles) that tiles may stand in: the natural one, then up to 100 that differ much from each other.

    Each new one has the largest smallest Hamming distance to those before among a thousand at random (Noroozi and
    Favaro, ECCV 2016). Always the same.
    """
    rng = np.random.default_rng(0)
    count = min(ORDERS, math.factorial(min(tiles, 6)) - 1) + 1
    pool = np.unique(np.stack([rng.permutation(tiles) for _ in range(1000)]), axis=0)
    chosen = [np.arange(tiles)]
    distance = (pool != chosen[0]).sum(1)
    while len(chosen) < count:
        best = int(distance.argmax())
        chosen.append(pool[best])
        distance = np.minimum(distance, (pool != pool[best]).sum(1))
    return np.stack(chosen)


def cut(images: torch.Tensor, grid: Grid, tile: Grid) -> torch.Tensor:
    """Images (n, C, k, j, i) to their tiles (n, tiles, C, k, j, i), from the middle of the image, row by row."""
    size = [g * t for g, t in zip(grid, tile, strict=True)]
    starts = [(n - s) // 2 for n, s in zip(images.shape[2:], size, strict=True)]
    k, j, i = (slice(start, start + s) for start, s in zip(starts, size, strict=True))
    images = images[:, :, k, j, i]
    n, channels = images.shape[:2]
    split = images.reshape(n, channels, grid[0], tile[0], grid[1], tile[1], grid[2], tile[2])
    return split.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(n, math.prod(grid), channels, *tile)


def joined(tiles: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Tiles, or what was made of each, (n, tiles, C, k, j, i) laid out as one mosaic (n, C, k, j, i)."""
    n, _, channels, *tile = tiles.shape
    split = tiles.reshape(n, *grid, channels, *tile).permute(0, 4, 1, 5, 2, 6, 3, 7)
    return split.reshape(n, channels, *(g * t for g, t in zip(grid, tile, strict=True)))
