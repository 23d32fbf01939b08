"""Published ways of adapting to one image: each does what its paper says, to a copy of the network only."""

import hashlib

import numpy as np
import pytest
import torch
from RefSegLib.baselines import shared
from RefSegLib.baselines.bn import bn
from RefSegLib.baselines.consistency import consistency, disagreement
from RefSegLib.baselines.intent import RATIOS, balanced_entropy, intent, weights_of
from RefSegLib.baselines.shared import NotApplicable, batch_norms, blocks_of, image_statistics
from RefSegLib.baselines.tent import tent
from RefSegLib.errors import Cancelled
from RefSegLib.inference.segmenter import TorchSegmenter
from RefSegLib.inference.tiling import infer
from RefSegLib.models.networks import build_segmenter
from RefSegLib.models.spec import Label, Network, SegmenterSpec
from RefSegLib.progress import Progress
from torch import nn

ALL = {"bn": bn, "tent": tent, "intent": intent, "consistency": consistency}


def spec_of(norm: str, dimensions: int) -> SegmenterSpec:
    return SegmenterSpec(
        name="balls",
        dimensions=dimensions,
        channels=("brightness",),
        labels=(Label(value=1, name="ball", color=(1, 0, 0)),),
        spacing=(0, 0, 0),
        patch=(1, 16, 16) if dimensions == 2 else (16, 16, 16),
        network=Network(name="unet", arguments={"filters": [4, 8, 8], "norm": norm}),
    )


def network(norm: str = "batch", dimensions: int = 3) -> TorchSegmenter:
    """One of ours, with weights by chance and, for batch norm, statistics that are not those of the start."""
    torch.manual_seed(0)
    spec = spec_of(norm, dimensions)
    module = build_segmenter(spec)
    for layer in batch_norms(module):
        layer.running_mean.uniform_(-0.3, 0.3)
        layer.running_var.uniform_(0.3, 2.0)
    return TorchSegmenter(spec, module)


