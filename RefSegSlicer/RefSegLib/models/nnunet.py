"""The networks of nnU-Net v2 (Isensee et al., Nature Methods 2021; residual encoders: Isensee et al., MICCAI 2024).

Not MONAI's DynUNet: it knows exactly two convolutions a stage, no bias before a norm, and in its residual blocks a
strided convolution where nnU-Net averages. Parameters here have the names that nnU-Net gives them, each once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from torch import nn

from RefSegLib.errors import BadInput

CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
POOLING = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
NORMS = {
    ("instance", 2): nn.InstanceNorm2d,
    ("instance", 3): nn.InstanceNorm3d,
    ("batch", 2): nn.BatchNorm2d,
    ("batch", 3): nn.BatchNorm3d,
}


class Plan(BaseModel):
    """The arguments of the network "nnunet". Sizes in the order of its own axes, one entry per stage from the finest.

    blocks: convolutions (plain) or residual blocks of each stage of the encoder; decoder: convolutions of each stage
    of the decoder, from the coarsest; bias: of all convolutions but those of shortcuts; slope: of the leaky ReLU below
    0; affine, eps: of the norms.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["plain", "residual"] = "plain"
    features: tuple[int, ...]
    kernels: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    blocks: tuple[int, ...]
    decoder: tuple[int, ...]
    bias: bool = True
    norm: Literal["instance", "batch"] = "instance"
    eps: float = 1e-5
    affine: bool = True
    slope: float = 0.01

    @model_validator(mode="after")
    def _consistent(self) -> Plan:
        stages = len(self.features)
        if not stages == len(self.kernels) == len(self.strides) == len(self.blocks) == len(self.decoder) + 1 >= 2:
            raise ValueError("features, kernels, strides and blocks need one entry a stage, decoder one less")
        sizes = {len(entry) for entry in (*self.kernels, *self.strides)}
        if sizes not in ({2}, {3}):
            raise ValueError("kernels and strides need two or three numbers each, all the same many")
        if any(
            n < 1 for entry in (self.features, self.blocks, self.decoder, *self.kernels, *self.strides) for n in entry
        ):
            raise ValueError("all sizes and numbers must be positive")
        return self

    @property
    def dimensions(self) -> int:
        """2 or 3."""
        return len(self.strides[0])


def plan_of(arguments: dict[str, Any]) -> Plan:
    """The arguments, checked. Raises BadInput."""
    try:
        return Plan.model_validate(arguments)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "arguments"
        raise BadInput(f"The nnU-Net network is not described as it should be ({place}: {first['msg']}).") from error


class NnUNet(nn.Module):
    """PlainConvUNet or ResidualEncoderUNet: (n, inputs, axes...) to logits (n, outputs, axes...), the finest only."""

    def __init__(self, plan: Plan, inputs: int, outputs: int) -> None:
        super().__init__()
        self.encoder = _Encoder(plan, inputs)
        self.decoder = _Decoder(plan, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return self.decoder(self.encoder(x))


class _Convolution(nn.Module):
    """Convolution, norm and, unless it is the last of a residual, the activation."""

    def __init__(
        self, plan: Plan, inputs: int, outputs: int, kernel: Sequence[int], stride: Sequence[int] | int = 1,
        *, bias: bool | None = None, active: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv = CONVOLUTION[plan.dimensions](
            inputs, outputs, kernel, stride, [(n - 1) // 2 for n in kernel], bias=plan.bias if bias is None else bias
        )
        self.norm = NORMS[plan.norm, plan.dimensions](outputs, eps=plan.eps, affine=plan.affine)
        self.active = nn.LeakyReLU(plan.slope) if active else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.active(self.norm(self.conv(x)))


class _Stack(nn.Module):
    """`count` convolutions in a row, the first with a stride."""

    def __init__(
        self, plan: Plan, count: int, inputs: int, outputs: int, kernel: Sequence[int], stride: Sequence[int] | int = 1
    ) -> None:
        super().__init__()
        first = _Convolution(plan, inputs, outputs, kernel, stride)
        self.convs = nn.Sequential(first, *(_Convolution(plan, outputs, outputs, kernel) for _ in range(count - 1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convs(x)


class _Residual(nn.Module):
    """Two convolutions beside a shortcut that averages and projects (ResNet-D, He et al., CVPR 2019)."""

    def __init__(self, plan: Plan, inputs: int, outputs: int, kernel: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__()
        self.conv1 = _Convolution(plan, inputs, outputs, kernel, stride)
        self.conv2 = _Convolution(plan, outputs, outputs, kernel, active=False)
        shortcut: list[nn.Module] = []
        if any(n != 1 for n in stride):
            shortcut.append(POOLING[plan.dimensions](stride, stride))
        if inputs != outputs:
            one = [1] * plan.dimensions
            shortcut.append(_Convolution(plan, inputs, outputs, one, bias=False, active=False))
        self.skip = nn.Sequential(*shortcut)
        self.active = nn.LeakyReLU(plan.slope)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.active(self.conv2(self.conv1(x)) + self.skip(x))


class _Blocks(nn.Module):
    """`count` residual blocks in a row, the first with a stride."""

    def __init__(
        self, plan: Plan, count: int, inputs: int, outputs: int, kernel: Sequence[int], stride: Sequence[int]
    ) -> None:
        super().__init__()
        one = [1] * plan.dimensions
        self.blocks = nn.Sequential(
            _Residual(plan, inputs, outputs, kernel, stride),
            *(_Residual(plan, outputs, outputs, kernel, one) for _ in range(count - 1)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x)


class _Encoder(nn.Module):
    """From an image to what each stage sees, from the finest."""

    def __init__(self, plan: Plan, inputs: int) -> None:
        super().__init__()
        residual = plan.kind == "residual"
        if residual:
            self.stem = _Stack(plan, 1, inputs, plan.features[0], plan.kernels[0])
            inputs = plan.features[0]
        stages = []
        sizes = zip(plan.blocks, plan.features, plan.kernels, plan.strides, strict=True)
        for count, outputs, kernel, stride in sizes:
            if residual:
                stages.append(_Blocks(plan, count, inputs, outputs, kernel, stride))
            else:
                stages.append(nn.Sequential(_Stack(plan, count, inputs, outputs, kernel, stride)))
            inputs = outputs
        self.stages = nn.ModuleList(stages)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.stem(x) if hasattr(self, "stem") else x
        seen = []
        for stage in self.stages:
            x = stage(x)
            seen.append(x)
        return seen


class _Decoder(nn.Module):
    """From what each stage saw to logits."""

    def __init__(self, plan: Plan, outputs: int) -> None:
        super().__init__()
        stages, ups = [], []
        for below, count in zip(range(len(plan.features) - 1, 0, -1), plan.decoder, strict=True):
            inputs, features = plan.features[below], plan.features[below - 1]
            stride = plan.strides[below]
            ups.append(TRANSPOSED[plan.dimensions](inputs, features, stride, stride, bias=plan.bias))
            stages.append(_Stack(plan, count, 2 * features, features, plan.kernels[below - 1]))
        self.stages, self.transpconvs = nn.ModuleList(stages), nn.ModuleList(ups)
        self.seg_layer = CONVOLUTION[plan.dimensions](plan.features[0], outputs, 1)

    def forward(self, seen: list[torch.Tensor]) -> torch.Tensor:
        x = seen[-1]
        for up, stage, beside in zip(self.transpconvs, self.stages, seen[-2::-1], strict=True):
            x = stage(torch.cat((up(x), beside), 1))
        return self.seg_layer(x)
