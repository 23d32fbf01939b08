"""The corruption suite of the robust-transfer benchmark: 17 kinds of bad images in severities 1 to 5, seeded.

Fifteen are those of ImageNet-C (Hendrycks and Dietterich, ICLR 2019) with its strengths, as imgaug's `imgcorruptlike`
offers them; Poisson noise and dropout are imgaug's own, with strengths of ours. ImageNet-C was made for images of 224
pixels, so lengths (blurs, displacements) are scaled by the shorter side of the slice over 224; noise stays per pixel.

For measuring, never for training. They act on the raw image, before any normalization. Unlike shifts.py the suite
loses information as a file of 8 bits does: values are clipped to the image's own range and rounded to 256 steps of it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from RefSegLib.errors import BadInput

Slice = npt.NDArray[np.float32]
Draw = np.random.Generator
NATIVE = 224  # pixels of the images the strengths were chosen for


def corrupt(image: npt.NDArray, name: str, severity: int, seed: int) -> npt.NDArray[np.float32]:
    """An image (j, i) or (k, j, i), any unit, corrupted by `name` (one of ALL) with severity 1 (slight) to 5.

    The image's range (minimum to maximum) becomes 0..1, is corrupted, clipped, rounded, and taken back; same shape,
    float32; the same seed gives the same image. In a volume noise is drawn for every voxel, Gaussian blur acts along
    all axes, and everything else acts on slices along k, on all of them alike. A constant image stays as it is.
    Raises BadInput for a name or a severity that does not exist, or an image of other dimensions.
    """
    values, rng, flat = _checked(image, name, severity, seed)
    low, span = float(values.min()), float(np.ptp(values))
    if span == 0:
        return values[0] if flat else values
    unit = (values - low) / span
    if name in _NOISE:
        changed = _NOISE[name](unit, severity - 1, rng)
    elif name == "Gaussian blur":
        sigma = (1, 2, 3, 4, 6)[severity - 1] * _scale(unit[0])
        changed = ndimage.gaussian_filter(unit, [sigma if n > 1 else 0 for n in unit.shape], mode="nearest")
    else:
        state = rng.bit_generator.state
        changed = np.empty_like(unit)
        for before, after in zip(unit, changed, strict=True):
            rng.bit_generator.state = state
            after[:] = _SLICES[name](before, severity - 1, rng)
    result = (np.rint(np.clip(changed, 0, 1) * 255) / 255 * span + low).astype(np.float32)
    return result[0] if flat else result


def moved(mask: npt.NDArray, name: str, severity: int, seed: int) -> npt.NDArray:
    """The mask that belongs to the corrupted image: (j, i) or (k, j, i), values kept. Only "elastic" moves anything."""
    values, rng, flat = _checked(mask, name, severity, seed)
    if name != "elastic":
        return mask
    field = _elastic_field(values[0].shape, severity - 1, rng)
    result = np.stack([ndimage.map_coordinates(s, field, order=0, mode="nearest") for s in values]).astype(mask.dtype)
    return result[0] if flat else result


def _checked(array: npt.NDArray, name: str, severity: int, seed: int) -> tuple[npt.NDArray[np.float32], Draw, bool]:
    if name not in ALL or severity not in range(1, 6):
        raise BadInput(f"There is no corruption '{name}' of severity {severity}; they are {', '.join(ALL)}, 1 to 5.")
    if array.ndim not in (2, 3):
        raise BadInput(f"Corruptions take images (j, i) or (k, j, i), not an array of {array.ndim} axes.")
    flat = array.ndim == 2
    values = np.asarray(array[None] if flat else array, np.float32)
    seeds = np.random.SeedSequence([seed, severity, zlib.crc32(name.encode())])
    return values, np.random.default_rng(seeds), flat


def _scale(image: Slice) -> float:
    return min(image.shape) / NATIVE


def _gaussian(x: Slice, level: int, rng: Draw) -> Slice:
    return x + rng.normal(0, (0.08, 0.12, 0.18, 0.26, 0.38)[level], x.shape)


def _shot(x: Slice, level: int, rng: Draw) -> Slice:
    photons = (60, 25, 12, 5, 3)[level]
    return rng.poisson(x * photons) / photons


def _impulse(x: Slice, level: int, rng: Draw) -> Slice:
    hit = rng.random(x.shape) < (0.03, 0.06, 0.09, 0.17, 0.27)[level]
    return np.where(hit, rng.integers(0, 2, x.shape), x)


def _speckle(x: Slice, level: int, rng: Draw) -> Slice:
    return x * (1 + rng.normal(0, (0.15, 0.2, 0.35, 0.45, 0.6)[level], x.shape))


def _poisson(x: Slice, level: int, rng: Draw) -> Slice:
    """A Poisson number of 8-bit steps up or down, as imgaug's AdditivePoissonNoise."""
    steps = rng.poisson((8, 16, 24, 36, 48)[level], x.shape)
    return x + rng.choice((-1, 1), x.shape) * steps / 255


