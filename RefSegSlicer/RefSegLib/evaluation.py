"""`refseg evaluate`: a model on cases with known masks, clean and shifted, by reflection and its rivals."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from RefSegLib.baselines.bn import bn
from RefSegLib.baselines.consistency import consistency
from RefSegLib.baselines.intent import intent
from RefSegLib.baselines.shared import NotApplicable
from RefSegLib.baselines.tent import tent
from RefSegLib.errors import BadInput
from RefSegLib.inference.predict import Refine, Segmentation, segment
from RefSegLib.inference.segmenter import Segmenter
from RefSegLib.progress import SILENT, Progress
from RefSegLib.quality.metrics import score
from RefSegLib.quality.shifts import Shift, shift
from RefSegLib.reflection.reflect import reflect
from RefSegLib.reflection.settings import ReflectionSettings
from RefSegLib.synthesis.synthesizer import Synthesizer
from RefSegLib.training.cases import Case
from RefSegLib.volume.io import read_image, read_labels

METHODS = ("none", "bn", "tent", "intent", "consistency", "reflect")
HARM = 0.02  # Dice below or above doing nothing that counts as harmed or helped
BAD = 0.7  # Dice under which a mask should have been flagged


def evaluate(
    segmenter: Segmenter,
    synthesizer: Synthesizer | None,
    settings: ReflectionSettings | None,
    cases: Sequence[Case],
    *,
    methods: Sequence[str] | Mapping[str, Refine | None] = ("none", "reflect"),
    shifts: Sequence[Shift] = (),
    limit: int | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Every case clean and under every one of `shifts`, by every one of `methods`; measured on the case's own grid.

    methods: names of METHODS, or any names with what refines the first mask (inference/predict.py), None for nothing.
    The first `limit` cases are taken, in the order given. The seed of a shift comes from the name of the case, so that
    every model and method meets the same images. Returns {"cases": [{"case", "method", "shift", "applies", "dice",
    "hd95", "estimated_dice", "estimated_interval", "accepted", "reason", "seconds"}], "summary": {...}}, ready for
    JSON: `shift` is None when clean, label keys are names, what is undefined is None. A method that says that it does
    not apply to the network has rows with `applies` False, a reason and no numbers. See `summarize` for the summary.

    Raises BadInput for an unknown method or an unreadable case, Cancelled if the user asked to stop.
    """
    refinements = methods if isinstance(methods, Mapping) else named(methods, synthesizer, settings)
    chosen = list(cases)[:limit]
    if not chosen:
        raise BadInput("There are no cases to evaluate.")
    if not refinements:
        raise BadInput(f"There is no method given; the known ones are {', '.join(METHODS)}.")
    rows: list[dict[str, Any]] = []
    unfit: dict[str, str] = {}  # methods that do not apply to this network, and why
    looks: list[Shift | None] = [None, *shifts]
    total = len(chosen) * len(looks) * len(refinements)
    for case in chosen:
        volume, truth = read_image(case.image), read_labels(case.labels)
        for look in looks:
            seed = zlib.crc32(case.name.encode())
            seen = volume if look is None else shift(volume, look.name, look.severity, seed)
            for method, refine in refinements.items():
                head = {"case": case.name, "method": method, "shift": None if look is None else str(look)}
                part = progress.part(len(rows) / total, (len(rows) + 1) / total)
                part(0.0, f"{case.name}, {look or 'clean'}, {method}")
                if method not in unfit:
                    try:
                        started = time.perf_counter()
                        result = segment(seen, segmenter, refine=refine, progress=part)
                        seconds = time.perf_counter() - started
                    except NotApplicable as error:
                        unfit[method] = str(error)
                if method in unfit:
                    rows.append(head | _UNFIT | {"reason": unfit[method]})
                    continue
                rows.append(head | _measured(result, score(result.labels, truth, _values(result)), seconds))
    progress(1.0, "Evaluated")
    return {"cases": rows, "summary": summarize(rows)}


def named(
    methods: Sequence[str], synthesizer: Synthesizer | None, settings: ReflectionSettings | None
) -> dict[str, Refine | None]:
    """What each of `methods`, names of METHODS, does with a first mask. Raises BadInput for any other name."""

    def reflected(array, probabilities, segmenter, progress):
        return reflect(array, segmenter, synthesizer, settings, probabilities=probabilities, progress=progress)

    rivals = {"none": None, "bn": bn, "tent": tent, "intent": intent, "consistency": consistency}
    known = rivals | {"reflect": reflected}
    if unknown := sorted(set(methods) - set(known)):
        raise BadInput(f"There is no method {', '.join(unknown)}; the known ones are {', '.join(METHODS)}.")
    return {name: known[name] for name in methods}


def _values(result: Segmentation) -> list[int]:
    return [label.value for label in result.names]


_UNFIT = {
    "applies": False,
    "dice": {},
    "hd95": {},
    "estimated_dice": {},
    "estimated_interval": {},
    "accepted": None,
    "seconds": None,
}


