"""The batches of an epoch: every sample in random order, patch, pose and looks; the same for the same seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch

from RefSegLib.models.spec import SegmenterSpec
from RefSegLib.training.augment import Augmentation, random_looks, random_patch
from RefSegLib.training.cases import Sample

BATCH = 2
SMALLEST_EPOCH = 32  # patches; small sets are gone through several times, so that an epoch means something


def steps_of(samples: Sequence[Sample]) -> int:
    """Batches per epoch."""
    return math.ceil(max(len(samples), SMALLEST_EPOCH) / BATCH)


def patch_batches(
    samples: Sequence[Sample], spec: SegmenterSpec, augmentation: Augmentation, seed: int
) -> Callable[[int], Iterator[tuple[torch.Tensor, torch.Tensor]]]:
    """batches(epoch): images (BATCH, C, k, j, i) and labels (BATCH, k, j, i) int64 of the spec's patch size."""
    steps = steps_of(samples)

    def batches(epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        rounds = math.ceil(steps * BATCH / len(samples))
        order = torch.cat([torch.randperm(len(samples), generator=generator) for _ in range(rounds)])
        for step in range(steps):
            chosen = [samples[index] for index in order[step * BATCH : (step + 1) * BATCH].tolist()]
            patches = [
                random_patch(s.image, s.labels, spec.outputs, spec.patch, s.spacing, augmentation, generator)
                for s in chosen
            ]
            images, labels = (torch.stack(part) for part in zip(*patches, strict=True))
            yield random_looks(images, augmentation, generator), labels

    return batches
