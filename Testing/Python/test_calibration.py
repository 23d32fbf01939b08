"""Calibration: choices follow what validation patients show, and what cannot help is never done."""

import numpy as np
import pytest
from RefSegLib.errors import BadInput, Cancelled
from RefSegLib.models.spec import Label, Network, SegmenterSpec
from RefSegLib.progress import Progress
from RefSegLib.quality import estimate
from RefSegLib.quality.suspect import SuspectModel, fit_suspect, signs_of
from RefSegLib.reflection.calibration import NEVER, calibrate, decide
from RefSegLib.reflection.candidates import NAMES
from RefSegLib.reflection.conditions import Condition, shifted, shown
from RefSegLib.reflection.gate import corrupted, gate_zero
from RefSegLib.reflection.settings import ReflectionSettings
from RefSegLib.reflection.shortlist import shortlist
from RefSegLib.synthesis.synthesizer import Synthesizer
from RefSegLib.training.cases import Sample
from torch import nn

SPEC = SegmenterSpec(
    name="balls",
    channels=("brightness",),
    labels=(Label(value=1, name="ball", color=(1, 0, 0)),),
    spacing=(1, 1, 1),
    patch=(16, 16, 16),
    network=Network(name="unet", arguments={"filters": [4, 8, 8]}),
)


class Threshold:
    """A segmenter that finds what is brighter than two thirds of the range."""

    spec = SPEC

    def logits(self, patches: np.ndarray) -> np.ndarray:
        margin = 30 * (patches - 0.67)
        return np.concatenate([-margin, margin], 1) / 2


class Painter(nn.Conv3d):
    """Paints structures bright and everything else dark."""

    def __init__(self) -> None:
        super().__init__(2, 1, 1, bias=False)
        self.weight.data[:] = self.weight.new_tensor([0.2, 0.9]).reshape(1, 2, 1, 1, 1)


def sample(seed: int) -> Sample:
    rng = np.random.default_rng(seed)
    center = np.array([11, 12, 13]) + rng.integers(-2, 3, 3)
    mask = np.linalg.norm(np.indices((22, 24, 26)) - center[:, None, None, None], axis=0) <= rng.uniform(5, 7)
    image = SPEC.normalization((0.2 + 0.7 * mask + rng.normal(0, 0.03, mask.shape))[None].astype(np.float32))
    return Sample(f"patient{seed}", image, mask.astype(np.uint16), (1.0, 1.0, 1.0))


def painted() -> Synthesizer:
    return Synthesizer(SPEC, Painter())


def condition(first: float, other: float, rise: float, shifted: bool = True, adjusted=None) -> Condition:
    """Two candidates: Dice of the first and of the other, and by how much the other scores higher."""
    dices = [{1: first}, {1: other}]
    signs = np.zeros((3, 4), np.float32)
    return Condition(
        patient="p",
        shifted=shifted,
        names=["identity", "other"],
        ssim=np.array([0.5, 0.5 + rise]),
        correlation=np.array([0.3, 0.3]),
        by_label=dices,
        confidence=np.array([first, first]),
        least_confidence=first,
        alone=(0.5, 0.3),
        first_features={1: (first, 0.5, 0.3, 0.4)},
        features=[{1: (d[1], 0.5, 0.3, 0.4, 0.9, 0.8)} for d in dices],
        first_signs=signs,
        signs=signs,
        wrong=np.array([True, False, False, False]),
        adjusted=adjusted,
    )


def test_the_margin_lets_rescues_through_and_keeps_harm_out():
    rescues = [condition(0.5, 0.8, 0.10) for _ in range(40)]
    harms = [condition(0.9, 0.6, 0.05) for _ in range(40)]
    found = decide(rescues + harms, ReflectionSettings())
    assert 0.05 <= found.margin < 0.10
    assert found.report["harmed"] == 0
    assert found.report["shifted_select"] == pytest.approx(0.85)
    assert found.report["shifted_none"] == pytest.approx(0.70)


