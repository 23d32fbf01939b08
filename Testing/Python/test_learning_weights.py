"""How much a voxel of an accepted case is believed."""

import sys
from pathlib import Path

import numpy as np
from InteractiveLearningLib.weights import LEAST, distance, voxel_weights
from RefSegLib.volume.grid import Grid

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from tiny_learning import a_ball_case, an_image

CONFIDENCE = np.full((16, 16, 16), 0.5, np.float32)


def test_a_full_mask_is_believed_everywhere():
    weights = voxel_weights(a_ball_case("p", 0), reach=5, emphasis=2)
    assert weights.dtype == np.float32 and (weights == 1).all()


def test_distance_is_in_millimeters_from_the_nearest_annotated_slice():
    image, labels = an_image(0, Grid((8, 16, 16), (4, 1, 2)))
    case = a_ball_case("p", 0, image=image, labels=labels, annotated=((0, 2), (0, 6), (2, 15)))
    found = distance(case)
    assert found[2].max() == 0 and found[:, :, 15].max() == 0
    assert found[4, 0, 0] == 8 and found[0, 0, 0] == 8 and found[4, 0, 14] == 2
    assert np.isinf(distance(a_ball_case("p", 0))).all()


def test_a_voxel_counts_half_at_the_reach_and_twice_where_it_was_drawn():
    case = a_ball_case("p", 0, confidence=np.ones_like(CONFIDENCE), annotated=((1, 3),))
    weights = voxel_weights(case, reach=4, emphasis=1)
    assert (weights[:, 3] == 2).all() and np.allclose(weights[:, 7], 0.5) and np.allclose(weights[:, 15], 0.25)


def test_confidence_counts_unless_it_is_switched_off_and_never_falls_to_nothing():
    confidence = CONFIDENCE.copy()
    confidence[0] = 0
    case = a_ball_case("p", 0, confidence=confidence, annotated=((0, 8),))
    weights = voxel_weights(case)
    assert (weights[0] == np.float32(LEAST)).all() and (weights[1:] == 0.5).all()
    assert (voxel_weights(case, confidence=False) == 1).all()


def test_a_case_without_outlines_is_weighted_by_confidence_alone():
    assert (voxel_weights(a_ball_case("p", 0, confidence=CONFIDENCE), reach=4, emphasis=1) == 0.5).all()
