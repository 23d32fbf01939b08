"""Part "proxy" of bench_interaction: masks from k = 1, 2, 3, 5, 8 outlined slices, ours and those of others."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
from interaction_data import SETS, cases, ends, load, masks, places
from interaction_peers import METHODS, Problem, solved
from InteractiveLearningLib.propagation import FlowCache, propagate
from RefSegLib.quality.metrics import dice, hd95

SLICES = (1, 2, 3, 5, 8)
# SyN takes seconds a slice: it runs on the first cases of a set only, from three slices.
SLOW, FEW = "syn", 8
# These are told the limits or are not run; Fill between slices as Slicer has it makes nothing of them.
LIMITS = {"syn": (True,), "fill_limits": (True,), "fill": (False,)}
WHO = ("ours", *METHODS)


def tasks(split: str, limit: int | None) -> list[dict]:
    """What is to be computed: one task per case and method."""
    return [
        {"part": "proxy", "split": split, "of": method, "folder": folder, "case": name}
        for method in WHO
        for folder in SETS
        for name in cases(folder, split, min(limit or FEW, FEW) if method == SLOW else limit)
    ]


def run(task: dict) -> list[dict]:
    """Rows of one case: every structure, every k, with the limits marked and without."""
    folder, method = task["folder"], task["of"]
    volume, labels = load(folder, task["case"])
    axis, spacing = SETS[folder].axis, volume.grid.spacing
    rows = []
    for structure, truth in masks(folder, labels).items():
        low, high = ends(truth, axis)
        for k in (3,) if method == SLOW else SLICES:
            if high - low + 1 <= k:
                continue
            chosen = places(low, high, k)
            outlined = {n: np.take(truth, n, axis) for n in chosen}
            for limits in LIMITS.get(method, (True, False)):
                problem = Problem(volume.array[0], axis, outlined, (low, high) if limits else None, spacing)
                found, more = _ours(problem) if method == "ours" else _theirs(method, problem)
                told = {"structure": structure, "k": k, "limits": limits}
                rows.append(told | scores(found, truth, axis, chosen, spacing) | more)
    return rows


def scores(
    found: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_], axis: int, chosen: list[int], spacing: tuple
) -> dict:
    """Dice over all voxels, over slices nobody outlined and between the outermost outlines; HD95 (mm); exactness."""
    rest = [n for n in range(truth.shape[axis]) if n not in chosen]
    between = [n for n in rest if chosen[0] < n < chosen[-1]]

    def among(indices: list[int]) -> float | None:
        return dice(np.take(found, indices, axis), np.take(truth, indices, axis)) if indices else None

    distance = hd95(found, truth, spacing)
    return {
        "dice": dice(found, truth),
        "dice_not_drawn": among(rest),
        "dice_between": among(between),
        "hd95": distance if np.isfinite(distance) else None,
        "exact": all(np.array_equal(np.take(found, n, axis), np.take(truth, n, axis)) for n in chosen),
    }


def _ours(problem: Problem) -> tuple[npt.NDArray[np.bool_], dict]:
    start = time.perf_counter()
    found = propagate(
        problem.image,
        problem.axis,
        problem.slices,
        limits=problem.limits,
        spacing=problem.spacing,
        cache=FlowCache(),
    )
    seconds = time.perf_counter() - start
    return found.mask, {"seconds": seconds, "estimated": found.estimated_dice, "method": found.method}


def _theirs(method: str, problem: Problem) -> tuple[npt.NDArray[np.bool_], dict]:
    found, seconds = solved(method, problem)
    return found, {"seconds": seconds}
