"""Flat pictures scaled, turned and shifted by chance, and back again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F


def random_poses(
    count: int, shape: Sequence[int], scale: float, rotation: float, shift: float, generator: torch.Generator
) -> torch.Tensor:
    """Poses (count, 2, 3) for pictures of `shape` (j, i): both axes scaled apart, turned (degrees) and shifted (share
    of the frame), each evenly up to its limit either way."""
    height, width = shape

    def even(limit: float, *more: int) -> torch.Tensor:
        return (2 * torch.rand((count, *more), generator=generator) - 1) * limit

    angle, sizes = torch.deg2rad(even(rotation)), 1 / (1 + even(scale, 2))
    poses = torch.zeros(count, 2, 3)
    poses[:, 0, 0], poses[:, 0, 1] = angle.cos() * sizes[:, 0], -angle.sin() * sizes[:, 0] * height / width
    poses[:, 1, 0], poses[:, 1, 1] = angle.sin() * sizes[:, 1] * width / height, angle.cos() * sizes[:, 1]
    poses[:, :, 2] = even(2 * shift, 2)
    return poses


def inverse(poses: torch.Tensor) -> torch.Tensor:
    """The poses (n, 2, 3) that undo these."""
    whole = torch.cat([poses, torch.tensor([0.0, 0.0, 1.0]).expand(len(poses), 1, 3)], 1)
    return torch.linalg.inv(whole)[:, :2]


def posed(pictures: torch.Tensor, poses: torch.Tensor, beyond: str) -> torch.Tensor:
    """Pictures (n, c, j, i) in these poses, interpolated linearly; beyond: what stands outside, "zeros" or "border"."""
    n, _, height, width = pictures.shape
    where = F.affine_grid(poses, [n, 1, height, width], align_corners=False)
    return F.grid_sample(pictures, where, padding_mode=beyond, align_corners=False)
