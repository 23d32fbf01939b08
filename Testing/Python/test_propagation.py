"""A few outlined slices become a 3D mask that keeps what was drawn and says how far to trust it."""

import numpy as np
import pytest
import SimpleITK as sitk
from InteractiveLearningLib.propagation import FlowCache, fuse, propagate
from RefSegLib.errors import BadInput
from RefSegLib.quality.metrics import dice
from RefSegLib.training.split import patient_of, split_of
from scipy import ndimage

SHAPE = (28, 48, 52)


def bent_tube(seed=0):
    """A tube whose middle wanders and whose radius changes, bright on a textured background; truth and image."""
    k, j, i = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]].astype(float)
    row, column, radius = 22 + 6 * np.sin(k / 7), 26 + 5 * np.cos(k / 9), 7 + 2 * np.sin(k / 5)
    truth = ((j - row) ** 2 + (i - column) ** 2 < radius**2) & (k >= 4) & (k <= 24)
    image = 80 * truth + 20 * np.sin(j / 6 + k / 9) + 6 * np.random.default_rng(seed).normal(size=SHAPE)
    return truth, image


TRUTH, IMAGE = bent_tube()
LIMITS = (4, 24)


def outlines(*indices, axis=0):
    return {n: np.take(TRUTH, n, axis) for n in indices}


def test_three_slices_of_a_bent_tube_give_the_tube():
    assert dice(propagate(IMAGE, 0, outlines(7, 14, 21), limits=LIMITS).mask, TRUTH) > 0.93


def test_more_slices_give_a_better_mask():
    scores = [
        dice(propagate(IMAGE, 0, outlines(*at), limits=LIMITS).mask, TRUTH)
        for at in ((6,), (6, 22), (7, 14, 21), (5, 10, 14, 19, 23))
    ]
    assert scores == sorted(scores)
    assert scores[0] < scores[-1]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_annotated_slices_come_back_exactly_as_drawn_along_every_axis(axis):
    drawn = np.random.default_rng(axis).random(tuple(n for a, n in enumerate(SHAPE) if a != axis)) > 0.7
    at = SHAPE[axis] // 2
    proxy = propagate(IMAGE, axis, {at: drawn, **outlines(at - 6, at + 6, axis=axis)}, limits=(at - 8, at + 8))
    np.testing.assert_array_equal(np.take(proxy.mask, at, axis), drawn)
    assert (np.take(proxy.confidence, at, axis) == 1).all()


def test_nothing_lies_outside_the_limits_and_confidence_falls_away_from_the_outlines():
    proxy = propagate(IMAGE, 0, outlines(14), limits=(8, 20))
    assert not proxy.mask[:8].any()
    assert not proxy.mask[21:].any()
    inside = [float(proxy.confidence[n][proxy.mask[n]].mean()) for n in (14, 16, 19)]
    assert inside[0] == 1 > inside[1] > inside[2]
    assert 0 <= proxy.confidence.min() <= proxy.confidence.max() <= 1


def test_without_limits_the_tube_ends_near_its_ends():
    mask = propagate(IMAGE, 0, outlines(7, 14, 21)).mask
    assert dice(mask, TRUTH) > 0.9


def test_an_empty_outline_is_an_end():
    proxy = propagate(IMAGE, 0, outlines(10, 14, 26) | {3: np.zeros(SHAPE[1:], bool)})
    assert not proxy.mask[:4].any()
    assert not proxy.mask[26:].any()


def test_an_empty_outline_far_beyond_the_limits_changes_nothing():
    """Two structures outlined in the same slices: each is empty where the other one is."""
    plain = propagate(IMAGE, 0, outlines(7, 14, 21), limits=LIMITS)
    with_empty = propagate(IMAGE, 0, outlines(7, 14, 21) | {27: np.zeros(SHAPE[1:], bool)}, limits=LIMITS)
    assert dice(with_empty.mask, TRUTH) > dice(plain.mask, TRUTH) - 0.01


def test_the_cache_changes_the_time_but_never_the_result_and_only_what_changed_is_registered():
    cache = FlowCache()
    first = propagate(IMAGE, 0, outlines(7, 21), limits=LIMITS, cache=cache)
    computed = cache.computed
    again = propagate(IMAGE, 0, outlines(7, 14, 21), limits=LIMITS, cache=cache)
    fresh = propagate(IMAGE, 0, outlines(7, 14, 21), limits=LIMITS)
    np.testing.assert_array_equal(again.probability, fresh.probability)
    assert cache.computed - computed <= 2
    assert first.estimated_dice is None


