"""The next slice comes with a reason, without knowing the truth, and at some point there is none."""

import numpy as np
from InteractiveLearningLib.guidance import Suggestion, candidates, next_slice, residual_map

SHAPE = (40, 20, 20)


def column(first, last, size=5):
    found = np.zeros(SHAPE, np.float32)
    found[first : last + 1, 5 : 5 + size, 5:10] = 0.9
    return found


def test_the_first_slice_is_the_middle_between_the_limits():
    found = next_slice(0, (), None, limits=(10, 30), shape=SHAPE)
    assert (found.axis, found.index) == (0, 20)
    assert "middle" in found.reason


def test_without_limits_only_slices_where_somebody_sees_something_are_asked_for():
    assert candidates(0, SHAPE, None, column(12, 20), None) == (10, 22)
    assert candidates(0, SHAPE, column(15, 30), column(12, 20), None) == (10, 32)
    assert candidates(0, SHAPE, None, None, None) == (0, 39)


def test_the_widest_part_without_an_outline_is_asked_for_next():
    found = next_slice(0, (12, 15, 18), column(10, 38), limits=(10, 38), shape=SHAPE)
    assert 18 < found.index <= 38


def test_inside_the_gap_the_residual_pulls_towards_disagreement():
    proxy, model = column(0, 39), column(0, 39)
    model[25:27] = 0
    found = next_slice(0, (5, 33), proxy, model, limits=(0, 39), shape=SHAPE)
    plain = next_slice(0, (5, 33), proxy, limits=(0, 39), shape=SHAPE)
    assert plain.index == 19
    assert found.index >= 24
    assert "disagree" in found.reason
    assert found.residual.max() == 1


def test_bisection_never_asks_twice_and_ends_with_a_sentence():
    proxy, asked = column(0, 39), []
    for _ in range(100):
        found = next_slice(0, tuple(asked), proxy, limits=(3, 36), shape=SHAPE)
        if isinstance(found, str):
            break
        assert found.index not in asked
        assert 3 <= found.index <= 36
        asked.append(found.index)
    assert found.startswith("Nothing more is worth asking")
    assert len(asked) < 34


def test_nothing_is_asked_where_model_and_outlines_agree():
    mask = np.where(column(5, 30) > 0.5, 1.0, 0.0).astype(np.float32)
    assert isinstance(next_slice(0, (10, 25), mask, mask, limits=(5, 30), shape=SHAPE), str)


def test_a_suspect_map_counts_as_disagreement():
    suspect = np.zeros(SHAPE, np.float32)
    suspect[22] = 1
    proxy = np.where(column(5, 35) > 0.5, 1.0, 0.0).astype(np.float32)
    found = next_slice(0, (10, 30), proxy, proxy, limits=(5, 35), suspect=suspect, shape=SHAPE)
    assert isinstance(found, Suggestion)
    assert found.index == 22
    assert residual_map(None, None) is None
