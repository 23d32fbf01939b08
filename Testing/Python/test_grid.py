"""Grid: where voxels lie in the patient."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import vtk
from hypothesis import given, settings
from hypothesis import strategies as st
from RefSegLib.errors import BadInput
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.resample import grid_of, to_sitk
from scipy.spatial.transform import Rotation
from vtk.util.numpy_support import vtk_to_numpy

numbers = st.floats(-500, 500)
sizes = st.floats(0.1, 8)


@st.composite
def grids(draw):
    """Any grid a scanner could write, left-handed ones too."""
    quaternion = np.array([draw(st.floats(-1, 1)) for _ in range(4)])
    turn = Rotation.from_quat(quaternion if np.linalg.norm(quaternion) > 0.1 else [0, 0, 0, 1]).as_matrix()
    turn[draw(st.integers(0, 2))] *= draw(st.sampled_from([-1, 1]))
    shape = tuple(draw(st.integers(1, 9)) for _ in range(3))
    return Grid(shape, [draw(sizes) for _ in range(3)], turn, [draw(numbers) for _ in range(3)])


def all_indices(grid: Grid) -> np.ndarray:
    return np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1).reshape(-1, 3)


def matrix_of(node) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def test_indices_and_places_in_the_patient_are_inverse_to_each_other(a_grid):
    index = np.random.default_rng(0).uniform(-3, 20, (50, 3))
    np.testing.assert_allclose(a_grid.to_index(a_grid.to_world(index)), index, atol=1e-9)


def test_a_step_along_an_axis_is_its_spacing_along_its_direction(a_grid):
    for axis in range(3):
        step = a_grid.to_world(np.eye(3)[axis]) - a_grid.to_world([0, 0, 0])
        np.testing.assert_allclose(step, a_grid.spacing[axis] * np.array(a_grid.direction[axis]), atol=1e-9)
    np.testing.assert_array_equal(a_grid.to_world([0, 0, 0]), a_grid.origin)


def test_extent_and_voxel_volume_agree(a_grid):
    assert np.prod(a_grid.extent) == pytest.approx(a_grid.voxel_volume * np.prod(a_grid.shape))


def test_a_grid_survives_json_bit_for_bit(a_grid):
    again = Grid.from_dict(json.loads(json.dumps(a_grid.to_dict())))
    assert again == a_grid and hash(again) == hash(a_grid)


@settings(max_examples=60, deadline=None)
@given(grids())
def test_any_grid_survives_simpleitk_which_puts_voxels_at_the_same_places(grid):
    image = to_sitk(np.zeros(grid.shape, np.uint8), grid)
    assert grid_of(image).same_as(grid, 1e-9)
    corner = [n - 1 for n in grid.shape]
    place = image.TransformIndexToPhysicalPoint(corner[::-1])
    np.testing.assert_allclose(place, grid.to_world(corner), atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(grids())
def test_any_grid_survives_the_matrix_of_a_mrml_node(grid):
    again = Grid.from_ijk_to_ras(grid.ijk_to_ras(), grid.shape)
    assert again.same_as(grid, 1e-9)
    np.testing.assert_allclose(again.spacing, grid.spacing, rtol=1e-9)


@settings(max_examples=60, deadline=None)
@given(grids())
def test_turning_any_grid_upright_keeps_every_voxel_at_its_place(grid):
    upright = grid.aligned_to_lps()
    before = grid.to_world(all_indices(grid))
    index = upright.to_index(before)
    np.testing.assert_allclose(index, np.round(index), atol=1e-6)
    found = {tuple(row) for row in np.round(index).astype(int)}
    assert found == {tuple(row) for row in all_indices(upright)}
    assert upright.aligned_to_lps().same_as(upright, 1e-9)


def test_upright_axes_run_to_superior_posterior_and_left(a_grid):
    direction = np.array(a_grid.aligned_to_lps().direction)[::-1]  # rows i, j, k beside L, P, S
    if np.abs(np.array(a_grid.direction)).max(axis=1).min() > 0.99:
        np.testing.assert_allclose(direction, np.eye(3), atol=1e-9)
    # No other order and signs of the axes come nearer to L, P, S.
    ways = [np.trace(np.diag(signs) @ direction[list(order)]) for order in _ORDERS for signs in _SIGNS]
    assert np.trace(direction) == pytest.approx(max(ways))


_ORDERS = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
_SIGNS = [(a, b, c) for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]


def test_a_planar_grid_is_never_turned():
    grid = Grid((1, 5, 6), direction=((0, 0, 1), (0, -1, 0), (-1, 0, 0)), planar=True)
    assert grid.aligned_to_lps() is grid


def test_crops_keep_voxels_at_their_places_even_outside(a_grid):
    cropped = a_grid.crop((-2, 1, 3), (5, 6, 20))
    assert cropped.shape == (7, 5, 17)
    np.testing.assert_allclose(cropped.to_world([4, 2, 1]), a_grid.to_world([2, 3, 4]), atol=1e-9)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 0.3, 0.7), (4.0, 2.0, 3.0)])
def test_another_spacing_keeps_the_outer_faces(a_grid, spacing):
    finer = a_grid.with_spacing(spacing)
    assert finer.spacing == spacing and finer.direction == a_grid.direction
    np.testing.assert_allclose(finer.to_world([-0.5] * 3), a_grid.to_world([-0.5] * 3), atol=1e-9)
    last = finer.to_index(a_grid.to_world(np.array(a_grid.shape) - 0.5)) + 0.5
    assert (np.abs(last - finer.shape) <= 0.5 + 1e-6).all()  # as near as whole voxels can come


def test_the_same_spacing_gives_the_same_grid(a_grid):
    assert a_grid.with_spacing(a_grid.spacing).same_as(a_grid, 1e-9)


def test_a_slice_is_never_made_thinner_than_one_voxel():
    assert Grid((1, 8, 8)).with_spacing((5, 1, 1)).shape == (1, 8, 8)


def test_grids_are_the_same_up_to_a_micrometer_at_every_corner(a_grid):
    values = a_grid.to_dict()
    near = Grid.from_dict({**values, "origin": np.add(a_grid.origin, 5e-4)})
    far = Grid.from_dict({**values, "origin": np.add(a_grid.origin, 5e-3)})
    wider = Grid.from_dict({**values, "spacing": np.multiply(a_grid.spacing, 1.001)})
    other = Grid.from_dict({**values, "shape": (2, 2, 2)})
    assert a_grid.same_as(near)
    assert not any(a_grid.same_as(grid) for grid in (far, wider, other))


def test_slicer_puts_voxels_at_the_same_places(a_grid):
    node = slicer.vtkMRMLScalarVolumeNode()
    node.SetSpacing(a_grid.spacing[::-1])
    node.SetOrigin(np.array(a_grid.origin) * (-1, -1, 1))
    columns = np.array(a_grid.direction)[::-1].T * [[-1], [-1], [1]]
    node.SetIJKToRASDirections(*columns.ravel())
    theirs = matrix_of(node)
    np.testing.assert_allclose(a_grid.ijk_to_ras(), theirs, atol=1e-12)
    assert Grid.from_ijk_to_ras(theirs, a_grid.shape).same_as(a_grid, 1e-9)


def test_slicer_reads_every_voxel_of_a_file_to_the_same_place(a_grid, tmp_path):
    image = np.random.default_rng(0).integers(0, 999, a_grid.shape).astype(np.int16)
    sitk.WriteImage(to_sitk(image, a_grid), str(tmp_path / "image.nrrd"))
    scene = slicer.vtkMRMLScene()
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    storage = scene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
    storage.SetFileName(str(tmp_path / "image.nrrd"))
    assert storage.ReadData(node)
    theirs = vtk_to_numpy(node.GetImageData().GetPointData().GetScalars()).reshape(a_grid.shape)
    # Slicer stores the slices of left-handed volumes in reverse, so the places are compared, not the indices.
    grid = Grid.from_ijk_to_ras(matrix_of(node), a_grid.shape)
    index = grid.to_index(a_grid.to_world(all_indices(a_grid)))
    np.testing.assert_allclose(index, np.round(index), atol=1e-4)
    np.testing.assert_array_equal(theirs[tuple(np.round(index).astype(int).T)], image.ravel())


@pytest.mark.parametrize(
    "damage",
    [
        {"shape": (0, 4, 4)},
        {"shape": (4, 4)},
        {"spacing": (1, 0, 1)},
        {"spacing": (1, -1, 1)},
        {"spacing": (1, np.nan, 1)},
        {"spacing": (1, 1)},
        {"origin": (0, np.nan, 0)},
        {"origin": (0, 0)},
        {"direction": ((0, 0, 1), (0, 1, 0), (0.9, 0.3, 0.2))},
        {"direction": ((0, 0, 2), (0, 1, 0), (1, 0, 0))},
        {"direction": ((0, 0, np.nan), (0, 1, 0), (1, 0, 0))},
        {"direction": ((0, 1), (1, 0))},
    ],
    ids=str,
)
def test_a_damaged_grid_is_told(damage):
    with pytest.raises(BadInput):
        Grid(**{"shape": (4, 4, 4), **damage})


def test_a_volume_node_with_a_voxel_of_size_zero_is_told():
    with pytest.raises(BadInput, match="size zero"):
        Grid.from_ijk_to_ras(np.diag([1, 0, 1, 1]), (2, 2, 2))
