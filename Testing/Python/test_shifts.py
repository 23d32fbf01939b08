"""Named shifts: seeded, graded, and nothing but the looks of the image changes."""

import numpy as np
import pytest
from RefSegLib.errors import BadInput
from RefSegLib.quality.shifts import NAMES, Shift, parse, shift
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


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_image_and_the_input_stays_untouched(image, name):
    before = image.array.copy()
    first, second = shift(image, name, 3, 7), shift(image, name, 3, 7)
    assert np.array_equal(first.array, second.array)
    assert np.array_equal(image.array, before)
    assert first.array.dtype == np.float32
    assert np.isfinite(first.array).all()


@pytest.mark.parametrize("name", ["noise", "bias", "lowres", "gamma", "ghosting", "spikes"])
def test_another_seed_gives_another_image(image, name):
    images = [shift(image, name, 4, seed).array for seed in range(6)]
    assert any(not np.array_equal(images[0], other) for other in images[1:])


@pytest.mark.parametrize("name", NAMES)
def test_severity_5_changes_more_than_severity_1(image, name):
    mild = np.mean([difference(image, shift(image, name, 1, seed)) for seed in range(5)])
    strong = np.mean([difference(image, shift(image, name, 5, seed)) for seed in range(5)])
    assert 0 < 1.5 * mild < strong


@pytest.mark.parametrize("name", NAMES)
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


def test_text_is_read_and_nonsense_refused():
    assert parse("noise:3") == Shift("noise", 3)
    assert str(parse("bias:1")) == "bias:1"
    for text in ("noise", "noise:0", "noise:6", "fog:2", "", "noise:2.5", ":3"):
        with pytest.raises(BadInput, match="NAME:SEVERITY"):
            parse(text)
