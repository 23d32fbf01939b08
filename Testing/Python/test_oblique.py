"""Slices of oblique views: where they lie, what is drawn in them, and that every voxel on them stays as drawn."""

import numpy as np
import pytest
from annotated_case import IMAGE, LABELS, OBLIQUE, SHAPE, TRUTH, model_probabilities
from InteractiveLearningLib.curves import outline_of
from InteractiveLearningLib.frames import frame_of, mask_on, plane_through, sample_slice, view_of, voxels_on
from InteractiveLearningLib.prompts import Click, Lasso, ObliqueOutline, Outline
from InteractiveLearningLib.session import Session
from RefSegLib.errors import BadInput
from RefSegLib.quality.metrics import dice
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import Volume


def leaning(grid, axis=0, other=1, degrees=30):
    """A normal between two axes of a grid."""
    direction, turn = np.asarray(grid.direction), np.radians(degrees)
    return tuple(np.cos(turn) * direction[axis] + np.sin(turn) * direction[other])


def drawn_on(grid, normal, index, truth):
    """The outline a perfect hand draws in slice `index` of the oblique view, on a plane of the view's own pixels."""
    frame = frame_of(grid, normal)
    plane = frame.crop((index, 0, 0), (index + 1, *frame.shape[1:]))
    fine = plane.with_spacing((plane.spacing[0], plane.spacing[1] / 2, plane.spacing[2] / 2))
    mask = sample_slice(truth.astype(np.uint8), grid, fine, 0, nearest=True).astype(bool)
    return ObliqueOutline(mask, 1, fine)


def test_a_view_along_an_axis_is_that_axis_whichever_side_it_is_seen_from(a_grid):
    for axis in range(3):
        for sign in (1, -1):
            assert view_of(a_grid, None, tuple(sign * np.asarray(a_grid.direction[axis]))) == axis
    assert view_of(a_grid, 2, None) == 2
    assert view_of(a_grid, None, None) is None


def test_the_frame_of_an_oblique_view_covers_the_image_and_looks_along_the_normal(a_grid):
    frame = frame_of(a_grid, leaning(a_grid))
    assert abs(np.dot(frame.direction[0], leaning(a_grid))) == pytest.approx(1)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in a_grid.shape])).reshape(3, -1).T
    places = frame.to_index(a_grid.to_world(corners))
    assert (places > -0.51).all()
    assert (places < np.asarray(frame.shape) - 0.49).all()


def test_both_sides_of_a_plane_are_the_same_slice(a_grid):
    normal = leaning(a_grid)
    session_click = Click((0, 0, 0), True, 1, normal=normal)
    other = Click((0, 0, 0), True, 1, normal=tuple(-np.asarray(normal)))
    np.testing.assert_allclose(session_click.normal, other.normal)


