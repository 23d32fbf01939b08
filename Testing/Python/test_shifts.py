"""Named shifts: seeded, graded, and nothing but the looks of the image changes."""

import numpy as np
import pytest
from RefSegLib.errors import BadInput
from RefSegLib.quality.shifts import ALL, NAMES, UNSEEN, Shift, parse, shift
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import Volume
from scipy import ndimage


@pytest.fixture(scope="module")
def image() -> Volume:
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.normal(size=(2, 18, 20, 22)), (0, 2, 2, 2))
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    return Volume((smooth * 900 + 40).astype(np.int16), Grid((18, 20, 22)))


def difference(a: Volume, b: Volume) -> float:
    return float(np.abs(a.array.astype(float) - b.array.astype(float)).mean())


@pytest.mark.parametrize("name", ALL)
def test_the_same_seed_gives_the_same_image_and_the_input_stays_untouched(image, name):
    before = image.array.copy()
    first, second = shift(image, name, 3, 7), shift(image, name, 3, 7)
    assert np.array_equal(first.array, second.array)
    assert np.array_equal(image.array, before)
    assert first.array.dtype == np.float32
    assert np.isfinite(first.array).all()


@pytest.mark.parametrize("name", ["noise", "bias", "lowres", "gamma", "ghosting", "spikes", *UNSEEN])
def test_another_seed_gives_another_image(image, name):
    images = [shift(image, name, 4, seed).array for seed in range(6)]
    assert any(not np.array_equal(images[0], other) for other in images[1:])


@pytest.mark.parametrize("name", ALL)
def test_severity_5_changes_more_than_severity_1(image, name):
    mild = np.mean([difference(image, shift(image, name, 1, seed)) for seed in range(5)])
    strong = np.mean([difference(image, shift(image, name, 5, seed)) for seed in range(5)])
    assert 0 < 1.5 * mild < strong


@pytest.mark.parametrize("name", ALL)
def test_every_grid_keeps_its_place_and_single_slices_work(a_grid, name):
    rng = np.random.default_rng(1)
    for grid in (a_grid, Grid((1, 24, 20), planar=True)):
        volume = Volume(ndimage.gaussian_filter(rng.random(grid.shape), 1) * 100, grid)
        result = shift(volume, name, 2, 0)
        assert result.grid == grid
        assert result.array.shape == (1, *grid.shape)
        assert not np.array_equal(result.array, volume.array)


def test_channels_share_the_bias_field_but_not_the_noise():
    channel = np.full((10, 12, 14), 50.0)
    channel[3:7] = 100.0
    twice = Volume(np.stack([channel, channel]), Grid((10, 12, 14)))
    bias, noise = shift(twice, "bias", 4, 3).array, shift(twice, "noise", 4, 3).array
    assert np.array_equal(bias[0], bias[1])
    assert noise[0].std() > 0


def test_full_inversion_turns_dark_into_bright(image):
    result = shift(image, "invert", 5, 0)
    assert np.corrcoef(image.array[0].ravel(), result.array[0].ravel())[0, 1] < -0.999


def test_some_shifts_are_kept_from_calibration():
    assert set(UNSEEN) == {"motion", "remap"}
    assert not set(UNSEEN) & set(NAMES)
    assert set(ALL) == set(NAMES) | set(UNSEEN)
    assert parse("motion:2") == Shift("motion", 2)


@pytest.mark.parametrize("name", UNSEEN)
def test_what_nothing_was_made_for_gets_stronger_with_every_severity(image, name):
    mild, middle, strong = (
        np.mean([difference(image, shift(image, name, level, seed)) for seed in range(8)]) for level in (1, 3, 5)
    )
    assert mild < middle < strong


def test_motion_stays_within_slices_and_leaves_the_middle_of_things_where_it_was():
    ball = np.linalg.norm(np.indices((5, 40, 44)) - np.array([2, 20, 22])[:, None, None, None], axis=0) <= 9
    array = np.zeros((5, 40, 44), np.float32)
    array[1:4] = 100 * ball[1:4]
    for seed in range(4):
        moved = shift(Volume(array, Grid(array.shape)), "motion", 5, seed).array[0]
        assert np.abs(moved[[0, 4]]).max() < 1e-3  # empty slices stay empty
        assert np.abs(moved[2] - array[2]).max() > 20
        assert np.hypot(*(np.array(ndimage.center_of_mass(moved[2])) - ndimage.center_of_mass(array[2]))) < 2


def test_a_remap_turns_the_curve_of_intensities_around_but_never_tears_it():
    ramp = np.linspace(0, 100, 2000, dtype=np.float32).reshape(1, 40, 50)
    for level in (1, 5):
        for seed in range(6):
            steps = np.diff(shift(Volume(ramp, Grid(ramp.shape)), "remap", level, seed).array.ravel())
            assert (steps < 0).any()
            assert (steps > 0).any()
            assert np.abs(steps).max() < 5 * 100 / 2000


def test_text_is_read_and_nonsense_refused():
    assert parse("noise:3") == Shift("noise", 3)
    assert str(parse("bias:1")) == "bias:1"
    for text in ("noise", "noise:0", "noise:6", "fog:2", "", "noise:2.5", ":3"):
        with pytest.raises(BadInput, match="NAME:SEVERITY"):
            parse(text)