def test_the_leave_one_out_estimate_is_near_the_truth_from_three_slices_on():
    for at in ((7, 14, 21), (5, 10, 14, 19, 23)):
        proxy = propagate(IMAGE, 0, outlines(*at), limits=LIMITS)
        assert proxy.estimated_dice == pytest.approx(dice(proxy.mask, TRUTH), abs=0.05)


def test_the_estimate_falls_when_an_outline_contradicts_its_neighbors():
    good = propagate(IMAGE, 0, outlines(5, 10, 14, 19, 23), limits=LIMITS)
    wrong = propagate(IMAGE, 0, outlines(5, 10, 19, 23) | {14: np.roll(TRUTH[14], 15, axis=1)}, limits=LIMITS)
    assert wrong.estimated_dice < good.estimated_dice - 0.05


def cylinder():
    """A tapered cylinder that leans, in slices 4 to 35."""
    k, j, i = np.mgrid[:40, :64, :64].astype(float)
    return ((j - 30 - k / 8) ** 2 + (i - 32) ** 2 < (18 - 0.35 * k) ** 2) & (k >= 4) & (k <= 35)


@pytest.mark.parametrize("blur", [0, 2, None], ids=["white noise", "smooth noise", "constant"])
@pytest.mark.parametrize("at", [(9, 30), (9, 20, 30)])
def test_pictures_that_say_nothing_fall_back_to_interpolation_of_shapes(blur, at):
    truth, noise = cylinder(), np.random.default_rng(0).normal(size=(40, 64, 64))
    image = np.zeros_like(noise) if blur is None else ndimage.gaussian_filter(noise, (0, blur, blur))
    drawn = {n: truth[n] for n in at}
    found = propagate(image, 0, drawn, limits=(4, 35))
    plain = propagate(image, 0, drawn, limits=(4, 35), method="unregistered")
    assert dice(found.mask, truth) > dice(plain.mask, truth) - 0.03
    assert dice(plain.mask, truth) > 0.85


def test_pictures_that_say_nothing_do_not_carry_a_structure_through_the_whole_volume():
    truth = cylinder()
    mask = propagate(np.zeros((40, 64, 64)), 0, {n: truth[n] for n in (15, 21)}).mask
    shown = np.nonzero(mask.any(axis=(1, 2)))[0]
    assert shown[0] >= 11
    assert shown[-1] <= 25


def two_tubes(fork, end):
    """A tube; from slice `fork` on a thinner second one runs 20 pixels aside, until slice `end`. Truth, image."""
    k, j, i = np.mgrid[:30, :48, :72].astype(float)
    first = (j - 24) ** 2 + (i - 22) ** 2 < 81
    second = ((j - 24) ** 2 + (i - 48) ** 2 < 25) & (k >= fork) & (k < end)
    # Both tubes look like the background: only the outlines tell.
    texture = 20 * np.sin(j / 5) + 20 * np.sin(i / 7) + 4 * np.random.default_rng(0).normal(size=k.shape)
    return first | second, second, texture


def test_a_part_that_ends_between_two_outlines_tapers_off_instead_of_vanishing_at_once():
    truth, second, image = two_tubes(0, 15)
    mask = propagate(image, 0, {n: truth[n] for n in (4, 20)}, limits=(0, 29)).mask
    beside = mask[:, :, 40:].sum(axis=(1, 2))
    drawn = second[4].sum()
    assert beside[9] > 0.6 * drawn
    assert (np.diff(beside[4:21].astype(int)) <= 0.2 * drawn).all()
    assert not beside[19]


def test_a_branch_is_not_lost_where_a_tube_forks():
    truth, second, image = two_tubes(12, 30)
    mask = propagate(image, 0, {n: truth[n] for n in (6, 20)}, limits=(0, 29)).mask
    between = slice(6, 21)
    assert dice(mask[between, :, 40:], second[between, :, 40:]) > 0.85
    assert dice(mask[between], truth[between]) > 0.92


def test_a_hole_that_closes_between_two_outlines_tapers_off():
    k, j, i = np.mgrid[:30, :64, :64].astype(float)
    away = (j - 32) ** 2 + (i - 32) ** 2
    solid, hole = away < 24**2, (away < 25) & (k < 15)
    image = 20 * np.sin(j / 5) + 20 * np.sin(i / 7) + 4 * np.random.default_rng(0).normal(size=k.shape)
    mask = propagate(image, 0, {n: (solid & ~hole)[n] for n in (4, 20)}, limits=(0, 29)).mask
    assert not mask[9, 32, 32]
    assert mask[19, 32, 32]
    assert mask[4:21, 32, 12].all()


