"""The results of bench_reflection as tables in Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from RefSegLib.evaluation import HARM, summarize
from RefSegLib.quality.shifts import UNSEEN

Row = dict[str, Any]


def of(folder: Path, title: str) -> str:
    """Everything that was measured of one network."""
    rows = [row for file in sorted(folder.glob("*.json")) for row in _with_site(file)]
    if not rows:
        return f"## {title}: nothing measured\n"
    parts = [f"## {title}"]
    sites = list(dict.fromkeys(row["site"] for row in rows))
    for site in sites:
        own = [row for row in rows if row["site"] == site]
        parts += [f"### {site}, {len({row['case'] for row in own})} images", _methods(own), _kinds(own), _cost(own)]
        estimate = summarize(own)["estimate"].get("reflect")
        parts.append(f"Estimated Dice: {json.dumps(estimate)}")
    if sites == ["ACDC"]:
        parts.append(_groups(rows))
    return "\n\n".join(part for part in parts if part) + "\n"


def _with_site(file: Path) -> list[Row]:
    site = file.stem.split(" ")[0]
    return [row | {"site": site} for row in json.loads(file.read_text()) if row["applies"]]


def _dice(row: Row) -> float:
    return float(np.mean(list(row["dice"].values())))


def _kind(row: Row) -> str:
    return (row["shift"] or "clean").split(":")[0]


def _gains(rows: Sequence[Row], method: str) -> dict[tuple, tuple[float, float]]:
    """{(case, shift): (Dice of none, Dice of the method)}."""
    none = {(r["case"], r["shift"]): _dice(r) for r in rows if r["method"] == "none"}
    return {(r["case"], r["shift"]): (none[r["case"], r["shift"]], _dice(r)) for r in rows if r["method"] == method}


def _row(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells) + " |"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    return "\n".join([_row(head), "|" + "---|" * len(head), *map(_row, rows)])


def _methods(rows: Sequence[Row]) -> str:
    groups: dict[str, Callable[[tuple], bool]] = {
        "clean": lambda key: key[1] is None,
        "shifted": lambda key: key[1] is not None and key[1].split(":")[0] not in UNSEEN,
        "unseen shifts": lambda key: key[1] is not None and key[1].split(":")[0] in UNSEEN,
    }
    there = [name for name, belongs in groups.items() if any(belongs((0, row["shift"])) for row in rows)]
    head = [
        "method",
        *(f"{name}: Dice (gain)" for name in there),
        *(f"{name}: harmed" for name in there),
        "harmed",
        "worst",
    ]
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        pairs = _gains(rows, method)
        scores, harmed = [], []
        for name in there:
            before, after = np.array([pair for key, pair in pairs.items() if groups[name](key)]).T
            scores.append(f"{after.mean():.3f} ({(after - before).mean():+.3f})")
            harmed.append(f"{100 * (after < before - HARM).mean():.1f} %")
        change = np.array([after - before for before, after in pairs.values()])
        lines.append([method, *scores, *harmed, f"{100 * (change < -HARM).mean():.1f} %", f"{change.min():+.3f}"])
    return _table(head, lines)


def _kinds(rows: Sequence[Row]) -> str:
    kinds = list(dict.fromkeys(_kind(row) for row in rows))
    if len(kinds) == 1:
        return ""
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        lines.append([method, *(float(np.mean([_dice(r) for r in own if _kind(r) == kind])) for kind in kinds)])
    return _table(["Dice", *kinds], lines)


def _cost(rows: Sequence[Row]) -> str:
    none = {(r["case"], r["shift"]): r["seconds"] for r in rows if r["method"] == "none"}
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        ratios = [
            (r["shift"] is None, r["seconds"] / none[r["case"], r["shift"]]) for r in rows if r["method"] == method
        ]
        cells = [[ratio for clean, ratio in ratios if clean == wanted] for wanted in (True, False)]
        lines.append([method, *(f"{np.median(some):.1f}" if some else "-" for some in cells)])
    return _table(["time, as a multiple of none (median)", "clean", "shifted"], lines)


def _groups(rows: Sequence[Row]) -> str:
    names = ("DCM", "HCM", "MINF", "NOR", "RV")

    def group(row: Row) -> str:
        return names[(int(re.sub(r"\D", "", row["case"].split("_")[0])) - 1) // 20]

    lines = []
    for method in ("none", "reflect"):
        own = [row for row in rows if row["method"] == method and row["shift"] is None]
        scores = [[_dice(row) for row in own if group(row) == name] for name in names]
        lines.append([method, *(f"{np.mean(some):.3f} ({len(some)})" if some else "-" for some in scores)])
    return "By pathology, clean:\n\n" + _table(["Dice (images)", *names], lines)