def test_a_slice_of_a_frame_shows_what_lies_there(a_grid):
    values = np.einsum("a,a...->...", (1.0, 2.0, -1.5), np.indices(a_grid.shape))
    frame = frame_of(a_grid, leaning(a_grid))
    seen = sample_slice(values, a_grid, frame, frame.shape[0] // 2)
    for row, column in ((frame.shape[1] // 2, frame.shape[2] // 2), (frame.shape[1] // 2 + 1, frame.shape[2] // 2 - 2)):
        place = a_grid.to_index(frame.to_world((frame.shape[0] // 2, row, column)))
        if (place >= 0).all() and (place <= np.asarray(a_grid.shape) - 1).all():
            assert seen[row, column] == pytest.approx(np.dot((1.0, 2.0, -1.5), place), abs=1e-3)


def test_every_voxel_that_lies_on_an_oblique_slice_is_told_what_was_drawn_there(a_grid):
    frame = frame_of(a_grid, leaning(a_grid))
    index = frame.shape[0] // 2
    mask = np.zeros(frame.shape[1:], bool)
    mask[: frame.shape[1] // 2] = True
    at, said = voxels_on(frame, index, mask, a_grid)
    places = frame.to_index(a_grid.to_world(np.stack(at, axis=-1)))
    assert len(places)
    assert (np.abs(places[:, 0] - index) * frame.spacing[0] <= min(a_grid.spacing) / 2 + 1e-6).all()
    clear = np.abs(places[:, 1] - (frame.shape[1] // 2 - 0.5)) > 1e-6
    np.testing.assert_array_equal(said[clear], (places[:, 1] < frame.shape[1] // 2 - 0.5)[clear])
    number, back = mask_on(mask, frame.crop((index, 0, 0), (index + 1, *mask.shape)), frame)
    assert number == index
    np.testing.assert_array_equal(back, mask)


@pytest.fixture
def session(tmp_path):
    with Session.create(tmp_path / "case", Volume(IMAGE, OBLIQUE), LABELS, model_probabilities()) as made:
        yield made


def test_an_oblique_outline_stays_as_drawn_and_makes_the_mask_better_around_it(session):
    normal, before = leaning(OBLIQUE), session.labels().array
    outline = drawn_on(OBLIQUE, normal, frame_of(OBLIQUE, normal).shape[0] // 2, TRUTH == 1)
    session.apply(outline)
    after = session.labels().array
    at, drawn = voxels_on(outline.plane, 0, outline.mask, OBLIQUE)
    assert drawn.any()
    np.testing.assert_array_equal((after == 1)[at], drawn)
    assert dice(after == 1, TRUTH == 1) > dice(before == 1, TRUTH == 1)
    assert session.undo_name == "outline of an oblique slice of left part"
    session.undo()
    np.testing.assert_array_equal(session.labels().array, before)


def test_three_oblique_outlines_of_an_unknown_structure_make_a_mask_of_it(tmp_path):
    normal = leaning(OBLIQUE)
    with Session.create(tmp_path / "new", Volume(IMAGE, OBLIQUE), LABELS) as session:
        middle = frame_of(OBLIQUE, normal).shape[0] // 2
        session.apply([drawn_on(OBLIQUE, normal, index, TRUTH == 1) for index in (middle - 14, middle, middle + 14)])
        assert dice(session.labels().array == 1, TRUTH == 1) > 0.85
        again = tmp_path / "new"
        mask = session.labels().array
    with Session.open(again) as session:
        np.testing.assert_array_equal(session.labels().array, mask)


def test_clicks_and_lassos_of_oblique_views_work_in_their_own_slice(session):
    normal = leaning(OBLIQUE)
    point = tuple(OBLIQUE.to_world((10, 10, 15)))
    before = session.labels().array
    assert before[10, 10, 15] == 0
    session.apply(Click(point, True, 1, normal=normal))
    assert session.labels().array[10, 10, 15] == 1
    frame = frame_of(OBLIQUE, normal)
    row, column = (float(v) for v in frame.to_index(point)[1:])
    index = round(float(frame.to_index(point)[0]))
    around = [tuple(frame.to_world((index, row + dr, column + dc))) for dr, dc in ((-3, -3), (-3, 3), (3, 3), (3, -3))]
    session.apply(Lasso(tuple(around), False, 1, normal=normal))
    assert session.labels().array[10, 10, 15] == 0


def test_a_curve_in_a_slice_of_the_image_is_its_outline_on_every_grid(a_grid):
    shape = a_grid.shape
    for axis in range(3):
        rows, columns = (n for a, n in enumerate(shape) if a != axis)
        index = shape[axis] // 2
        turn = np.linspace(0, 2 * np.pi, 9)[:-1]
        pixels = np.stack([rows / 2 + rows / 4 * np.sin(turn), columns / 2 + columns / 4 * np.cos(turn)], -1)
        points = [tuple(a_grid.to_world(np.insert(p, axis, index + 0.2))) for p in pixels]
        found = outline_of(a_grid, points, 3)
        assert isinstance(found, Outline)
        assert (found.axis, found.index, found.label) == (axis, index, 3)
        expected = np.hypot(
            (np.arange(rows)[:, None] - rows / 2) * 4 / rows, (np.arange(columns) - columns / 2) * 4 / columns
        )
        assert dice(found.mask, expected < 1) > 0.85


def test_a_curve_in_an_oblique_plane_is_an_oblique_outline():
    frame = frame_of(OBLIQUE, leaning(OBLIQUE))
    middle = np.asarray(frame.shape) / 2
    turn = np.linspace(0, 2 * np.pi, 11)[:-1]
    points = [tuple(frame.to_world(middle + np.array([0, 8 * np.sin(t), 12 * np.cos(t)]))) for t in turn]
    found = outline_of(OBLIQUE, points, 1)
    assert isinstance(found, ObliqueOutline)
    area = found.mask.sum() * found.plane.spacing[1] * found.plane.spacing[2]
    assert area == pytest.approx(np.pi * 8 * 12, rel=0.05)
    assert abs(np.dot(found.plane.direction[0], frame.direction[0])) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("places", "why"),
    [
        ([(5, 5, 5), (5, 6, 6)], "three"),
        ([(1, 5, 5), (2, 6, 6), (3, 7, 7), (4, 8, 8)], "one line"),
        ([(5, 5, 90), (5, 9, 95), (5, 7, 99)], "outside"),
    ],
)
def test_a_curve_that_is_none_is_refused_with_a_reason(places, why):
    with pytest.raises(BadInput, match=why):
        outline_of(OBLIQUE, [tuple(OBLIQUE.to_world(p)) for p in places], 1)


def test_the_plane_through_points_holds_them_all():
    grid = Grid(SHAPE)
    points = [tuple(grid.to_world(p)) for p in ((2, 3, 4), (8, 3, 4), (2, 9, 10), (8, 9, 10))]
    plane = plane_through(points, 0.5)
    inside = plane.to_index(points)
    assert np.abs(inside[:, 0]).max() < 1e-6
    assert (inside >= -1e-6).all()
    assert (inside[:, 1:] <= np.asarray(plane.shape[1:]) - 1).all()
