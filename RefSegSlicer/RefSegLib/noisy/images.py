"""Image level: how far is a whole label trusted?

Good masks agree with the network about equally well, bad ones are bad each in its own way: so the densest place of the
disagreement is what good masks look like, and what lies further above it than the good ones scatter is trusted less.
How many are bad has to be known by nobody. After the image level of PINT (Shi and Wu 2021, arXiv 2106.11099), which
ranks images by their uncertainty; here disagreement counts where the network is sure.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

LEAST = 0.05  # weight of a label that is not trusted at all: what the network believes of it may be wrong
NARROWEST = 0.02  # scatter of good masks, at least
REACH = 3.0  # deviations of good masks at which a label counts half
SHORTEST = 0.2  # share of good masks that is enough to find them; a half (Robertson and Cryer 1974) failed at 70 % bad
FEWEST = 8  # labels below which nothing can be told about their scatter


def disagreement(seen: Floats, given: npt.NDArray) -> Floats:
    """1 - Dice of each rater's structures with what the network sees, soft, so that what it is unsure of counts little.

    seen: probabilities (outputs, k, j, i); given: (raters, k, j, i). Returns (raters,), each 0..1.
    """
    result = np.zeros(len(given), np.float32)
    sure = 2 * np.abs(seen - 0.5)  # 0 where it could be either
    for rater, labels in enumerate(given):
        parts = []
        for value in range(1, len(seen)):
            said, found = labels == value, seen[value] > 0.5
            size = (sure[value] * said).sum() + (sure[value] * found).sum()
            if size > 0:
                parts.append(1 - 2 * (sure[value] * (said & found)).sum() / size)
        result[rater] = np.mean(parts) if parts else 0.0
    return result


def densest(values: npt.NDArray) -> float:
    """Where values lie densest: the middle of the shortest interval that holds SHORTEST of them."""
    values = np.sort(np.asarray(values, float))
    held = min(len(values), max(4, math.ceil(SHORTEST * len(values))))
    start = int(np.argmin(values[held - 1 :] - values[: len(values) - held + 1]))
    return float(np.median(values[start : start + held]))


def limit_of(disagreements: npt.NDArray) -> float:
    """The disagreement from which a label is suspected; 1 where there are too few labels to tell."""
    if len(disagreements) < FEWEST:
        return 1.0
    mode = densest(disagreements)
    below = mode - disagreements[disagreements <= mode]
    scatter = max(NARROWEST, 1.4826 * float(np.median(below)))
    return mode + REACH * scatter


def trust_of(disagreements: npt.NDArray, limit: float) -> Floats:
    """The weight of labels, LEAST to 1: a half at the limit, falling steeply there."""
    share = 1 / (1 + (np.asarray(disagreements, np.float32) / max(limit, 1e-3)) ** 6)
    return np.clip(share, LEAST, 1).astype(np.float32)
