"""The tables of bench_interaction, on the screen and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from interaction_data import STRUCTURES
from interaction_proxies import SLICES, WHO
from interaction_sessions import STEPS
from rich.console import Console
from rich.table import Table

NAMES = {
    "ours": "RefSeg",
    "growcut": "Grow from seeds",
    "fill": "Fill between slices",
    "fill_limits": "its filter, told the limits",
    "shape": "signed distances",
    "copy": "nearest slice copied",
    "syn": "ANTs SyN",
}
MEASURES = {"dice": "Dice", "dice_not_drawn": "Dice, slices not drawn", "hd95": "HD95 (mm)"}
GOOD = 0.90


@dataclass
class Page:
    """A table: title, names of columns, rows of text, and a sentence below it."""

    title: str
    head: list[str]
    rows: list[list[str]]
    below: str = ""


def tables(rows: list[dict]) -> list[Page]:
    """All tables that these rows are enough for."""
    makers = {"proxy": proxies, "model": sessions, "new": drawn, "speed": speed}
    pages = []
    for part, maker in makers.items():
        found = [row for row in rows if row["part"] == part]
        pages += maker(found) if found else []
    return pages


def write(pages: Iterable[Page], file: Path) -> None:
    """Print the tables and write them as Markdown."""
    console, text = Console(width=170), []
    for page in pages:
        table = Table(*page.head, title=page.title, caption=page.below)
        for row in page.rows:
            table.add_row(*row)
        console.print(table)
        text += [f"### {page.title}", "", f"| {' | '.join(page.head)} |", f"|{'---|' * len(page.head)}"]
        text += [f"| {' | '.join(row)} |" for row in page.rows]
        text += ["", page.below, ""]
    file.write_text("\n".join(text))


def mean(values: Iterable[float | None], form: str = "{:.3f}") -> str:
    """The mean as text, of what was measured."""
    known = [value for value in values if value is not None]
    return form.format(float(np.mean(known))) if known else "-"


def proxies(rows: list[dict]) -> list[Page]:
    """Every method and k, with and without limits; and the mean over structures at k = 3."""
    pages = []
    for limits in (True, False):
        for measure, name in MEASURES.items():
            lines = []
            for structure in STRUCTURES:
                for who in WHO:
                    found = _of(rows, who, structure, limits)
                    if not found or (who == "syn" and not limits):
                        continue
                    form = "{:.2f}" if measure == "hd95" else "{:.3f}"
                    cells = [mean((r[measure] for r in found if r["k"] == k), form) for k in SLICES]
                    count = len({r["case"] for r in found})
                    lines.append([structure, NAMES[who], str(count), *cells])
            marked = "limits marked" if limits else "no limits"
            head = ["structure", "method", "cases", *(f"k={k}" for k in SLICES)]
            if lines:
                pages.append(Page(f"Proxy masks, {marked}: {name}", head, lines, _said(rows) if limits else ""))
    return [*pages, summary(rows)]


def summary(rows: list[dict]) -> Page:
    """The mean of the four structures at k = 3, limits marked, each method on the cases that all of its kind saw."""
    lines = []
    for who in WHO:
        seen = {(r["structure"], r["case"]) for r in _of(rows, who, None, True) if r["k"] == 3}

        def over(method: str, measure: str, seen: set = seen) -> float | None:
            values = []
            for structure in STRUCTURES:
                found = [
                    r[measure]
                    for r in _of(rows, method, structure, True)
                    if r["k"] == 3 and (structure, r["case"]) in seen and r[measure] is not None
                ]
                values.append(float(np.mean(found)) if found else None)
            return None if None in values else float(np.mean(values))

        mine, theirs = [[over(method, m) for m in ("dice", "dice_between", "hd95")] for method in ("ours", who)]
        if theirs[0] is None:
            continue
        gain = "" if mine[0] is None or who == "ours" else f"{mine[0] - theirs[0]:+.3f}"
        nearer = "" if mine[2] is None or who == "ours" else f"{mine[2] - theirs[2]:+.2f}"
        seconds = np.median([r["seconds"] for r in _of(rows, who, None, True) if r["k"] == 3])
        lines.append(
            [
                NAMES[who],
                str(len(seen)),
                f"{theirs[0]:.3f}",
                gain,
                f"{theirs[1]:.3f}",
                f"{theirs[2]:.2f}",
                nearer,
                f"{seconds:.2f}",
            ]
        )
    head = ["method", "masks", "Dice", "RefSeg more by", "between the outermost", "HD95 (mm)", "RefSeg", "median s"]
    return Page("Proxy masks from three slices, limits marked: mean of the four structures", head, lines)


def _of(rows: list[dict], who: str, structure: str | None, limits: bool) -> list[dict]:
    """Rows of a method; Fill between slices makes nothing of limits, so its rows count with and without."""
    return [
        r
        for r in rows
        if r["of"] == who and structure in (None, r["structure"]) and (who == "fill" or r["limits"] == limits)
    ]


def _said(rows: list[dict]) -> str:
    ours = [r for r in rows if r["of"] == "ours" and r["limits"]]
    judged = [(r["estimated"], r["dice"]) for r in ours if r.get("estimated") is not None and r["k"] >= 3]
    text = f"Outlined slices exact: {all(r['exact'] for r in rows)}."
    if len(judged) > 2:
        estimated, true = np.array(judged).T
        text += (
            f" Leave-one-out estimate: mean {estimated.mean():.3f}, true {true.mean():.3f}, "
            f"correlation {np.corrcoef(estimated, true)[0, 1]:.2f}."
        )
    return text


def sessions(rows: list[dict]) -> list[Page]:
    """A model's masks corrected."""
    lines = []
    for name, found in _grouped(rows, _who).items():
        curves = _padded(found, max(STEPS))
        after = [mean(curve[n] for curve in curves) for n in (0, *STEPS)]
        start, five = (np.mean([curve[n] for curve in curves]) for n in (0, 5))
        gone = f"{100 * (five - start) / (1 - start):.0f} %"
        times = np.concatenate([r["seconds"] for r in found])
        timing = [f"{np.percentile(times, q):.2f}" for q in (50, 95)]
        lines.append([*name, str(len(found)), *after, gone, _worse(found), *timing])
    head = ["set", "interactions", "cases", *(f"after {n}" for n in (0, *STEPS))]
    head += ["error gone after 5", "lowered Dice by > .01", "median s", "95 % s"]
    below = (
        "After 0: the model alone. The limits of all labels are one interaction, as are all outlines of a slice. "
        "Even: slices placed for that number of interactions."
    )
    return [Page("A model corrected", head, lines, below)]


