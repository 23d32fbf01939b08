"""Adjusting the model to one image: the reflection of RefSeg (Huang et al., MICCAI 2022) in its safest form.

A few anchored steps, on the scales and offsets of normalization layers only: with freer parameters or more steps the
similarity goes up and the mask gets worse (feasibility measurements on cardiac MR: 5 steps +0.013 Dice and 3 %
harmed, 12 steps +0.008 and 15 % harmed, the mask itself -0.008).
"""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from RefSegLib.inference.segmenter import Segmenter, TorchSegmenter
from RefSegLib.inference.tiling import infer
from RefSegLib.models.networks import divisors, synthesizer_divisors
from RefSegLib.progress import SILENT, Progress
from RefSegLib.reflection.drawing import padding
from RefSegLib.reflection.judge import Judge
from RefSegLib.reflection.settings import ReflectionSettings
from RefSegLib.reflection.similarity import similarity

# Gradients need the activations of all layers at once; larger boxes are left as they are.
MOST_VOXELS = 2**20


def torch_module(segmenter: Segmenter) -> nn.Module | None:
    """The torch network behind a segmenter, whichever machinery runs it; None if there is none to adjust."""
    module = getattr(segmenter, "module", None)
    return module if isinstance(module, nn.Module) and norm_parameters(module) else None


def norm_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Scales and offsets of all normalization layers."""
    norms = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
    return [p for layer in module.modules() if isinstance(layer, norms) for p in layer.parameters(recurse=False)]


def adjust(
    array: npt.NDArray[np.float32],
    segmenter: Segmenter,
    judge: Judge,
    settings: ReflectionSettings,
    progress: Progress = SILENT,
) -> tuple[npt.NDArray[np.float32] | None, list[float]]:
    """Probabilities (outputs, k, j, i) of a copy of the model, moved so that the proxy of its mask agrees better.

    array: (C, k, j, i), normalized, the input of the candidate that was chosen; judge: knows image and region.
    Maximizes the score of `settings` - anchor x KL(first || now) inside the judge's box, by Adam. Returns None for
    the probabilities if nothing could be adjusted or the numbers broke down, and the scores before each step.
    The model itself is never touched: whatever happens on the way (cancel, an error, a killed process), its weights
    are what they were.
    """
    module = torch_module(segmenter)
    if module is None or judge.region.numel() > MOST_VOXELS:
        return None, []
    device = next(module.parameters()).device
    clone = copy.deepcopy(module).eval().requires_grad_(False)
    parameters = [p.requires_grad_(True) for p in norm_parameters(clone)]
    optimizer = torch.optim.Adam(parameters, settings.rate)
    # The network sees what it saw before; of an image too large for that, the box only.
    whole = array[0].size <= MOST_VOXELS
    seen = array if whole else array[(slice(None), *judge.box)]
    margins, inside = padding(seen.shape[1:], segmenter.spec.patch, divisors(segmenter.spec))
    padded = np.pad(seen, [(0, 0), *margins], mode="edge").astype(np.float32)
    if whole:
        inside = tuple(slice(i.start + b.start, i.start + b.stop) for i, b in zip(inside, judge.box, strict=True))
    around, drawn = padding(judge.region.shape, judge.synthesizer.context, synthesizer_divisors(segmenter.spec))
    frame = [side for margin in around[::-1] for side in margin]
    patch = torch.from_numpy(padded)[None].to(device)
    image, region = judge.image.to(device), judge.region.to(device)
    first: torch.Tensor | None = None
    trace: list[float] = []
    with torch.enable_grad():
        for step in range(settings.steps + 1):
            progress(step / (settings.steps + 1), f"Adjusting: step {step} of {settings.steps}")
            log_probabilities = F.log_softmax(clone(patch).float()[(slice(None), slice(None), *inside)], dim=1)
            masks = F.pad(log_probabilities.exp(), frame, mode="replicate")
            found = similarity(judge.synthesizer(masks)[(slice(None), slice(None), *drawn)], image, region, judge.flat)
            score = settings.ssim_weight * found.ssim[0] + settings.correlation_weight * found.correlation[0]
            if not bool(torch.isfinite(score)):
                return None, trace
            trace.append(float(score.detach()))
            if step == settings.steps:
                break
            first = log_probabilities.detach() if first is None else first
            divergence = (first.exp() * (first - log_probabilities)).sum(1)[0][region].mean()
            # Gradients of these parameters alone: the synthesizer's, shared with others, gathers none.
            gradients = torch.autograd.grad(settings.anchor * divergence - score, parameters)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
    if not all(bool(torch.isfinite(p).all()) for p in parameters):
        return None, trace
    return infer(TorchSegmenter(segmenter.spec, clone, device), array), trace
