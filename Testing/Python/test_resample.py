"""From one grid to another."""

from itertools import permutations, product

import numpy as np
import pytest
from RefSegLib.errors import BadInput
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.resample import grid_of, resample_array, resample_labels, resample_volume, to_sitk
from RefSegLib.volume.volume import LabelMap, Volume


def some_labels(grid: Grid) -> LabelMap:
    return LabelMap(np.random.default_rng(1).integers(0, 300, grid.shape, np.uint16), grid)


def turned(array: np.ndarray, grid: Grid, order: tuple, flips: tuple) -> tuple[np.ndarray, Grid]:
    """The same voxels at the same places, stored in another order."""
    corner = [n - 1 if flip else 0 for n, flip in zip(grid.shape, flips, strict=True)]
    signs = [-1 if flip else 1 for flip in flips]
    stored = np.flip(array, [axis for axis in range(3) if flips[axis]]).transpose(order)
    directions = [tuple(signs[axis] * np.array(grid.direction[axis])) for axis in order]
    return stored, Grid(stored.shape, [grid.spacing[axis] for axis in order], directions, grid.to_world(corner))


def test_nothing_is_touched_where_the_grids_agree(a_grid):
    labels = some_labels(a_grid)
    again = Grid.from_dict(a_grid.to_dict())
    image = labels.array.astype(np.float32)
    assert resample_array(image, a_grid, again) is image
    assert resample_labels(labels, again).array is labels.array
    assert np.shares_memory(resample_volume(Volume(image, a_grid), again).array, image)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_labels_survive_every_order_and_flip_of_the_axes_voxel_for_voxel(a_grid, order):
    labels = some_labels(a_grid)
    for flips in product((False, True), repeat=3):
        stored, grid = turned(labels.array, a_grid, order, flips)
        there = resample_labels(labels, grid)
        np.testing.assert_array_equal(there.array, stored)
        assert there.array.dtype == np.uint16
        np.testing.assert_array_equal(resample_labels(there, a_grid).array, labels.array)


def test_images_survive_turning_upright_and_back(a_grid):
    image = np.random.default_rng(2).normal(size=(2, *a_grid.shape)).astype(np.float32)
    upright = resample_volume(Volume(image, a_grid), a_grid.aligned_to_lps())
    assert upright.grid.same_as(a_grid.aligned_to_lps())
    np.testing.assert_allclose(resample_volume(upright, a_grid).array, image, atol=1e-4)


def test_a_straight_slope_in_the_patient_stays_one_on_a_finer_grid(a_grid):
    slope = np.array([0.3, -0.2, 0.5])

    def values(grid: Grid) -> np.ndarray:
        index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)
        return (grid.to_world(index) @ slope).astype(np.float32)

    finer = a_grid.with_spacing(np.array(a_grid.spacing) / 2)
    found = resample_volume(Volume(values(a_grid), a_grid), finer).array[0]
    inner = (slice(1, -1),) * 3  # the outermost half voxel has no neighbor to be between
    np.testing.assert_allclose(found[inner], values(finer)[inner], atol=1e-3)


def test_outside_the_image_stands_its_smallest_value_or_the_one_asked_for(a_grid):
    image = np.random.default_rng(3).uniform(5, 9, a_grid.shape).astype(np.float32)
    wide = a_grid.crop((-2, 0, 0), a_grid.shape)
    assert (resample_volume(Volume(image, a_grid), wide).array[0, :2] == image.min()).all()
    assert (resample_volume(Volume(image, a_grid), wide, outside=-7.0).array[0, :2] == -7).all()
    assert (resample_labels(some_labels(a_grid), wide).array[:2] == 0).all()


@pytest.mark.parametrize("kind", ["bool", "float16", ">i2", ">f4", "<u2", "int64", "uint8"])
def test_every_type_of_numpy_can_be_resampled(kind):
    grid = Grid((4, 5, 6))
    array = np.random.default_rng(4).integers(0, 2, grid.shape).astype(kind)
    found = resample_array(array, grid, grid.crop((1, 1, 1), (3, 4, 5)), nearest=True)
    np.testing.assert_array_equal(found, array[1:3, 1:4, 1:5])


def test_simpleitk_images_lie_where_the_grid_says(a_grid):
    labels = some_labels(a_grid)
    image = to_sitk(labels.array, a_grid)
    assert grid_of(image) == a_grid
    assert image[4, 3, 2] == labels.array[2, 3, 4]


def test_voxels_that_do_not_fit_their_grid_are_told():
    with pytest.raises(BadInput, match="do not fit"):
        Volume(np.zeros((3, 4, 5)), Grid((3, 4, 6)))
    with pytest.raises(BadInput, match="does not fit"):
        LabelMap(np.zeros((3, 4, 5), np.uint8), Grid((3, 4, 6)))
    with pytest.raises(BadInput, match="whole numbers"):
        LabelMap(np.zeros((3, 4, 5), np.float32), Grid((3, 4, 5)))


def test_an_image_that_cannot_be_segmented_is_told():
    grid = Grid((3, 4, 5))
    image = np.arange(60, dtype=np.float32).reshape(grid.shape)
    Volume(image, grid).check()
    with pytest.raises(BadInput, match="same value"):
        Volume(np.ones(grid.shape), grid).check()
    image[1, 1, 1], image[2, 2, 2] = np.nan, np.inf
    with pytest.raises(BadInput, match="2 voxels that are not numbers"):
        Volume(image, grid).check("The scan")
