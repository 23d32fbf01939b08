"""Other ways to look at the same image: transforms of the network's input, each giving a candidate mask.

A network with batch normalization can also look with part of the statistics of the image at hand (statistics.py):
such a candidate is called "TRANSFORM @ SHARE".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from RefSegLib.models.spec import SegmenterSpec

Array = npt.NDArray[np.float32]
Reference = Sequence[Sequence[float]]  # per channel, values at CURVE
Curve = npt.NDArray[np.float64] | None
Sizes = tuple[int, int, int]  # of filters along k, j, i; 0 for axes that are not filtered along

CURVE = np.linspace(0.005, 0.995, 33)
IDENTITY = "identity"


def quantile_curve(array: Array) -> npt.NDArray[np.float64]:
    """(channels, 33): the intensities of a normalized image (C, k, j, i) at the quantiles CURVE."""
    return np.stack([np.quantile(channel, CURVE) for channel in array])


def transformed(array: Array, name: str, spec: SegmenterSpec, reference: Reference = ()) -> Array:
    """The normalized image (C, k, j, i) seen another way, normalized again.

    name: one of NAMES. reference: the mean quantile curve of images the model knows; without one, what would be
    matched to it stays as it is. Filters stay within slices for a model that sees slices one by one.
    """
    if name == IDENTITY:
        return array
    sizes = tuple(0 if n <= 4 or (axis == 0 and spec.dimensions == 2) else 1 for axis, n in enumerate(array.shape[1:]))
    result = np.stack([_TRANSFORMS[name](channel, curve, sizes) for channel, curve in _with_curves(array, reference)])
    if spec.normalization.kind == "window":  # fixed units: there is nothing to normalize again
        return np.clip(result, 0.0, 1.0).astype(np.float32)
    return spec.normalization(result)


def _with_curves(array: Array, reference: Reference) -> list[tuple[Array, npt.NDArray | None]]:
    curves = [np.asarray(curve) for curve in reference] if len(reference) == len(array) else [None] * len(array)
    return list(zip(array, curves, strict=True))


def _matched(channel: Array, curve: Curve, _: Sizes) -> Array:
    """Monotone, so that its quantiles are those of images the model knows (histogram matching, Nyul 2000)."""
    if curve is None:
        return channel
    knots = np.maximum.accumulate(np.quantile(channel, CURVE) + np.arange(len(CURVE)) * 1e-6)
    return np.interp(channel, knots, curve).astype(np.float32)


def _power(channel: Array, exponent: float) -> Array:
    low, high = np.quantile(channel, (0.005, 0.995))
    span = max(float(high - low), 1e-6)
    share = (channel - low) / span
    return np.where(share > 0, np.abs(share) ** exponent, share) * span + low


def _flattened(channel: Array, curve: Curve, sizes: Sizes) -> Array:
    """Slow changes of brightness divided out (homomorphic filter, a quarter of the image wide)."""
    positive = np.log(channel - channel.min() + 0.1)
    widths = [n / 4 * size for n, size in zip(channel.shape, sizes, strict=True)]
    slow = ndimage.gaussian_filter(positive, widths, mode="nearest")
    return _matched(np.exp(positive - slow).astype(np.float32), curve, sizes)


def _sharpened(channel: Array, _: Curve, sizes: Sizes) -> Array:
    return channel + (channel - ndimage.gaussian_filter(channel, sizes, mode="nearest"))


def _denoised(channel: Array, _: Curve, sizes: Sizes) -> Array:
    return ndimage.median_filter(channel, [1 + 2 * size for size in sizes], mode="nearest")


def _inverted(channel: Array, curve: Curve, sizes: Sizes) -> Array:
    return _matched(channel.max() + channel.min() - channel, curve, sizes)


_TRANSFORMS: dict[str, Callable[[Array, Curve, Sizes], Array]] = {
    "matched": _matched,
    "gamma 0.5": lambda channel, curve, sizes: _power(channel, 0.5),
    "gamma 2": lambda channel, curve, sizes: _power(channel, 2.0),
    "flattened": _flattened,
    "sharpened": _sharpened,
    "denoised": _denoised,
    "denoised, matched": lambda channel, curve, sizes: _matched(_denoised(channel, curve, sizes), curve, sizes),
    "inverted, matched": _inverted,
}
NAMES = (IDENTITY, *_TRANSFORMS)


def named(transform: str, share: float) -> str:
    """The name of a candidate: a transform of NAMES, seen with `share` of the image's own statistics."""
    return f"{transform} @ {share:g}" if share else transform


def parts_of(name: str) -> tuple[str, float]:
    """The transform and the share of the image's own statistics that the name of a candidate stands for."""
    transform, _, share = name.partition(" @ ")
    return transform, float(share or 0)