def drawn(rows: list[dict]) -> list[Page]:
    """Structures that no model knows."""
    lines = []
    for name, found in _grouped(rows, _who).items():
        clicked = "clicks" in name[1]
        length = max(len(r["dice"]) for r in found)
        curves = _padded(found, length - 1)
        after = [mean(curve[n] for curve in curves) for n in (STEPS if clicked else range(2, min(length, 7)))]
        after += [""] * (5 - len(after))
        enough = [n for n in range(1, length) if np.mean([curve[n] for curve in curves]) >= GOOD]
        count = mean((r["slices"] for r in found), "{:.0f}")
        if enough and not clicked:
            n = enough[0]
            effort = [1 - r["drawn"][min(n, len(r["drawn"]) - 1)] / r["whole"] for r in found]
            said = [str(n - 1), f"{100 * np.mean(effort):.0f} %", str(n + 1)]
        else:
            said = ["-"] * 3
        lines.append([*name, str(len(found)), *after, *said, count])
    head = ["structure", "interactions", "cases", "1 slice", "2", "3", "4", "5"]
    head += ["slices to .90", "border not drawn", "slices and marks", "slices in all"]
    below = (
        "Dice after the limits and so many slices; in rows of clicks after 1, 3, 5 and 10 clicks, without limits. "
        "To .90: in the mean, and what of the border of all slices was not drawn by then."
    )
    return [Page("A structure no model knows", head, lines, below)]


def speed(rows: list[dict]) -> list[Page]:
    """Seconds and memory."""
    lines = []
    for row in rows:
        for name, values in row["seconds"].items():
            median, high = np.percentile(values, (50, 95))
            lines.append([row["what"], name, str(len(values)), f"{median:.3f}", f"{high:.3f}"])
        if "memory_mb" in row:
            lines.append([row["what"], f"peak memory of the process: {row['memory_mb']:.0f} MB", *"---"])
    return [Page("Speed", ["where", "what", "times", "median s", "95 % s"], lines)]


def _grouped(rows: list[dict], key: Callable[[dict], tuple]) -> dict[tuple, list[dict]]:
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return dict(sorted(groups.items(), key=lambda item: item[0][0]))


def _who(row: dict) -> tuple[str, str]:
    return row["structure"], f"{row['kind']}, {'imprecise' if row['imprecise'] else 'perfect'}"


def _padded(rows: list[dict], last: int) -> list[list[float | None]]:
    """Dice after 0 … last interactions; a session that ended keeps its last one."""
    return [(r["dice"] + [r["dice"][-1]] * last)[: last + 1] for r in rows]


def _worse(rows: list[dict]) -> str:
    pairs = [(a, b) for r in rows for a, b in zip(r["dice"], r["dice"][1:], strict=False) if None not in (a, b)]
    if any(r["kind"] == "even" for r in rows):
        return "-"
    return f"{100 * np.mean([b < a - 0.01 for a, b in pairs]):.1f} %"
