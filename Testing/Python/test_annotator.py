"""The robot annotator: perfect or imprecise, the same for the same seed, and it sees no more than its truth."""

import numpy as np
import pytest
from annotated_case import IMAGE, LABELS, OBLIQUE, SHAPE, TRUTH, model_probabilities
from InteractiveLearningLib.annotator import Annotator, annotate
from InteractiveLearningLib.session import Session
from InteractiveLearningLib.stream import longest_axis
from RefSegLib.errors import BadInput
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import LabelMap, Volume

LABEL_MAP = LabelMap(TRUTH, OBLIQUE)


def run(folder, **options):
    with Session.create(folder, Volume(IMAGE, OBLIQUE), LABELS, model_probabilities()) as session:
        return annotate(LABEL_MAP, session, options.pop("budget", 4), **options)


def test_a_perfect_click_lies_in_the_middle_of_the_largest_error():
    shown = TRUTH.copy()
    shown[6:15, 14:27, 26:32] = 0
    found = Annotator(LABEL_MAP).click(shown, (1, 2))
    voxel = np.rint(OBLIQUE.to_index(found.point)).astype(int)
    assert found.positive
    assert found.label == 2
    assert TRUTH[tuple(voxel)] == 2
    assert shown[tuple(voxel)] == 0


def test_too_much_is_clicked_away_and_a_perfect_mask_is_left_alone():
    shown = TRUTH.copy()
    shown[2:9, 2:8, 2:8] = 1
    found = Annotator(LABEL_MAP).click(shown, (1, 2))
    assert (found.positive, found.label) == (False, 1)
    assert Annotator(LABEL_MAP).click(TRUTH, (1, 2)) is None


def test_an_imprecise_hand_is_off_by_two_voxels_at_most_and_sometimes_wrong():
    shown = np.zeros_like(TRUTH)
    exact = OBLIQUE.to_index(Annotator(LABEL_MAP).click(shown, (1, 2)).point)
    robot = Annotator(LABEL_MAP, imprecise=True, seed=1)
    clicks = [robot.click(shown, (1, 2)) for _ in range(200)]
    away = np.abs([OBLIQUE.to_index(c.point) - exact for c in clicks])
    assert 0 < away.max() <= 2 + 1e-6
    assert 1 <= sum(not c.positive for c in clicks) <= 25


def test_a_perfect_outline_is_the_truth_and_an_imprecise_one_nearly():
    truth = TRUTH[10] == 1
    np.testing.assert_array_equal(Annotator(LABEL_MAP).outline(1, 0, 10).mask, truth)
    drawn = Annotator(LABEL_MAP, imprecise=True).outline(1, 0, 10).mask
    overlap = 2 * (drawn & truth).sum() / (drawn.sum() + truth.sum())
    assert 0.8 < overlap < 1


def test_limits_are_the_first_and_last_slice_of_the_truth():
    assert Annotator(LABEL_MAP).limits(1, 0).indices(OBLIQUE) == (3, 17)
    assert Annotator(LabelMap(np.zeros_like(TRUTH), OBLIQUE)).limits(1, 0) is None


def test_outlines_and_clicks_make_a_models_mask_better(tmp_path):
    by_slices = run(tmp_path / "slices", prompts="slices")
    by_clicks = run(tmp_path / "clicks", prompts="clicks", budget=6)
    assert by_slices.mean[-1] > by_slices.mean[0] + 0.1
    assert by_clicks.mean[-1] > by_clicks.mean[0]
    assert by_slices.effort.boundary_pixels > 0 == by_clicks.effort.boundary_pixels
    assert len(by_slices.dice) == len(by_slices.said) == 4 + 2


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(tmp_path):
    first, again, other = (
        run(tmp_path / name, imprecise=True, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first.dice == again.dice
    assert first.dice != other.dice


def test_thick_slices_are_outlined_and_otherwise_those_across_the_longest_extent():
    assert longest_axis(LABEL_MAP, (1, 2)) == 0
    assert longest_axis(LabelMap(TRUTH, Grid(SHAPE)), (1, 2)) == 2


def test_a_truth_on_another_grid_or_without_the_labels_is_refused(tmp_path):
    with Session.create(tmp_path / "s", Volume(IMAGE, OBLIQUE), LABELS) as session:
        with pytest.raises(BadInput, match="another grid"):
            annotate(LabelMap(TRUTH, Grid(SHAPE)), session, 1)
        with pytest.raises(BadInput, match="none of the session's labels"):
            annotate(LabelMap(np.zeros_like(TRUTH), OBLIQUE), session, 1)
