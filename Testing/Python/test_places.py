"""Regions in doubt as a list of places, and how long a job will still take."""

import numpy as np
import pytest
from RefSegLib.progress import TimeLeft
from RefSegLib.quality.places import MOST, find_places

SPACING = (2.0, 1.0, 0.5)
NAMES = {1: "head", 2: "tail"}


def a_map():
    """Nothing in doubt, and a mask with two labels."""
    labels = np.zeros((12, 20, 30), np.uint8)
    labels[3:8, 4:10, 4:12] = 1
    labels[3:8, 4:10, 12:20] = 2
    return np.full(labels.shape, 0.1, np.float32), labels


def test_regions_come_by_what_is_at_stake_with_volume_doubt_and_structure():
    suspect, labels = a_map()
    suspect[4:6, 5:7, 5:9] = 0.9  # 16 voxels of 1 mm3, in the head
    suspect[4, 5, 14:19] = 0.8  # 5 voxels in the tail
    suspect[10, 18, 28] = 0.6  # one voxel in the background, nearer to the tail
    head, tail, far = find_places(suspect, labels, NAMES, SPACING)
    assert (head.structure, tail.structure, far.structure) == ("head", "tail", "tail")
    assert (head.milliliters, tail.milliliters, far.milliliters) == pytest.approx((0.016, 0.005, 0.001))
    assert (head.doubt, tail.doubt, far.doubt) == pytest.approx((0.9, 0.8, 0.6))
    assert tail.index == (4, 5, 16) and far.index == (10, 18, 28)
    assert suspect[head.index] > 0.5


def test_the_middle_of_a_bent_region_lies_in_it():
    suspect, labels = a_map()
    suspect[5, 5, 3:15] = suspect[5, 14, 3:15] = suspect[5, 5:15, 3] = 1.0  # a horseshoe: its centroid is outside
    (place,) = find_places(suspect, labels, NAMES, SPACING)
    assert suspect[place.index] == 1.0


def test_small_doubts_that_add_up_count_more_than_one_large_doubt():
    suspect, labels = a_map()
    suspect[1, 1, 1] = 1.0
    suspect[5, 5, 5:15] = 0.55
    assert [place.doubt for place in find_places(suspect, labels, NAMES, SPACING)] == pytest.approx([0.55, 1.0])


def test_diagonal_neighbors_are_one_region_and_nothing_in_doubt_is_no_place():
    suspect, labels = a_map()
    assert find_places(suspect, labels, NAMES, SPACING) == []
    suspect[1, 1, 1] = suspect[2, 2, 2] = 0.7
    assert len(find_places(suspect, labels, NAMES, SPACING)) == 1


def test_without_any_label_there_is_no_structure():
    suspect, labels = a_map()
    suspect[1, 1, 1] = 0.7
    (place,) = find_places(suspect, labels * 0, NAMES, SPACING)
    assert place.structure == "" and place.index == (1, 1, 1)


def test_only_the_most_important_places_are_listed():
    suspect, labels = a_map()
    suspect[::3, ::3, ::3] = np.linspace(0.6, 0.9, suspect[::3, ::3, ::3].size).reshape(suspect[::3, ::3, ::3].shape)
    found = find_places(suspect, labels, NAMES, SPACING)
    assert len(found) == MOST
    assert [place.doubt for place in found] == sorted((p.doubt for p in found), reverse=True)
    assert found[0].doubt == pytest.approx(0.9)


# How long a job will still take


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_the_time_left_is_unknown_at_first_then_shrinks_by_itself():
    clock = Clock()
    left = TimeLeft(clock)
    left.told(0.5)
    assert left.seconds is None  # after no time at all, anything would be a guess
    clock.now += 10
    left.told(0.01)
    assert left.seconds is None
    left.told(0.25)
    assert left.seconds == pytest.approx(30)
    clock.now += 5
    assert left.seconds == pytest.approx(25)
    clock.now += 100
    assert left.seconds == 0


def test_a_sudden_change_of_speed_is_smoothed():
    clock = Clock()
    left = TimeLeft(clock)
    clock.now += 10
    left.told(0.5)
    clock.now += 10
    left.told(0.5)
    assert 0 < left.seconds < 10
    for _ in range(50):
        left.told(0.5)
    assert left.seconds == pytest.approx(20, abs=0.1)
