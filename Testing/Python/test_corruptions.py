"""The corruption suite: 17 kinds, stronger with severity, repeatable, and gentle to shapes, units and masks."""

import numpy as np
import pytest
from RefSegLib.errors import BadInput
from RefSegLib.quality.corruptions import ALL, corrupt, moved
from scipy import ndimage

# What ImageNet-C does not order by severity: elastic has three scales of bending, saturation leaves gray alone to 3.
UNORDERED = {"elastic", "saturation"}


def chest() -> np.ndarray:
    """Two dark ovals in a bright body, in the units of some scanner."""
    j, i = np.mgrid[:224, :268] / 224
    lungs = np.maximum(1 - ((j - 0.5) / 0.3) ** 2 - ((i - 0.35) / 0.15) ** 2, 0) + np.maximum(
        1 - ((j - 0.5) / 0.3) ** 2 - ((i - 0.85) / 0.15) ** 2, 0
    )
    return (ndimage.gaussian_filter(0.75 - 0.5 * (lungs > 0) + 0.1 * j, 3) * 4000 - 1000).astype(np.float32)


IMAGE = chest()


def difference(name: str, severity: int) -> float:
    return float(np.mean([np.abs(corrupt(IMAGE, name, severity, seed) - IMAGE).mean() for seed in range(2)]))


def test_there_are_seventeen():
    assert len(ALL) == len(set(ALL)) == 17


@pytest.mark.parametrize("name", ALL)
def test_the_same_seed_gives_the_same_image_within_the_range_of_the_original(name):
    before = IMAGE.copy()
    bad = corrupt(IMAGE, name, 4, seed=7)
    assert bad.shape == IMAGE.shape and bad.dtype == np.float32
    assert np.array_equal(bad, corrupt(IMAGE, name, 4, seed=7)) and np.array_equal(IMAGE, before)
    assert IMAGE.min() - 1e-2 <= bad.min() and bad.max() <= IMAGE.max() + 1e-2
    assert difference(name, 5) > 0


@pytest.mark.parametrize("name", [n for n in ALL if n not in UNORDERED])
def test_a_higher_severity_changes_more(name):
    changes = [difference(name, severity) for severity in (1, 3, 5)]
    assert changes == sorted(changes) and changes[0] < changes[2]


@pytest.mark.parametrize("name", ALL)
def test_the_unit_of_intensity_does_not_matter(name):
    np.testing.assert_allclose(corrupt(IMAGE / 10 + 5, name, 3, 0), corrupt(IMAGE, name, 3, 0) / 10 + 5, atol=2.5)


@pytest.mark.parametrize("name", ALL)
def test_slices_of_a_volume_are_corrupted_alike_and_noise_is_not(name):
    volume = corrupt(np.stack([IMAGE, IMAGE, IMAGE]), name, 3, 0)
    alike = np.array_equal(volume[0], volume[1])
    assert volume.shape == (3, *IMAGE.shape)
    assert alike == (
        name not in ("Gaussian noise", "shot noise", "impulse noise", "speckle noise", "Poisson noise", "dropout")
    )


@pytest.mark.parametrize("severity", range(1, 6))
def test_a_mask_moves_with_the_image_where_that_is_bent_and_nowhere_else(severity):
    marks = np.zeros((96, 96), np.float32)
    marks[24:72, 30:66] = 1.0
    mask = marks > 0.5
    bent, there = corrupt(marks, "elastic", severity, 3) > 0.5, moved(mask, "elastic", severity, 3)
    assert there.dtype == bool and not np.array_equal(there, mask)
    assert 2 * (bent & there).sum() / (bent.sum() + there.sum()) > 0.95
    assert all(np.array_equal(moved(mask, name, severity, 3), mask) for name in ALL if name != "elastic")


def test_noise_is_as_strong_as_it_says():
    gray = np.full((200, 200), 0.5, np.float32)
    gray[0, :2] = 0, 1  # the range
    inside = corrupt(gray, "Gaussian noise", 1, 0)[1:]
    assert inside.std() == pytest.approx(0.08, rel=0.05)
    assert (corrupt(gray, "dropout", 5, 0)[1:] == 0).mean() == pytest.approx(0.3, abs=0.01)
    assert corrupt(gray, "contrast", 5, 0)[0, :2].tolist() == pytest.approx([0.475, 0.525], abs=0.005)


def test_a_constant_image_stays_and_nonsense_is_refused_with_a_sentence():
    flat = np.full((20, 20), 3.0)
    assert np.array_equal(corrupt(flat, "fog", 5, 0), flat)
    for wrong in (("mist", 1), ("fog", 0), ("fog", 6)):
        with pytest.raises(BadInput, match="There is no corruption"):
            corrupt(flat, *wrong, 0)
    with pytest.raises(BadInput, match="axes"):
        corrupt(np.zeros((2, 2, 2, 2)), "fog", 1, 0)
