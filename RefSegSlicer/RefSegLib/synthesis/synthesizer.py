"""From a soft mask to its proxy image: what the image should look like if the mask were right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.instancenorm import _InstanceNorm

from RefSegLib.models.networks import build_synthesizer, synthesizer_divisors
from RefSegLib.models.spec import SegmenterSpec

if TYPE_CHECKING:
    from RefSegLib.models.store import ModelVersion


def gray(array: npt.NDArray[np.float32], spec: SegmenterSpec) -> npt.NDArray[np.float32]:
    """What a proxy image is compared with: the mean of the channels of a whole prepared image (C, k, j, i).

    Brought to 0..1 (from its 0.5 and 99.5 percentile) for models that are given z-scores: similarity and its constants
    are made for that range, and the other normalizations give it.
    """
    mean = array.mean(0)
    if spec.normalization.kind != "zscore":
        return mean
    low, high = np.percentile(mean, (0.5, 99.5))
    return ((mean - low) / max(float(high - low), 1e-6)).astype(np.float32)


class Synthesizer:
    """A trained network from masks to images (method of RefSeg; direct regression, no adversary).

    context: voxels along k, j, i that it has to see at once at least, to draw as it learned to.
    """

    def __init__(self, spec: SegmenterSpec, module: nn.Module) -> None:
        self.spec = spec
        self.module = module.eval()
        normalized = any(isinstance(layer, _InstanceNorm) for layer in module.modules())
        # Instance norm should see about as much as in training; a network without it draws any part of an image alike.
        self.context = spec.patch if normalized else (1, 1, 1)

    def __call__(self, probabilities: torch.Tensor) -> torch.Tensor:
        """(n, outputs, k, j, i) to (n, 1, k, j, i), any size; gradients flow back to the probabilities."""
        shape = probabilities.shape[2:]
        pad = [x for n, d in zip(shape[::-1], synthesizer_divisors(self.spec)[::-1], strict=True) for x in (0, -n % d)]
        proxy = self.module(F.pad(probabilities, pad, mode="replicate"))
        return proxy[:, :, : shape[0], : shape[1], : shape[2]].float()

    @torch.inference_mode()
    def proxy(self, probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The proxy image (k, j, i) of soft masks (outputs, k, j, i), in the range of normalized images."""
        device = next(self.module.parameters()).device
        masks = torch.from_numpy(np.ascontiguousarray(probabilities, np.float32))
        return self(masks[None].to(device))[0, 0].cpu().numpy()


def load_synthesizer(version: ModelVersion, device: str | torch.device = "cpu") -> Synthesizer | None:
    """The synthesizer of a stored version, ready to draw; None if the version has none."""
    weights = version.synthesizer()
    if weights is None:
        return None
    module = build_synthesizer(version.spec)
    module.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
    return Synthesizer(version.spec, module.to(device))
