"""From an image to labels on the image's own voxels, on every kind of grid."""

from types import SimpleNamespace

import numpy as np
import pytest
from RefSegLib.errors import BadInput, Cancelled
from RefSegLib.inference import predict
from RefSegLib.inference.predict import prepare, segment
from RefSegLib.inference.region import RegionOfInterest
from RefSegLib.inference.restore import Painter, take, turn
from RefSegLib.models.spec import Label, Network, Normalization, SegmenterSpec
from RefSegLib.progress import Progress
from RefSegLib.quality.metrics import dice
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.resample import resample_array
from RefSegLib.volume.volume import Volume


def a_spec(**changes) -> SegmenterSpec:
    values = {
        "name": "threshold",
        "channels": ("CT",),
        "labels": (Label(value=1, name="Bright", color=(1, 0, 0)), Label(value=2, name="Brighter", color=(0, 1, 0))),
        "spacing": (0, 0, 0),
        "patch": (8, 8, 8),
        "normalization": Normalization(kind="window", low=0, high=1),
        "network": Network(name="dynunet"),
    }
    return SegmenterSpec(**values | changes)


class Threshold:
    """Above 0.4 is label 1, above 0.7 label 2: what comes out is known for every voxel that goes in."""

    def __init__(self, spec: SegmenterSpec, slope: float = 200.0) -> None:
        self.spec, self.slope = spec, slope

    def logits(self, patches: np.ndarray) -> np.ndarray:
        x = patches[:, :1] * self.slope
        return np.concatenate([0 * x, x - 0.4 * self.slope, 2 * x - 1.1 * self.slope], axis=1)


def expected_labels(array: np.ndarray) -> np.ndarray:
    return ((array > 0.4).astype(np.uint8) + (array > 0.7)).astype(np.uint8)


def noise(grid: Grid, seed: int = 0) -> Volume:
    values = np.random.default_rng(seed).random(grid.shape).astype(np.float32)
    values[np.abs(values - 0.4) < 0.01] = 0.5
    values[np.abs(values - 0.7) < 0.01] = 0.8
    return Volume(values, grid)


def blob(grid: Grid) -> Volume:
    """A ball of a third of the smallest extent, in patient space, with a soft border, darker inside another."""
    center = grid.to_world((np.asarray(grid.shape) - 1) / 2)
    index = np.moveaxis(np.indices(grid.shape), 0, -1)
    distance = np.linalg.norm(grid.to_world(index) - center, axis=-1)
    radius = min(grid.extent) / 3
    return Volume(1 / (1 + np.exp((distance - radius) / min(grid.spacing))), grid)


def test_labels_come_back_voxel_for_voxel_on_every_grid(a_grid):
    volume = noise(a_grid)
    found = segment(volume, Threshold(a_spec()))
    assert found.labels.grid == a_grid and found.labels.array.dtype == np.uint8
    np.testing.assert_array_equal(found.labels.array, expected_labels(volume.array[0]))


def test_a_box_gives_labels_inside_it_only(a_grid):
    volume = noise(a_grid)
    found = segment(volume, Threshold(a_spec()), roi=(1, 2, 3, 6, 11, 12)).labels.array
    inside = np.zeros(a_grid.shape, bool)
    inside[1:6, 2:11, 3:12] = True
    np.testing.assert_array_equal(found, expected_labels(volume.array[0]) * inside)


def test_another_spacing_gives_the_same_shape_in_the_patient(a_grid):
    volume = blob(a_grid)
    found = segment(volume, Threshold(a_spec(spacing=(0.8, 0.8, 0.8), patch=(32, 32, 32)), slope=20.0)).labels.array
    expected = expected_labels(volume.array[0])
    assert dice(found > 0, expected > 0) > 0.9
    assert np.count_nonzero(found != expected) < 0.05 * found.size


