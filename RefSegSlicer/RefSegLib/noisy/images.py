"""Image level: how far is a whole label trusted?

How a label disagrees with the network has two sides: what it has too much, and what it misses. Good labels disagree all
alike, bad ones each in its own way: so where labels lie densest in these two numbers is what good ones look like, even
where the network itself errs to one side because most of the bad ones do. What lies farther off is trusted less. How
many are bad has to be known by nobody. After the image level of PINT (Shi and Wu 2021, arXiv 2106.11099), which ranks
images by their uncertainty.

Lungs, half of the masks wrong, a network trained on them as they are: bad masks found with precision .89 and recall .98
(all kinds of noise), .92 and .92 (all of them too wide, where 1 - Dice alone found .66 and .32).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

LEAST = 0.05  # weight of a label that is not trusted at all: what the network believes of it may be wrong
DENSEST = 0.25  # share of good labels that is enough to find them
REACH = 3.0  # how many times farther off than the nearest DENSEST of all labels those lie that count half
NARROWEST = 0.02  # distance that no label is suspected for
MOST = 2000  # labels that are compared with each other
POOREST = 0.35  # 1 - Dice of the masks that agree best from which the network knows too little to doubt anybody
FEWEST = 8  # labels below which nothing can be told


def disagreement(seen: Floats, given: npt.NDArray) -> Floats:
    """What each rater's structures have too much and what they miss, (raters, 2), by what the network sees; the two
    add up to 1 - Dice, mean over the structures.

    seen: probabilities (outputs, k, j, i); given: label maps (raters, k, j, i).
    """
    found = seen.argmax(0)
    result = np.zeros((len(given), 2), np.float32)
    for rater, labels in enumerate(given):
        parts = []
        for value in range(1, len(seen)):
            theirs, ours = labels == value, found == value
            size = int(theirs.sum()) + int(ours.sum())
            if size:
                parts.append([int((theirs & ~ours).sum()) / size, int((ours & ~theirs).sum()) / size])
        if parts:
            result[rater] = np.mean(parts, 0)
    return result


def distances(points: npt.NDArray) -> tuple[Floats, float]:
    """How far each label's disagreement (labels, 2) is from where most lie densest, and the distance from which a label
    is suspected: infinite where there are too few labels to tell, or the network agrees with none of them."""
    points = np.asarray(points, np.float32)
    nobody = np.zeros(len(points), np.float32), math.inf
    if len(points) < FEWEST:
        return nobody
    some = points[:: math.ceil(len(points) / MOST)]
    held = max(4, math.ceil(DENSEST * len(some)))
    apart = np.linalg.norm(some[:, None] - some[None], axis=-1)
    middle = int(np.sort(apart, 1)[:, held - 1].argmin())
    center = np.median(some[apart[middle].argsort()[:held]], 0)
    if center.sum() > POOREST:
        return nobody
    off = np.linalg.norm(points - center, axis=1)
    return off, max(NARROWEST, REACH * float(np.quantile(off, DENSEST)))


def trust_of(off: npt.NDArray, limit: float) -> Floats:
    """The weight of labels at these distances, LEAST to 1: a half at the limit, falling steeply there."""
    share = 1 / (1 + (np.asarray(off, np.float32) / limit) ** 6)
    return np.clip(share, LEAST, 1).astype(np.float32)
