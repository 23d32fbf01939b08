"""Clicks and scribbles on a mask that is nearly right -> what they say of the voxels around them, in 3D."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from RefSegLib.errors import BadInput
from scipy import ndimage

Mask = npt.NDArray[np.bool_]

# Lengths are in finest voxel spacings, evidence in logits, intensities in shares of the image's range. Chosen on
# validation patients (the shipped hippocampus model, 16; a heart model of ten patients, 12 volumes) on a wide plateau.
# Of the error (1 - Dice) five clicks of a perfect and an imprecise robot left .86 .90 (hippocampus), .73 .73 (heart);
# without the ball .86 .90, .84 .88; the ball alone .99 1.01, .88 .89; changes at any depth .90 .94, .74 .73, and 7 % of
# the clicks harm; any intensity .86 .92, .70 .70, but .69 instead of .63 after ten. Distances along the image's edges
# gained nothing. A click that corrects the whole error it lies in, by oracle, leaves .54 and .22.
# A voxel that was pointed at ends up this sure.
SURE = 2.0
# No click says more than this: what the model is certain of falls to nothing but the ball around the click.
STRONGEST = 4.0
# What is said reaches this far, and this much farther for every step between the click and the border.
REACH, REACH_PER_DEPTH, FARTHEST = 4.0, 1.0, 10.0
# Of a small structure no more than this share of its radius (that of a ball of the same volume) or 1.5 times the depth:
# one click turned a whole side of a ball of 8 voxels. Harmful clicks of an imprecise hand fell from 3.6 to 1.4 %
# (hippocampus), with Dice .907 instead of .909 after ten clicks of a perfect one.
SHARE_OF_RADIUS = 0.6
# Nothing deeper than this many times the click's depth changes: errors are shells along a border.
SHELL = 1.25
# Whoever clicks into the middle of an error means a ball that reaches to the border, less what a hand trembles.
BALL, TREMBLE = 1.0, 1.0
# The deepest error that a click is taken to be in the middle of.
DEEPEST = 12.0
# How alike voxels are that a click speaks for, and those in its ball.
LIKE, LIKE_IN_BALL = 0.4, 0.6
# The image is smoothed so much (voxels) before voxels are compared.
SMOOTHING = 1.0


@dataclass(frozen=True)
class Stroke:
    """A click or scribble: voxels (n, 3) of the image, and whether the structure is there."""

    voxels: npt.NDArray[np.integer]
    positive: bool


def corrected(
    probability: npt.NDArray[np.float32],
    image: npt.NDArray,
    spacing: tuple[float, float, float],
    strokes: Sequence[Stroke],
) -> tuple[npt.NDArray[np.float32], Mask]:
    """The probability of a structure after strokes, in the order they were made, and the voxels that changed sides.

    probability: float32 (k, j, i), what model or proxy say; its border is at 0.5. image: on the same voxels. spacing:
    mm. Around a stroke, logits are raised or lowered until the voxels pointed at obey; the change fades with
    the distance in space and in intensity (a bilateral kernel, Tomasi and Manduchi, ICCV 1998), so that what the model
    was undecided about follows and what it is sure of stays. Depth of the stroke behind the border sets the scale.
    Raises BadInput if shapes differ or a stroke lies outside.
    """
    if probability.shape != image.shape:
        raise BadInput(f"Probabilities of {probability.shape} voxels do not fit an image of {image.shape}.")
    after = np.array(probability, np.float32)
    low, high = _range(image)
    radius = np.cbrt(0.75 / np.pi * np.count_nonzero(probability > 0.5) * np.prod(np.asarray(spacing) / min(spacing)))
    farthest = min(FARTHEST, SHARE_OF_RADIUS * radius) if radius else FARTHEST
    unit = np.asarray(spacing, float) / min(spacing)
    for stroke in strokes:
        voxels = np.asarray(stroke.voxels, int).reshape(-1, 3)
        if not len(voxels) or (voxels < 0).any() or (voxels >= image.shape).any():
            raise BadInput("A click lies outside the image; click inside of it.")
        _say(after, image, (low, high), unit, voxels, stroke.positive, farthest)
    return after, (after > 0.5) != (probability > 0.5)


def _range(image: npt.NDArray) -> tuple[float, float]:
    """Nearly darkest and brightest of an image, from at most about 10^5 of its voxels."""
    step = max(round((image.size / 1e5) ** (1 / 3)), 1)
    low, high = np.percentile(image[::step, ::step, ::step], (2, 98))
    return float(low), max(float(high), float(low) + 1e-6)


def _say(
    probability: npt.NDArray[np.float32],
    image: npt.NDArray,
    span: tuple[float, float],
    unit: npt.NDArray,
    voxels: npt.NDArray,
    positive: bool,
    farthest: float,
) -> None:
    """Write what one stroke says into `probability`; it reaches no farther than `farthest`."""
    depth = _depth(probability, unit, voxels, positive)
    reach = min(REACH + REACH_PER_DEPTH * depth, max(farthest, 1.5 * depth))
    ball = max(BALL * depth - TREMBLE, 0.0)
    margin = np.ceil((ball + 2 * reach) / unit).astype(int)
    lower = np.maximum(voxels.min(axis=0) - margin, 0)
    window = tuple(slice(a, b) for a, b in zip(lower, voxels.max(axis=0) + margin + 1, strict=True))
    at = tuple((voxels - lower).T)
    sign = np.float32(1 if positive else -1)
    wanted = _logit(probability[window]) * sign
    wrong = wanted <= 0
    missing = SURE - float(np.median(wanted[at]))
    if missing <= 0 and not wrong[at].any():
        return
    apart = np.ones(wrong.shape, bool)
    apart[at] = False
    far, nearest = ndimage.distance_transform_edt(apart, sampling=unit, return_indices=True)
    picture = np.clip((image[window].astype(np.float32) - span[0]) / (span[1] - span[0]), 0, 1)
    picture = ndimage.gaussian_filter(picture, SMOOTHING / unit)
    unlike = np.abs(picture - picture[tuple(nearest)])
    said = np.exp(-0.5 * (np.maximum(far - ball, 0) / reach) ** 2 - 0.5 * (unlike / LIKE) ** 2)
    if not wrong.all():
        said[ndimage.distance_transform_edt(wrong, sampling=unit) > SHELL * depth + 0.5] = 0
    more = min(max(missing, 0.0), STRONGEST) * said
    meant = ((far <= ball) & (unlike < LIKE_IN_BALL)) | ~apart
    more[meant] = np.maximum(more, SURE - wanted)[meant]
    probability[window] = 1 / (1 + np.exp(-sign * (wanted + more)))


def _depth(probability: npt.NDArray, unit: npt.NDArray, voxels: npt.NDArray, positive: bool) -> float:
    """How far behind the border a stroke lies: the middle of its voxels; 1 where it lies on the side it wants."""
    deepest = np.ceil(DEEPEST / unit).astype(int)
    found = []
    # The voxels of a long scribble tell the same story.
    for voxel in voxels[:: max(len(voxels) // 8, 1)]:
        lower = np.maximum(voxel - deepest, 0)
        near = probability[tuple(slice(a, b) for a, b in zip(lower, voxel + deepest + 1, strict=True))]
        places = np.argwhere((near > 0.5) == positive)
        far = (((places + lower - voxel) * unit) ** 2).sum(axis=1)
        # Nothing near to be continued: as far as a click alone can mean.
        found.append(np.sqrt(far.min()) if len(far) else REACH)
    return float(np.clip(np.median(found), 1.0, DEEPEST))


def _logit(probability: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Evidence for a structure; certainty, which models give too easily, ends where a byte of probability does."""
    held = np.clip(probability, 1 / 510, 509 / 510)
    return np.log(held / (1 - held))
