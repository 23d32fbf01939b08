"""From a soft mask to its proxy image: what the image should look like if the mask were right."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from RefSegLib.models.networks import divisors
from RefSegLib.models.spec import SegmenterSpec


def gray(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What a proxy image is compared with: the mean of the channels of a prepared image (C, k, j, i)."""
    return array.mean(0)


class Synthesizer:
    """A trained network from masks to images (method of RefSeg; direct regression, no adversary)."""

    def __init__(self, spec: SegmenterSpec, module: nn.Module) -> None:
        self.spec = spec
        self.module = module.eval()

    def __call__(self, probabilities: torch.Tensor) -> torch.Tensor:
        """(n, outputs, k, j, i) to (n, 1, k, j, i), any size; gradients flow back to the probabilities."""
        shape = probabilities.shape[2:]
        pad = [x for n, d in zip(shape[::-1], divisors(self.spec)[::-1], strict=True) for x in (0, -n % d)]
        proxy = self.module(F.pad(probabilities, pad, mode="replicate"))
        return proxy[:, :, : shape[0], : shape[1], : shape[2]].float()

    @torch.inference_mode()
    def proxy(self, probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The proxy image (k, j, i) of soft masks (outputs, k, j, i), in the range of normalized images."""
        device = next(self.module.parameters()).device
        masks = torch.from_numpy(np.ascontiguousarray(probabilities, np.float32))
        return self(masks[None].to(device))[0, 0].cpu().numpy()
