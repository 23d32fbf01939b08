"""Pixel level: at each voxel, is the given label right, or what the network says?

Where the network is unsure the label stands; where it is sure of something else, the label gives way: the sooner, the
more often labels like this one were found wrong. That is Bayes' rule: what the network sees (the mean of several
passes) is the prior, the given labels are observations through a table of how often a truth is written down as what:

    target(c) ~ seen(c) * product over raters of P(given | truth c)

The tables are estimated in turns with the targets (Dawid and Skene 1979; STAPLE, Warfield 2004, where the prior is no
image but a constant). No rate of noise has to be known. After the pixel level of PINT (Shi and Wu 2021, arXiv
2106.11099), where uncertainty alone decides between label and pseudo label: it marks hard voxels as well as wrong ones.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float32]

SUREST = 0.98  # what the network sees is never taken for surer than this
ROUNDS = 3  # of targets and tables in turns
SMOOTHING = 0.1  # share of the voxels looked at that the common table counts in the table of one mask
RARELY = 0.02  # errors of a table before anything is known, and at least


def neighborhood(given: npt.NDArray, seen: Floats) -> npt.NDArray[np.bool_]:
    """The voxels (k, j, i) near any structure, given or seen: where errors are counted. All others are background for
    everybody, and would make every rater look good."""
    near = (given > 0).any(0) | (seen[0] < 0.5)
    if not near.any():
        return np.ones(near.shape, bool)
    size = max(1.0, 0.25 * ndimage.distance_transform_edt(near).max())
    return ndimage.distance_transform_edt(~near) <= max(2.0, size)


def first_table(outputs: int) -> Floats:
    """P(given | truth) as [truth, given] (outputs, outputs) before anything is known: rarely wrong."""
    return ((1 - RARELY) * np.eye(outputs) + RARELY / outputs).astype(np.float32)


def target_of(seen: Floats, given: npt.NDArray, tables: Floats) -> Floats:
    """What a voxel probably is: (outputs, k, j, i), summing to 1.

    seen: probabilities (outputs, k, j, i); given: label maps (raters, k, j, i); tables: (raters, outputs, outputs).
    """
    outputs = len(seen)
    score = np.log(np.clip(seen, (1 - SUREST) / max(outputs - 1, 1), SUREST))
    for labels, table in zip(given, tables, strict=True):
        score += np.log(np.maximum(table, 1e-6))[:, labels.astype(np.intp)]
    score -= score.max(0)
    share = np.exp(score)
    return (share / share.sum(0)).astype(np.float32)


def counted(target: Floats, given: npt.NDArray, near: npt.NDArray[np.bool_]) -> Floats:
    """How often each rater wrote which label down for which truth, near the structures: (raters, outputs, outputs)."""
    outputs = len(target)
    truth = target[:, near]
    return np.stack(
        [np.stack([truth[:, labels[near] == value].sum(1) for value in range(outputs)], 1) for labels in given]
    ).astype(np.float32)


def table_of(counts: Floats, common: Floats) -> Floats:
    """Counts [truth, given] (…, outputs, outputs) as probabilities, the fewer there are the more like `common`."""
    own = counts + SMOOTHING * counts.sum((-1, -2), keepdims=True) * common / len(common) + 1e-3 * common
    table = own / own.sum(-1, keepdims=True)
    outputs = table.shape[-1]
    return ((1 - RARELY) * table + RARELY / outputs).astype(np.float32)


def doubted(target: Floats, given: npt.NDArray) -> npt.NDArray[np.bool_]:
    """The noise map: where the label of a rater (raters, k, j, i) is probably wrong."""
    chosen = np.take_along_axis(target[None].repeat(len(given), 0), given[:, None].astype(np.intp), 1)[:, 0]
    return chosen < 0.5


def belief(seen: Floats, given: npt.NDArray) -> Floats:
    """How probably the label of each voxel (k, j, i) of one mask is right, 0..1, by what a network has seen
    (outputs, k, j, i) and a table of errors for this mask alone."""
    labels, outputs = given[None], len(seen)
    near, first = neighborhood(labels, seen), first_table(outputs)
    table = first[None]
    for _ in range(ROUNDS):
        target = target_of(seen, labels, table)
        table = table_of(counted(target, labels, near), first)
    return np.take_along_axis(target, labels.astype(np.intp), 0)[0]
