"""Random pose and looks of a patch, drawn from a seeded generator: the same seed gives the same patches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from RefSegLib.training.losses import one_hot


@dataclass(frozen=True)
class Augmentation:
    """How far patches are varied. Never flipped: left and right differ in a patient.

    rotation: degrees about each axis; scale: fraction up and down; shift: fraction of the patch;
    looks: probability of each change of intensities.
    """

    rotation: float = 15.0
    scale: float = 0.15
    shift: float = 0.12
    looks: float = 0.25

    def mild(self) -> Augmentation:
        """For learning how images look: pose as before, intensities nearly as they are."""
        return Augmentation(self.rotation, self.scale, self.shift, 0.0)


def _uniform(low: float, high: float, generator: torch.Generator, *shape: int) -> torch.Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def _rotation(angles: torch.Tensor) -> torch.Tensor:
    matrix = torch.eye(3)
    for axis, angle in enumerate(angles.tolist()):
        a, b = [x for x in range(3) if x != axis]
        turn = torch.eye(3)
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    return matrix


def _center(labels: npt.NDArray, patch: Sequence[int], shift: float, generator: torch.Generator) -> torch.Tensor:
    """Where the patch lies, as a voxel position: near the middle of images not much larger than the patch;
    in larger ones every other time at a voxel of a structure, otherwise anywhere."""
    shape = torch.tensor(labels.shape, dtype=torch.float32)
    size = torch.tensor(patch, dtype=torch.float32)
    jitter = _uniform(-shift, shift, generator, 3) * size
    draw = torch.rand(4, generator=generator)
    room = (shape - size).clamp(min=0)
    center = (shape - 1) / 2 + (draw[:3] - 0.5) * room
    if bool((shape > 1.25 * size).any()) and draw[3] < 0.5:
        structure = np.flatnonzero(labels)
        if structure.size:
            chosen = int(torch.randint(structure.size, (1,), generator=generator))
            center = torch.tensor(np.unravel_index(int(structure[chosen]), labels.shape), dtype=torch.float32)
            center = torch.minimum(torch.maximum(center, (size - 1) / 2), torch.maximum(size / 2, shape - size / 2))
            center = torch.where(room > 0, center, (shape - 1) / 2)
    return torch.where(size > 1, center + jitter, center.round())


def random_patch(
    image: npt.NDArray[np.float32],
    labels: npt.NDArray,
    outputs: int,
    patch: Sequence[int],
    spacing: Sequence[float],
    augmentation: Augmentation,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A patch (C, k, j, i) in a random pose and the labels in it (k, j, i).

    Rotation and scale act in millimeters (spacing), so thick slices stay rigid. An axis along which the patch has one
    voxel (single slices) is neither rotated, scaled nor shifted by parts of a slice. Beyond the image stands its edge
    or zero, drawn anew for each patch: a region may reach beyond the head or a stripped skull. Not its mirror image,
    which would show a second structure where there is none.
    """
    flat = [n == 1 for n in patch]
    angles = _uniform(-1, 1, generator, 3) * math.radians(augmentation.rotation)
    for axis in range(3):  # a turn about one axis moves the two others
        if any(flat[other] for other in range(3) if other != axis):
            angles[axis] = 0.0
    scale = 1 + _uniform(-augmentation.scale, augmentation.scale, generator, 3) * 0.5
    scale = scale * (1 + _uniform(-augmentation.scale, augmentation.scale, generator, 1) * 0.5)
    scale = torch.where(torch.tensor(flat), torch.ones(3), scale)
    mm = torch.tensor([float(s) for s in spacing])
    matrix = torch.diag(1 / mm) @ _rotation(angles) @ torch.diag(scale * mm)
    center = _center(labels, patch, augmentation.shift, generator)
    offsets = torch.stack(
        torch.meshgrid(*[torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in patch], indexing="ij"), -1
    )
    positions = offsets @ matrix.T + center
    # grid_sample counts from -1 to 1 between the outer faces, last axis first.
    where = ((2 * positions + 1) / torch.tensor(labels.shape) - 1).flip(-1)[None]
    beyond = ("border", "zeros")[int(torch.randint(2, (1,), generator=generator))]
    channels = torch.cat(
        [torch.from_numpy(np.array(image))[None], one_hot(torch.from_numpy(np.array(labels))[None], outputs)], 1
    )
    sampled = F.grid_sample(channels, where, mode="bilinear", padding_mode=beyond, align_corners=False)[0]
    return sampled[: len(image)], sampled[len(image) :].argmax(0)


def random_looks(images: torch.Tensor, augmentation: Augmentation, generator: torch.Generator) -> torch.Tensor:
    """Normalized images (n, C, k, j, i) as another scanner might have made them: contrast, brightness, gamma, bias
    field, blur, low resolution, noise; each with probability `augmentation.looks`, every channel alike."""

    def chosen(share: float = 1.0) -> list[int]:
        draw = torch.rand(len(images), generator=generator)
        return [index for index, value in enumerate(draw.tolist()) if value < share * augmentation.looks]

    def one(low: float, high: float) -> float:
        return float(_uniform(low, high, generator, 1))

    images = images.clone()
    for n in chosen():
        images[n] = _power(images[n], math.exp(one(-0.5, 0.5)))
    for n in chosen():
        coarse = [1 if size == 1 else 4 for size in images.shape[2:]]
        field = torch.randn((1, 1, *coarse), generator=generator) * one(0.05, 0.25)
        images[n] *= F.interpolate(field, images.shape[2:], mode="trilinear", align_corners=True)[0].exp()
    for n in chosen():
        images[n] = _blurred(images[n], one(0.3, 1.0))
    for n in chosen(0.6):
        images[n] = _coarser(images[n], [one(1.0, 2.0) for _ in range(3)])
    for n in chosen(1.5):
        mean = images[n].mean()
        images[n] = (images[n] - mean) * one(0.7, 1.3) + mean + one(-0.15, 0.15)
    for n in chosen():
        images[n] += torch.randn(images[n].shape, generator=generator) * one(0.01, 0.08)
    return images.clamp_(-0.5, 1.5) if augmentation.looks else images


def _power(image: torch.Tensor, gamma: float) -> torch.Tensor:
    low, high = image.min(), image.max()
    span = (high - low).clamp(min=1e-6)
    return ((image - low) / span) ** gamma * span + low


def _blurred(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """(C, k, j, i) blurred by a Gaussian of `sigma` voxels."""
    offsets = torch.arange(-3, 4, dtype=torch.float32)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    for axis in range(1, 4):
        if image.shape[axis] > 1:
            moved = image.movedim(axis, -1)
            rows = F.pad(moved.reshape(-1, 1, moved.shape[-1]), (3, 3), mode="replicate")
            image = F.conv1d(rows, kernel[None, None]).reshape(moved.shape).movedim(-1, axis)
    return image


def _coarser(image: torch.Tensor, factors: list[float]) -> torch.Tensor:
    """(C, k, j, i) as if scanned with voxels larger by `factors`."""
    size = [max(1, round(n / f)) for n, f in zip(image.shape[1:], factors, strict=True)]
    small = F.interpolate(image[None], size, mode="nearest")
    return F.interpolate(small, image.shape[1:], mode="trilinear", align_corners=False)[0]