def test_a_score_that_knows_nothing_never_replaces_anything():
    rng = np.random.default_rng(0)
    conditions = [condition(0.9, 0.5, rng.uniform(0, 0.3)) for _ in range(50)]
    found = decide(conditions, ReflectionSettings())
    assert found.margin == NEVER
    assert found.report["shifted_select"] == found.report["shifted_none"]


def test_adjusting_is_on_only_if_it_adds():
    better = [condition(0.8, 0.8, 0, adjusted=[0.80, 0.83]) for _ in range(20)]
    same = [condition(0.8, 0.8, 0, adjusted=[0.80, 0.801]) for _ in range(20)]
    risky = [condition(0.8, 0.8, 0, adjusted=[0.80, 0.75 if n < 2 else 0.9]) for n in range(20)]
    assert decide(better, ReflectionSettings()).steps == 5
    assert decide(same, ReflectionSettings()).steps == 0
    assert decide(risky, ReflectionSettings()).steps == 0
    assert decide(better, ReflectionSettings()).report["adjust_after"] == pytest.approx(0.83)


def test_calibrating_on_images_gives_settings_that_survive_json():
    cases = [sample(seed) for seed in range(2)]
    found = calibrate(cases, Threshold(), painted(), seed=1, shifts_per_case=2)
    assert found.report["conditions"] == 6
    assert found.report["harmed"] <= 0.02
    assert found.report["clean_none"] > 0.98
    assert found.report["shifted_none"] <= found.report["shifted_select"] <= found.report["shifted_oracle"]
    assert len(found.reference) == 1 and len(found.reference[0]) == 33
    assert found.steps == 0  # this segmenter has no network to adjust
    assert found.candidates[0] == "identity" and 1 < len(found.candidates) <= 6
    assert set(found.estimate.labels) == {1} and found.estimate.above > 0
    assert ReflectionSettings.model_validate_json(found.model_dump_json()) == found
    assert calibrate(cases, Threshold(), painted(), seed=1, shifts_per_case=2) == found


def test_calibration_stops_when_asked_and_refuses_empty_masks():
    with pytest.raises(Cancelled):
        calibrate([sample(0)], Threshold(), painted(), progress=Progress(cancelled=lambda: True))
    empty = sample(0)
    empty = Sample(empty.name, empty.image, empty.labels * 0, empty.spacing)
    with pytest.raises(BadInput, match="holds a structure"):
        calibrate([empty], Threshold(), painted())


def test_a_shifted_sample_is_normalized_again():
    case = sample(0)
    array = shifted(case, "gamma", 4, 3, SPEC)
    assert array.shape == case.image.shape and array.dtype == np.float32
    assert np.percentile(array, (0.5, 99.5)) == pytest.approx([0, 1], abs=1e-4)


def test_the_estimate_follows_the_signs_it_learned_from():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.2, 0.95, 200)
    rows = [{1: (t + rng.normal(0, 0.03), rng.normal(), t + rng.normal(0, 0.1))} for t in truth]
    estimator = estimate.fit_estimator(rows[:150], [{1: t} for t in truth[:150]])
    errors = [abs(estimator(row)[1] - t) for row, t in zip(rows[150:], truth[150:], strict=True)]
    assert np.mean(errors) < 0.04
    assert estimator({1: (50.0, 0.0, 50.0)})[1] <= 1.0
    assert estimate.Estimator.model_validate_json(estimator.model_dump_json()) == estimator


def test_a_mask_knows_what_dice_to_expect():
    mask = np.zeros((4, 5, 6), bool)
    mask[1:3, 1:4, 1:4] = True
    assert estimate.expected_dice(mask.astype(np.float32), mask) == 1.0
    half = np.where(mask, 0.5, 0).astype(np.float32)
    assert estimate.expected_dice(half, mask) == pytest.approx(2 * 0.5 / 1.5)
    assert estimate.expected_dice(half, np.zeros_like(mask)) == 0.0
    rng = np.random.default_rng(0)
    soft = np.where(mask, 0.9, 0.1).astype(np.float32)
    drawn = [rng.random(mask.shape) < soft for _ in range(400)]
    average = np.mean([2 * (mask & d).sum() / (mask.sum() + d.sum()) for d in drawn])
    assert estimate.expected_dice(soft, mask) == pytest.approx(average, abs=0.02)