def _dropout(x: Slice, level: int, rng: Draw) -> Slice:
    return np.where(rng.random(x.shape) < (0.02, 0.05, 0.1, 0.2, 0.3)[level], 0, x)


def _glass(x: Slice, level: int, rng: Draw) -> Slice:
    """Every pixel looked up at a random place nearby, between two blurs (ImageNet-C swaps neighbors one by one)."""
    sigma, reach, times = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[level]
    sigma, reach = sigma * _scale(x), max(1, round(reach * _scale(x)))
    x = ndimage.gaussian_filter(x, sigma, mode="nearest")
    places = np.indices(x.shape)
    limits = np.array(x.shape).reshape(2, 1, 1) - 1
    for _ in range(times):
        there = np.clip(places + rng.integers(-reach, reach + 1, places.shape), 0, limits)
        x = x[tuple(there)]
    return ndimage.gaussian_filter(x, sigma, mode="nearest")


def _defocus(x: Slice, level: int, rng: Draw) -> Slice:
    radius = max(1.0, (3, 4, 6, 8, 10)[level] * _scale(x))
    size = int(np.ceil(radius))
    j, i = np.mgrid[-size : size + 1, -size : size + 1]
    disk = np.clip(radius + 0.5 - np.hypot(j, i), 0, 1).astype(np.float32)  # its edge covers pixels in part
    return cv2.filter2D(x, -1, disk / disk.sum(), borderType=cv2.BORDER_REPLICATE)


def _motion(x: Slice, level: int, rng: Draw) -> Slice:
    """Smeared along a line within 45 degrees of the rows, Gaussian along it."""
    radius, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[level]
    radius, sigma, angle = max(1.0, radius * _scale(x)), sigma * _scale(x), np.deg2rad(rng.uniform(-45, 45))
    size = int(np.ceil(radius))
    steps = np.linspace(-radius, radius, 8 * size + 1)
    kernel = np.zeros((2 * size + 1, 2 * size + 1), np.float32)
    rows, columns = np.rint(steps * np.sin(angle)).astype(int), np.rint(steps * np.cos(angle)).astype(int)
    np.add.at(kernel, (size + rows, size + columns), np.exp(-(steps**2) / (2 * sigma**2)))
    return cv2.filter2D(x, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)


def _zoom(x: Slice, level: int, rng: Draw) -> Slice:
    most, step = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))[level]
    center = (np.array(x.shape) - 1) / 2
    factors = np.arange(1, most, step)
    zoomed = [
        ndimage.affine_transform(x, [1 / f, 1 / f], center * (1 - 1 / f), order=1, mode="nearest") for f in factors
    ]
    return (x + sum(zoomed)) / (len(factors) + 1)


def _fog(x: Slice, level: int, rng: Draw) -> Slice:
    strength, decay = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))[level]
    most = x.max()
    clouds = _plasma(max(x.shape), decay, rng)[: x.shape[0], : x.shape[1]]
    return (x + strength * clouds) * most / (most + strength)


