"""Named, seeded changes of how an image looks, as other scanners and bad days make them, in severities 1 to 5.

For calibrating and measuring, never for training: they act on the raw image, before any normalization.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from RefSegLib.errors import BadInput
from RefSegLib.volume.volume import Volume

Image = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Shift:
    """One of ALL with a severity, 1 (slight) to 5 (strong)."""

    name: str
    severity: int

    def __str__(self) -> str:
        return f"{self.name}:{self.severity}"


def parse(text: str) -> Shift:
    """ "noise:3" to Shift("noise", 3). Raises BadInput for a name or severity that does not exist."""
    name, _, severity = text.partition(":")
    if name not in ALL or severity not in {"1", "2", "3", "4", "5"}:
        raise BadInput(f"'{text}' is not a shift; write NAME:SEVERITY, one of {', '.join(ALL)} with 1 to 5.")
    return Shift(name, int(severity))


def shift(volume: Volume, name: str, severity: int, seed: int) -> Volume:
    """The image (C, k, j, i) with shift `name`; float32, same grid; the same seed gives the same image.

    All channels change alike but for their noise. Strengths are shares of the image's own range (percentiles 0.5 to
    99.5), so that any unit of intensity will do. Raises BadInput as parse does.
    """
    chosen = parse(f"{name}:{severity}")
    seeds = np.random.SeedSequence([seed, chosen.severity, zlib.crc32(name.encode())])
    result = np.empty(volume.array.shape, np.float32)
    for source, target in zip(volume.array, result, strict=True):
        values = source.astype(np.float32)
        low, high = np.percentile(values, (0.5, 99.5))
        span = max(float(high - low), 1e-6)
        # The same generator for every channel: ghosts and fields belong to the scan, not to the contrast.
        rng = np.random.default_rng(seeds)
        target[:] = _SHIFTS[name]((values - low) / span, chosen.severity - 1, rng) * span + low
    return Volume(result, volume.grid)


def _noise(image: Image, level: int, rng: np.random.Generator) -> Image:
    """Rician, as in magnitude MR: standard deviation 3 to 20 % of the range."""
    sigma = (0.03, 0.06, 0.09, 0.13, 0.20)[level]
    real, imaginary = rng.normal(0, sigma, (2, *image.shape)).astype(np.float32)
    floor = image.min()
    return np.hypot(image - floor + real, imaginary) + floor


def _blur(image: Image, level: int, rng: np.random.Generator) -> Image:
    """Gaussian, 0.5 to 2 voxels."""
    sigma = (0.5, 0.8, 1.1, 1.5, 2.0)[level]
    return ndimage.gaussian_filter(image, [sigma if n > 1 else 0 for n in image.shape], mode="nearest")


def _lowres(image: Image, level: int, rng: np.random.Generator) -> Image:
    """Voxels 1.5 to 4 times as thick along one axis and 1 to 2 times along the others."""
    thick, others = ((1.5, 1.0), (2.0, 1.2), (2.5, 1.4), (3.0, 1.7), (4.0, 2.0))[level]
    factors = np.full(3, others)
    long_axes = [axis for axis, n in enumerate(image.shape) if n > 1]
    factors[rng.choice(long_axes)] = thick
    size = [max(1, round(n / f)) for n, f in zip(image.shape, factors, strict=True)]
    # Averaging over a voxel before sampling is what a scanner does.
    wide = ndimage.uniform_filter(image, [max(1, round(f)) for f in factors], mode="nearest")
    small = ndimage.zoom(
        wide, [s / n for s, n in zip(size, image.shape, strict=True)], order=1, grid_mode=True, mode="nearest"
    )
    back = [n / s for s, n in zip(small.shape, image.shape, strict=True)]
    return ndimage.zoom(small, back, order=1, grid_mode=True, mode="nearest")


def _bias(image: Image, level: int, rng: np.random.Generator) -> Image:
    """A smooth gain, exp of a polynomial of degree 3 (MONAI's RandBiasField, after van Leemput 1999)."""
    from monai.transforms import RandBiasField  # brings torch, which reading this file must not

    strength = (0.1, 0.2, 0.3, 0.45, 0.6)[level]
    field = RandBiasField(degree=3, coeff_range=(-strength, strength), prob=1.0)
    field.set_random_state(int(rng.integers(2**31)))
    floor = image.min()
    return np.asarray(field((image - floor)[None]))[0] + floor


def _gamma(image: Image, level: int, rng: np.random.Generator) -> Image:
    """A power 1.3 to 3.2, or its inverse."""
    power = (1.3, 1.6, 2.0, 2.5, 3.2)[level] ** rng.choice((-1.0, 1.0))
    return np.where(image > 0, np.abs(image) ** power, image)


def _invert(image: Image, level: int, rng: np.random.Generator) -> Image:
    """Contrast that runs the other way: for what is brighter than 85 to 40 % of the range, or (5) for everything."""
    if level == 4:
        return 1 - image
    turn = (0.85, 0.7, 0.55, 0.4)[level]
    return np.where(image > turn, 2 * turn - image, image)


def _ghosting(image: Image, level: int, rng: np.random.Generator) -> Image:
    """Every second to fourth line of k-space weakened by 20 to 70 %, as by breathing or pulsation."""
    weaken = (0.2, 0.35, 0.5, 0.6, 0.7)[level]
    axis = int(rng.choice([axis for axis, n in enumerate(image.shape) if n > 4][-2:] or [2]))
    period = int(rng.integers(2, 5))
    lines = np.fft.fft(image, axis=axis)
    frequency = np.rint(np.fft.fftfreq(image.shape[axis], 1 / image.shape[axis])).astype(int)
    weight = np.where((frequency % period == 1) & (frequency != 0), 1 - weaken, 1.0)
    place = [1, 1, 1]
    place[axis] = -1
    return np.abs(np.fft.ifft(lines * weight.reshape(place), axis=axis) + 0.0).astype(np.float32)


def _spikes(image: Image, level: int, rng: np.random.Generator) -> Image:
    """Stripes through the image from one broken sample of k-space (KSpaceSpikeNoise of MONAI), 5 to 35 % of range."""
    from monai.transforms import KSpaceSpikeNoise  # brings torch, which reading this file must not

    amplitude = (0.05, 0.1, 0.17, 0.25, 0.35)[level]
    place = [0, *((n // 2 + int(rng.integers(-(n // 4), n // 4 + 1))) for n in image.shape)]
    place[-1] = image.shape[-1] // 2 + max(1, image.shape[-1] // 8)  # never the mean of the image
    # MONAI sets one sample and keeps the real part: a stripe of that amplitude times the number of voxels.
    spike = KSpaceSpikeNoise(tuple(place), k_intensity=float(np.log(amplitude * image.size)))
    return np.asarray(spike(image[None]))[0]


def _motion(image: Image, level: int, rng: np.random.Generator) -> Image:
    """The patient moves once while every slice is measured: what came after is of a turned and displaced image.

    2 to 8 degrees and 2 to 7 % of the width of a slice, at a line of k-space 8 to 2 % of its width past the center:
    where things are is known from before.
    """
    degrees, share, past = ((2, 0.02, 0.08), (3, 0.03, 0.06), (4, 0.04, 0.045), (6, 0.055, 0.03), (8, 0.07, 0.02))[
        level
    ]
    axis = int(rng.integers(1, 3))  # of the lines
    angle = np.deg2rad(degrees) * rng.choice((-1.0, 1.0))
    step = share * np.array(image.shape[1:]) * rng.choice((-1.0, 1.0), 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    center = (np.array(image.shape[1:]) - 1) / 2
    floor = image.min()
    moved = np.stack(
        [ndimage.affine_transform(s, turn, center - turn @ center + step, order=1, mode="nearest") for s in image]
    )
    lines = image.shape[axis]
    after = np.arange(lines) > lines // 2 + max(0, round(lines * past) - 1)  # in the order they are measured in
    place = [1, 1, 1]
    place[axis] = -1
    # Only along the lines: the whole k-space gives the same image, as the other axis is not touched.
    before, then = (np.fft.fft(x - floor, axis=axis) for x in (image, moved))
    mixed = np.where(np.fft.ifftshift(after).reshape(place), then, before)
    return np.abs(np.fft.ifft(mixed, axis=axis)).astype(np.float32) + floor


def _remap(image: Image, level: int, rng: np.random.Generator) -> Image:
    """A wave added to the curve of intensities, 20 to 38 % of the range: some bright tissues turn dark and back.

    0.8 to 1.2 periods over the range; even the slightest wave turns the curve downwards somewhere.
    """
    height = (0.20, 0.23, 0.27, 0.32, 0.38)[level]
    periods, phase = rng.uniform(0.8, 1.2), rng.uniform(0, 2 * np.pi)
    return image + height * np.sin(2 * np.pi * periods * image + phase)


_SHIFTS: dict[str, Callable[[Image, int, np.random.Generator], Image]] = {
    "noise": _noise,
    "blur": _blur,
    "lowres": _lowres,
    "bias": _bias,
    "gamma": _gamma,
    "invert": _invert,
    "ghosting": _ghosting,
    "spikes": _spikes,
    "motion": _motion,
    "remap": _remap,
}
ALL = tuple(_SHIFTS)
# Kept out of everything that is learned or chosen: no candidate of reflection was made for them and calibration never
# sees them. What happens under these is what to expect of a change that nobody thought of.
UNSEEN = ("motion", "remap")
NAMES = tuple(name for name in ALL if name not in UNSEEN)