def ball(shape: tuple[int, int, int] = (12, 20, 22)) -> tuple[np.ndarray, np.ndarray]:
    """A ball brighter than what is around it: image (1, k, j, i) and its mask."""
    mask = np.linalg.norm(np.indices(shape) - (np.array(shape) // 2)[:, None, None, None], axis=0) <= 5
    noise = np.random.default_rng(0).normal(0, 0.03, shape)
    return (0.2 + 0.6 * mask + noise).astype(np.float32)[None], mask


class Threshold(nn.Module):
    """Brighter than the mean of what it was trained on by one standard deviation is a ball."""

    def __init__(self, trained_on: np.ndarray) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(1)
        self.norm.running_mean.fill_(float(trained_on.mean()))
        self.norm.running_var.fill_(float(trained_on.var()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        margin = 6 * (self.norm(x) - 1)
        return torch.cat([-margin, margin], 1) / 2


class Root(nn.Module):
    """Well as long as its statistics are the ones it was trained with; not a number with any others."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(1)
        self.norm.running_mean.fill_(-5.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        root = torch.sqrt(self.norm(x))
        return torch.cat([root, -root], 1)


def fingerprint(segmenter: TorchSegmenter) -> str:
    tensors = segmenter.module.state_dict()
    modes = [(name, module.training) for name, module in segmenter.module.named_modules()]
    wanted = [(name, parameter.requires_grad) for name, parameter in segmenter.module.named_parameters()]
    said = b"".join(name.encode() + tensor.numpy().tobytes() for name, tensor in tensors.items())
    return hashlib.sha256(said + repr((modes, wanted)).encode()).hexdigest()


@pytest.mark.parametrize(("norm", "dimensions"), [("batch", 2), ("batch", 3), ("instance", 2), ("instance", 3)])
def test_each_method_gives_other_probabilities_the_same_twice_and_leaves_the_model_as_it_was(norm, dimensions):
    segmenter, (array, _) = network(norm, dimensions), ball()
    before, first = fingerprint(segmenter), infer(segmenter, array)
    for name, method in ALL.items():
        if norm == "instance" and name in ("bn", "intent"):
            with pytest.raises(NotApplicable, match="no batch normalization"):
                method(array, first, segmenter)
            continue
        found, again = method(array, first, segmenter), method(array, first, segmenter)
        assert found.accepted
        assert found.probabilities.shape == first.shape
        assert found.probabilities.dtype == np.float32
        assert np.allclose(found.probabilities.sum(0), 1, atol=1e-4)
        assert not np.allclose(found.probabilities, first, atol=1e-5), name
        assert np.allclose(found.probabilities, again.probabilities, atol=1e-5)
        assert fingerprint(segmenter) == before


@pytest.mark.parametrize("name", ALL)
def test_a_cancel_at_any_step_leaves_the_model_as_it_was(name):
    segmenter, (array, _) = network("batch", 2), ball()
    before, first = fingerprint(segmenter), infer(segmenter, array)
    steps: list[str] = []
    ALL[name](array, first, segmenter, Progress(lambda fraction, message: steps.append(message)))
    for last in sorted({0, len(steps) // 2, len(steps) - 1}):
        calls = iter(range(len(steps)))
        with pytest.raises(Cancelled):
            ALL[name](array, first, segmenter, Progress(cancelled=lambda calls=calls, last=last: next(calls) >= last))
        assert fingerprint(segmenter) == before


@pytest.mark.parametrize("name", ALL)
def test_numbers_that_break_down_give_the_first_mask_and_say_so(name):
    array, _ = ball()
    segmenter = TorchSegmenter(spec_of("batch", 3), Root())
    before, first = fingerprint(segmenter), infer(segmenter, array)
    assert np.isfinite(first).all()
    found = ALL[name](array, first, segmenter)
    assert found.probabilities is first
    assert not found.accepted
    assert "broke down" in found.reason
    assert fingerprint(segmenter) == before


@pytest.mark.parametrize("name", ALL)
def test_a_model_without_a_torch_network_is_told_apart(name):
    class Foreign:
        spec = spec_of("batch", 3)

        def logits(self, patches: np.ndarray) -> np.ndarray:
            return np.concatenate([-patches, patches], 1)

    array, _ = ball()
    with pytest.raises(NotApplicable, match="no torch network"):
        ALL[name](array, infer(Foreign(), array), Foreign())


def test_statistics_of_the_image_undo_a_change_of_scale_and_offset():
    array, mask = ball((16, 16, 16))  # a patch: nothing is padded
    segmenter = TorchSegmenter(spec_of("batch", 3), Threshold(array))
    shifted = 0.3 * array + 2
    first = infer(segmenter, shifted)
    assert (first.argmax(0) == 1).all()  # all of it is brighter than what was trained on
    found = bn(shifted, first, segmenter).probabilities
    assert np.array_equal(found.argmax(0) == 1, mask)
    assert np.allclose(found, infer(segmenter, array), atol=2e-3)  # apart from the variance's epsilon


def test_large_images_are_measured_block_by_block_and_together(monkeypatch):
    array, _ = ball((16, 32, 16))
    array[:, :, 16:] += 3  # the blocks have different means
    spec = spec_of("batch", 3)
    module = Threshold(array).eval()
    whole = image_statistics(module, blocks_of(array, spec))
    monkeypatch.setattr(shared, "MOST_VOXELS", 16**3)
    blocks = blocks_of(array, spec)
    assert [tuple(block.patch.shape) for block in blocks] == [(1, 1, 16, 16, 16)] * 2
    for parts in (whole, image_statistics(module, blocks)):
        assert parts[0][0].item() == pytest.approx(array.mean(), rel=1e-4)
        assert parts[0][1].item() == pytest.approx(array.var(), rel=1e-4)
    assert not module.norm.training
    flat = blocks_of(array, spec_of("batch", 2))
    assert [block.inside[0] for block in flat] == [slice(0, 8), slice(0, 8)]
    segmenter = network("instance", 2)
    assert tent(array, infer(segmenter, array), segmenter).accepted


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_tent_makes_the_network_surer(norm):
    segmenter, (array, _) = network(norm), ball()
    first = infer(segmenter, array)
    start = bn(array, first, segmenter).probabilities if norm == "batch" else first
    found = tent(array, first, segmenter).probabilities

    def entropy(p):
        return -(p * np.log(p)).sum(0).mean()

    assert entropy(found) < entropy(start) - 1e-4


def test_intent_is_the_weighted_mean_of_six_mixtures_of_statistics():
    array, _ = ball((16, 16, 16))
    segmenter = TorchSegmenter(spec_of("batch", 3), Threshold(array))
    shifted = 0.5 * array + 0.3
    predictions = []
    for ratio in RATIOS:
        mean = (1 - ratio) * array.mean() + ratio * shifted.mean()
        variance = (1 - ratio) * array.var() + ratio * shifted.var()
        margin = 6 * ((shifted[0] - mean) / np.sqrt(variance + 1e-5) - 1)
        predictions.append(1 / (1 + np.exp(-margin)))
    weights = weights_of([balanced_entropy(np.stack([1 - p, p])) for p in predictions])
    expected = sum(weight * p for weight, p in zip(weights, predictions, strict=True))
    found = intent(shifted, infer(segmenter, shifted), segmenter).probabilities
    assert np.allclose(found[1], expected, atol=1e-3)


def test_the_surest_prediction_counts_most_and_background_does_not_drown_a_structure():
    weights = weights_of([0.5, 0.2, 0.4])
    assert sum(weights) == pytest.approx(1)
    assert weights[1] / weights[0] == pytest.approx(np.e, rel=1e-5)
    assert weights_of([0.3, 0.3]) == pytest.approx([0.5, 0.5])
    foreground = np.zeros((1, 10, 10), np.float32)
    foreground[0, 0, 0] = 0.5 + 1e-6  # one voxel of a structure, as unsure as can be: one bit
    p = np.stack([1 - foreground, foreground])
    assert balanced_entropy(p) == pytest.approx(0.5, abs=1e-3)
    assert balanced_entropy(np.stack([1 - 0 * foreground, 0 * foreground])) == 0
    assert balanced_entropy(np.full((4, 1, 3, 3), 0.25, np.float32)) == pytest.approx(2)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_views_that_agree_cost_nothing_and_views_that_do_not_cost_much(dimensions):
    class Flat(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([0 * x, 0 * x + 1], 1)

    class Same(nn.Module):  # follows every move of the image
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([-x, x], 1) * 20

    class Fixed(nn.Module):  # looks at the place, not at the image
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            stripes = torch.linspace(-15, 15, x.shape[-1]).sin().expand_as(x)
            return torch.cat([-stripes, stripes], 1) * 20

    array, _ = ball((16, 32, 32))
    patch = torch.from_numpy(array - 0.5)[None]
    patch = patch[:, :, 8] if dimensions == 2 else patch

    def cost(module: nn.Module) -> float:
        return float(disagreement(module, patch, torch.Generator().manual_seed(1)))

    assert abs(cost(Flat())) < 1e-5  # what a view lost at its border does not count
    assert 0 < cost(Same()) < 0.01
    assert cost(Fixed()) > 0.05
