"""The session advises a plane, a slice and limits by what it sees, never by what is true."""

import numpy as np
import pytest
from annotated_case import IMAGE, LABELS, OBLIQUE, SHAPE, TRUTH, model_probabilities, outline
from InteractiveLearningLib.guidance import Suggestion
from InteractiveLearningLib.planes import plane_name
from InteractiveLearningLib.prompts import Box
from InteractiveLearningLib.session import Session
from RefSegLib.quality.metrics import dice
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import Volume


@pytest.fixture
def session(tmp_path):
    with Session.create(tmp_path / "case", Volume(IMAGE, OBLIQUE), LABELS, model_probabilities()) as made:
        yield made


def test_slices_are_called_by_the_plane_they_lie_in():
    assert [plane_name(Grid(SHAPE), axis) for axis in range(3)] == ["axial", "coronal", "sagittal"]
    flipped = Grid(SHAPE, direction=((1, 0, 0), (0, 0, -1), (0, -1, 0)))
    assert [plane_name(flipped, axis) for axis in range(3)] == ["sagittal", "axial", "coronal"]


def test_every_plane_has_a_next_slice_with_a_reason(session):
    for axis in range(3):
        found = session.suggest(1, axis)
        assert isinstance(found, Suggestion)
        assert found.axis == axis
        assert found.reason.startswith(plane_name(OBLIQUE, axis).capitalize() + f" slice {found.index} ")
        assert (np.take(session.labels().array, found.index, axis) == 1).any()


def test_the_handiest_plane_is_the_one_with_the_fewest_slices_until_one_is_begun(session):
    found = np.nonzero(session.labels().array)
    assert session.handiest_axis() == int(np.argmin([np.ptp(a) for a in found])) == 0
    session.apply(outline(20, 1, axis=1))
    assert session.handiest_axis() == 1
    assert session.suggest(1).axis == 1


def test_of_several_labels_no_slice_is_asked_for_twice_and_all_are_counted(session):
    asked = []
    while not isinstance(found := session.suggest(), str):
        assert found.index not in asked
        asked.append(found.index)
        session.apply([outline(found.index, label, found.axis) for label in (1, 2)])
    assert len(asked) >= 3
    assert min(dice(session.labels().array == label, np.equal(TRUTH, label)) for label in (1, 2)) > 0.95


def test_limits_are_proposed_from_the_model_the_box_or_the_image(tmp_path, session):
    at = np.nonzero((session.labels().array == 1).any(axis=(1, 2)))[0]
    assert session.propose_limits(1, 0).indices(OBLIQUE) == (at[0], at[-1])
    with Session.create(tmp_path / "new", Volume(IMAGE, OBLIQUE), LABELS) as new:
        assert new.propose_limits(1, 0) is None
        true = np.nonzero((TRUTH == 1).any(axis=(1, 2)))[0]
        new.apply([outline(int(true[2]), 1), outline(int(true[-3]), 1)])
        low, high = new.propose_limits(1, 0).indices(OBLIQUE)
        assert abs(low - true[0]) <= 2
        assert abs(high - true[-1]) <= 2
        new.apply(Box((tuple(OBLIQUE.to_world((1, 2, 3))), tuple(OBLIQUE.to_world((18, 30, 30)))), 1))
        assert new.propose_limits(1, 0).indices(OBLIQUE) == (1, 18)


def test_a_stray_island_of_the_model_does_not_move_the_proposed_limits(tmp_path):
    probabilities = model_probabilities().copy()
    before = np.nonzero((probabilities.argmax(axis=0) == 1).any(axis=(1, 2)))[0]
    probabilities[:, 0, 1, 1] = (0.1, 0.9, 0)
    with Session.create(tmp_path / "stray", Volume(IMAGE, OBLIQUE), LABELS, probabilities) as session:
        assert session.propose_limits(1, 0).indices(OBLIQUE) == (before[0], before[-1])
