"""How sure a network is: several passes with dropout and noise on the input, their mean and its entropy.

Yu 2019 (UA-MT, arXiv 1907.07034): noise N(0, 0.1) clipped at 0.2 on the input, dropout on, the entropy of the mean.
Who wants the teacher of that paper gives the running mean of the weights (`fit`) as the network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

NOISE = 0.1


@contextmanager
def _as_in_evaluation(module: nn.Module, dropout: bool) -> Iterator[None]:
    """All in evaluation (the statistics of batch norm too), dropout alone draws if asked to; afterwards as before."""
    before = {part: part.training for part in module.modules()}
    module.eval()
    for part in before if dropout else ():
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.train()
    try:
        yield
    finally:
        for part, training in before.items():
            part.training = training


@torch.no_grad()
def mean_probabilities(
    module: nn.Module, images: torch.Tensor, *, passes: int = 8, noise: float = NOISE, seed: int = 0
) -> torch.Tensor:
    """The mean of `passes` predictions (n, outputs, k, j, i) float32 for images (n, channels, k, j, i).

    noise: deviation of what is added to the images, clipped at twice that, in their own (normalized) units. With one
    pass there is neither dropout nor noise. The same seed gives the same mean; the generator of torch itself is left as
    it was.
    """
    devices = [images.device] if images.is_cuda else []
    with _as_in_evaluation(module, dropout=passes > 1), torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        total = torch.zeros((), device=images.device)
        for _ in range(passes):
            added = (torch.randn_like(images) * noise).clamp_(-2 * noise, 2 * noise) if passes > 1 else 0
            total = total + module(images + added).float().softmax(1)
    return total / passes


def entropy(probabilities: torch.Tensor) -> torch.Tensor:
    """How unsure probabilities (n, outputs, k, j, i) are: (n, 1, k, j, i) in 0..1, 1 where all are alike."""
    values = -(probabilities * probabilities.clamp(min=1e-7).log()).sum(1, keepdim=True)
    return (values / math.log(probabilities.shape[1])).clamp(0, 1)
