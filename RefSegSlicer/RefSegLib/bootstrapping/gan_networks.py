"""The generators and discriminators of the CycleGAN, small enough for a CPU, and all of it as one module. No
statistics of a batch anywhere."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from RefSegLib.bootstrapping.channel_calibration import ChannelCalibration
from RefSegLib.bootstrapping.mask_vae import LATENT
from RefSegLib.training.fit import fast_precision

FILTERS = 20
BLOCKS = 3


class _Layer(nn.Sequential):
    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.InstanceNorm2d(after, affine=True), nn.ReLU()
        )


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _Layer(width, width), nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.InstanceNorm2d(width, affine=True)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x)


class Generator(nn.Module):
    """(n, inputs, j, i) to (n, 1, j, i) without a last activation; j and i divisible by 8.

    A U-Net that begins and ends at half the size (a step takes half as long as at the full one), with residual blocks
    at an eighth, where `factors` (n, WIDEST, 1, 1) re-weigh the channels.
    """

    WIDEST = 4 * FILTERS

    def __init__(self, inputs: int) -> None:
        super().__init__()
        f = FILTERS
        self.first = nn.Sequential(nn.PixelUnshuffle(2), _Layer(4 * inputs, f))
        self.second = _Layer(f, 2 * f, 2)
        self.third = _Layer(2 * f, 4 * f, 2)
        self.blocks = nn.Sequential(*(_Block(4 * f) for _ in range(BLOCKS)))
        self.up_second = _Layer(6 * f, 2 * f)
        self.up_first = _Layer(3 * f, f)
        self.last = nn.Sequential(nn.Conv2d(f, 4, 3, 1, 1), nn.PixelShuffle(2))

    def forward(self, x: torch.Tensor, factors: torch.Tensor | None = None) -> torch.Tensor:
        """The mask's logits, or the image in -1..1 before the tanh."""
        first = self.first(x)
        second = self.second(first)
        deep = self.blocks(self.third(second))
        if factors is not None:
            deep = deep * factors
        x = self.up_second(torch.cat([_twice(deep), second], 1))
        return self.last(self.up_first(torch.cat([_twice(x), first], 1)))


def _twice(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class PatchDiscriminator(nn.Module):
    """(n, 1, j, i) to a verdict per patch (n, 1, j / 8, i / 8), after Isola 2017.

    normalized: instance norm, for images. Not for masks: it would take away how large they are.
    """

    FEATURES = 4 * FILTERS

    def __init__(self, normalized: bool) -> None:
        super().__init__()
        f = FILTERS
        layers: list[nn.Module] = []
        for before, after in ((1, f), (f, 2 * f), (2 * f, 4 * f)):
            layers += [nn.Conv2d(before, after, 4, 2, 1)]
            layers += [nn.InstanceNorm2d(after, affine=True)] if normalized and before > 1 else []
            layers += [nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)
        self.last = nn.Conv2d(4 * f, 1, 3, 1, 1)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """What the verdict is made of: (n, FEATURES, j / 8, i / 8)."""
        return self.layers(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The verdict: near 1 for real ones."""
        return self.last(self.layers(x))


class LatentDiscriminator(nn.Sequential):
    """Tells the latents (n, size) of drawn masks from those of real ones: (n, 1)."""

    def __init__(self, size: int) -> None:
        super().__init__(nn.Linear(size, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))


class CycleGan(nn.Module):
    """Both generators, both discriminators, and what is added to them. Images and masks (n, 1, j, i) in 0..1."""

    def __init__(self, *, vae: bool, calibration: bool) -> None:
        super().__init__()
        self.to_mask, self.to_image = Generator(1), Generator(2)
        self.judge_image, self.judge_mask = PatchDiscriminator(True), PatchDiscriminator(False)
        self.calibrate = ChannelCalibration(PatchDiscriminator.FEATURES, Generator.WIDEST) if calibration else None
        self.judge_latent = LatentDiscriminator(LATENT) if vae else None

    def masks(self, images: torch.Tensor) -> torch.Tensor:
        """The masks of images, as logits."""
        x = 2 * images - 1
        if self.calibrate is None:
            return self.to_mask(x)
        with torch.no_grad():
            first = self.to_mask(x).sigmoid()
        return self.to_mask(x, self.calibrate(self.judge_mask.features(first)))

    @torch.no_grad()
    def find(self, images: torch.Tensor) -> torch.Tensor:
        """The probabilities of the masks of any number of images, float32 in 0..1, some at a time."""
        with fast_precision(images.device):
            return torch.cat([self.masks(some).float().sigmoid() for some in images.split(16)])

    def images(self, masks: torch.Tensor, texture: torch.Tensor) -> torch.Tensor:
        """Images of masks; texture (n, 1, j, i) is noise, for what no mask foretells."""
        return (self.to_image(torch.cat([2 * masks - 1, texture], 1)).tanh() + 1) / 2
