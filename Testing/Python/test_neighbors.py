"""Locked segments and the editable area hold: nothing outside of what was meant changes, and no case is too odd."""

import numpy as np
import pytest
from annotated_case import IMAGE, LABELS, OBLIQUE, SHAPE, TRUTH, click, model_probabilities, outline
from InteractiveLearningLib.prompts import Box, Lasso, Limits, Outline, Scribble
from InteractiveLearningLib.session import Session
from RefSegLib.errors import BadInput
from RefSegLib.quality.metrics import dice
from RefSegLib.volume.volume import Volume


@pytest.fixture
def session(tmp_path):
    with Session.create(tmp_path / "case", Volume(IMAGE, OBLIQUE), LABELS, model_probabilities()) as made:
        yield made


def every_prompt():
    ring = tuple(tuple(OBLIQUE.to_world(p)) for p in ((9, 8, 10), (9, 8, 34), (9, 33, 34), (9, 33, 10)))
    return [
        outline(10, 1),
        Outline.on(OBLIQUE, 0, 12, np.ones(SHAPE[1:], bool), 1),
        click(6, 9, 15, True, 1),
        click(10, 24, 10, False, 1),
        Scribble(tuple(tuple(OBLIQUE.to_world((8, 12, i))) for i in (14, 16, 18)), True, 1, 0),
        Lasso(ring, True, 1, 0),
        Limits.on(OBLIQUE, 2, 8, 17, 1),
        Box((tuple(OBLIQUE.to_world((3, 5, 5))), tuple(OBLIQUE.to_world((17, 30, 30)))), 1),
    ]


@pytest.mark.parametrize("number", range(8))
def test_a_locked_label_neither_gains_nor_loses_a_voxel(session, number):
    before = session.labels().array == 2
    session.apply(every_prompt()[number], locked={2})
    np.testing.assert_array_equal(session.labels().array == 2, before)


@pytest.mark.parametrize("number", range(8))
def test_nothing_changes_outside_the_editable_area(session, number):
    editable = np.zeros(SHAPE, bool)
    editable[4:11, 5:30, 6:24] = True
    before = session.labels().array
    session.apply(every_prompt()[number], editable=editable)
    np.testing.assert_array_equal(session.labels().array[~editable], before[~editable])


def test_what_protected_other_voxels_is_undone_redone_and_replayed_with_the_prompt(session):
    editable = np.zeros(SHAPE, bool)
    editable[:11] = True
    seen = [session.labels().array]
    for number, prompt in enumerate(every_prompt()):
        session.apply(prompt, editable=editable if number % 2 else None, locked={2} if number % 3 else ())
        seen.append(session.labels().array)
    folder = session.folder
    for expected in seen[-2::-1]:
        session.undo()
        np.testing.assert_array_equal(session.labels().array, expected)
    for expected in seen[1:]:
        session.redo()
        np.testing.assert_array_equal(session.labels().array, expected)
    session.close()
    with Session.open(folder) as again:
        np.testing.assert_array_equal(again.labels().array, seen[-1])


def test_a_prompt_that_could_not_be_obeyed_is_refused_with_a_reason(session):
    before, nowhere = session.labels().array, np.zeros(SHAPE, bool)
    with pytest.raises(BadInput, match="'left part' is locked"):
        session.apply(outline(10, 1), locked={1})
    with pytest.raises(BadInput, match="inside 'right part', which is locked"):
        session.apply(click(10, 22, 23, True, 1), locked={2})
    with pytest.raises(BadInput, match="editable area"):
        session.apply(click(10, 8, 18, True, 1), editable=nowhere)
    with pytest.raises(BadInput, match="does not fit"):
        session.apply(outline(10, 1), editable=np.ones((2, 2, 2), bool))
    with pytest.raises(BadInput, match="Nothing was said"):
        session.apply([])
    np.testing.assert_array_equal(session.labels().array, before)
    assert session.undo_name is None


def test_prompts_given_at_once_are_one_step(session):
    before = session.labels().array
    session.apply([outline(8, 1), outline(8, 2), outline(12, 1)])
    after = session.labels().array
    np.testing.assert_array_equal(after[8], TRUTH[8])
    assert session.undo_name == "outline of slice 8 of left part and 2 more"
    session.undo()
    np.testing.assert_array_equal(session.labels().array, before)
    session.redo()
    np.testing.assert_array_equal(session.labels().array, after)
    assert len(session.prompts()) == 3


def test_of_prompts_given_at_once_all_hold_or_none(session):
    before = session.labels().array
    with pytest.raises(BadInput, match="outside"):
        session.apply([outline(8, 2), Lasso(((900.0, 0, 0), (901.0, 0, 0), (900.0, 1, 0)), True, 1, 0)])
    np.testing.assert_array_equal(session.labels().array, before)
    assert session.prompts() == []


def test_a_lasso_keeps_what_is_inside_and_a_negative_one_takes_it_away(session):
    corners = ((10, 4, 4), (10, 4, 40), (10, 22, 40), (10, 22, 4))
    ring = tuple(tuple(OBLIQUE.to_world(p)) for p in corners)
    session.apply(Lasso(ring, True, 1, 0))
    after = session.labels().array
    assert not (after[10, 24:] == 1).any()
    session.apply(Lasso(ring, False, 1, 0))
    assert not (session.labels().array[10, 5:21] == 1).any()


def test_a_box_around_a_structure_no_model_knows_is_a_first_guess_within_it(tmp_path):
    found = np.nonzero(TRUTH == 1)
    low, high = (np.array([f(a) for a in found]) + d for f, d in ((np.min, -2), (np.max, 2)))
    with Session.create(tmp_path / "new", Volume(IMAGE, OBLIQUE), LABELS) as session:
        session.apply(Box((tuple(OBLIQUE.to_world(low)), tuple(OBLIQUE.to_world(high))), 1))
        mask = session.labels().array == 1
        assert dice(mask, TRUTH == 1) > 0.5
        outside = np.ones(SHAPE, bool)
        outside[tuple(slice(max(a, 0), b + 1) for a, b in zip(low, high, strict=True))] = False
        assert not mask[outside].any()
