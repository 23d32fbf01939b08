"""Networks made elsewhere: nnU-Net, MONAI and TorchScript, seen as networks of ours.

Their spec.network.arguments hold, besides what the network itself asks for (models/nnunet.py; `class` and `arguments`
of a class of monai.networks.nets; nothing for TorchScript):
axes: where the axes of its input point to: letters of k, j, i (axes of the working grid) or, for aligned images, of
    S/I, P/A, L/R, for example "RAS" for arrays as nibabel reads them;
gives: "logits", "probabilities", "foreground logit" or "foreground probability";
scale, offset: what the normalized image is multiplied by and then moved by, a number or one per channel.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Sequence
from typing import Any

import monai.networks.nets
import torch
from torch import nn

from RefSegLib.errors import BadInput
from RefSegLib.models.nnunet import NnUNet, plan_of
from RefSegLib.models.spec import SegmenterSpec

FOREIGN = ("nnunet", "monai", "torchscript")
GIVES = ("logits", "probabilities", "foreground logit", "foreground probability")
_COMMON = ("axes", "gives", "scale", "offset")
_OPPOSITE = {"I": "S", "A": "P", "R": "L"}
_LEAST = 1e-6  # probability, before its logarithm is taken

# TorchScript can write and map files and call other machines; a network does neither. Operators are always called by
# their full name in the code of such a file, and nothing of it runs before the file has been looked through.
_OPERATOR = re.compile(r"(?<![\w.])(torch|ops)((?:[\s\\]*\.[\s\\]*\w+)+)|(torch\.classes)\.(?!quantized)")
_HARMFUL = re.compile(r"save|from_file|load|rpc\w*|open|system")
_NAMESPACES = ("aten", "prim", "quantized")
_LARGEST_CODE = 64 << 20  # bytes


def build_foreign(spec: SegmenterSpec) -> nn.Module:
    """The untrained network of `spec`, nnU-Net's or MONAI's: (n, channels, k, j, i) to logits, by slices in 2D."""
    arguments = {name: value for name, value in spec.network.arguments.items() if name not in _COMMON}
    if spec.network.name == "nnunet":
        return _Turned(spec, NnUNet(plan_of(arguments), len(spec.channels), spec.outputs))
    if spec.network.name == "monai":
        return _Turned(spec, monai_network(arguments.pop("class", ""), arguments.pop("arguments", {}), arguments))
    raise BadInput(
        f"Model '{spec.name}' is a TorchScript file: it segments, and a synthesizer can be trained for it, but it "
        "cannot be built anew or trained further."
    )


def scripted(spec: SegmenterSpec, content: bytes) -> nn.Module:
    """The network in a TorchScript file: (n, channels, k, j, i) to logits. Raises BadInput if it is none, or does more
    than compute."""
    _check_code(content)
    try:
        network = torch.jit.load(io.BytesIO(content), map_location="cpu").eval()
    except Exception as error:  # torch raises many kinds for damaged files
        raise BadInput(f"The TorchScript file of '{spec.name}' cannot be loaded: {_line(error)}") from error
    others = set(spec.network.arguments) - set(_COMMON)
    if others:
        raise BadInput(f"A TorchScript network takes no arguments called {', '.join(sorted(others))}.")
    return _Turned(spec, network)


def foreign_divisors(spec: SegmenterSpec) -> tuple[int, int, int]:
    """By what inputs must be divisible along k, j, i: the strides of nnU-Net; else only whole patches will do."""
    if spec.network.name != "nnunet":
        return spec.patch
    arguments = {name: value for name, value in spec.network.arguments.items() if name not in _COMMON}
    strides = plan_of(arguments).strides
    order, _ = _order(spec)
    result = [1, 1, 1]
    for position, axis in enumerate(order):
        result[axis + 3 - len(order)] = math.prod(stride[position] for stride in strides)
    return tuple(result)


def monai_network(name: str, arguments: dict[str, Any], others: Sequence[str] = ()) -> nn.Module:
    """A network of monai.networks.nets with its arguments. Raises BadInput for anything else."""
    known = getattr(monai.networks.nets, name, None) if isinstance(name, str) and name.isidentifier() else None
    if not (isinstance(known, type) and issubclass(known, nn.Module)):
        raise BadInput(f"MONAI has no network '{name}' here. Export the model as TorchScript and import that file.")
    if others:
        raise BadInput(f"A MONAI network takes class and arguments, not {', '.join(sorted(others))}.")
    # Weights come from the file that is imported; nothing is downloaded.
    arguments = {key: value for key, value in arguments.items() if not key.startswith("pretrained_")}
    arguments = {key: False if key == "pretrained" else value for key, value in arguments.items()}
    try:
        return known(**arguments)
    except Exception as error:  # whatever that class has to say about its arguments
        raise BadInput(f"MONAI's {name} does not take these arguments: {_line(error)}") from error


class _Turned(nn.Module):
    """A network that sees arrays in its own order of axes and gives what it gives; to us it looks like one of ours."""

    def __init__(self, spec: SegmenterSpec, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.outputs = spec.outputs
        # A traced network may have learned its number of patches by heart.
        self.one_by_one = spec.network.name == "torchscript"
        arguments = spec.network.arguments
        self.gives = arguments.get("gives", "logits")
        if self.gives not in GIVES or (self.gives.startswith("foreground") and spec.outputs != 2):
            raise BadInput(
                f"Model '{spec.name}' cannot give '{self.gives}'; known are {', '.join(GIVES)}, the last two for a "
                "single label."
            )
        self.order, self.flips = _order(spec)
        for name, usual in (("scale", 1.0), ("offset", 0.0)):
            values = torch.tensor(arguments.get(name, usual), dtype=torch.float32).reshape(-1)
            if len(values) not in (1, len(spec.channels)):
                raise BadInput(f"Model '{spec.name}' needs one {name}, or one per channel, not {len(values)}.")
            self.register_buffer(name, values.reshape(1, -1, *[1] * len(self.order)), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, channels, k, j, i) or, flat, (n, channels, j, i) to logits (n, outputs, ...)."""
        x = self._flipped((x * self.scale + self.offset).permute(0, 1, *(2 + axis for axis in self.order)))
        y = torch.cat([self._given(one) for one in (x.split(1) if self.one_by_one else [x])])
        back = sorted(range(len(self.order)), key=self.order.__getitem__)
        return self._logits(self._flipped(y).permute(0, 1, *(2 + axis for axis in back)))

    def _flipped(self, x: torch.Tensor) -> torch.Tensor:
        return x.flip(self.flips) if self.flips else x  # OpenVINO does not know a flip along nothing

    def _given(self, x: torch.Tensor) -> torch.Tensor:
        y = self.network(x)
        return y[0] if isinstance(y, (tuple, list)) else y  # of several resolutions the finest comes first

    def _logits(self, y: torch.Tensor) -> torch.Tensor:
        if self.gives == "foreground logit":
            return torch.cat((torch.zeros_like(y), y), 1)
        if self.gives == "foreground probability":
            y = torch.cat((1 - y, y), 1)
        return y if self.gives == "logits" else y.float().clamp(min=_LEAST).log()


