"""The auxiliary branch of robust transfer: while a segmenter learns, its encoder must also be able to draw the image.

Chen, TAE-Seg (IEEE TIM 71, 2022): loss = Dice + cross-entropy + 0.1 (L1 + MSE of the reconstruction). The branch hangs
on the deepest level, learns with the segmenter, and is dropped from what is stored.
"""

from __future__ import annotations

import torch
from torch import nn

from RefSegLib.models.spec import SegmenterSpec
from RefSegLib.pretraining.encoder import build_decoder, segment_and_encode
from RefSegLib.training.losses import dice_ce, one_hot

WEIGHT = 0.1


class ReconstructingSegmenter(nn.Module):
    """`segmenter`, of build_segmenter(spec), with the branch beside it. It segments as the segmenter alone does."""

    def __init__(self, segmenter: nn.Module, spec: SegmenterSpec, seed: int) -> None:
        super().__init__()
        self.segmenter = segmenter
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.decoder = build_decoder(spec).to(next(segmenter.parameters()).device)
        self.outputs = spec.outputs

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The segmenter's logits."""
        return self.segmenter(images)

    def loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """What training makes small, of images (n, C, k, j, i) and labels (n, k, j, i)."""
        logits, latents = segment_and_encode(self.segmenter, images)
        wrong = self.decoder(latents).float() - images
        return dice_ce(logits, one_hot(labels, self.outputs)) + WEIGHT * (wrong.abs().mean() + wrong.square().mean())
