"""Clicks and border points become the mask of a slice."""

import numpy as np
import pytest
from InteractiveLearningLib.slices import outline_through, slice_mask
from RefSegLib.errors import BadInput
from RefSegLib.quality.metrics import dice

ROWS, COLUMNS = np.mgrid[:90, :100]


def disk(row, column, radius):
    return (ROWS - row) ** 2 + (COLUMNS - column) ** 2 <= radius**2


TRUTH = disk(45, 50, 14)
NOISE = np.random.default_rng(0).normal(size=TRUTH.shape)
IMAGE = 100.0 * TRUTH + 8 * NOISE


def test_one_click_in_a_bright_disk_gives_the_disk_without_any_model():
    assert dice(slice_mask(IMAGE, None, [(45, 50, True)]), TRUTH) > 0.95


def test_a_positive_click_adds_what_is_missing_up_to_the_edge():
    previous = TRUTH & (COLUMNS < 57)
    after = slice_mask(IMAGE, None, [(45, 60, True)], previous)
    assert dice(after, TRUTH) > dice(previous, TRUTH) + 0.05


def test_a_negative_click_removes_what_is_too_much():
    previous = TRUTH | disk(45, 66, 6)
    after = slice_mask(IMAGE, None, [(45, 68, False)], previous)
    assert not after[45, 68]
    assert dice(after, TRUTH) > dice(previous, TRUTH) + 0.02


def test_a_click_that_the_mask_obeys_already_changes_nothing():
    clicks = [(45, 50, True), (5, 5, False)]
    np.testing.assert_array_equal(slice_mask(IMAGE, None, clicks, TRUTH), TRUTH)


def test_a_wrong_click_far_away_leaves_a_good_mask_nearly_alone():
    after = slice_mask(IMAGE, None, [(10, 10, True)], TRUTH)
    np.testing.assert_array_equal(after & disk(45, 50, 20), TRUTH)


def test_every_clicked_pixel_obeys_and_of_contradicting_clicks_the_last():
    rng = np.random.default_rng(1)
    clicks = [
        (int(r), int(c), bool(s)) for r, c, s in zip(*rng.integers(0, 90, (2, 30)), rng.integers(0, 2, 30), strict=True)
    ]
    clicks += [(45, 50, True), (45, 50, False)]
    after = slice_mask(IMAGE, None, clicks, TRUTH)
    last = {(r, c): s for r, c, s in clicks}
    assert all(after[at] == sign for at, sign in last.items())


def test_what_neighboring_slices_agree_on_stands_in_for_a_mask():
    np.testing.assert_array_equal(slice_mask(IMAGE, None, [(45, 50, True)], neighbors=[TRUTH, TRUTH]), TRUTH)


def test_a_model_helps_where_the_image_shows_nothing():
    flat = np.zeros(TRUTH.shape)
    probability = np.where(TRUTH, 0.9, 0.1).astype(np.float32)
    previous = TRUTH & (COLUMNS < 57)
    after = slice_mask(flat, probability, [(45, 60, True)], previous)
    assert dice(after, TRUTH) > dice(previous, TRUTH)


def test_the_border_of_the_image_and_a_constant_image_are_no_trouble():
    assert slice_mask(np.ones((5, 5)), None, [(0, 0, True), (4, 4, False)])[0, 0]
    assert slice_mask(np.ones((1, 9)), None, [(0, 4, True)])[0, 4]


def test_the_mask_that_was_given_is_not_written_to():
    previous = TRUTH.copy()
    slice_mask(IMAGE, None, [(10, 10, True)], previous)
    np.testing.assert_array_equal(previous, TRUTH)


def test_a_click_outside_the_slice_is_refused_in_words():
    with pytest.raises(BadInput, match="outside the slice"):
        slice_mask(IMAGE, None, [(90, 0, True)])
    with pytest.raises(BadInput, match="does not fit"):
        slice_mask(IMAGE, None, [(1, 1, True)], np.zeros((3, 3), bool))


def test_a_closed_curve_through_eight_border_points_is_the_structure():
    angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    points = [(45 + 14 * np.sin(a), 50 + 14 * np.cos(a)) for a in angles]
    assert dice(outline_through(points, TRUTH.shape), TRUTH) > 0.97


def test_three_points_make_a_curve_and_two_do_not():
    assert outline_through([(10, 10), (10, 30), (30, 20)], TRUTH.shape).sum() > 100
    with pytest.raises(BadInput, match="three"):
        outline_through([(10, 10), (10, 10), (30, 20)], TRUTH.shape)


def test_where_a_slice_shows_none_of_a_structure_that_is_near_a_click_adds_about_as_much_as_it_is_far():
    nothing = np.zeros(TRUTH.shape, bool)
    near = slice_mask(IMAGE, None, [(45, 50, True)], nothing, nearest=2.0)
    assert near[45, 50]
    assert 5 <= near.sum() < 100
