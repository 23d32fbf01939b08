"""Clicks and scribbles correct a mask in three dimensions."""

import numpy as np
import pytest
from InteractiveLearningLib.strokes import Stroke, corrected
from RefSegLib.errors import BadInput
from RefSegLib.quality.metrics import dice

SLICE, ROW, COLUMN = np.mgrid[:40, :44, :48]
SPACING = (1.0, 1.0, 1.0)


def ball(center, radius, spacing=SPACING):
    squares = [((g - c) * s) ** 2 for g, c, s in zip((SLICE, ROW, COLUMN), center, spacing, strict=True)]
    return sum(squares) <= radius**2


def probable(mask):
    return np.where(mask, 0.97, 0.03).astype(np.float32)


def click(*voxel, positive=True):
    return Stroke(np.array([voxel]), positive)


TRUTH = ball((20, 22, 24), 9)
IMAGE = (100 * TRUTH + 5 * np.random.default_rng(0).normal(size=TRUTH.shape)).astype(np.float32)


def test_a_click_into_the_middle_of_a_missing_part_brings_it_back_in_all_three_dimensions():
    missing = TRUTH & (COLUMN > 26)
    after, changed = corrected(probable(TRUTH & ~missing), IMAGE, SPACING, [click(20, 22, 30)])
    assert dice(after > 0.5, TRUTH) > dice(TRUTH & ~missing, TRUTH) + 0.05
    assert np.count_nonzero(changed & missing) > 0.5 * np.count_nonzero(missing)
    assert len(np.unique(np.nonzero(changed)[0])) > 5


def test_a_negative_click_takes_a_bulge_away_and_leaves_the_rest():
    bulge = ball((20, 22, 35), 4) & ~TRUTH
    after, changed = corrected(probable(TRUTH | bulge), IMAGE, SPACING, [click(20, 22, 36, positive=False)])
    assert dice(after > 0.5, TRUTH) > dice(TRUTH | bulge, TRUTH)
    assert np.count_nonzero(changed & TRUTH) < 0.02 * np.count_nonzero(TRUTH)


def test_what_the_model_is_undecided_about_follows_a_click_and_what_it_is_sure_of_stays():
    shell = ball((20, 22, 24), 10) & ~TRUTH
    probability = probable(TRUTH)
    probability[shell & (ROW > 22)] = 0.4
    after, _ = corrected(probability, np.zeros(TRUTH.shape, np.float32), SPACING, [click(20, 32, 24)])
    near = ball((20, 32, 24), 4)
    assert (after > 0.5)[near & shell & (ROW > 22)].all()
    assert not (after > 0.5)[~ball((20, 22, 24), 11.5)].any()


def test_every_voxel_pointed_at_obeys_and_strokes_come_in_their_order():
    rng = np.random.default_rng(1)
    strokes = [click(*rng.integers(0, 40, 3), positive=bool(rng.integers(2))) for _ in range(6)]
    for last in (True, False):
        after, _ = corrected(probable(TRUTH), IMAGE, SPACING, [*strokes, click(20, 22, 33, positive=last)])
        assert (after[20, 22, 33] > 0.5) == last


def test_what_is_obeyed_already_is_nothing_new():
    after, changed = corrected(probable(TRUTH), IMAGE, SPACING, [click(20, 22, 24), click(2, 2, 2, positive=False)])
    np.testing.assert_array_equal(after, probable(TRUTH))
    assert not changed.any()


def test_a_wrong_click_on_a_good_mask_does_little_harm():
    for wrong in (click(20, 22, 35), click(20, 22, 31, positive=False)):
        after, _ = corrected(probable(TRUTH), IMAGE, SPACING, [wrong])
        assert dice(after > 0.5, TRUTH) > 0.975


def test_a_scribble_says_more_than_each_of_its_voxels():
    missing = TRUTH & (COLUMN > 26)
    line = np.array([(20, j, 30) for j in range(17, 28)])
    start = probable(TRUTH & ~missing)
    scribbled, _ = corrected(start, IMAGE, SPACING, [Stroke(line, True)])
    clicked, _ = corrected(start, IMAGE, SPACING, [click(20, 22, 30)])
    assert (scribbled > 0.5)[tuple(line.T)].all()
    assert dice(scribbled > 0.5, TRUTH) > dice(clicked > 0.5, TRUTH)


def test_strokes_one_after_the_other_are_what_they_are_together_bit_for_bit():
    first, second = click(20, 22, 30), click(20, 30, 24, positive=False)
    together, _ = corrected(probable(TRUTH & (COLUMN < 27)), IMAGE, SPACING, [first, second])
    halfway, _ = corrected(probable(TRUTH & (COLUMN < 27)), IMAGE, SPACING, [first])
    again, _ = corrected(probable(TRUTH & (COLUMN < 27)), IMAGE, SPACING, [first, second])
    np.testing.assert_array_equal(together, again)
    assert not np.array_equal(together, halfway)


def test_thick_slices_are_reached_by_their_distance_in_millimeters():
    spacing = (8.0, 1.0, 1.0)
    start = np.full(TRUTH.shape, 0.1, np.float32)
    start[20] = probable(ball((20, 22, 20), 8, spacing))[20]
    flat = np.zeros(TRUTH.shape, np.float32)
    _, changed = corrected(start, flat, spacing, [click(20, 22, 32)])
    k, _, i = np.nonzero(changed)
    assert np.ptp(i) * 1.0 > np.ptp(k) * 1.0


def test_the_border_of_the_image_an_empty_mask_and_a_full_one_are_no_trouble():
    flat = np.zeros(TRUTH.shape, np.float32)
    for level, positive in ((0.0, True), (1.0, False)):
        start = np.full(TRUTH.shape, level, np.float32)
        after, changed = corrected(start, flat, SPACING, [click(0, 0, 0, positive=positive)])
        assert (after[0, 0, 0] > 0.5) == positive
        assert 1 <= changed.sum() < 2000
        assert np.isfinite(after).all()


def test_what_was_given_is_not_written_to_and_bad_input_is_refused_in_words():
    start = probable(TRUTH)
    corrected(start, IMAGE, SPACING, [click(20, 22, 35)])
    np.testing.assert_array_equal(start, probable(TRUTH))
    with pytest.raises(BadInput, match="outside the image"):
        corrected(start, IMAGE, SPACING, [click(40, 0, 0)])
    with pytest.raises(BadInput, match="do not fit"):
        corrected(start, IMAGE[1:], SPACING, [])
