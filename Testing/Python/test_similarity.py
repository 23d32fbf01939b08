"""The score: what it must see, and what it must not mind."""

import numpy as np
import pytest
import torch
from RefSegLib.reflection.similarity import match_quantiles, similarity
from RefSegLib.synthesis.similarity import local_mean
from scipy import ndimage
from skimage.metrics import structural_similarity
from torch.nn import functional as F


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(array, np.float32))[None, None]


@pytest.fixture(scope="module")
def scene() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """An image (a bright ball with texture), its ideal proxy, and the region around the ball."""
    rng = np.random.default_rng(0)
    distance = np.linalg.norm(np.indices((24, 26, 28)) - np.array([12, 13, 14])[:, None, None, None], axis=0)
    proxy = 0.25 + 0.5 / (1 + np.exp(distance - 7))
    image = proxy + 0.04 * rng.normal(size=proxy.shape)
    return tensor(image), tensor(proxy), torch.from_numpy(distance < 11)


def test_the_mean_over_cubes_is_that_of_one_pooling(scene):
    image = scene[0]
    direct = F.avg_pool3d(image, 7, 1, 3, count_include_pad=False)
    assert torch.allclose(local_mean(image), direct, atol=1e-5)


def test_ssim_is_that_of_scikit_image(scene):
    image, _, region = scene
    rng = np.random.default_rng(1)
    other = tensor(ndimage.gaussian_filter(image[0, 0].numpy(), 0.7) + 0.05 * rng.normal(size=image.shape[2:]))
    matched = match_quantiles(other, image, region)
    _, expected = structural_similarity(
        matched[0, 0].numpy(),
        image[0, 0].numpy(),
        win_size=7,
        data_range=1,
        full=True,
        use_sample_covariance=False,
    )
    found = similarity(other, image, region).local[0].numpy()
    inside = (slice(4, -4),) * 3
    assert np.abs(found - expected)[inside].max() < 2e-3


def test_an_image_agrees_with_itself_completely(scene):
    image, _, region = scene
    found = similarity(image, image, region)
    assert found.ssim.item() > 0.999
    assert found.correlation.item() > 0.9


def test_a_monotone_change_of_contrast_does_not_matter(scene):
    image, proxy, region = scene
    plain = similarity(proxy, image, region)
    for changed in (proxy**1.5, proxy.sqrt(), 0.5 * proxy + 0.4):
        other = similarity(changed, image, region)
        assert abs(other.ssim.item() - plain.ssim.item()) < 0.05
        assert abs(other.correlation.item() - plain.correlation.item()) < 0.08


def test_correlation_survives_inversion_and_ssim_does_not(scene):
    image, proxy, region = scene
    plain, inverted = similarity(proxy, image, region), similarity(1 - proxy, image, region)
    assert abs(plain.correlation.item() - inverted.correlation.item()) < 0.05
    assert inverted.ssim.item() < plain.ssim.item() - 0.3


def test_a_flat_proxy_does_not_agree_with_anything(scene):
    """An empty mask must never win: its proxy is flat, and matching must not make it fit."""
    image, proxy, region = scene
    rng = np.random.default_rng(2)
    flat = tensor(0.25 + 0.001 * rng.normal(size=image.shape[2:]))
    good, empty = similarity(proxy, image, region), similarity(flat, image, region)
    assert empty.ssim.item() < 0.5 * good.ssim.item()
    assert empty.correlation.item() < 0.2 * good.correlation.item()


def test_the_further_a_mask_is_off_the_lower_it_scores(scene):
    image, proxy, region = scene
    moved = torch.cat([torch.roll(proxy, shift, 4) for shift in (0, 1, 2, 4)])
    found = similarity(moved, image, region)
    total = (found.ssim + found.correlation).tolist()
    assert total == sorted(total, reverse=True)


def test_gradients_point_toward_the_right_place(scene):
    image, proxy, region = scene
    wrong = torch.roll(proxy, 2, 4).clone().requires_grad_(True)
    found = similarity(wrong, image, region)
    (found.ssim + found.correlation).sum().backward()
    assert torch.isfinite(wrong.grad).all()
    step = wrong.detach() + 0.01 * wrong.grad / wrong.grad.abs().max()
    after = similarity(step, image, region)
    assert (after.ssim + after.correlation).item() > (found.ssim + found.correlation).item()


def test_single_slices_and_constant_images_give_numbers():
    rng = np.random.default_rng(3)
    image = tensor(ndimage.gaussian_filter(rng.random((1, 30, 32)), (0, 2, 2)))
    region = torch.ones(1, 30, 32, dtype=torch.bool)
    assert similarity(image, image, region).ssim.item() > 0.99
    constant = torch.full_like(image, 0.3)
    for pair in ((constant, image), (image, constant), (constant, constant)):
        found = similarity(*pair, region)
        assert torch.isfinite(found.ssim).all() and torch.isfinite(found.correlation).all()
