"""Structural similarity as a map (Wang et al. 2004)."""

from __future__ import annotations

import torch
from torch.nn import functional as F

WINDOW = 7  # voxels
# (0.01 and 0.03) x the range of normalized images, squared, as in the paper.
C1, C2 = 0.01**2, 0.03**2


def local_mean(x: torch.Tensor, flat: bool = False, window: int = WINDOW) -> torch.Tensor:
    """Mean over cubes of `window` voxels of (n, 1, k, j, i), cut off at the border and along axes of one voxel;
    flat: over squares, every slice by itself.

    Axis by axis: the same numbers as one pooling over cubes, 15 times faster on a CPU.
    """
    for axis, size in enumerate(x.shape[2:]):
        if flat and axis == 0:
            continue
        width = min(window, size if size % 2 else size - 1)
        if width > 1:
            kernel = [width if a == axis else 1 for a in range(3)]
            x = F.avg_pool3d(x, kernel, 1, [n // 2 for n in kernel], count_include_pad=False)
    return x


def ssim_map(a: torch.Tensor, b: torch.Tensor, flat: bool = False) -> torch.Tensor:
    """SSIM of images (n, 1, k, j, i) around every voxel, -1..1, same shape, differentiable; flat: slice by slice.

    Equal to scikit-image's structural_similarity(win_size=7, data_range=1, full=True, use_sample_covariance=False)
    away from the border.
    """
    mean_a, mean_b = local_mean(a, flat), local_mean(b, flat)
    variance_a = (local_mean(a * a, flat) - mean_a**2).clamp(min=0)
    variance_b = (local_mean(b * b, flat) - mean_b**2).clamp(min=0)
    covariance = local_mean(a * b, flat) - mean_a * mean_b
    return ((2 * mean_a * mean_b + C1) * (2 * covariance + C2)) / (
        (mean_a**2 + mean_b**2 + C1) * (variance_a + variance_b + C2)
    )
