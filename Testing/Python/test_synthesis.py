"""A synthesizer draws the image of a mask."""

import numpy as np
import pytest
import torch
from RefSegLib.models.networks import build_synthesizer
from RefSegLib.models.spec import SegmenterSpec
from RefSegLib.synthesis.similarity import ssim_map
from RefSegLib.synthesis.synthesizer import Synthesizer, gray
from RefSegLib.synthesis.training import around, soften, synthesis_score, train_synthesizer
from RefSegLib.training.cases import Sample
from RefSegLib.training.losses import one_hot
from scipy import ndimage
from skimage.metrics import structural_similarity

SPEC = SegmenterSpec(
    name="test",
    channels=("T1",),
    labels=[{"value": 1, "name": "ball", "color": (1, 0, 0)}],
    spacing=(1, 1, 1),
    patch=(16, 16, 16),
    network={"name": "dynunet", "arguments": {"filters": [4, 8, 8]}},
)


def ball(seed: int) -> Sample:
    """A bright ball with a dark core somewhere in a gray box."""
    rng = np.random.default_rng(seed)
    center = 8 + rng.uniform(-1.5, 1.5, 3)
    distance = np.linalg.norm(np.indices((16, 16, 16)).transpose(1, 2, 3, 0) - center, axis=-1)
    labels = (distance < 5).astype(np.uint16)
    image = ndimage.gaussian_filter(0.3 + 0.6 * labels - 0.5 * (distance < 2), 0.5)
    return Sample(f"ball{seed}", image[None].astype(np.float32), labels, (1.0, 1.0, 1.0))


@pytest.mark.parametrize("shape", [(12, 15, 17), (1, 20, 18)])
def test_similarity_is_that_of_scikit_image_away_from_the_border(shape):
    rng = np.random.default_rng(0)
    a, b = rng.random((2, *shape)).astype(np.float32)
    ours = ssim_map(*(torch.from_numpy(x)[None, None] for x in (a, b)))[0, 0].numpy()
    _, theirs = structural_similarity(
        a.squeeze(), b.squeeze(), win_size=7, data_range=1, full=True, use_sample_covariance=False
    )
    inner = tuple(slice(3, -3) if n > 1 else slice(None) for n in shape)
    np.testing.assert_allclose(ours[inner], theirs.reshape(shape)[inner], atol=1e-4)


def test_softened_masks_stay_probabilities_and_others_stay_as_they_are():
    masks = one_hot(torch.from_numpy(ball(0).labels.astype(np.int64))[None].repeat(32, 1, 1, 1), 2)
    soft = soften(masks, torch.Generator().manual_seed(0))
    torch.testing.assert_close(soft.sum(1), torch.ones_like(soft[:, 0]))
    changed = [not torch.equal(a, b) for a, b in zip(soft, masks, strict=True)]
    assert 8 <= sum(changed) <= 24


def test_only_the_surroundings_of_a_structure_count_fully():
    masks = torch.zeros(1, 2, 1, 32, 32)
    masks[:, 1, :, 16, 16] = 1
    masks[:, 0] = 1 - masks[:, 1]
    weight = around(masks)
    assert weight.max() == 1
    assert int((weight == 1).sum()) == 11 * 11


def test_a_synthesizer_learns_to_draw_and_the_right_mask_is_drawn_best():
    samples = [ball(seed) for seed in range(8)]
    torch.manual_seed(0)
    module = build_synthesizer(SPEC)
    before = synthesis_score(Synthesizer(SPEC, module), samples[6:])
    result = train_synthesizer(module, SPEC, samples[:6], samples[6:], epochs=6, seed=0)
    synthesizer = Synthesizer(SPEC, module)
    assert result.score > before + 0.3
    assert result.score == pytest.approx(synthesis_score(synthesizer, samples[6:]))

    def similarity(labels: np.ndarray) -> float:
        probabilities = np.stack([labels == 0, labels == 1]).astype(np.float32)
        proxy, image = synthesizer.proxy(probabilities), gray(samples[7].image, SPEC)
        return float(ssim_map(*(torch.from_numpy(x)[None, None] for x in (proxy, image))).mean())

    labels = samples[7].labels
    assert similarity(labels) > similarity(np.roll(labels, 3, axis=1)) + 0.05


def test_proxies_come_in_any_size_and_let_gradients_through():
    torch.manual_seed(0)
    synthesizer = Synthesizer(SPEC, build_synthesizer(SPEC))
    assert synthesizer.proxy(np.zeros((2, 5, 7, 9), np.float32)).shape == (5, 7, 9)
    probabilities = torch.rand(1, 2, 5, 7, 9, requires_grad=True)
    synthesizer(probabilities).sum().backward()
    assert probabilities.grad.abs().sum() > 0
