"""Training and scoring a segmenter on prepared samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from monai.inferers import sliding_window_inference
from torch import nn

from RefSegLib.models.spec import SegmenterSpec
from RefSegLib.progress import SILENT, Progress
from RefSegLib.quality.metrics import dice
from RefSegLib.training.augment import Augmentation
from RefSegLib.training.batches import batch_of, patch_batches, steps_of
from RefSegLib.training.cases import Sample
from RefSegLib.training.fit import Fit, fast_precision, fit
from RefSegLib.training.losses import dice_ce, one_hot

# A loss of (network, images (n, C, k, j, i), labels (n, k, j, i)).
Loss = Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]


def train_segmenter(
    module: nn.Module,
    spec: SegmenterSpec,
    train: Sequence[Sample],
    validation: Sequence[Sample],
    *,
    epochs: int,
    seed: int,
    augmentation: Augmentation = Augmentation(),  # noqa: B008 (a frozen value)
    loss: Loss | None = None,
    checkpoint: Path | None = None,
    progress: Progress = SILENT,
) -> Fit:
    """Dice + cross-entropy, or `loss`, on augmented patches; kept are the weights with the best mean Dice on
    `validation`. module: gives logits (n, outputs, k, j, i) of images (n, C, k, j, i)."""
    device = next(module.parameters()).device

    def loss_of(network: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        images, labels = (part.to(device) for part in batch)
        with fast_precision(device):
            if loss is not None:
                return loss(network, images, labels)
            logits = network(images)
        return dice_ce(logits, one_hot(labels, spec.outputs))

    return fit(
        module,
        patch_batches(train, spec, augmentation, seed),
        loss_of,
        lambda network: validation_dice(network, validation, spec),
        epochs=epochs,
        steps=steps_of(train, spec),
        pieces=batch_of(spec),
        check_every=max(1, epochs // 20),
        checkpoint=checkpoint,
        progress=progress,
    )


def validation_dice(network: nn.Module, samples: Sequence[Sample], spec: SegmenterSpec) -> float:
    """The mean Dice over samples and labels of what `network` (in evaluation mode) finds in whole prepared images."""
    scores = [
        dice(found == value, sample.labels == value)
        for sample in samples
        for found in [predict(network, sample.image, spec)]
        for value in range(1, spec.outputs)
    ]
    return float(np.mean(scores))


@torch.inference_mode()
def predict(module: nn.Module, image: npt.NDArray[np.float32], spec: SegmenterSpec) -> npt.NDArray[np.intp]:
    """The most likely label of every voxel of a prepared image (C, k, j, i), for use while training."""
    device = next(module.parameters()).device
    with fast_precision(device):
        logits = sliding_window_inference(
            torch.from_numpy(np.array(image))[None].to(device),
            spec.patch,
            4,
            lambda patches: module(patches).float(),
            overlap=0.25,
            mode="gaussian",
            padding_mode="replicate",
        )
    return logits[0].argmax(0).cpu().numpy()
