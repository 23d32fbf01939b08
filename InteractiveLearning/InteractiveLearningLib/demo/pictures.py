"""The pictures of the report, drawn with matplotlib and kept inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import numpy.typing as npt

mpl.use("Agg")  # no window, no display
from matplotlib import pyplot as plt

# Okabe and Ito's colors: told apart by color-blind readers too.
BEFORE, AFTER, TRUTH = "#E69F00", "#0072B2", "#009E73"


def embedded(figure: plt.Figure) -> str:
    """The figure as a data address for an <img>; the figure is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=85, bbox_inches="tight")
    plt.close(figure)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _planes(center: Sequence[int]) -> list[tuple[str, tuple]]:
    k, j, i = center
    every = slice(None)
    return [("axial", (k, every, every)), ("coronal", (every, j, every)), ("sagittal", (every, every, i))]


def _show(axis: plt.Axes, image: npt.NDArray, title: str) -> None:
    axis.imshow(image, cmap="gray", origin="lower", interpolation="nearest")
    axis.set_title(title, fontsize=9)
    axis.set_axis_off()


def _outline(axis: plt.Axes, mask: npt.NDArray, color: str) -> None:
    if mask.any() and not mask.all():
        axis.contour(mask, levels=[0.5], colors=color, linewidths=1.3)


def center_of(mask: npt.NDArray) -> tuple[int, int, int]:
    """The slice of each axis through the middle of a mask (k, j, i), or of the image where the mask is empty."""
    if not mask.any():
        return tuple(n // 2 for n in mask.shape)
    return tuple(int(np.median(index)) for index in np.nonzero(mask))


def outlines(image: npt.NDArray, masks: Mapping[str, tuple[npt.NDArray, str]], center: Sequence[int]) -> str:
    """Three slices of an image (k, j, i) with the outlines of named masks {name: (mask, color)}."""
    figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.4))
    for axis, (title, cut) in zip(axes, _planes(center), strict=True):
        _show(axis, image[cut], title)
        for mask, color in masks.values():
            _outline(axis, mask[cut], color)
    handles = [plt.Line2D([], [], color=color, label=name) for name, (_, color) in masks.items()]
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False, fontsize=9)
    return embedded(figure)


def beside(panels: Mapping[str, npt.NDArray], center: Sequence[int], mask: npt.NDArray | None = None) -> str:
    """One row per named image (k, j, i): the same three slices, e.g. the input and its proxy."""
    figure, rows = plt.subplots(len(panels), 3, figsize=(9.5, 3.1 * len(panels)), squeeze=False)
    for axes, (name, image) in zip(rows, panels.items(), strict=True):
        for axis, (title, cut) in zip(axes, _planes(center), strict=True):
            _show(axis, image[cut], f"{name}, {title}")
            if mask is not None:
                _outline(axis, mask[cut], AFTER)
    return embedded(figure)


def heat(
    image: npt.NDArray, values: npt.NDArray, center: Sequence[int], marks: Mapping[int, Sequence[int]], what: str
) -> str:
    """A map (k, j, i, 0..1) over the image; marks: {axis: slices} drawn as lines where the annotator was sent."""
    figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.4))
    for number, (axis, (title, cut)) in enumerate(zip(axes, _planes(center), strict=True)):
        _show(axis, image[cut], title)
        shown = axis.imshow(
            np.ma.masked_less(values[cut], 0.05), cmap="inferno", vmin=0, vmax=1, alpha=0.65, origin="lower"
        )
        remaining = [a for a in range(3) if a != number]
        for along, slices in marks.items():
            if along == remaining[0]:
                for n in slices:
                    axis.axhline(n, color="#56B4E9", lw=0.9, ls="--")
            elif along == remaining[1]:
                for n in slices:
                    axis.axvline(n, color="#56B4E9", lw=0.9, ls="--")
    figure.colorbar(shown, ax=axes, shrink=0.7, label=what)
    return embedded(figure)


def lines(series: Mapping[str, Sequence[float]], xlabel: str, ylabel: str) -> str:
    """A line per named series over 0, 1, 2, ..."""
    figure, axis = plt.subplots(figsize=(5.6, 3.0))
    for name, values in series.items():
        axis.plot(range(len(values)), values, marker="o", ms=3.5, lw=1.4, label=name)
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    axis.grid(alpha=0.3)
    if len(series) > 1:
        axis.legend(fontsize=8, frameon=False)
    return embedded(figure)


def bars(values: Mapping[str, float], xlabel: str) -> str:
    """A horizontal bar per name, the first on top."""
    figure, axis = plt.subplots(figsize=(5.6, 0.5 + 0.28 * len(values)))
    axis.barh(list(values)[::-1], list(values.values())[::-1], color=AFTER)
    axis.set_xlabel(xlabel)
    axis.grid(axis="x", alpha=0.3)
    return embedded(figure)
