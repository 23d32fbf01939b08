"""What reflection is compared with to see which part of it does the work: other ways to use the same candidates."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from RefSegLib.inference.predict import Refine
from RefSegLib.reflection.candidates import IDENTITY
from RefSegLib.reflection.looking import Looked, look
from RefSegLib.reflection.settings import ReflectionSettings


def ablations(settings: ReflectionSettings) -> dict[str, Refine]:
    """The candidates of `settings`, their mean, or whichever is surest of itself."""

    def mean(array, probabilities, segmenter, progress):
        looked = look(Looked(IDENTITY, probabilities, exact=True), array, segmenter, settings, progress)
        return SimpleNamespace(
            probabilities=np.mean([c.probabilities for c in looked], axis=0),
            estimated_dice={},
            accepted=True,
        )

    def surest(array, probabilities, segmenter, progress):
        looked = look(Looked(IDENTITY, probabilities, exact=True), array, segmenter, settings, progress)
        sure = [c.confidence for c in looked]
        best = int(np.argmax(sure))
        best = best if sure[best] - sure[0] > 0.02 else 0  # the margin reflection starts from
        return SimpleNamespace(probabilities=looked[best].probabilities, estimated_dice={}, accepted=best > 0)

    return {"mean": mean, "confidence": surest}
