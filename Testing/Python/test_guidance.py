"""The next slice comes with a reason, without knowing the truth, and at some point there is none."""

import numpy as np
from InteractiveLearningLib.guidance import candidates, next_slice, profile_of, residual_map

SHAPE = (40, 20, 20)


def column(first, last, size=5, sure=0.9):
    found = np.zeros(SHAPE, np.float32)
    found[first : last + 1, 5 : 5 + size, 5:10] = sure
    return found


def alone(proxy, suspect=None):
    """What is known without a model."""
    return profile_of(0, proxy, proxy, None, suspect)


def test_the_first_slice_is_the_middle_between_the_limits():
    index, reason, _ = next_slice((), alone(column(0, 39)), limits=(10, 30), plane="axial")
    assert index == 20
    assert reason == "Axial slice 20 is the middle of the structure."


def test_without_limits_only_slices_where_somebody_sees_something_are_asked_for():
    nothing = np.zeros(SHAPE, np.float32)
    assert candidates(profile_of(0, nothing, None, column(12, 20)), None) == (10, 22)
    assert candidates(profile_of(0, nothing, column(15, 30), column(12, 20)), None) == (10, 32)
    assert candidates(profile_of(0, nothing, None, None), None) == (0, 39)


def test_without_a_model_the_widest_part_without_an_outline_is_halved():
    index, reason, gap = next_slice((5, 33), alone(column(0, 39)), limits=(0, 39))
    assert index == 19
    assert gap == 13.5
    assert "widest part without an outline (27 slices)" in reason
    assert 18 < next_slice((12, 15, 18), alone(column(10, 38)), limits=(10, 38))[0] < 38


def test_bisection_never_asks_twice_and_ends_with_a_sentence():
    asked = []
    for _ in range(100):
        found = next_slice(tuple(asked), alone(column(0, 39)), limits=(3, 36))
        if isinstance(found, str):
            break
        assert found[0] not in asked
        assert 3 <= found[0] <= 36
        asked.append(found[0])
    assert found.startswith("Nothing more is worth asking")
    assert len(asked) < 34


def test_with_a_model_the_slice_in_doubt_is_asked_for():
    shown = column(0, 39, sure=1.0)
    shown[25, 5:10, 5:10] = 0.6
    index, reason, _ = next_slice((5, 33), profile_of(0, shown, shown, shown), limits=(0, 39))
    assert index == 25
    assert "least certain" in reason


def test_the_slice_where_model_and_outlines_disagree_is_asked_for():
    shown, proxy, model = column(0, 39, sure=0.93), column(0, 39, sure=1.0), column(0, 39, sure=1.0)
    model[28] = 0
    index, reason, _ = next_slice((5, 33), profile_of(0, shown, proxy, model), limits=(0, 39))
    assert index == 28
    assert "the model and the outlines disagree" in reason


def test_of_slices_equally_in_doubt_one_far_from_the_outlines_is_asked_for():
    shown = column(0, 39, sure=0.8)
    index, _, _ = next_slice((5, 33), profile_of(0, shown, shown, shown), limits=(0, 39))
    assert min(abs(index - n) for n in (5, 33, -1, 40)) >= 4


def test_what_reflection_suspects_is_asked_for_with_and_without_a_model():
    suspect, sure = np.zeros(SHAPE, np.float32), column(5, 35, sure=1.0)
    suspect[22] = 1
    for model in (sure, None):
        index, reason, _ = next_slice((10, 30), profile_of(0, sure, sure, model, suspect), limits=(5, 35))
        assert index == 22
        assert "reflection doubts" in reason


def test_nothing_is_asked_where_nothing_is_in_doubt():
    mask = column(5, 30, sure=1.0)
    shown = mask.copy()
    shown[20, 5, 5:8] = 0.9
    assert "no slice without an outline is in doubt" in next_slice(
        (10, 25), profile_of(0, shown, mask, mask), limits=(5, 30)
    )


def test_the_doubts_about_several_labels_add_up():
    one, two = column(0, 39, sure=1.0), column(0, 39, sure=1.0)
    one[12, 5:8, 5:10], two[12, 5:8, 5:10] = 0.7, 0.7
    one[30, 5:9, 5:10] = 0.7
    both = profile_of(0, one, one, one) + profile_of(0, two, two, two)
    assert next_slice((20,), profile_of(0, one, one, one), limits=(0, 39))[0] == 30
    assert next_slice((20,), both, limits=(0, 39))[0] == 12


def test_the_residual_map_is_one_where_model_and_outlines_disagree_most():
    proxy, model = column(0, 39), column(0, 20)
    residual = residual_map(proxy, model)
    assert residual.max() == 1
    assert residual[:21].max() == 0
    assert residual_map(None, None) is None