def _plasma(size: int, decay: float, rng: Draw) -> Slice:
    """Clouds in 0..1 by the diamond-square algorithm; the smaller `decay`, the finer."""
    side = 1 << int(np.ceil(np.log2(size)))
    field = np.zeros((side, side))
    step, wobble = side, 100.0

    def wobbled(mean: npt.NDArray) -> npt.NDArray:
        return mean + wobble * rng.uniform(-1, 1, mean.shape)

    while step >= 2:
        half = step // 2
        corners = field[::step, ::step]
        right, down = np.roll(corners, -1, 1), np.roll(corners, -1, 0)
        middle = wobbled((corners + right + down + np.roll(right, -1, 0)) / 4)
        field[half::step, half::step] = middle
        field[::step, half::step] = wobbled((corners + right + middle + np.roll(middle, 1, 0)) / 4)
        field[half::step, ::step] = wobbled((corners + down + middle + np.roll(middle, 1, 1)) / 4)
        step, wobble = half, wobble / decay
    field -= field.min()
    return field / field.max()


def _contrast(x: Slice, level: int, rng: Draw) -> Slice:
    return (x - x.mean()) * (0.4, 0.3, 0.2, 0.1, 0.05)[level] + x.mean()


def _brightness(x: Slice, level: int, rng: Draw) -> Slice:
    return x + (0.1, 0.2, 0.3, 0.4, 0.5)[level]


def _saturation(x: Slice, level: int, rng: Draw) -> Slice:
    """Gray has no color to saturate: nothing up to 3, then the luma of the red tint that ImageNet-C gives to gray."""
    return x * (1 - (0.587 + 0.114) * (0.0, 0.0, 0.0, 0.1, 0.2)[level])


def _jpeg(x: Slice, level: int, rng: Draw) -> Slice:
    quality = (25, 18, 15, 10, 7)[level]
    eight = np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)
    _, content = cv2.imencode(".jpg", eight, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(content, cv2.IMREAD_GRAYSCALE).astype(np.float32) / 255


def _elastic(x: Slice, level: int, rng: Draw) -> Slice:
    return ndimage.map_coordinates(x, _elastic_field(x.shape, level, rng), order=1, mode="nearest")


def _elastic_field(shape: tuple[int, int], level: int, rng: Draw) -> npt.NDArray[np.float64]:
    """Where each pixel is looked up (2, j, i): three corners of a square moved at random, and a smooth random field."""
    alpha, sigma, corner = (
        (2.0, 0.7, 0.1),
        (2.0, 0.08, 0.2),
        (0.05, 0.01, 0.02),
        (0.07, 0.01, 0.02),
        (0.12, 0.01, 0.02),
    )[level]
    side = min(shape)
    center, third = np.array(shape) / 2, side / 3
    square = center + third * np.array([[1, 1], [1, -1], [-1, -1]])
    bent = square + rng.uniform(-corner * side, corner * side, square.shape)
    matrix = np.linalg.solve(np.c_[bent, np.ones(3)], square).T  # from where a pixel comes
    places = np.indices(shape, dtype=np.float64)
    straight = np.tensordot(matrix[:, :2], places, 1) + matrix[:, 2, None, None]
    smooth = [
        ndimage.gaussian_filter(rng.uniform(-1, 1, shape), sigma * side, mode="reflect", truncate=3) for _ in range(2)
    ]
    return straight + alpha * side * np.stack(smooth)


_NOISE: dict[str, Callable[[Slice, int, Draw], Slice]] = {
    "Gaussian noise": _gaussian,
    "shot noise": _shot,
    "impulse noise": _impulse,
    "speckle noise": _speckle,
    "Poisson noise": _poisson,
    "dropout": _dropout,
}
_SLICES: dict[str, Callable[[Slice, int, Draw], Slice]] = {
    "glass blur": _glass,
    "defocus blur": _defocus,
    "motion blur": _motion,
    "zoom blur": _zoom,
    "fog": _fog,
    "contrast": _contrast,
    "brightness": _brightness,
    "saturation": _saturation,
    "JPEG": _jpeg,
    "elastic": _elastic,
}
ALL = (*_NOISE, "Gaussian blur", *_SLICES)
