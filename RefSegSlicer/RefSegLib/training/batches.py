"""The batches of an epoch: every sample in random order, patch, pose and looks; the same for the same seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch

from RefSegLib.models.spec import SegmenterSpec
from RefSegLib.training.augment import Augmentation, random_looks, random_patch
from RefSegLib.training.cases import Sample

# Patches of a batch: two of a volume (as nnU-Net), more of single slices, until they are as many voxels.
FEWEST, MOST = 2, 16
BATCH_VOXELS = 180_000
SMALLEST_EPOCH = 32  # patches; small sets are gone through several times, so that an epoch means something


def batch_of(spec: SegmenterSpec) -> int:
    """Patches per batch."""
    return FEWEST if spec.dimensions == 3 else max(FEWEST, min(MOST, BATCH_VOXELS // math.prod(spec.patch)))


def steps_of(samples: Sequence[Sample], spec: SegmenterSpec) -> int:
    """Batches per epoch."""
    return math.ceil(max(len(samples), SMALLEST_EPOCH) / batch_of(spec))


def patch_batches(
    samples: Sequence[Sample], spec: SegmenterSpec, augmentation: Augmentation, seed: int
) -> Callable[[int], Iterator[tuple[torch.Tensor, torch.Tensor]]]:
    """batches(epoch): images (n, C, k, j, i) and labels (n, k, j, i) int64 of the spec's patch size."""
    steps, size = steps_of(samples, spec), batch_of(spec)

    def batches(epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        rounds = math.ceil(steps * size / len(samples))
        order = torch.cat([torch.randperm(len(samples), generator=generator) for _ in range(rounds)])
        for step in range(steps):
            chosen = [samples[index] for index in order[step * size : (step + 1) * size].tolist()]
            patches = [
                random_patch(s.image, s.labels, spec.outputs, spec.patch, s.spacing, augmentation, generator)
                for s in chosen
            ]
            images, labels = (torch.stack(part) for part in zip(*patches, strict=True))
            yield random_looks(images, augmentation, generator), labels

    return batches