@pytest.mark.parametrize("spacing", [(0, 0, 0), (0.8, 1.1, 0.9)])
def test_in_slabs_the_labels_are_the_same_as_in_one_piece(a_grid, spacing, monkeypatch):
    volume, spec = blob(a_grid), a_spec(spacing=spacing)
    whole = segment(volume, Threshold(spec, 20.0))
    monkeypatch.setattr(predict, "KEPT_PROBABILITIES", 0)
    monkeypatch.setattr("RefSegLib.inference.tiling.VOXELS_AT_ONCE", {"cpu": 1})
    monkeypatch.setattr("RefSegLib.inference.restore.VOXELS_AT_ONCE", 500)
    slabs = segment(volume, Threshold(spec, 20.0))
    assert whole.regions[0].probabilities is not None and slabs.regions[0].probabilities is None
    assert whole.labels.array.any()
    np.testing.assert_array_equal(slabs.labels.array, whole.labels.array)


def test_what_the_network_sees_is_the_image_turned_and_not_interpolated(a_grid):
    volume = noise(a_grid)
    grid = a_grid.aligned_to_lps()
    array = prepare(volume, grid, a_spec())
    assert sorted(array.ravel()) == sorted(volume.array.ravel())
    np.testing.assert_allclose(array[0], resample_array(volume.array[0], a_grid, grid), atol=1e-4)


def test_a_region_that_reaches_outside_the_image_sees_its_darkest_value_there(a_grid):
    volume = Volume(noise(a_grid).array + 0.2, a_grid)
    grid = a_grid.aligned_to_lps().crop((-2, -1, -3), (5, 4, 3))
    seen = take(volume.array[0], a_grid, grid, outside=0.2)
    whole = take(volume.array[0], a_grid, a_grid.aligned_to_lps(), outside=0)
    assert seen.shape == grid.shape and (seen[:2] == 0.2).all() and (seen[:, :1] == 0.2).all()
    np.testing.assert_allclose(seen[2:, 1:, 3:], whole[:5, :4, :3])


def test_grids_at_an_angle_or_between_voxels_are_no_mere_turn(a_grid):
    assert turn(a_grid, a_grid.aligned_to_lps()) is not None
    assert turn(a_grid, a_grid.with_spacing(np.asarray(a_grid.spacing) / 2)) is None
    shifted = Grid(a_grid.shape, a_grid.spacing, a_grid.direction, a_grid.to_world((0.5, 0, 0)))
    assert turn(a_grid, shifted) is None


def two_sides(monkeypatch, grid: Grid, mirrored: bool = False) -> None:
    """Left and right halves that share the columns 6 to 9 as regions."""
    left, right = grid.crop((0, 0, 6), grid.shape), grid.crop((0, 0, 0), (*grid.shape[:2], 10))
    if mirrored:
        direction = np.asarray(left.direction) * [[1], [1], [-1]]
        left = Grid(left.shape, left.spacing, direction, left.to_world((0, 0, left.shape[2] - 1)))
    regions = [RegionOfInterest(left, 0, "left"), RegionOfInterest(right, 10, "right")]
    monkeypatch.setattr(predict, "find_regions", lambda *_: regions)


@pytest.mark.parametrize("mirrored", [False, True])
def test_sides_are_named_coded_and_numbered_apart(monkeypatch, mirrored):
    grid = Grid((8, 8, 16))
    two_sides(monkeypatch, grid, mirrored)
    volume = noise(grid)
    found = segment(volume, Threshold(a_spec()))
    assert [(n.value, n.name, n.modifier.value) for n in found.names] == [
        (1, "Left Bright", "7771000"),
        (2, "Left Brighter", "7771000"),
        (11, "Right Bright", "24028007"),
        (12, "Right Brighter", "24028007"),
    ]
    expected = expected_labels(volume.array[0])
    labels = found.labels.array
    np.testing.assert_array_equal(labels[..., 10:], expected[..., 10:])
    np.testing.assert_array_equal(labels[..., :6], np.where(expected > 0, expected + 10, 0)[..., :6])
    np.testing.assert_array_equal(labels % 10, expected)


