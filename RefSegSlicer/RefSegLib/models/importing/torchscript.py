"""A TorchScript file: what it needs and gives is told by a specification, and checked by running it once."""

from __future__ import annotations

from pathlib import Path

import torch

from RefSegLib.errors import BadInput
from RefSegLib.models.foreign import scripted
from RefSegLib.models.networks import Slicewise
from RefSegLib.models.spec import Network, SegmenterSpec


def import_torchscript(file: Path, spec: SegmenterSpec) -> bytes:
    """The content of the file, once it is known to give what `spec` (see `as_torchscript`) says."""
    content = file.read_bytes()
    network = scripted(spec, content)
    try_out(spec, Slicewise(network) if spec.dimensions == 2 else network)
    return content


def as_torchscript(spec: SegmenterSpec, gives: str | None = None) -> SegmenterSpec:
    """`spec` with a TorchScript network in its place; `gives` wins over what the specification says it gives."""
    arguments = dict(spec.network.arguments) if spec.network.name in ("torchscript", "monai") else {}
    arguments = {name: value for name, value in arguments.items() if name not in ("class", "arguments")}
    if gives is not None:
        arguments["gives"] = gives
    if "gives" not in arguments:
        raise BadInput(
            "It is not known what the TorchScript file gives. Say so with --gives: logits, probabilities, "
            "'foreground logit' or 'foreground probability'."
        )
    return spec.model_copy(update={"network": Network(name="torchscript", arguments=arguments)})


@torch.inference_mode()
def try_out(spec: SegmenterSpec, network: torch.nn.Module) -> None:
    """Run a network on one empty patch. Raises BadInput if it takes no such patch or gives something else."""
    try:
        result = network.eval()(torch.zeros(1, len(spec.channels), *spec.patch))
    except BadInput:
        raise
    except Exception as error:  # whatever stops it
        raise BadInput(
            f"The network does not take a patch of {len(spec.channels)} channels and {spec.patch} voxels, or gives no "
            f"such image: {' '.join(str(error).split())[-300:]}"
        ) from error
    expected = (1, spec.outputs, *spec.patch)
    if tuple(result.shape) != expected:
        raise BadInput(
            f"The network gives {tuple(result.shape)} instead of {expected} (patch, background and labels, voxels). "
            "Correct the labels, the patch or what it gives in the model description."
        )