def test_the_order_in_which_slices_are_named_changes_nothing():
    first = propagate(IMAGE, 0, outlines(21, 7, 14), limits=LIMITS)
    np.testing.assert_array_equal(
        first.probability, propagate(IMAGE, 0, outlines(7, 14, 21), limits=LIMITS).probability
    )


def test_a_prior_is_corrected_near_the_outline_and_kept_far_away():
    shifted = np.roll(TRUTH, 4, axis=2)
    prior = np.where(shifted, 0.9, 0.1).astype(np.float32)
    proxy = propagate(IMAGE, 0, outlines(8), prior=prior)
    assert dice(proxy.mask[9], TRUTH[9]) > dice(shifted[9], TRUTH[9]) + 0.1
    np.testing.assert_array_equal(proxy.mask[24], shifted[24])


def test_a_dot_where_the_model_sees_nothing_stays_a_dot_in_the_next_slices():
    prior = np.where(TRUTH, 0.9, 0.1).astype(np.float32)
    prior[14] = 0.1
    dot = np.zeros(SHAPE[1:], bool)
    dot[40:43, 40:43] = True
    grown = propagate(IMAGE, 0, {14: dot}, prior=prior, reach=2.0, method="model").mask & ~TRUTH
    assert grown[13].sum() <= dot.sum()


def test_three_good_outlines_overrule_a_model_that_is_wrong():
    prior = np.where(np.roll(TRUTH, 12, axis=2), 0.9, 0.1).astype(np.float32)
    proxy = propagate(IMAGE, 0, outlines(7, 14, 21), limits=LIMITS, prior=prior)
    assert proxy.method != "model"
    assert dice(proxy.mask, TRUTH) > 0.9


def test_two_axes_are_fused_and_both_stay_exact():
    both = [propagate(IMAGE, 0, outlines(14), limits=LIMITS), propagate(IMAGE, 2, outlines(26, axis=2))]
    proxy = fuse(both)
    np.testing.assert_array_equal(proxy.mask[14], TRUTH[14])
    np.testing.assert_array_equal(proxy.mask[:, :, 26], TRUTH[:, :, 26])


def test_a_structure_at_the_edge_of_a_small_image_is_no_trouble():
    image = np.random.default_rng(0).normal(size=(3, 6, 5)).astype(np.float32)
    drawn = np.ones((6, 5), bool)
    assert propagate(image, 0, {1: drawn}, limits=(0, 2)).mask[1].all()


@pytest.mark.parametrize(
    ("axis", "slices", "words"),
    [
        (0, {}, "Nothing is outlined"),
        (0, {99: np.zeros(SHAPE[1:], bool)}, "outside the image"),
        (0, {3: np.zeros((2, 2), bool)}, "does not fit"),
        (5, {3: np.zeros(SHAPE[1:], bool)}, "axes"),
    ],
)
def test_what_cannot_be_propagated_is_refused_in_words(axis, slices, words):
    with pytest.raises(BadInput, match=words):
        propagate(IMAGE, axis, slices)


@pytest.mark.parametrize(("name", "value", "axis", "least"), [("msd_hippocampus", None, 1, 0.85), ("acdc", 3, 0, 0.93)])
def test_three_outlined_slices_and_two_limits_are_enough_on_real_patients(shared_data, name, value, axis, least):
    scores = []
    for path in sorted((shared_data / name / "images").glob("*.nii.gz")):
        if split_of(patient_of(path.name[:-7])) != "validation":
            continue
        image = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        labels = sitk.GetArrayFromImage(sitk.ReadImage(str(shared_data / name / "labels" / path.name)))
        truth = labels > 0 if value is None else labels == value
        at = np.nonzero(truth.any(axis=tuple(a for a in range(3) if a != axis)))[0]
        low, high = int(at[0]), int(at[-1])
        chosen = {int(low + (n + 0.5) * (high - low + 1) / 3) for n in range(3)}
        proxy = propagate(image, axis, {n: np.take(truth, n, axis) for n in chosen}, limits=(low, high))
        scores.append(dice(proxy.mask, truth))
        if len(scores) == 4:
            break
    assert np.mean(scores) > least