def _order(spec: SegmenterSpec) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """For each axis of the network the axis of ours it is, counted from k (in 2D from j); and which of its dimensions,
    counted with patches and channels, run the other way."""
    axes = spec.network.arguments.get("axes", "kji"[3 - spec.dimensions :])
    for ours in ("kji"[3 - spec.dimensions :], "SPL"[3 - spec.dimensions :]):
        letters = [_OPPOSITE.get(letter, letter) for letter in str(axes)]
        if sorted(letters) == sorted(ours) and (ours.islower() or spec.aligned):
            flips = tuple(2 + n for n, letter in enumerate(axes) if letter in _OPPOSITE)
            return tuple(ours.index(letter) for letter in letters), flips
    raise BadInput(
        f"The axes '{axes}' of model '{spec.name}' are not understood: {spec.dimensions} letters of kji, or of S/I, "
        "P/A and L/R if the images are aligned."
    )


def _check_code(content: bytes) -> None:
    """Refuse a TorchScript file whose code does anything but compute."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            code = [entry for entry in archive.infolist() if entry.filename.endswith(".py")]
            if not code or sum(entry.file_size for entry in code) > _LARGEST_CODE:
                raise BadInput("The file is no TorchScript file: there is no code in it.")
            for entry in code:
                for kind, names, extension in _OPERATOR.findall(archive.read(entry).decode()):
                    parts = re.findall(r"\w+", names)
                    bad = extension or any(_HARMFUL.fullmatch(part) for part in parts)
                    if bad or (kind == "ops" and parts[0] not in _NAMESPACES):
                        raise BadInput(
                            f"The TorchScript file calls {extension or '.'.join((kind, *parts))}, which no network "
                            "needs to segment an image. It is not loaded; ask where it comes from."
                        )
    except (zipfile.BadZipFile, UnicodeDecodeError, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise BadInput(f"The file is no TorchScript file, or it is damaged: {error}.") from error


def _line(error: Exception) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