def test_the_suspect_map_is_a_probability_of_being_wrong():
    rng = np.random.default_rng(0)
    true = SuspectModel(bias=-1, uncertainty=0.7, disagreement=2, dissimilarity=0)
    signs = rng.random((3, 20000)).astype(np.float32)
    wrong = rng.random(20000) < true(signs)
    found = fit_suspect(signs, wrong)
    assert found.bias == pytest.approx(-1, abs=0.2)
    assert found.uncertainty == pytest.approx(0.7, abs=0.1)
    assert found.disagreement == pytest.approx(2, abs=0.3)
    assert found.dissimilarity == pytest.approx(0, abs=0.2)
    assert found(signs).mean() == pytest.approx(wrong.mean(), abs=0.01)
    nowhere = np.zeros((3, 1), np.float32)
    assert found(nowhere)[0] < 0.01  # nobody doubts, all agree
    with pytest.raises(BadInput):
        fit_suspect(signs, np.zeros(20000, bool))


def test_signs_say_who_disagrees_and_where():
    probabilities = np.zeros((2, 1, 2, 2), np.float32)
    probabilities[1] = [[0.9, 0.6], [0.2, 0.0]]
    probabilities[0] = 1 - probabilities[1]
    others = [np.array([[[1, 0], [0, 0]]]), np.array([[[1, 0], [1, 0]]])]
    similarity = np.array([[[1.0, -1.0], [0.0, 1.0]]], np.float32)
    signs = signs_of(probabilities, others, similarity)
    assert signs[0].ravel() == pytest.approx([0.1, 0.4, 0.2, 0.0])
    assert signs[1].ravel() == pytest.approx([0.0, 1.0, 0.5, 0.0])
    assert signs[2].ravel() == pytest.approx([0.0, 1.0, 0.5, 0.0])


def test_gate_zero_passes_a_synthesizer_that_knows_and_not_one_that_does_not():
    cases = [sample(0)]
    good = gate_zero(cases, painted(), seed=0)
    assert good["below"] > 0.9 and good["spearman"] > 0.7
    blind = painted()
    blind.module.weight.data[:] = 0.5
    assert gate_zero(cases, blind, seed=0)["below"] < 0.6


def test_corruptions_are_wrong_and_keep_their_labels():
    labels = np.asarray(sample(0).labels)
    labels[:, :, 13:] *= 2
    wrong = corrupted(labels, np.random.default_rng(0))
    assert len(wrong) >= 11 and "labels exchanged" in wrong
    for name, mask in wrong.items():
        assert (mask != labels).any(), name
        assert set(np.unique(mask)) <= {0, 1, 2}
        assert mask.dtype == labels.dtype
    assert (wrong["grown 1"] > 0).sum() > (labels > 0).sum() > (wrong["shrunk 1"] > 0).sum()


def pooled(dices: list[list[float]], scores: list[list[float]], names: list[str]) -> list[Condition]:
    """One condition per row, looked at by candidates with these Dice and these scores."""
    rows = []
    for some, score in zip(dices, scores, strict=True):
        row = condition(some[0], some[-1], 0)
        row.names, row.dices = names, np.array(some)
        row.ssim, row.correlation, row.confidence = np.array(score), np.zeros(len(score)), np.zeros(len(score))
        rows.append(row)
    return rows


