"""How well the proxy image of a mask agrees with the image, where it matters.

Two terms, both local, so that a wrong border counts and a different global contrast does not: SSIM (Wang et al. 2004)
after a monotone matching of intensities, and the squared local correlation, which does not even mind inversion.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from RefSegLib.synthesis.similarity import WINDOW, local_mean, ssim_map

FLAT = 1e-4  # variance below which a neighborhood shows no structure (1 % of the range)
# Of correlation, within slices: 49 voxels of a square tell less than 343 of a cube. Dice of 44 shifted hearts of
# validation chosen by it alone, width 7: .701, 11: .725, 15: .720, 21: .720; by MIND (Heinrich et al. 2012): .688.
FLAT_WINDOW = 11
LEVELS = 17  # quantiles that are matched
STEEPEST = 8.0  # how far matching may stretch a proxy image; a flat one must not be blown up to any structure


@dataclass(frozen=True)
class Similarity:
    """Of n proxy images. ssim, correlation: (n,), means over the region; local: (n, k, j, i), SSIM, -1..1."""

    ssim: torch.Tensor
    correlation: torch.Tensor
    local: torch.Tensor


def match_quantiles(x: torch.Tensor, target: torch.Tensor, region: torch.Tensor) -> torch.Tensor:
    """x (n, 1, k, j, i) with its intensities mapped monotonically so that their quantiles inside `region` (k, j, i)
    are those of `target` (1, 1, k, j, i). Piecewise linear; gradients flow through x, not through the quantiles."""
    levels = torch.linspace(0.01, 0.99, LEVELS, device=x.device)
    wanted = torch.quantile(target[0, 0][region].detach(), levels)
    results = []
    for image in x:
        knots = torch.quantile(image[0][region].detach(), levels)
        knots = knots + torch.arange(LEVELS, device=x.device) * 1e-5  # strictly rising
        slopes = (wanted.diff() / knots.diff()).clamp(max=STEEPEST)
        heights = torch.cat([wanted[:1], slopes * knots.diff()]).cumsum(0)
        heights = heights + (wanted[LEVELS // 2] - heights[LEVELS // 2])  # medians agree where slopes were held back
        segment = (torch.bucketize(image.detach().contiguous(), knots) - 1).clamp(0, LEVELS - 2)
        results.append(heights[segment] + (image - knots[segment]) * slopes[segment])
    return torch.stack(results)


def similarity(proxies: torch.Tensor, image: torch.Tensor, region: torch.Tensor, flat: bool = False) -> Similarity:
    """Of proxies (n, 1, k, j, i) to image (1, 1, k, j, i) inside region (k, j, i) bool, not empty. Differentiable.
    flat: neighborhoods lie within slices, for networks that see slices one by one.

    The proxy is matched to the image and not the other way round, so that all proxies are judged against one image:
    an image matched to the flat proxy of an empty mask would be flat too, and agree.
    """
    matched = match_quantiles(proxies, image, region)
    ssim = ssim_map(matched, image, flat)
    correlation = _squared_correlation(proxies, image, flat)
    weight = region.to(ssim.dtype)
    weight = weight / weight.sum()
    return Similarity((ssim[:, 0] * weight).sum((1, 2, 3)), (correlation[:, 0] * weight).sum((1, 2, 3)), ssim[:, 0])


def _squared_correlation(proxies: torch.Tensor, image: torch.Tensor, flat: bool) -> torch.Tensor:
    """Of the proxies as they were drawn: matching bends the intensities of an inverted contrast the wrong way."""
    window = FLAT_WINDOW if flat else WINDOW

    def mean(x: torch.Tensor) -> torch.Tensor:
        return local_mean(x, flat, window)

    mean_p, mean_x = mean(proxies), mean(image)
    variance_x = (mean(image * image) - mean_x**2).clamp(min=0)
    variance_p = (mean(proxies * proxies) - mean_p**2).clamp(min=0)
    covariance = mean(proxies * image) - mean_p * mean_x
    return covariance**2 / ((variance_p + FLAT) * (variance_x + FLAT))
