"""How good a mask probably is, without knowing the truth, and how far off that guess may be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from RefSegLib.quality.metrics import dice

RIDGE = 1.0
HOLDS = 0.9  # share of cases whose true Dice lies in the interval
SMALLEST_ERROR = 0.005  # an interval is never thinner than twice this
FOLDS = 5

Features = dict[int, tuple[float, ...]]


class Regression(BaseModel):
    """Dice of one label = intercept + slopes x standardized (features, features squared), kept within 0..1.

    error_slopes, error_intercept: the same for the size of the error to be expected; lower, upper: how many times that
    size the truth lies below and above the guess at most, in HOLDS of the cases.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    center: tuple[float, ...]
    scale: tuple[float, ...]
    slopes: tuple[float, ...]
    intercept: float
    error_slopes: tuple[float, ...] = ()
    error_intercept: float = 0.0
    lower: float = 0.0
    upper: float = 0.0


class Estimator(BaseModel):
    """Estimated Dice for every label value, from features as `features` gives them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: dict[int, Regression]

    def __call__(self, features: Features) -> dict[int, float]:
        """{label value: estimated Dice 0..1}."""
        return {label: float(np.clip(self._raw(label, features)[0], 0.0, 1.0)) for label in self.labels}

    def interval(self, features: Features) -> dict[int, tuple[float, float]]:
        """{label value: (low, high)}, in which the true Dice lies in HOLDS of the cases; none for an estimator that was
        made before there were intervals."""
        result = {}
        for label, regression in self.labels.items():
            if regression.upper > 0:
                guess, error = self._raw(label, features)
                ends = np.clip((guess - regression.lower * error, guess + regression.upper * error), 0.0, 1.0)
                result[label] = (float(ends[0]), float(ends[1]))
        return result

    def _raw(self, label: int, features: Features) -> tuple[float, float]:
        regression = self.labels[label]
        terms = ((_terms(np.asarray([features[label]])) - regression.center) / regression.scale)[0]
        guess = float(np.clip(terms @ regression.slopes + regression.intercept, 0.0, 1.0))
        if not regression.error_slopes:
            return guess, 0.0
        return guess, max(SMALLEST_ERROR, float(terms @ regression.error_slopes + regression.error_intercept))


def features(
    probabilities: npt.NDArray[np.float32],
    others: Sequence[npt.NDArray[np.integer]],
    ssim: float,
    correlation: float,
) -> Features:
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
    rows: Sequence[Features],
    truth: Sequence[dict[int, float]],
    groups: Sequence[str] | None = None,
    weight: float = RIDGE,
) -> Estimator:
    """Ridge regression per label from features (one dict per mask) to true Dice (one dict per mask).

    groups: to whom each mask belongs. The interval is conformal (Lei et al. 2018, with errors scaled by what features
    foretell of their size): from the errors on groups that a regression on the others has never seen.
    """
    names = [str(n) for n in range(len(rows))] if groups is None else list(groups)
    order = {name: number for number, name in enumerate(dict.fromkeys(names))}
    folds = np.array([order[name] % FOLDS for name in names])
    labels = {}
    for label in truth[0]:
        terms = _terms(np.array([row[label] for row in rows]))
        target = np.array([row[label] for row in truth])
        center, scale = terms.mean(0), np.maximum(terms.std(0), 1e-6)
        x = (terms - center) / scale
        slopes, intercept = _ridge(x, target, weight)
        unseen = np.zeros(len(target))
        for fold in np.unique(folds):
            others = folds != fold if len(np.unique(folds)) > 1 else np.ones(len(folds), bool)
            some, start = _ridge(x[others], target[others], weight)
            unseen[folds == fold] = np.clip(x[folds == fold] @ some + start, 0.0, 1.0)
        errors = target - unseen
        error_slopes, error_intercept = _ridge(x, np.abs(errors), 10 * weight)
        size = np.maximum(SMALLEST_ERROR, x @ error_slopes + error_intercept)
        # A little further out than the quantile itself: finitely many cases stand for all.
        share = min(1.0, (1 + HOLDS) / 2 * (1 + 1 / len(target)))
        labels[label] = Regression(
            center=tuple(center.tolist()),
            scale=tuple(scale.tolist()),
            slopes=tuple(slopes.tolist()),
            intercept=intercept,
            error_slopes=tuple(error_slopes.tolist()),
            error_intercept=error_intercept,
            lower=max(1e-3, float(np.quantile(-errors / size, share))),
            upper=max(1e-3, float(np.quantile(errors / size, share))),
        )
    return Estimator(labels=labels)


def _ridge(x: npt.NDArray[np.float64], target: npt.NDArray[np.float64], weight: float) -> tuple[npt.NDArray, float]:
    mean = x.mean(0)
    centered = x - mean
    slopes = np.linalg.solve(centered.T @ centered + weight * np.eye(x.shape[1]), centered.T @ (target - target.mean()))
    return slopes, float(target.mean() - mean @ slopes)


def _terms(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.concatenate([values, values**2], axis=1)
