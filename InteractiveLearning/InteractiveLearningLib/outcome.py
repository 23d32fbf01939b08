"""What a session came to, for those who learn from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from RefSegLib.volume.volume import LabelMap
from scipy import ndimage

from InteractiveLearningLib.prompts import ObliqueOutline, Outline, Prompt
from InteractiveLearningLib.scene import LabelResult, LabelState, SliceKey


@dataclass(frozen=True)
class Accepted:
    """What the replay store wants to know of a session (see accepted.py).

    confidence: float32 (k, j, i) in 0..1. annotated: (axis, index) of outlined slices of the image. boundary_pixels:
    pixels on the border of what was drawn (the paper's measure of effort); effort: their length in mm. interactions:
    steps that were not undone.
    """

    labels: LabelMap
    confidence: npt.NDArray[np.float32]
    annotated: tuple[SliceKey, ...]
    boundary_pixels: int
    effort: float
    interactions: int


def accepted_of(
    labels: LabelMap,
    probabilities: npt.NDArray[np.uint8] | None,
    states: Mapping[int, LabelState],
    results: Mapping[int, LabelResult],
    prompts: Sequence[Prompt],
    interactions: int,
) -> Accepted:
    """The outcome of a session. probabilities: the model's; states, results: of the labels something was said about."""
    shape = labels.grid.shape
    confidence = np.zeros(shape, np.float32)
    if probabilities is not None:
        confidence = np.clip(probabilities.max(axis=0).astype(np.float32) / 255 - 0.5, 0, None)
    background = np.ones(shape, np.float32)
    annotated: dict[SliceKey, None] = {}
    for value, result in results.items():
        mine = labels.array[result.region] == value
        confidence[result.region][mine] = result.confidence[mine]
        whole = np.zeros(shape, np.float32)
        whole[result.region] = result.confidence
        background = np.minimum(background, whole)
        annotated |= dict.fromkeys(key for key in states[value].outlines if key[0] < 3)
    if results:
        empty = labels.array == 0
        confidence[empty] = np.maximum(confidence, background)[empty]
    pixels, length = 0, 0.0
    for prompt in prompts:
        if isinstance(prompt, Outline | ObliqueOutline):
            axis = prompt.axis if isinstance(prompt, Outline) else 0
            spacing = labels.grid.spacing if isinstance(prompt, Outline) else prompt.plane.spacing
            drawn = int(np.count_nonzero(border(prompt.mask)))
            pixels += drawn
            length += drawn * float(np.mean([s for a, s in enumerate(spacing) if a != axis]))
    return Accepted(labels, confidence, tuple(annotated), pixels, length, interactions)


def border(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The pixels of a mask next to something outside of it."""
    return mask & ~ndimage.binary_erosion(mask)
