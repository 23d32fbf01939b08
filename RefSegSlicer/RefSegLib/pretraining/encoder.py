"""The encoder inside our segmenters, and a decoder without shortcuts that draws images from what the encoder gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from monai.networks.blocks.convolutions import Convolution
from monai.networks.layers.simplelayers import SkipConnection
from monai.networks.nets import UNet
from monai.networks.nets.dynunet import DynUNetSkipLayer
from torch import nn

from RefSegLib.models.networks import Slicewise, levels
from RefSegLib.models.spec import SegmenterSpec

Joined = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def encode(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Images (n, C, k, j, i) to what the deepest level of a segmenter of build_segmenter makes of them, (n, F, k, j, i)
    on a grid that is coarser by its strides; whatever size the strides divide."""
    top, _ = _parts(network)
    return _sliced(network, images, lambda x: (_deepest(top, x),))[0]


def segment_and_encode(network: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits of a segmenter of build_segmenter, as it gives them itself, and its `encode`, in one pass."""
    top, last = _parts(network)

    def both(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found, deepest = _through(top, x)
        return last(found), deepest

    logits, deepest = _sliced(network, images, both)
    return logits, deepest


def encoder_names(network: nn.Module) -> list[str]:
    """The names of the weights of the encoder among those of the whole segmenter."""
    top, _ = _parts(network)
    inside = {id(value) for part in _encoder(top) for value in part.state_dict(keep_vars=True).values()}
    return [name for name, value in network.state_dict(keep_vars=True).items() if id(value) in inside]


def build_decoder(spec: SegmenterSpec) -> nn.Module:
    """From `encode` of the segmenter of `spec` to an image (n, C, k, j, i): for each stride a convolution and an
    enlargement, no shortcuts, so that everything about the image has to be in the deepest level."""
    filters, strides = levels(spec)
    flat = spec.dimensions == 2
    layers: list[nn.Module] = []
    ways = list(zip(filters[::-1], filters[-2::-1], strides[:0:-1], strict=False))
    for inputs, outputs, stride in ways:
        factor = tuple(map(float, stride[1:] if flat else stride))
        layers += [
            Convolution(spec.dimensions, inputs, outputs, norm=("instance", {"affine": True}), act="leakyrelu"),
            nn.Upsample(scale_factor=factor, mode="bilinear" if flat else "trilinear"),
        ]
    # Before the last enlargement, with which a convolution of one voxel changes places: it then costs next to nothing.
    layers.insert(-1, Convolution(spec.dimensions, filters[0], len(spec.channels), kernel_size=1, conv_only=True))
    network = nn.Sequential(*layers)
    return Slicewise(network) if flat else network


def _parts(network: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The uppermost level of a segmenter, and what comes after it."""
    inner = network.network if isinstance(network, Slicewise) else network
    if isinstance(inner, UNet):
        return inner.model, nn.Identity()
    return inner[0], inner[1]  # DynUNet as build_segmenter makes it


def _level(module: nn.Module) -> tuple[nn.Module, nn.Module, Joined] | None:
    """Of a level: the way down, the level below, and the way up from (below, shortcut); None for the deepest."""
    if isinstance(module, DynUNetSkipLayer):
        return module.downsample, module.next_layer, module.upsample
    if isinstance(module, nn.Sequential) and len(module) == 3 and isinstance(module[1], SkipConnection):
        down, skip, up = module
        return down, skip.submodule, lambda below, kept: up(torch.cat([kept, below], 1))
    return None


def _encoder(module: nn.Module) -> Iterator[nn.Module]:
    while (level := _level(module)) is not None:
        yield level[0]
        module = level[1]
    yield module


def _deepest(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    for part in _encoder(module):
        x = part(x)
    return x


def _through(module: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    level = _level(module)
    if level is None:
        x = module(x)
        return x, x
    down, below, up = level
    kept = down(x)
    found, deepest = _through(below, kept)
    return up(found, kept), deepest


def _sliced(
    network: nn.Module, images: torch.Tensor, run: Callable[[torch.Tensor], tuple[torch.Tensor, ...]]
) -> tuple[torch.Tensor, ...]:
    """`run` on volumes, or on the slices of networks that see slices."""
    if not isinstance(network, Slicewise):
        return run(images)
    n, channels, k, j, i = images.shape
    results = run(images.transpose(1, 2).reshape(n * k, channels, j, i))
    return tuple(y.reshape(n, k, *y.shape[1:]).transpose(1, 2) for y in results)
