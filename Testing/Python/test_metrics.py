"""Dice and surface distances against MONAI's, and at their edges."""

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from RefSegLib.errors import BadInput
from RefSegLib.quality.metrics import assd, dice, hd95, score
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import LabelMap
from scipy import ndimage


def blob(seed: int, shape=(14, 18, 16)) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    return noise > np.quantile(noise, 0.7)


def one_hot(mask: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(mask)[None, None].float()


@pytest.mark.parametrize("spacing", [(1, 1, 1), (5.0, 0.8, 0.7)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_distances_are_those_of_monai(seed, spacing):
    a, b = blob(seed), blob(seed) | blob(seed + 10)
    arguments = {"include_background": True, "spacing": list(spacing)}
    theirs = compute_hausdorff_distance(one_hot(a), one_hot(b), percentile=95, **arguments)
    assert hd95(a, b, spacing) == pytest.approx(float(theirs), rel=1e-5)
    ours = assd(a, b, spacing)
    theirs = compute_average_surface_distance(one_hot(a), one_hot(b), symmetric=True, **arguments)
    assert ours == pytest.approx(float(theirs), rel=1e-5)


def test_a_shift_is_measured_in_millimeters():
    a = np.zeros((10, 20, 20), bool)
    a[3:7, 5:12, 5:12] = True
    b = np.roll(a, 2, axis=0)
    assert hd95(a, b, (2.5, 1, 1)) == pytest.approx(5.0)
    assert dice(a, b) == pytest.approx(0.5)
    assert hd95(a, a, (2.5, 1, 1)) == assd(a, a, (2.5, 1, 1)) == 0


def test_empty_masks():
    nothing, something = np.zeros((4, 4, 4), bool), np.eye(4, dtype=bool)[None].repeat(4, 0)
    assert dice(nothing, nothing) == 1
    assert dice(nothing, something) == 0
    assert hd95(nothing, nothing, (1, 1, 1)) == assd(nothing, nothing, (1, 1, 1)) == 0
    assert math.isinf(hd95(nothing, something, (1, 1, 1)))


def test_scores_are_ready_for_json(a_grid):
    truth = np.zeros(a_grid.shape, np.uint8)
    truth[2:5, 3:8, 3:8] = 1
    truth[5:7, 3:8, 3:8] = 2
    found = np.where(truth == 2, 0, truth).astype(np.uint8)
    result = score(LabelMap(found, a_grid), LabelMap(truth, a_grid), [1, 2])
    assert result == {1: {"dice": 1.0, "hd95": 0.0, "assd": 0.0}, 2: {"dice": 0.0, "hd95": None, "assd": None}}


def test_different_grids_are_not_compared():
    a = LabelMap(np.zeros((4, 5, 6), np.uint8), Grid((4, 5, 6)))
    b = LabelMap(np.zeros((4, 5, 6), np.uint8), Grid((4, 5, 6), origin=(1, 0, 0)))
    with pytest.raises(BadInput, match="different grids"):
        score(a, b, [1])
    with pytest.raises(BadInput, match="cannot be compared"):
        dice(np.zeros((2, 2)), np.zeros((3, 3)))
