"""Teaching a synthesizer to draw the image of a mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from RefSegLib.models.spec import SegmenterSpec
from RefSegLib.progress import SILENT, Progress
from RefSegLib.synthesis.similarity import ssim_map
from RefSegLib.synthesis.synthesizer import Synthesizer, gray
from RefSegLib.training.augment import Augmentation
from RefSegLib.training.batches import batch_of, patch_batches, steps_of
from RefSegLib.training.cases import Sample
from RefSegLib.training.fit import Fit, fast_precision, fit
from RefSegLib.training.losses import one_hot

MARGIN = 5  # voxels around a structure that count fully: where a proxy image is compared
# Weight of the rest, which no mask foretells: with 0.1 it is half the loss of a heart in a slice, and SSIM around the
# heart stayed at 0.12.
ELSEWHERE = 0.01


def train_synthesizer(
    module: nn.Module,
    spec: SegmenterSpec,
    train: Sequence[Sample],
    validation: Sequence[Sample],
    *,
    epochs: int,
    seed: int,
    checkpoint: Path | None = None,
    progress: Progress = SILENT,
) -> Fit:
    """L1 + (1 - SSIM) around the structures, on true masks only, every other one softened.

    Never on wrong masks: a synthesizer that has seen a wrong mask beside its image learns to excuse it. The score is
    the mean SSIM around the structures of `validation`, in their own pose.
    """
    device = next(module.parameters()).device
    flat = spec.dimensions == 2
    if spec.normalization.kind == "zscore":  # whole images: a patch alone would have another range
        train = [replace(sample, image=gray(np.asarray(sample.image), spec)[None]) for sample in train]
    drawn = patch_batches(train, spec, Augmentation().mild(), seed)

    def batches(epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        for images, labels in drawn(epoch):
            masks = one_hot(labels, spec.outputs)
            yield soften(masks, generator), images.mean(1, keepdim=True), around(masks, flat)

    def loss_of(network: nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        masks, images, weight = (part.to(device) for part in batch)
        with fast_precision(device):
            proxy = network(masks)
        proxy = proxy.float()
        error = (proxy - images).abs() + (1 - ssim_map(proxy, images, flat))
        return (weight * error).sum() / weight.sum()

    def validate(network: nn.Module) -> float:
        return synthesis_score(Synthesizer(spec, network), validation)

    return fit(
        module,
        batches,
        loss_of,
        validate,
        epochs=epochs,
        steps=steps_of(train, spec),
        pieces=batch_of(spec),
        check_every=max(1, epochs // 25),
        checkpoint=checkpoint,
        progress=progress,
    )


def soften(masks: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Every other mask of (n, outputs, k, j, i), by chance, with soft edges like a segmenter's probabilities."""
    soft = masks.clone()
    for n in range(len(masks)):
        if torch.rand(1, generator=generator) < 0.5:
            kernel = [3 if size > 1 else 1 for size in masks.shape[2:]]
            for _ in range(int(torch.randint(1, 4, (1,), generator=generator))):
                soft[n] = F.avg_pool3d(soft[n], kernel, 1, [k // 2 for k in kernel], count_include_pad=False)
    return soft


def around(masks: torch.Tensor, flat: bool = False) -> torch.Tensor:
    """Weights (n, 1, k, j, i): 1 on the structures of (n, outputs, k, j, i) and around them, little elsewhere;
    flat: around them within slices only."""
    near = 1 - masks[:, :1]
    for axis, size in enumerate(masks.shape[2:]):
        if size > 1 and not (flat and axis == 0):
            kernel = [1, 1, 1]
            kernel[axis] = 2 * MARGIN + 1
            near = F.max_pool3d(near, kernel, 1, [k // 2 for k in kernel])
    return near.clamp(min=ELSEWHERE)


@torch.inference_mode()
def synthesis_score(synthesizer: Synthesizer, samples: Sequence[Sample]) -> float:
    """Mean SSIM around the structures between proxies of true masks and the images; samples without are left out."""
    device = next(synthesizer.module.parameters()).device
    flat = synthesizer.spec.dimensions == 2
    scores = []
    for sample in samples:
        masks = one_hot(torch.from_numpy(np.array(sample.labels, np.int64))[None], synthesizer.spec.outputs)
        image = torch.from_numpy(gray(np.array(sample.image), synthesizer.spec))[None, None]
        near = around(masks, flat) == 1
        if near.any():
            similarity = ssim_map(synthesizer(masks.to(device)).cpu(), image, flat)
            scores.append(float(similarity[near].mean()))
    return float(np.mean(scores)) if scores else 0.0
