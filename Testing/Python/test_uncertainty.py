"""Uncertainty by repeated passes: seeded, without a trace in the network, high where predictions disagree."""

import torch
from RefSegLib.training.uncertainty import entropy, mean_probabilities
from torch import nn


def network(dropout: float = 0.5) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 8, 1), nn.BatchNorm3d(8), nn.ReLU(), nn.Dropout3d(dropout), nn.Conv3d(8, 3, 1))


IMAGES = torch.rand(2, 1, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def test_passes_differ_by_dropout_and_their_mean_is_the_same_for_the_same_seed():
    module = network()
    first, again, other = (mean_probabilities(module, IMAGES, passes=4, noise=0, seed=s) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    torch.testing.assert_close(first.sum(1), torch.ones(2, 1, 6, 6))


def test_noise_on_the_input_makes_a_network_without_dropout_doubt_too():
    module = network(0.0)
    plain = mean_probabilities(module, IMAGES, passes=1)
    with_noise = mean_probabilities(module, IMAGES, passes=4)
    assert not torch.equal(plain, with_noise)
    assert (plain - with_noise).abs().max() < 0.1


def test_one_pass_is_the_plain_prediction_and_nothing_is_left_in_the_network():
    module = network().train()
    statistics, random = module[1].running_mean.clone(), torch.get_rng_state()
    found = mean_probabilities(module, IMAGES, passes=1)
    mean_probabilities(module, IMAGES, passes=3)
    assert torch.equal(module[1].running_mean, statistics)
    assert all(part.training for part in module.modules())
    assert torch.equal(torch.get_rng_state(), random)
    assert not found.requires_grad
    torch.testing.assert_close(found, module.eval()(IMAGES).softmax(1))


def test_entropy_is_one_where_all_is_alike_and_zero_where_nothing_is_left_to_guess():
    alike = torch.full((1, 4, 1, 2, 2), 0.25)
    sure = torch.zeros(1, 4, 1, 2, 2)
    sure[:, 2] = 1
    torch.testing.assert_close(entropy(alike), torch.ones(1, 1, 1, 2, 2))
    torch.testing.assert_close(entropy(sure), torch.zeros(1, 1, 1, 2, 2), atol=1e-5, rtol=0)
