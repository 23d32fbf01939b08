"""Training a segmenter on masks some of which are wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn

from RefSegLib.models.spec import SegmenterSpec
from RefSegLib.noisy.corrections import Correction, Level, as_given, corrected, save
from RefSegLib.noisy.raters import RatedSample
from RefSegLib.noisy.t_loss import TLoss
from RefSegLib.progress import SILENT, Progress
from RefSegLib.training.augment import Augmentation, random_looks, random_patch
from RefSegLib.training.batches import batch_of, steps_of
from RefSegLib.training.cases import Sample
from RefSegLib.training.fit import Fit, fast_precision, fit
from RefSegLib.training.losses import noise_weighted_dice
from RefSegLib.training.segmenter import validation_dice

WARM_UP = 0.3  # share of the epochs that learn the masks as they are: networks learn what is common first
CHECKS = 20  # times that the masks are looked at anew, as often as the network is validated


def train_noisy_segmenter(
    module: nn.Module,
    spec: SegmenterSpec,
    train: Sequence[RatedSample],
    validation: Sequence[Sample],
    *,
    level: Level = "image",
    overlap: float = 1.0,
    epochs: int,
    seed: int,
    augmentation: Augmentation = Augmentation(),  # noqa: B008 (a frozen value)
    checkpoint: Path | None = None,
    progress: Progress = SILENT,
) -> Fit:
    """T-Loss and Dice on what the running mean of the network believes of the masks; each patch counts as much as its
    voxels do on average.

    level: lungs, half of the masks wrong in all ways or all of those too wide, two seeds, T-Loss alone: image .943,
    .938, .941, .936; both .940, .933, .936, .931; pixel .937 and .917; the right masks, by Dice + cross-entropy .944,
    .938.
    overlap: how much Dice counts beside T-Loss. T-Loss alone is up to half a point better on lungs, but does not learn
    thin structures: vessels of the retina .21 instead of .44 (validation). With Dice + cross-entropy instead of
    T-Loss lungs came to .926 (both levels).

    For the first WARM_UP of the epochs the masks are taken as they are; afterwards they are looked at anew after each
    validation, as `corrected` does at `level`. Kept are the weights with the best mean Dice over the better half of
    `validation`: its masks may be wrong too, and a network that gets better agrees less with those that are.
    Resumed from `checkpoint` the training comes to the same weights (as far as `fit` does): what is believed depends on
    the running mean alone, and is renewed where checkpoints are written.
    """
    device = next(module.parameters()).device
    every = max(1, epochs // CHECKS)
    teacher: list[nn.Module] = []

    def loss_of(network: nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        images, target, weight = (part.to(device) for part in batch)
        with fast_precision(device):
            logits = network(images)
        counts = weight.mean((1, 2, 3, 4))
        found = network.likelihood(logits, target, counts)
        if overlap:
            shares = counts.reshape(-1, 1, 1, 1, 1).expand_as(logits[:, :1])
            found = found + overlap * noise_weighted_dice(logits.float().softmax(1)[:, 1:], target[:, 1:], shares)
        return found

    with TemporaryDirectory(dir=_room(checkpoint), prefix="believed-") as folder:
        believed = save(Path(folder), [as_given(sample, spec.outputs) for sample in train])

        def batches(epoch: int) -> Iterator[tuple[torch.Tensor, ...]]:
            nonlocal believed
            if epoch % every == 0 and epoch >= WARM_UP * epochs:
                believed = save(Path(folder), corrected(teacher[0], train, spec, level))
            return believed_batches(train, believed, spec, augmentation, seed)(epoch)

        return fit(
            TLoss(module).to(device),
            batches,
            loss_of,
            lambda network: better_half([validation_dice(network, [sample], spec) for sample in validation]),
            epochs=epochs,
            steps=steps_of(train, spec),
            pieces=batch_of(spec),
            check_every=every,
            averaging=teacher.append,
            checkpoint=checkpoint,
            progress=progress,
        )


def better_half(scores: Sequence[float]) -> float:
    """The mean of the larger half of the scores, rounded up."""
    ordered = sorted(scores, reverse=True)
    return float(np.mean(ordered[: (len(ordered) + 1) // 2]))


def _room(checkpoint: Path | None) -> Path | None:
    if checkpoint is None:
        return None
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    return checkpoint.parent


def believed_batches(
    samples: Sequence[RatedSample],
    believed: Sequence[Correction],
    spec: SegmenterSpec,
    augmentation: Augmentation,
    seed: int,
) -> Callable[[int], Iterator[tuple[torch.Tensor, ...]]]:
    """batches(epoch) as `patch_batches`, the same samples and poses for the same seed: images (n, C, k, j, i), targets
    (n, outputs, k, j, i) and weights (n, 1, k, j, i), float32."""
    steps, size, channels = steps_of(samples, spec), batch_of(spec), len(spec.channels)

    def batches(epoch: int) -> Iterator[tuple[torch.Tensor, ...]]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        rounds = math.ceil(steps * size / len(samples))
        order = torch.cat([torch.randperm(len(samples), generator=generator) for _ in range(rounds)])
        for step in range(steps):
            patches = []
            for index in order[step * size : (step + 1) * size].tolist():
                one, sample = believed[index], samples[index]
                # Targets and weights ride along as channels of the image, so that they stay soft.
                stack = np.concatenate([sample.image, one.target, one.weight[None]]).astype(np.float32)
                structure = one.target[0] < 0.5
                patches.append(
                    random_patch(stack, structure, 2, spec.patch, sample.spacing, augmentation, generator)[0]
                )
            stack = torch.stack(patches)
            target, weight = stack[:, channels:-1], stack[:, -1:]
            beyond = (1 - target.sum(1, keepdim=True)).clamp(min=0)  # the image: background for sure
            target = torch.cat([target[:, :1] + beyond, target[:, 1:]], 1)
            yield random_looks(stack[:, :channels], augmentation, generator), target, weight + beyond

    return batches
