"""Where in a mask to look twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from scipy import optimize, special

from RefSegLib.errors import BadInput


class SuspectModel(BaseModel):
    """Probability that a voxel's label is wrong: a logistic function of three signs.

    uncertainty: weight of the log odds of (1 - probability of the label given), so that 1 with bias 0 takes the
    network at its word; disagreement: of the share of candidates that label the voxel otherwise; dissimilarity: of
    (1 - local SSIM of proxy and image) / 2, 0 outside the region where they are compared.
    The default weights are those found for the shipped hippocampus model, rounded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bias: float = -0.2
    uncertainty: float = 0.4
    disagreement: float = 1.6
    dissimilarity: float = 0.1

    def __call__(self, signs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Signs (3, ...) as `signs_of` gives them to a map (...) float32 in 0..1."""
        # In place: this is also asked for where memory has just run out.
        result = np.clip(signs[0], 1e-4, 1 - 1e-4).astype(np.float32, copy=False)
        special.logit(result, out=result)
        result *= np.float32(self.uncertainty)
        result += np.float32(self.bias)
        for weight, sign in zip((self.disagreement, self.dissimilarity), signs[1:], strict=True):
            if weight:
                result += np.float32(weight) * sign
        return special.expit(result, out=result)


def _terms(signs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The signs with uncertainty as log odds, -9.2 for a network that has no doubt."""
    return np.concatenate([special.logit(np.clip(signs[:1], 1e-4, 1 - 1e-4)), signs[1:]])


def signs_of(
    probabilities: npt.NDArray[np.float32],
    others: Sequence[npt.NDArray[np.integer]],
    similarity: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """(3, k, j, i): uncertainty, disagreement, dissimilarity of every voxel; see SuspectModel.

    probabilities: (outputs, k, j, i) of the mask judged; others: label maps of the other candidates, may be none;
    similarity: local SSIM (k, j, i), 1 where nothing was compared.
    """
    labels = probabilities.argmax(0)
    signs = np.zeros((3, *labels.shape), np.float32)
    signs[0] = 1 - probabilities.max(0)
    if others:
        signs[1] = np.mean([other != labels for other in others], axis=0)
    signs[2] = (1 - np.clip(similarity, -1, 1)) / 2
    return signs


def fit_suspect(signs: npt.NDArray[np.float32], wrong: npt.NDArray[np.bool_]) -> SuspectModel:
    """Logistic regression from signs (3, voxels) to whether the voxel was wrong (voxels), weights kept from 0 up.

    A sign never makes a voxel less suspect: a negative weight would only follow the chance of few cases.
    Raises BadInput if all voxels are right, or all are wrong.
    """
    if wrong.all() or not wrong.any():
        raise BadInput("Where masks go wrong cannot be learned from cases that are all right or all wrong.")
    x = _terms(signs).astype(np.float64)
    y = np.where(wrong, 1.0, -1.0)

    def loss(weights: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        margin = y * (weights[0] + weights[1:] @ x)
        pull = -y / (1 + np.exp(np.clip(margin, -50, 50))) / len(y)
        value = float(np.logaddexp(0, -margin).mean() + 1e-5 * (weights[1:] ** 2).sum())
        return value, np.concatenate([[pull.sum()], x @ pull + 2e-5 * weights[1:]])

    start = np.array([0.0, 1.0, 1.0, 1.0])
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(None, None)] + [(0, None)] * 3).x
    return SuspectModel(**dict(zip(SuspectModel.model_fields, found.tolist(), strict=True)))
