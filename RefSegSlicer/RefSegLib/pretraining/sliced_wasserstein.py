"""How far a cloud of points is from a standard normal one, direction by direction."""

from __future__ import annotations

import torch

DIRECTIONS = 50


def sliced_wasserstein(points: torch.Tensor, generator: torch.Generator, directions: int = DIRECTIONS) -> torch.Tensor:
    """The sliced Wasserstein distance (squared) of points (..., m, dimensions) to N(0, I), one number per cloud (...).

    The points are projected on random unit directions and sorted; along each the standard normal is known, so they are
    compared with its quantiles instead of with a second random cloud. Kolouri 2018 (sliced-Wasserstein autoencoder);
    50 directions drawn from Student's t with 4 degrees of freedom as in the code of TAE-Seg (Chen, IEEE TIM 71, 2022).
    """
    points = points.float()
    count, dimensions = points.shape[-2:]
    normal = torch.randn(directions, dimensions, generator=generator)
    spread = torch.randn(4, directions, dimensions, generator=generator).square().mean(0).sqrt()
    drawn = (normal / spread).to(points.device)
    drawn = drawn / drawn.norm(dim=1, keepdim=True)
    projected = (points @ drawn.T).sort(dim=-2).values
    shares = (torch.arange(count, device=points.device, dtype=torch.float32) + 0.5) / count
    quantiles = torch.special.ndtri(shares)[:, None]
    return (projected - quantiles).square().mean((-2, -1))
