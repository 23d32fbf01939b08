"""Which slice to look at next, and why, in words.

The residual map is where model (front end) and proxy mask (back end) disagree (Tian, Chen, Gao, arXiv 2312.06072).
Unlike there, a slice need not contain the truth to be asked for: slices where model or proxy see something, and a
margin around them, are all anybody knows. Measured, even placement was as good as following a map, so by default the
largest gap between annotated slices decides, and the residual says where inside of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MARGIN = 2
# Below this mean disagreement per pixel of structure, and in gaps this narrow, another outline changes next to nothing.
AGREED = 0.02
NARROW = 2
# How far from the middle of a gap, in shares of the gap, disagreement may pull. How undecided a proxy is by itself may
# not: it only grows with the distance to the outlines.
PULL = 0.25


@dataclass(frozen=True)
class Suggestion:
    """A slice, the reason to look at it in one sentence, and the residual map (k, j, i) in 0..1 it came from.

    gap: how many slices some slice around it is away from the nearest outline; the more, the more is to be gained.
    """

    axis: int
    index: int
    reason: str
    residual: npt.NDArray[np.float32]
    gap: float


def residual_map(
    proxy: npt.NDArray[np.float32] | None,
    model: npt.NDArray[np.float32] | None,
    suspect: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[np.float32] | None:
    """Disagreement of model and proxy, 0..1 and 1 where it is largest; with a suspect map, the larger of both.

    With one of the two only: how undecided it is. None if nothing is known.
    """
    if proxy is not None and model is not None:
        residual = np.abs(model - proxy)
    elif proxy is None and model is None:
        residual = None
    else:
        alone = proxy if proxy is not None else model
        residual = 4 * alone * (1 - alone)
    if residual is not None:
        residual = residual / max(float(residual.max()), 1e-6)
    if suspect is not None:
        residual = suspect if residual is None else np.maximum(residual, suspect)
    return None if residual is None else residual.astype(np.float32, copy=False)


def candidates(
    axis: int,
    shape: Sequence[int],
    proxy: npt.NDArray[np.float32] | None,
    model: npt.NDArray[np.float32] | None,
    limits: tuple[int, int] | None,
) -> tuple[int, int]:
    """First and last slice worth asking for: the limits, else where model or proxy see something, and a margin."""
    if limits is not None:
        return limits
    others = tuple(a for a in range(3) if a != axis)
    seen = np.zeros(shape[axis], bool)
    for probability in (proxy, model):
        if probability is not None:
            seen |= (probability > 0.5).any(axis=others)
    at = np.nonzero(seen)[0]
    if not at.size:
        return 0, shape[axis] - 1
    return max(int(at[0]) - MARGIN, 0), min(int(at[-1]) + MARGIN, shape[axis] - 1)


def next_slice(
    axis: int,
    annotated: Sequence[int],
    proxy: npt.NDArray[np.float32] | None,
    model: npt.NDArray[np.float32] | None = None,
    *,
    limits: tuple[int, int] | None = None,
    suspect: npt.NDArray[np.float32] | None = None,
    shape: Sequence[int],
    plane: str = "",
) -> Suggestion | str:
    """The slice along `axis` that is worth outlining next, or a sentence: nothing more is worth asking.

    annotated: slices already outlined. proxy, model: probabilities (k, j, i) of the structure, as far as there are any.
    limits: first and last slice of the structure. suspect: a map (k, j, i) in 0..1 of what reflection doubts.
    """
    first, last = candidates(axis, shape, proxy, model, limits)
    residual = residual_map(proxy, model, suspect)
    others = tuple(a for a in range(3) if a != axis)
    size = np.zeros(shape[axis])
    for probability in (proxy, model):
        if probability is not None:
            size = np.maximum(size, (probability > 0.5).sum(axis=others))
    per_slice = np.zeros(shape[axis]) if residual is None else residual.sum(axis=others) / np.maximum(size, 1.0)
    gaps = [g for g in _gaps(first, last, annotated) if g[0] <= g[1]]
    if not gaps:
        return "Nothing more is worth asking: every slice of the structure is outlined."
    disagreement = float(per_slice[first : last + 1].max()) if residual is not None else np.inf
    widest = max(_reach(g, annotated) for g in gaps)
    if annotated and (widest < NARROW or (model is not None and disagreement < AGREED)):
        return "Nothing more is worth asking: the slices between the outlined ones follow from them."
    low, high = max(gaps, key=lambda g: (_reach(g, annotated), per_slice[g[0] : g[1] + 1].sum()))
    middle = (low + high) / 2
    index = round(middle)
    name = f"{plane} slice".strip().capitalize()
    if not annotated:
        reason = f"{name} {index} is the middle of the structure."
    else:
        reason = f"{name} {index} is the middle of the widest part without an outline ({high - low + 1} slices)."
    room = int(PULL * (high - low + 1))
    compared = suspect is not None or (proxy is not None and model is not None)
    if annotated and compared and room and per_slice[low : high + 1].any():
        near = np.arange(max(low, index - room), min(high, index + room) + 1)
        doubts = per_slice[near] * (1 - np.abs(near - middle) / (high - low + 2))
        index = int(near[int(doubts.argmax())])
        what = "the model and the outlines disagree" if model is not None else "reflection doubts the mask"
        reason = (
            f"{name} {index} lies in the widest part without an outline ({high - low + 1} slices), where {what} most."
        )
    empty = np.zeros(tuple(shape), np.float32)
    gap = _reach((low, high), annotated)
    return Suggestion(axis, int(index), reason, empty if residual is None else residual, gap)


def _gaps(first: int, last: int, annotated: Sequence[int]) -> list[tuple[int, int]]:
    """Runs of slices without an outline."""
    known = sorted(n for n in annotated if first <= n <= last)
    starts = [first, *[n + 1 for n in known]]
    stops = [*[n - 1 for n in known], last]
    return list(zip(starts, stops, strict=True))


def _reach(gap: tuple[int, int], annotated: Sequence[int]) -> float:
    """How far a slice in a gap can be from the nearest outline: a gap open to one side reaches twice as far."""
    length = gap[1] - gap[0] + 1
    closed = any(n == gap[0] - 1 for n in annotated) + any(n == gap[1] + 1 for n in annotated)
    return length / 2 if closed == 2 else float(length)
