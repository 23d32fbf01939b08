"""Normalization statistics re-estimated on the image at hand."""

from __future__ import annotations

from RefSegLib.baselines.shared import (
    Adapted,
    Array,
    batch_norm_copy,
    blocks_of,
    image_statistics,
    predicted,
)
from RefSegLib.inference.segmenter import Segmenter
from RefSegLib.progress import SILENT, Progress
from RefSegLib.reflection.statistics import set_statistics


def bn(array: Array, probabilities: Array, segmenter: Segmenter, progress: Progress = SILENT) -> Adapted:
    """Prediction-time batch normalization (Nado et al., 2020; Schneider et al., NeurIPS 2020, with N = 0).

    array: (C, k, j, i), normalized; probabilities: (outputs, k, j, i), unadapted, given back if numbers break down.
    Every batch-norm layer of a copy of the network normalizes with mean and variance over all slices or tiles of this
    one image, none of those of training.

    Raises NotApplicable for a network without batch norm, Cancelled if the user asked to stop.
    """
    clone = batch_norm_copy(segmenter)
    blocks = blocks_of(array, segmenter.spec, next(clone.parameters()).device)
    set_statistics(clone, image_statistics(clone, blocks, progress.part(0.0, 0.5)))
    return predicted(clone, segmenter, array, probabilities, progress.part(0.5, 1.0))