def _measured(result: Segmentation, scores: dict[int, dict], seconds: float) -> dict[str, Any]:
    names = {label.value: label.name for label in result.names}
    reflections = [(region.region.offset, region.reflection) for region in result.regions if region.reflection]
    estimated: dict[str, float] = {}
    intervals: dict[str, list[float]] = {}
    for offset, reflection in reflections:
        for value, dice in getattr(reflection, "estimated_dice", {}).items():
            estimated[names[value + offset]] = round(float(dice), 4)
        for value, bounds in getattr(reflection, "estimated_interval", {}).items():
            intervals[names[value + offset]] = [round(float(bound), 4) for bound in bounds]
    return {
        "applies": True,
        "dice": {names[value]: round(entry["dice"], 4) for value, entry in scores.items()},
        "hd95": {names[value]: _rounded(entry["hd95"], 3) for value, entry in scores.items()},
        "estimated_dice": {name: estimated.get(name) for name in names.values()},
        "estimated_interval": intervals,
        "accepted": any(getattr(r, "accepted", True) for _, r in reflections) if reflections else None,
        "reason": " ".join(dict.fromkeys(getattr(r, "reason", "") for _, r in reflections)) or None,
        "seconds": round(seconds, 3),
    }


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), digits)


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the rows of `evaluate` say together.

    "by_method": {method: {"clean", "shifted", each shift: {"cases", "dice" (mean over labels and cases), "dice_label",
    "hd95", "seconds" (median), and, beside "none", "harmed", "helped" (shares of cases more than 0.02 Dice below or
    above none), "gain", "worst"}}}; "estimate": {method: {"overall", "clean", "shifted": {"labels", "bad", "mae",
    "auroc_below_0.7", "interval_90_holds" (share of labels whose Dice lies inside)}}}; "skipped": {method: why}.
    """
    groups = {"clean": lambda r: r["shift"] is None, "shifted": lambda r: r["shift"] is not None}
    halves = {"overall": lambda r: True, **groups}
    for name in dict.fromkeys(row["shift"] for row in rows if row["shift"]):
        groups[name] = lambda r, name=name: r["shift"] == name
    skipped = {row["method"]: row["reason"] for row in rows if not row["applies"]}
    rows = [row for row in rows if row["applies"]]
    none = {(r["case"], r["shift"]): _mean(r["dice"].values()) for r in rows if r["method"] == "none"}
    by_method: dict[str, Any] = {}
    estimates: dict[str, Any] = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        by_method[method] = {
            name: _group(chosen, none if method != "none" else {})
            for name, belongs in groups.items()
            if (chosen := [row for row in own if belongs(row)])
        }
        found = {name: _estimate([row for row in own if belongs(row)]) for name, belongs in halves.items()}
        if found["overall"] is not None:
            estimates[method] = {name: entry for name, entry in found.items() if entry is not None}
    return {"by_method": by_method, "estimate": estimates, "skipped": skipped}


def _group(rows: Sequence[dict[str, Any]], none: dict[tuple, float | None]) -> dict[str, Any]:
    result = {
        "cases": len(rows),
        "dice": _rounded(_mean(_mean(row["dice"].values()) for row in rows)),
        "dice_label": {name: _rounded(_mean(row["dice"][name] for row in rows)) for name in rows[0]["dice"]},
        "hd95": {name: _rounded(_mean(row["hd95"][name] for row in rows), 3) for name in rows[0]["hd95"]},
        "seconds": round(float(np.median([row["seconds"] for row in rows])), 3),
    }
    gains = [
        _mean(row["dice"].values()) - none[(row["case"], row["shift"])]
        for row in rows
        if (row["case"], row["shift"]) in none
    ]
    if gains:
        result |= {
            "gain": _rounded(float(np.mean(gains))),
            "harmed": _rounded(float(np.mean(np.array(gains) < -HARM))),
            "helped": _rounded(float(np.mean(np.array(gains) > HARM))),
            "worst": _rounded(min(gains)),
        }
    return result


def _mean(values: Any) -> float | None:
    """Mean of what is defined, None if nothing is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _estimate(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    pairs = [
        (guess, row["dice"][name])
        for row in rows
        for name, guess in row["estimated_dice"].items()
        if guess is not None and name in row["dice"]
    ]
    if not pairs:
        return None
    guess, truth = np.array(pairs).T
    bad = truth < BAD
    auroc = None
    if bad.any() and not bad.all():  # Mann-Whitney: how often a bad mask is estimated below a good one
        low, high = guess[bad][:, None], guess[~bad][None]
        auroc = float((low < high).mean() + 0.5 * (low == high).mean())
    held = [
        low <= row["dice"][name] <= high
        for row in rows
        for name, (low, high) in row["estimated_interval"].items()
        if name in row["dice"]
    ]
    return {
        "labels": len(pairs),
        "bad": int(bad.sum()),
        "mae": _rounded(float(np.abs(guess - truth).mean())),
        "auroc_below_0.7": _rounded(auroc),
        "interval_90_holds": _rounded(float(np.mean(held))) if held else None,
    }
