"""What reflection has learned about a model on its validation patients; kept in the manifest of the version."""

from __future__ import annotations

from typing import Annotated, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from RefSegLib.quality.estimate import Estimator
from RefSegLib.quality.suspect import SuspectModel
from RefSegLib.reflection.candidates import NAMES

Number = TypeVar("Number", float, npt.NDArray[np.float64])


class EarlyExit(BaseModel):
    """A first mask at least this similar (score) and this sure is taken without looking at other candidates."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    score: float
    confidence: float


class ReflectionSettings(BaseModel):
    """All that `reflect` needs to know about a model. The defaults serve a model that was never calibrated.

    candidates: names from candidates.NAMES, identity first; reference: mean quantile curve per channel;
    ssim_weight, correlation_weight: of the terms of similarity; confidence_weight: of what a mask expects of itself,
    added to similarity for the score that candidates are chosen by; margin: by how much the best candidate must beat
    the first mask; steps, rate, anchor: of adjusting the model (0 steps: candidates are chosen from, nothing more);
    known: the similarity below which even the best mask means an image of a kind the model never saw;
    estimate_first, estimate: Dice from the first mask alone, and from all candidates; report: what was measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidates: tuple[str, ...] = NAMES
    reference: tuple[tuple[float, ...], ...] = ()
    ssim_weight: float = 1.0
    correlation_weight: float = 1.0
    confidence_weight: float = 0.0
    margin: float = 0.02
    steps: Annotated[int, Field(ge=0, le=5)] = 0
    rate: float = 3e-3
    anchor: float = 0.1
    early: EarlyExit | None = None
    known: float | None = None
    estimate_first: Estimator | None = None
    estimate: Estimator | None = None
    suspect_first: SuspectModel = SuspectModel()
    suspect: SuspectModel = SuspectModel()
    report: dict[str, float] = {}

    def similarity(self, ssim: Number, correlation: Number) -> Number:
        """One number, or one array, from the two terms of similarity."""
        return self.ssim_weight * ssim + self.correlation_weight * correlation
