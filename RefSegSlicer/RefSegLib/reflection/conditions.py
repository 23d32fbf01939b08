"""What reflection is taught from: validation patients as they are and as other scanners would show them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from RefSegLib.inference.segmenter import Segmenter
from RefSegLib.inference.tiling import infer
from RefSegLib.models.spec import SegmenterSpec
from RefSegLib.quality import estimate, shifts
from RefSegLib.quality.metrics import dice
from RefSegLib.quality.suspect import signs_of
from RefSegLib.reflection.adjust import adjust
from RefSegLib.reflection.candidates import IDENTITY
from RefSegLib.reflection.consensus import consensus_region
from RefSegLib.reflection.judge import Judge
from RefSegLib.reflection.looking import Looked, choose, look, score_of, way
from RefSegLib.reflection.reflect import judge_alone
from RefSegLib.reflection.settings import ReflectionSettings
from RefSegLib.synthesis.synthesizer import Synthesizer
from RefSegLib.training.cases import Sample
from RefSegLib.training.split import patient_of
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import Volume

VOXELS = 3000  # per condition, from which the suspect map is learned


@dataclass(frozen=True)
class Shown:
    """A validation image (C, k, j, i), normalized, as it is or shifted; labels (k, j, i)."""

    patient: str
    shifted: bool
    array: npt.NDArray[np.float32]
    labels: npt.NDArray[np.integer]


@dataclass
class Condition:
    """One image under one shift, looked at by all candidates.

    Per candidate, identity first: ssim, correlation, confidence (n,), by_label (Dice of each label), dices (n,) their
    mean, features. least_confidence: of the first mask; alone: terms of its
    similarity in its own region; first_signs, signs, wrong: samples for
    the suspect map; adjusted: mean Dice before and after adjusting, where that was tried.
    """

    patient: str
    shifted: bool
    names: list[str]
    ssim: npt.NDArray[np.float64]
    correlation: npt.NDArray[np.float64]
    confidence: npt.NDArray[np.float64]
    least_confidence: float
    by_label: list[dict[int, float]]
    alone: tuple[float, float] | None
    first_features: estimate.Features | None
    features: list[estimate.Features]
    first_signs: npt.NDArray[np.float32]
    signs: npt.NDArray[np.float32]
    wrong: npt.NDArray[np.bool_]
    adjusted: tuple[float, float] | None = None
    dices: npt.NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.dices = np.array([np.mean(list(by.values())) for by in self.by_label])

    def scores(self, settings: ReflectionSettings) -> npt.NDArray[np.float64]:
        """(n,): the score of every candidate."""
        return settings.similarity(self.ssim, self.correlation) + settings.confidence_weight * self.confidence

    def choice(self, settings: ReflectionSettings, margin: float) -> int:
        """The number of the candidate that would be kept."""
        scores = self.scores(settings)
        best = int(np.argmax(scores))
        return best if scores[best] - scores[0] > margin else 0


def shown(cases: Sequence[Sample], spec: SegmenterSpec, shifts_per_case: int, seed: int) -> Iterator[Shown]:
    """Every case as it is and under `shifts_per_case` shifts: every kind about as often, severities by chance."""
    rng = np.random.default_rng(seed)
    rounds = -(-len(cases) * shifts_per_case // len(shifts.NAMES))
    names = [name for _ in range(rounds) for name in rng.permutation(shifts.NAMES)]
    for case in cases:
        array, labels, patient = np.asarray(case.image, np.float32), np.asarray(case.labels), patient_of(case.name)
        yield Shown(patient, False, array, labels)
        for _ in range(shifts_per_case):
            severity, chance = int(rng.integers(1, 6)), int(rng.integers(2**31))
            yield Shown(patient, True, shifted(case, names.pop(), severity, chance, spec), labels)


def shifted(case: Sample, name: str, severity: int, seed: int, spec: SegmenterSpec) -> npt.NDArray[np.float32]:
    """The image of a sample under a shift, normalized again: (C, k, j, i)."""
    grid = Grid(case.labels.shape, case.spacing)
    changed = shifts.shift(Volume(np.asarray(case.image, np.float32), grid), name, severity, seed).array
    if spec.normalization.kind == "window":
        return np.clip(changed, 0.0, 1.0)
    return spec.normalization(changed)


def condition_of(
    image: Shown,
    segmenter: Segmenter,
    synthesizer: Synthesizer,
    settings: ReflectionSettings,
    rng: np.random.Generator,
    *,
    pool: bool = False,
    adjusting: bool = False,
) -> Condition | None:
    """One image looked at by all candidates of `settings`; None where none of them finds anything.

    pool: only what a short list is learned from: no features.
    """
    array, truth = image.array, image.labels
    first = Looked(IDENTITY, infer(segmenter, array), exact=True)
    looked = look(first, array, segmenter, settings)
    region = consensus_region((candidate.foreground() for candidate in looked), segmenter.spec.dimensions == 2)
    if not region.any():
        return None
    judge = Judge(array, region, synthesizer)
    labels = [candidate.labels for candidate in looked]
    features = []
    for number, candidate in enumerate(looked):
        candidate.verdict = verdict = judge(candidate.probabilities)
        if not pool:  # every candidate with every other takes longer than all the rest
            others = labels[:number] + labels[number + 1 :]
            features.append(
                estimate.features(candidate.probabilities, others, verdict.ssim, verdict.correlation, verdict.local)
            )
    outputs = len(first.probabilities)
    alone = judge_alone(first, array, synthesizer)
    verdict = alone(first.probabilities) if alone is not None else None
    first_features = None
    if verdict is not None:
        first_features = estimate.features(first.probabilities, [], verdict.ssim, verdict.correlation, verdict.local)
    places = np.flatnonzero(region | (np.max(labels, axis=0) > 0))
    sample = rng.choice(places, min(VOXELS, len(places)), replace=False)
    local = np.ones(truth.shape, np.float32) if verdict is None else verdict.local
    first_signs = signs_of(first.probabilities, [], local).reshape(3, -1)[:, sample]
    signs = signs_of(first.probabilities, labels[1:], looked[0].verdict.local).reshape(3, -1)[:, sample]
    return Condition(
        patient=image.patient,
        shifted=image.shifted,
        names=[candidate.name for candidate in looked],
        ssim=np.array([candidate.verdict.ssim for candidate in looked]),
        correlation=np.array([candidate.verdict.correlation for candidate in looked]),
        confidence=np.array([candidate.confidence for candidate in looked]),
        least_confidence=first.least_confidence,
        by_label=[{v: dice(found == v, truth == v) for v in range(1, outputs)} for found in labels],
        alone=None if verdict is None else (verdict.ssim, verdict.correlation),
        first_features=first_features,
        features=features,
        first_signs=first_signs,
        signs=signs,
        wrong=(labels[0] != truth).ravel()[sample],
        adjusted=_adjusted(looked, image, segmenter, judge, settings) if adjusting else None,
    )


def _adjusted(
    looked: list[Looked], image: Shown, segmenter: Segmenter, judge: Judge, settings: ReflectionSettings
) -> tuple[float, float] | None:
    """Mean Dice of the candidate chosen, and of what is kept after adjusting; None where that is not possible."""
    chosen = choose(looked, settings)
    seen, network = way(chosen.name, image.array, segmenter, settings)
    moved, _ = adjust(seen, network, judge, settings.model_copy(update={"steps": 5}))
    if moved is None:
        return None
    final = Looked("adjusted", moved)
    final.verdict = judge(moved)
    kept = max(chosen, final, key=lambda candidate: score_of(candidate, settings))
    values = range(1, len(moved))
    before, after = (
        float(np.mean([dice(candidate.labels == v, image.labels == v) for v in values])) for candidate in (chosen, kept)
    )
    return before, after