def test_the_short_list_holds_what_helps_and_neither_what_repeats_nor_what_costs_more_than_it_gives():
    names = ["identity", "matched", "gamma 2", "flattened", "matched @ 0.3"]
    # Half the images are rescued by "matched", the others by "flattened"; "gamma 2" rescues what "matched" rescues,
    # less well; "matched @ 0.3" adds a thousandth for two inferences.
    first = [[0.5, 0.9, 0.8, 0.5, 0.901], [0.6, 0.5, 0.5, 0.8, 0.5]] * 5
    scores = [[0.1, 0.5, 0.4, 0.1, 0.6], [0.1, 0.0, 0.0, 0.5, 0.0]] * 5
    assert shortlist(pooled(first, scores, names), ReflectionSettings()) == ("identity", "matched", "flattened")


def test_the_short_list_keeps_to_its_budget_and_still_holds_two_where_nothing_helps():
    names = ["identity", *(f"{transform} @ {share}" for transform in NAMES[1:] for share in (0.3, 0.6))]
    count = len(names) - 1
    dices = [[0.5] + [0.5 + 0.4 * (n == m) for m in range(count)] for n in range(count)]
    scores = [[0.0] + [float(n == m) for m in range(count)] for n in range(count)]
    found = shortlist(pooled(dices, scores, names), ReflectionSettings())
    transforms = {name.split(" @ ")[0] for name in found[1:]}
    assert 1 < len(found) - 1 + len(transforms) <= 5
    useless = pooled(
        [[0.9, 0.5, 0.4, 0.3]] * 4, [[0.1, 0.5, 0.5, 0.5]] * 4, ["identity", "matched", "gamma 2", "gamma 0.5"]
    )
    assert shortlist(useless, ReflectionSettings()) == ("identity", "matched", "gamma 2")


def test_statistics_that_were_measured_anyhow_are_looked_at_for_nothing():
    names = ["identity", "matched @ 0.3", "matched @ 1", "gamma 2"]
    dices = [[0.5, 0.9, 0.5, 0.5], [0.5, 0.5, 0.9, 0.5]] * 3
    scores = [[0.1, 0.5, 0.1, 0.1], [0.1, 0.1, 0.5, 0.1]] * 3
    found = shortlist(pooled(dices, scores, names), ReflectionSettings())
    assert set(found) >= {"matched @ 0.3", "matched @ 1"}


def test_validation_images_are_shown_as_they_are_and_shifted_the_same_for_the_same_seed():
    cases = [sample(0), sample(1)]
    first, again = ([*shown(cases, SPEC, 3, seed=4)] for _ in range(2))
    assert [image.shifted for image in first] == [False, True, True, True] * 2
    assert {image.patient for image in first} == {"patient0", "patient1"}
    assert np.array_equal(first[0].array, cases[0].image)
    assert all(np.array_equal(a.array, b.array) for a, b in zip(first, again, strict=True))


def test_the_interval_holds_the_truth_of_patients_it_was_not_learned_from():
    rng = np.random.default_rng(1)
    truth = rng.uniform(0.2, 0.95, 600)
    # The worse the mask, the less its confidence says: intervals have to widen.
    rows = [{1: (t + rng.normal(0, 0.02 + 0.1 * (1 - t)), rng.normal(), rng.normal())} for t in truth]
    groups = [f"p{n // 4}" for n in range(400)]
    estimator = estimate.fit_estimator(rows[:400], [{1: t} for t in truth[:400]], groups)
    intervals = [estimator.interval(row)[1] for row in rows[400:]]
    held = np.mean([low <= t <= high for (low, high), t in zip(intervals, truth[400:], strict=True)])
    assert 0.84 <= held <= 0.97
    widths = np.array([high - low for low, high in intervals])
    assert widths[truth[400:] < 0.4].mean() > 1.3 * widths[truth[400:] > 0.8].mean()
    assert all(
        0 <= low <= estimator(row)[1] <= high <= 1 for (low, high), row in zip(intervals, rows[400:], strict=True)
    )


def test_every_default_candidate_is_known():
    assert set(ReflectionSettings().candidates) == set(NAMES)
