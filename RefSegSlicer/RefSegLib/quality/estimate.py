"""How good a mask probably is, without knowing the truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from RefSegLib.quality.metrics import dice

RIDGE = 1.0


class Regression(BaseModel):
    """Dice of one label = intercept + slopes x standardized (features, features squared), kept within 0..1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    center: tuple[float, ...]
    scale: tuple[float, ...]
    slopes: tuple[float, ...]
    intercept: float


class Estimator(BaseModel):
    """Estimated Dice for every label value, from features as `features` gives them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: dict[int, Regression]

    def __call__(self, features: dict[int, Sequence[float]]) -> dict[int, float]:
        """{label value: estimated Dice 0..1}."""
        result = {}
        for label, regression in self.labels.items():
            terms = (_terms(np.asarray([features[label]])) - regression.center) / regression.scale
            result[label] = float(np.clip(terms[0] @ regression.slopes + regression.intercept, 0.0, 1.0))
        return result


def features(
    probabilities: npt.NDArray[np.float32],
    others: Sequence[npt.NDArray[np.integer]],
    ssim: float,
    correlation: float,
) -> dict[int, tuple[float, ...]]:
    """What the Dice of each label is estimated from.

    The Dice a mask expects of itself under its probabilities (outputs, k, j, i), the two similarities of its proxy
    image, and, where there are `others` (label maps of other candidates), its mean and lowest Dice with them.
    """
    labels = probabilities.argmax(0)
    result = {}
    for label in range(1, len(probabilities)):
        mask = labels == label
        found = (expected_dice(probabilities[label], mask), ssim, correlation)
        if others:
            agreement = [dice(mask, other == label) for other in others]
            found += (float(np.mean(agreement)), float(np.min(agreement)))
        result[label] = found
    return result


def expected_dice(probability: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_]) -> float:
    """Dice that `mask` would have on average if the probabilities (k, j, i) were right; 0 for an empty mask."""
    if not mask.any():
        return 0.0
    return float(2 * probability[mask].sum(dtype=np.float64) / (mask.sum() + probability.sum(dtype=np.float64)))


def fit_estimator(
    rows: Sequence[dict[int, Sequence[float]]], truth: Sequence[dict[int, float]], weight: float = RIDGE
) -> Estimator:
    """Ridge regression per label from features (one dict per mask) to true Dice (one dict per mask)."""
    labels = {}
    for label in truth[0]:
        terms = _terms(np.array([row[label] for row in rows]))
        target = np.array([row[label] for row in truth])
        center, scale = terms.mean(0), np.maximum(terms.std(0), 1e-6)
        x = (terms - center) / scale
        slopes = np.linalg.solve(x.T @ x + weight * np.eye(x.shape[1]), x.T @ (target - target.mean()))
        labels[label] = Regression(
            center=tuple(center.tolist()),
            scale=tuple(scale.tolist()),
            slopes=tuple(slopes.tolist()),
            intercept=float(target.mean()),
        )
    return Estimator(labels=labels)


def _terms(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.concatenate([values, values**2], axis=1)
