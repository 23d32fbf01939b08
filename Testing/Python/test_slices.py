"""Clicks and border points become the mask of a slice."""

import numpy as np
import pytest
from InteractiveLearningLib.slices import inside_box, inside_lasso, outline_through, slice_mask
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


def test_two_clicks_inside_and_outside_find_a_structure_that_touches_an_alike_one():
    touching = disk(45, 75, 12)
    image = 100.0 * (TRUTH | touching) + 8 * NOISE
    after = slice_mask(image, None, [(45, 50, True), (45, 76, False)])
    assert after[45, 50]
    assert not after[45, 76]
    assert dice(after, TRUTH) > 0.8


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


ROUGH = disk(44, 52, 20)


def test_a_rough_line_around_a_structure_nobody_has_seen_finds_it():
    found = inside_lasso(IMAGE, None, ROUGH)
    assert not (found & ~ROUGH).any()
    assert dice(found, TRUTH) > 0.95 > dice(ROUGH, TRUTH) + 0.1


def test_inside_a_rough_line_a_mask_that_fills_it_fairly_is_kept_and_nothing_outside_of_it():
    previous = (TRUTH & (ROWS < 52)) | disk(10, 10, 5)
    np.testing.assert_array_equal(inside_lasso(IMAGE, None, ROUGH, previous), previous & ROUGH)


def test_inside_a_rough_line_a_mask_that_hardly_reaches_into_it_is_made_anew():
    previous = disk(20, 20, 14) | disk(45, 50, 3)
    assert dice(inside_lasso(IMAGE, None, ROUGH, previous), TRUTH) > 0.95


def test_inside_a_rough_line_what_a_model_sees_stands_in_for_a_mask():
    probability = np.where(TRUTH, 0.9, 0.1).astype(np.float32)
    np.testing.assert_array_equal(inside_lasso(0 * IMAGE, probability, ROUGH), TRUTH)


def test_a_loose_box_around_a_structure_finds_it():
    box = np.zeros(TRUTH.shape, bool)
    box[28:63, 33:68] = True
    found = inside_box(IMAGE, None, box)
    assert not (found & ~box).any()
    assert dice(found, TRUTH) > 0.95


def test_in_a_box_what_a_model_sees_is_kept():
    box = np.zeros(TRUTH.shape, bool)
    box[28:63, 33:68] = True
    probability = np.where(disk(45, 55, 20), 0.9, 0.1).astype(np.float32)
    np.testing.assert_array_equal(inside_box(IMAGE, probability, box), disk(45, 55, 20) & box)


@pytest.mark.parametrize("inside", [inside_box, inside_lasso])
def test_lines_and_boxes_of_few_pixels_and_at_the_border_of_the_image_are_no_trouble(inside):
    for rows, columns in ((slice(0, 1), slice(0, 1)), (slice(0, 2), slice(0, 2)), (slice(0, 90), slice(0, 100))):
        region = np.zeros(TRUTH.shape, bool)
        region[rows, columns] = True
        found = inside(IMAGE, None, region)
        assert found.any()
        assert not (found & ~region).any()
    assert not inside(IMAGE, None, np.zeros(TRUTH.shape, bool)).any()
    with pytest.raises(BadInput, match="does not fit"):
        inside(IMAGE, None, np.ones((3, 3), bool))
