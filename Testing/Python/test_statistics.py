"""Batch-norm networks looking with part of the statistics of the image at hand."""

import numpy as np
import pytest
import torch
from RefSegLib.inference.segmenter import OpenVinoSegmenter, TorchSegmenter
from RefSegLib.inference.tiling import infer
from RefSegLib.models.networks import build_segmenter
from RefSegLib.models.spec import Label, Network, SegmenterSpec
from RefSegLib.reflection.candidates import named, parts_of
from RefSegLib.reflection.looking import Looked, look
from RefSegLib.reflection.settings import ReflectionSettings
from RefSegLib.reflection.statistics import MixedStatistics, batch_norms, has_batch_norm
from torch import nn


def spec(norm: str = "batch", dimensions: int = 2) -> SegmenterSpec:
    return SegmenterSpec(
        name="slices",
        dimensions=dimensions,
        channels=("MR",),
        labels=(Label(value=1, name="ball", color=(1, 0, 0)),),
        spacing=(0, 1, 1),
        patch=(1, 16, 16) if dimensions == 2 else (16, 16, 16),
        network=Network(name="unet", arguments={"filters": [4, 8, 8], "norm": norm}),
    )


@pytest.fixture
def network() -> TorchSegmenter:
    torch.manual_seed(0)
    made = TorchSegmenter(spec(), build_segmenter(spec()))
    for layer in batch_norms(made.module):
        layer.running_mean.uniform_(-0.5, 0.5)
        layer.running_var.uniform_(0.5, 2)
    return made


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).random((1, 5, 16, 16), np.float32)


def test_no_share_is_the_network_as_it_was_and_the_whole_share_is_that_of_the_image(network, image):
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    mixed = MixedStatistics(network, image)
    np.testing.assert_array_equal(infer(mixed.network(0.0), image), infer(network, image))
    own = mixed.network(1.0)
    first = batch_norms(own.module)[0]
    seen = []
    first.register_forward_hook(lambda layer, given, result: seen.append(given[0]))
    infer(own, image)
    (given,) = seen  # five slices fit into one batch
    torch.testing.assert_close(first.running_mean, given.mean((0, 2, 3)))
    torch.testing.assert_close(first.running_var, given.var((0, 2, 3)))
    assert all(torch.equal(before[name], value) for name, value in network.module.state_dict().items())


def test_a_changed_gain_is_undone_by_the_statistics_of_the_image(image):
    layers = nn.Sequential(nn.BatchNorm3d(1), nn.Conv3d(1, 2, 1))
    network = TorchSegmenter(spec(), layers)
    mixed = infer(MixedStatistics(network, 3 * image + 1).network(1.0), 3 * image + 1)
    plain = infer(MixedStatistics(network, image).network(1.0), image)
    np.testing.assert_allclose(mixed, plain, atol=1e-4)
    assert np.abs(infer(network, 3 * image + 1) - infer(network, image)).max() > 0.01


def test_candidates_with_statistics_are_looked_at_and_called_by_their_share(network, image):
    settings = ReflectionSettings(candidates=("identity", "gamma 2 @ 0.5", "identity @ 0.3", "gamma 2"))
    looked = look(Looked("identity", infer(network, image)), image, network, settings)
    assert [candidate.name for candidate in looked] == list(settings.candidates)
    assert len({candidate.probabilities.tobytes() for candidate in looked}) == 4


def test_names_of_candidates_are_read_as_they_are_written():
    assert parts_of(named("gamma 2", 0.3)) == ("gamma 2", 0.3)
    assert parts_of(named("identity", 0.0)) == ("identity", 0.0)


def test_only_batch_norm_networks_have_statistics_to_mix(network):
    plain = TorchSegmenter(spec("instance"), build_segmenter(spec("instance")))
    solid = spec("batch", dimensions=3)
    assert has_batch_norm(network) and not has_batch_norm(plain)
    assert has_batch_norm(OpenVinoSegmenter(solid, build_segmenter(solid)))
