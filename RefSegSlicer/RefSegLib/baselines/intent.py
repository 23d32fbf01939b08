"""InTEnt: predictions with several mixtures of training and image statistics, weighted by their entropy."""

from __future__ import annotations

import numpy as np

from RefSegLib.baselines.shared import (
    Adapted,
    Array,
    batch_norm_copy,
    blocks_of,
    broken,
    checked,
    image_statistics,
    predicted,
)
from RefSegLib.inference.segmenter import Segmenter
from RefSegLib.progress import SILENT, Progress
from RefSegLib.reflection.statistics import mixed, set_statistics, statistics

RATIOS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # of the image's own statistics


def intent(array: Array, probabilities: Array, segmenter: Segmenter, progress: Progress = SILENT) -> Adapted:
    """Integrated entropy weighting (Dong et al., CVPR workshops 2024, arXiv 2402.09604).

    array: (C, k, j, i), normalized; probabilities: (outputs, k, j, i), unadapted: what ratio 0 gives, and what is
    given back if numbers break down. Mean and variance of every batch-norm layer are mixed linearly between training
    and image in six ratios; probabilities are averaged with the softmax of minus their balanced entropy, scaled to
    0..1 over the six. This is "entropy balance" of github.com/mazurowski-lab/single-image-test-time-adaptation.

    Different here: the image is the whole volume, not a slice; foreground is whatever is not background, and the
    entropy that of all classes, which for one structure is the same; one network, not the mean score over ten.

    Raises NotApplicable for a network without batch norm, Cancelled if the user asked to stop.
    """
    clone = batch_norm_copy(segmenter)
    blocks = blocks_of(array, segmenter.spec, next(clone.parameters()).device)
    source = statistics(clone)
    own = image_statistics(clone, blocks, progress.part(0.0, 0.1))
    predictions = [probabilities]
    for number, ratio in enumerate(RATIOS[1:]):
        set_statistics(clone, mixed(source, own, ratio))
        part = progress.part(*(0.1 + 0.9 * n / (len(RATIOS) - 1) for n in (number, number + 1)))
        found = predicted(clone, segmenter, array, probabilities, part)
        if not found.accepted:
            return broken(probabilities)
        predictions.append(found.probabilities)
    weights = weights_of([balanced_entropy(p) for p in predictions])
    return checked(sum(weight * p for weight, p in zip(weights, predictions, strict=True)), probabilities)


def balanced_entropy(probabilities: Array) -> float:
    """Entropy in bits, mean of its means over predicted background and over predicted foreground.

    Where there is no foreground, or no background, the mean over all voxels.
    """
    entropy = -(probabilities * np.log2(np.maximum(probabilities, np.finfo(np.float32).tiny))).sum(0)
    foreground = probabilities.argmax(0) > 0
    if foreground.all() or not foreground.any():
        return float(entropy.mean())
    return float((entropy[foreground].mean() + entropy[~foreground].mean()) / 2)


def weights_of(entropies: list[float]) -> list[np.float32]:
    """The weight of each prediction, 1 together: the surer, the more, at most e times as much as the least sure."""
    surety = -np.array(entropies)
    exponentials = np.exp((surety - surety.min()) / max(np.ptp(surety), 1e-12))
    return list((exponentials / exponentials.sum()).astype(np.float32))