def test_where_regions_overlap_the_more_probable_one_wins():
    grid = Grid((1, 1, 3))
    for first, second in (("weak", "strong"), ("strong", "weak")):
        painter = Painter(grid, 20, 2)
        for name in (first, second):
            foreground = {"weak": [0.6, 0.9, 0.2], "strong": [0.8, 0.7, 0.3]}[name]
            p = np.array([[1 - f for f in foreground], foreground], np.float32)[:, None, None]
            painter.paint(p, grid, 0 if name == "weak" else 10)
        np.testing.assert_array_equal(painter.labels, [[[11, 1, 0]]])


def test_many_label_values_need_more_than_a_byte(monkeypatch):
    grid = Grid((8, 8, 8))
    monkeypatch.setattr(predict, "find_regions", lambda *_: [RegionOfInterest(grid, 300)])
    found = segment(noise(grid), Threshold(a_spec())).labels.array
    assert found.dtype == np.uint16 and set(np.unique(found)) == {0, 301, 302}


def test_refined_probabilities_are_what_is_restored():
    volume = noise(Grid((8, 9, 10)))
    asked = []

    def refine(array, probabilities, segmenter, progress):
        asked.append((array.shape, probabilities.shape, segmenter.spec.name))
        return SimpleNamespace(probabilities=probabilities[[0, 2, 1]])

    found = segment(volume, Threshold(a_spec()), refine=refine)
    np.testing.assert_array_equal(found.labels.array, np.array([0, 2, 1])[expected_labels(volume.array[0])])
    assert asked == [((1, 8, 9, 10), (3, 8, 9, 10), "threshold")]
    assert found.regions[0].reflection.probabilities is found.regions[0].probabilities


def test_images_that_cannot_be_segmented_get_a_sentence():
    good = noise(Grid((8, 8, 8)))
    model = Threshold(a_spec())
    nan = good.array.copy()
    nan[0, 1, 1, 1] = np.nan
    for volume, sentence in (
        (Volume(nan, good.grid), "not numbers"),
        (Volume(np.zeros_like(nan), good.grid), "same value"),
        (Volume(np.concatenate([good.array] * 3), good.grid), r"3 channel.*takes 1: CT"),
        (noise(Grid((1, 8, 8), planar=True)), "flat"),
    ):
        with pytest.raises(BadInput, match=sentence):
            segment(volume, model)


def test_one_slice_and_a_stack_of_slices_work():
    thin = noise(Grid((1, 20, 20), (5, 1, 1)))
    np.testing.assert_array_equal(segment(thin, Threshold(a_spec())).labels.array, expected_labels(thin.array[0]))
    flat = Threshold(a_spec(dimensions=2, patch=(1, 16, 16)))
    for volume in (noise(Grid((1, 30, 20), planar=True)), noise(Grid((9, 30, 20), (5, 1, 1)))):
        np.testing.assert_array_equal(segment(volume, flat).labels.array, expected_labels(volume.array[0]))


def test_integers_of_every_kind_are_read():
    grid = Grid((9, 10, 11), direction=((0, 0, -1), (0, 1, 0), (1, 0, 0)))
    values = np.random.default_rng(1).integers(0, 100, grid.shape)
    spec = a_spec(normalization=Normalization(kind="window", low=0.5, high=100.5))
    for kind in (np.uint8, np.int16, np.uint16, np.int32, np.float64):
        found = segment(Volume(values.astype(kind), grid), Threshold(spec)).labels.array
        np.testing.assert_array_equal(found, expected_labels((values - 0.5) / 100))


def test_cancel_is_heard():
    with pytest.raises(Cancelled):
        segment(noise(Grid((8, 8, 8))), Threshold(a_spec()), progress=Progress(cancelled=lambda: True))
