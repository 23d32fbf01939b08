"""Networks by name, for models in two and in three dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.networks.nets import DynUNet, UNet
from torch import nn

from RefSegLib.errors import BadInput
from RefSegLib.models.foreign import FOREIGN, build_foreign, foreign_divisors, scripted
from RefSegLib.models.spec import Network, SegmenterSpec

if TYPE_CHECKING:
    from RefSegLib.models.version import ModelVersion

# An axis is halved as long as this many voxels of the patch remain along it.
SMALLEST = 4


class Slicewise(nn.Module):
    """A two-dimensional network over every slice of (n, C, k, j, i): slices along k are independent of each other."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, C, k, j, i) to (n, outputs, k, j, i), or to slices of whatever size the network gives."""
        n, channels, k, j, i = x.shape
        y = self.network(x.transpose(1, 2).reshape(n * k, channels, j, i))
        return y.reshape(n, k, *y.shape[1:]).transpose(1, 2)


def build_segmenter(spec: SegmenterSpec) -> nn.Module:
    """The untrained network of `spec`: (n, channels, k, j, i) to logits (n, outputs, k, j, i), in 2D as in 3D.

    spec.network.name is "dynunet" (full resolution from the first layer, after nnU-Net) or "unet" (residual,
    halves at once, several times faster); its arguments are `filters`, one number per level, `norm` ("instance" or
    "batch") and `dropout`. All convolutional: any size that `divisors` divides will do. "nnunet" and "monai" are those
    of others, see models/foreign.py.
    Raises BadInput for another name or argument, or a patch that the network cannot halve evenly.
    """
    if spec.network.name in FOREIGN:
        network = build_foreign(spec)
        return Slicewise(network) if spec.dimensions == 2 else network
    return _build(spec, spec.network, len(spec.channels), spec.outputs)


def restored_segmenter(version: ModelVersion) -> nn.Module:
    """The network of a stored version with its weights, whoever made it."""
    if version.spec.network.name == "torchscript":
        network = scripted(version.spec, version.segmenter_bytes())
        return Slicewise(network) if version.spec.dimensions == 2 else network
    network = build_segmenter(version.spec)
    network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in version.segmenter().items()})
    return network


def build_synthesizer(spec: SegmenterSpec) -> nn.Module:
    """The untrained network from soft masks (n, outputs, k, j, i) to proxy images (n, 1, k, j, i).

    spec.synthesizer (axes of the patch that cannot be halved evenly then stay as they are), or the same kind of network
    as the segmenter with its first three levels only: what an image looks like near a structure is decided nearby. An
    image of several channels is proxied by their mean.
    """
    return _build(spec, _synthesizer(spec), spec.outputs, 1)


def levels(spec: SegmenterSpec) -> tuple[list[int], list[tuple[int, int, int]]]:
    """The filters of each level of our own segmenter and its stride along k, j, i, the first of them 1.

    Raises BadInput for a network of others: it is not built of levels we know.
    """
    if spec.network.name in FOREIGN:
        raise BadInput(
            f"The network '{spec.network.name}' of model '{spec.name}' was made elsewhere; only dynunet and unet "
            "have levels that RefSeg knows."
        )
    filters = _filters(spec, spec.network)
    return filters, _strides(spec, len(filters))


def divisors(spec: SegmenterSpec) -> tuple[int, int, int]:
    """By what the size of an input of the segmenter along k, j, i must be divisible."""
    return foreign_divisors(spec) if spec.network.name in FOREIGN else _divisors(spec, spec.network)


def synthesizer_divisors(spec: SegmenterSpec) -> tuple[int, int, int]:
    """By what the size of an input of the synthesizer along k, j, i must be divisible."""
    return _divisors(spec, _synthesizer(spec))


def _divisors(spec: SegmenterSpec, network: Network) -> tuple[int, int, int]:
    strides = _strides(spec, len(_filters(spec, network)), even=network is not spec.synthesizer)
    return tuple(math.prod(stride[axis] for stride in strides) for axis in range(3))


def _synthesizer(spec: SegmenterSpec) -> Network:
    if spec.synthesizer is not None:
        return spec.synthesizer
    if spec.network.name in FOREIGN:
        raise BadInput(
            f"Model '{spec.name}' does not say what its synthesizer is; train one: refseg train-synthesizer."
        )
    arguments = {**spec.network.arguments, "filters": _filters(spec, spec.network)[:3]}
    return Network(name=spec.network.name, arguments=arguments)


def parameters_in_millions(module: nn.Module) -> float:
    """How many numbers a network has learned, in millions."""
    return sum(p.numel() for p in module.parameters()) / 1e6


def _filters(spec: SegmenterSpec, network: Network) -> list[int]:
    filters = network.arguments.get("filters", (16, 32, 64, 128))
    if len(filters) < 3 or min(filters) < 1:
        raise BadInput(
            f"The network of model '{spec.name}' needs three or more levels of filters, not {list(filters)}."
        )
    return list(filters)


def _strides(spec: SegmenterSpec, levels: int, even: bool = True) -> list[tuple[int, int, int]]:
    """One stride per level, the first 1: each axis is halved while enough voxels of the patch remain, as in nnU-Net.

    even: it must then be possible to halve it; else an axis of an odd number of voxels stays as it is.
    """
    size, strides = list(spec.patch), [(1, 1, 1)]
    for _ in range(levels - 1):
        stride = tuple(2 if n >= 2 * SMALLEST and (even or n % 2 == 0) else 1 for n in size)
        if any(n % s for n, s in zip(size, stride, strict=True)):
            raise BadInput(
                f"The patch {spec.patch} of model '{spec.name}' cannot be halved {levels - 1} times; "
                f"use multiples of {2 ** (levels - 1)}, or fewer levels of filters."
            )
        size = [n // s for n, s in zip(size, stride, strict=True)]
        strides.append(stride)
    return strides


def _build(spec: SegmenterSpec, wanted: Network, inputs: int, outputs: int) -> nn.Module:
    others = dict(wanted.arguments)
    others.pop("filters", None)
    norm, dropout = others.pop("norm", "instance"), others.pop("dropout", 0.0)
    filters = _filters(spec, wanted)
    if others or norm not in ("instance", "batch"):
        raise BadInput(
            f"The network of model '{spec.name}' does not know {others or {'norm': norm}}; its arguments are filters, "
            'norm ("instance" or "batch") and dropout.'
        )
    flat = spec.dimensions == 2
    even = wanted is not spec.synthesizer
    strides: Sequence[Any] = [s[1:] if flat else s for s in _strides(spec, len(filters), even)]
    kernels: Sequence[Any] = [[3 if n > 1 else 1 for n in (spec.patch[1:] if flat else spec.patch)]] * len(filters)
    normalization = (norm, {"affine": True})
    if wanted.name == "dynunet":
        layers = DynUNet(
            spec.dimensions,
            inputs,
            outputs,
            kernels,
            strides,
            strides[1:],
            filters=filters,
            dropout=dropout or None,
            norm_name=normalization,
        )
        # DynUNet registers every layer twice, and its weights would be stored twice; these two are what it runs.
        network: nn.Module = nn.Sequential(layers.skip_layers, layers.output_block)
    elif wanted.name == "unet":
        network = UNet(
            spec.dimensions, inputs, outputs, filters, strides[1:], num_res_units=2, norm=normalization, dropout=dropout
        )
    else:
        raise BadInput(f"There is no network '{wanted.name}'; the known ones are dynunet and unet.")
    return Slicewise(network) if flat else network
