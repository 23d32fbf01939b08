"""Structural similarity as a map (Wang et al. 2004)."""

from __future__ import annotations

import torch
from torch.nn import functional as F

WINDOW = 7
# (0.01 and 0.03) x the range of normalized images, squared, as in the paper.
C1, C2 = 0.01**2, 0.03**2


def ssim_map(a: torch.Tensor, b: torch.Tensor, window: int = WINDOW) -> torch.Tensor:
    """SSIM of two images (n, 1, k, j, i) around every voxel, -1..1, same shape, differentiable.

    Uniform windows of `window` voxels, cut off at the border of the image and along axes of one voxel.
    Equal to scikit-image's structural_similarity(win_size=7, data_range=1, full=True, use_sample_covariance=False)
    away from the border.
    """

    def mean(x: torch.Tensor) -> torch.Tensor:
        for axis, size in enumerate(x.shape[2:]):  # one axis after the other: 15 times faster than in cubes on a CPU
            width = min(window, size if size % 2 else size - 1)
            kernel = [width if a == axis else 1 for a in range(3)]
            x = F.avg_pool3d(x, kernel, 1, [k // 2 for k in kernel], count_include_pad=False)
        return x

    mean_a, mean_b = mean(a), mean(b)
    variance_a = mean(a * a) - mean_a**2
    variance_b = mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    return ((2 * mean_a * mean_b + C1) * (2 * covariance + C2)) / (
        (mean_a**2 + mean_b**2 + C1) * (variance_a + variance_b + C2)
    )
