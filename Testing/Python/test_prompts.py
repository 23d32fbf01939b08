"""Prompts are values in patient space that survive JSON and another grid."""

import json

import numpy as np
import pytest
from InteractiveLearningLib.prompts import Box, Click, Limits, Outline, Scribble, from_dict, name_of, to_dict
from RefSegLib.errors import BadInput

MASK = np.arange(12 * 7).reshape(12, 7) % 3 == 0


def every_prompt(grid):
    return [
        Click((1.5, -2.0, 3.25), True, 2, 1),
        Scribble(((0.0, 0.0, 0.0), (1.0, 2.0, 3.0)), False, 1),
        Box(((0.0, 0.0, 0.0), (5.0, 6.0, 7.0)), 1),
        Limits.on(grid, 0, 1, 4, 1),
        Outline.on(grid, 0, 3, MASK[: grid.shape[1], : grid.shape[2]], 2),
    ]


def test_every_prompt_comes_back_from_json_as_it_was(a_grid):
    for prompt in every_prompt(a_grid):
        assert from_dict(json.loads(json.dumps(to_dict(prompt)))) == prompt


def test_limits_are_the_slices_they_were_marked_in_on_every_grid_and_in_any_order(a_grid):
    for axis in range(3):
        last = a_grid.shape[axis] - 2
        assert Limits.on(a_grid, axis, 2, last, 1).indices(a_grid) == (2, last)
        assert Limits.on(a_grid, axis, last, 2, 1).indices(a_grid) == (2, last)


def test_the_plane_of_an_outline_lies_where_its_slice_lies(a_grid):
    plane = Outline.on(a_grid, 1, 5, np.ones((a_grid.shape[0], a_grid.shape[2])), 1).plane
    assert plane.shape[1] == 1
    np.testing.assert_allclose(plane.to_world((2, 0, 3)), a_grid.to_world((2, 5, 3)))


def test_an_outline_cannot_be_changed_after_it_was_drawn():
    mask = np.zeros((4, 4), bool)
    outline = Outline(0, 1, mask, 1)
    mask[:] = True
    assert not outline.mask.any()
    with pytest.raises(ValueError, match="read-only"):
        outline.mask[0, 0] = True


@pytest.mark.parametrize(
    "values", [{}, {"kind": "lasso"}, {"kind": "click", "point": [1, 2], "positive": 1, "label": 1}]
)
def test_what_is_no_prompt_is_refused_in_words(values):
    with pytest.raises(BadInput):
        from_dict(values)


def test_a_damaged_mask_is_refused_in_words():
    values = to_dict(Outline(0, 1, MASK, 1)) | {"bits": "AAAA"}
    with pytest.raises(BadInput, match="not a prompt"):
        from_dict(values)


def test_points_that_are_not_numbers_are_refused():
    with pytest.raises(BadInput, match="finite"):
        Click((0.0, float("nan"), 0.0), True, 1)


def test_undo_can_say_what_it_takes_back():
    assert name_of(Outline(0, 12, MASK, 1), "anterior") == "outline of slice 12 of anterior"
    assert name_of(Click((0, 0, 0), False, 1), "liver") == "negative click for liver"
