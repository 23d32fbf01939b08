"""Masks made wrong on purpose, and where: to measure what training bears and what it finds.

Dilation, erosion and affine shifts as in SP-guided co-learning (Li 2021, MICCAI), borders that wander as a Markov chain
after Yao 2023 (ICLR, spatial correction) and GSD-Net (arXiv 2509.02419), there 200 steps, .8 or .2, .05; and parts that
nobody outlined. Sizes are fractions of the structure's own, so that small and large ones suffer alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from RefSegLib.errors import BadInput

Labels = npt.NDArray[np.integer]
Mask = npt.NDArray[np.bool_]

FLIPPED = 0.05  # share of the border that moves in one step of the chain
GROWING = 0.8  # of the steps outwards, or inwards: each mask wanders mostly one way


@dataclass(frozen=True)
class Corrupted:
    """labels: of the shape and type given; changed: where they differ from those given (bool); kind: what was done,
    "" for nothing."""

    labels: Labels
    changed: Mask
    kind: str


def _size(mask: Mask) -> float:
    """The radius of the largest ball inside, in voxels."""
    flat = tuple(slice(None) if n > 1 else 0 for n in mask.shape)  # a single slice has no inside along k
    return float(ndimage.distance_transform_edt(np.pad(mask[flat], 1)).max())


def _kept(labels: Labels, inside: Mask) -> Labels:
    """The labels inside a new outline; where it lies outside the old one, the nearest label."""
    nearest = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
    return np.where(inside, labels[tuple(nearest)], 0).astype(labels.dtype)


def _dilation(labels: Labels, strength: float, rng: np.random.Generator) -> Labels:
    """Wider by a quarter to half of `strength` of its size."""
    way = max(1.0, rng.uniform(0.25, 0.5) * strength * _size(labels > 0))
    return _kept(labels, ndimage.distance_transform_edt(labels == 0) <= way)


def _erosion(labels: Labels, strength: float, rng: np.random.Generator) -> Labels:
    """Narrower by a quarter to half of `strength` of its size; something always remains."""
    size = _size(labels > 0)
    way = min(max(1.0, rng.uniform(0.25, 0.5) * strength * size), 0.6 * size)
    return _kept(labels, ndimage.distance_transform_edt(labels > 0) > way)


def _shift(labels: Labels, strength: float, rng: np.random.Generator) -> Labels:
    """Moved by half to all of `strength` of its size, and turned in the plane by up to 30 degrees times `strength`."""
    angle = np.deg2rad(rng.uniform(-30, 30) * strength)
    turn = np.eye(labels.ndim)
    turn[-2:, -2:] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    center = np.array(ndimage.center_of_mass(labels > 0))
    way = rng.normal(size=labels.ndim) * [n > 1 for n in labels.shape]
    way *= rng.uniform(0.5, 1.0) * strength * _size(labels > 0) / max(float(np.linalg.norm(way)), 1e-6)
    return ndimage.affine_transform(labels, turn, center - turn @ (center + way), order=0)


def _missing(labels: Labels, strength: float, rng: np.random.Generator) -> Labels:
    """Without what lies beyond a random plane: half to all of `strength` of its voxels."""
    where = np.argwhere(labels > 0)
    along = where @ (rng.normal(size=labels.ndim) * [n > 1 for n in labels.shape])
    beyond = where[along > np.quantile(along, 1 - rng.uniform(0.5, 1.0) * strength)]
    left = labels.copy()
    left[tuple(beyond.T)] = 0
    return left


def _border(labels: Labels, strength: float, rng: np.random.Generator) -> Labels:
    """After a chain of small steps of parts of its border, mostly outwards or mostly inwards."""
    mask = labels > 0
    outwards = GROWING if rng.random() < 0.5 else 1 - GROWING
    steps = round(0.2 * strength * _size(mask) / (FLIPPED * (2 * GROWING - 1)))
    for _ in range(max(steps, 10)):
        moving = rng.random(mask.shape) < FLIPPED
        if rng.random() < outwards:
            mask = mask | (ndimage.binary_dilation(mask) & moving)
        else:
            shrunk = mask & (ndimage.binary_erosion(mask, border_value=1) | ~moving)
            mask = shrunk if shrunk.any() else mask
    return _kept(labels, mask)


KINDS: dict[str, Callable[[Labels, float, np.random.Generator], Labels]] = {
    "dilation": _dilation,
    "erosion": _erosion,
    "shift": _shift,
    "missing": _missing,
    "border": _border,
}


def corrupt(labels: Labels, kind: str, strength: float, rng: np.random.Generator) -> Corrupted:
    """A label map (k, j, i) or (j, i), 0 background, made wrong.

    kind: one of KINDS; strength: 0..1, how much of the structure's size goes wrong (0.5 and 0.7 are usual).
    An empty map stays as it is. Raises BadInput for another kind or strength.
    """
    if kind not in KINDS:
        raise BadInput(f"There is no noise of masks called '{kind}'; there are {', '.join(KINDS)}.")
    if not 0 < strength <= 1:
        raise BadInput(f"The strength of noise lies above 0 and up to 1, not at {strength:g}.")
    wrong = KINDS[kind](labels, strength, rng) if labels.any() else labels.copy()
    return Corrupted(wrong, wrong != labels, kind)


def corrupt_some(
    masks: Mapping[str, Labels], share: float, strength: float, seed: int, kinds: Sequence[str] | None = None
) -> dict[str, Corrupted]:
    """`share` of the masks made wrong (rounded to whole masks), each in one way drawn by lot; the others as they are.

    kinds: those to draw from, as often each; by default all of KINDS.
    The same names and seed give the same noise. Raises BadInput for a share outside 0..1, or as `corrupt`.
    """
    if not 0 <= share <= 1:
        raise BadInput(f"A share of masks lies between 0 and 1, not at {share:g}.")
    rng = np.random.default_rng(seed)
    names = sorted(masks)
    wrong = set(rng.permutation(names)[: round(share * len(names))].tolist())
    known = list(kinds or KINDS)
    drawn = rng.permutation([known[n % len(known)] for n in range(len(names))])
    result = {}
    for number, name in enumerate(names):
        own = np.random.default_rng((seed, number))
        as_it_is = Corrupted(masks[name], np.zeros(masks[name].shape, bool), "")
        result[name] = corrupt(masks[name], str(drawn[number]), strength, own) if name in wrong else as_it_is
    return result
