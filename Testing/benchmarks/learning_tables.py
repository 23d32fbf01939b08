"""What bench_learning found, as Markdown."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
from learning_arms import (
    ARMS,
    OFFLINE,
    SETTINGS,
    SLICES,
    VALIDATION_PATIENTS,
    Tester,
    arm_folder,
    finished,
    mean_dice,
    verdicts,
)
from learning_arms import rows as rows_of
from learning_data import OUT, Set, group
from RefSegLib.models.store import ModelStore

WORSE = 0.005
COMMAND = "make bench-learning"


def tables(sets: list[Set]) -> str:
    """Everything, set by set."""
    return "\n".join([_head(), *(line for wanted in sets for line in _set(wanted)), *_choices()]) + "\n"


def _head() -> str:
    return f"""# Continual learning, measured

`{COMMAND}` writes these tables (two cores, one thread an arm, two arms at a time). Start models, streams, roles and
settings: `Testing/benchmarks/learning_data.py` and `learning_arms.py`. Everything runs through the product's own path:
session, robot annotator, replay store, learner, gate, model store. Each case is outlined on {SLICES} slices of one
plane after its limits were marked; the gate wants {VALIDATION_PATIENTS} validation patients, drawn from the stream by
the replay store as at a site. Dice: mean over labels and test images, on the grid the network sees. **Live** is
the published version, **newest** the last one learnt, published or not. **Forgetting**: on the test patients of the
first group (hearts; all test patients for the hippocampus, which has no groups), Dice of the newest version at its best
on the way, minus at the end, in points; "deepest fall": the largest such loss at any time on the way; "mean of groups":
forgetting of every pathology, averaged.
**Offline**: the start model trained on by `refseg train`'s loop on the full masks of the same cases that the stream
trains on, the cases the gate keeps choosing the epoch.
"""


def _set(wanted: Set) -> list[str]:
    done = [name for name in ARMS if finished(wanted, name)]
    unfinished = [name for name in [*ARMS, OFFLINE] if not finished(wanted, name)]
    kind = wanted.spec.name.removesuffix("-stream")
    lines = [f"## {kind.capitalize()}", ""]
    frames = {c.patient for c in wanted.test}
    lines += [
        f"Start: {len({c.patient for c in wanted.start})} patients; stream: {len(wanted.stream)}; test: "
        f"{len(frames)} patients, {len(wanted.test)} images. Network: {wanted.spec.network.name} "
        f"{wanted.spec.network.arguments['filters']}. Learning: {dict(SETTINGS[kind])}, else as in the product.",
        "",
    ]
    if unfinished:
        told = (
            f"{name} ({len(rows_of(arm_folder(wanted, name)))} of {len(wanted.stream)} cases)" for name in unfinished
        )
        lines += [f"Not finished: {', '.join(told)}. `{COMMAND}` goes on there.", ""]
    if not done:
        return lines
    offline = _offline(wanted)
    found = {name: _summary(wanted, name, offline) for name in done}
    heads = [
        "arm",
        "start",
        "live",
        "newest",
        "live − offline",
        "newest − offline",
        "forgetting",
        "deepest fall",
        "mean of groups",
    ]
    lines += _table(heads, [_main_row(name, s) for name, s in found.items()])
    if offline is not None:
        first = mean_dice(_tests(wanted, OFFLINE), wanted.first) if wanted.first else 0
        lines += ["", f"Offline: {offline:.4f} (first group {first:.4f})."]
    lines += ["", "### Aims", "", *_aims(found)]
    lines += ["", "### The gate", ""]
    heads = ["arm", "published", "refused", "waited", "skipped", "worse on test by > 0.5 points", "worst step (points)"]
    lines += _table(heads, [_gate_row(name, s) for name, s in found.items()])
    lines += ["", "### Effort and time", ""]
    heads = ["arm", "boundary drawn", "Dice of what was accepted", "accepted → verdict, median (s)", "longest (s)"]
    lines += _table(heads, [_time_row(name, s) for name, s in found.items()])
    lines += ["", "### Test Dice along the stream: live / newest after so many cases", ""]
    lines += _curves(wanted)
    if wanted.first != [c.name for c in wanted.test]:
        lines += ["", "### Newest version by pathology: at the end (at its best)", "", *_groups(wanted, done)]
    if "full system" in found:
        lines += ["", "### Every refusal of the full system", ""]
        lines += [f"* {v.reason}" for v in found["full system"]["verdicts"] if v.outcome == "refused"] or ["None."]
    return [*lines, ""]


def _choices() -> list[str]:
    file = OUT / "choices.jsonl"
    found = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    if not found:
        return []
    said = ("start", "scores", "seconds", "set")
    body = [
        [
            row["set"],
            ", ".join(f"{key} {value:g}" for key, value in row.items() if key not in said),
            f"{row['start']:.4f}",
            f"{row['scores'][-1]:.4f}",
            f"{np.mean(row['scores'][-3:]):.4f}",
        ]
        for row in found
    ]
    return [
        "## Settings tried on validation patients",
        "",
        "`python Testing/benchmarks/learning_choices.py hippocampus FILE rate=0.001 iterations=40`: the stream without",
        "a gate, cases annotated once with the start model, Dice of 18 validation images; every sixth version and the",
        "last are scored. Single runs: differences under .005 mean nothing.",
        "",
        *_table(["set", "settings", "start", "at the end", "mean of the last three"], body),
        "",
    ]


def _tests(wanted: Set, name: str) -> Any:
    known = Tester(wanted, arm_folder(wanted, name) / "tests.json").known
    return next(iter(known.values())) if name == OFFLINE else known


def _offline(wanted: Set) -> float | None:
    return mean_dice(_tests(wanted, OFFLINE)) if finished(wanted, OFFLINE) else None


def _summary(wanted: Set, name: str, offline: float | None) -> dict[str, Any]:
    folder, tests, rows = arm_folder(wanted, name), _tests(wanted, name), rows_of(arm_folder(wanted, name))
    start = ModelStore(folder / "home").versions(wanted.spec.name)[0]
    live = [start, *(row["live"] for row in rows)]
    newest = [start, *(row["newest"] for row in rows)]
    first = [mean_dice(tests[v], wanted.first) for v in newest]
    judged = verdicts(wanted, name)
    steps = [
        mean_dice(tests[after]) - mean_dice(tests[before])
        for before, after in pairwise(dict.fromkeys(live))  # who went live, in turn
    ]
    curves = [[mean_dice(tests[v], cases) for v in newest] for cases in _grouped(wanted).values()]
    shares = [row["effort_share"] for row in rows if row["effort_share"] is not None]
    after = [value for row in rows for value in row["after"].values()]
    seconds = [row["seconds"] for row in rows if row["role"] == "train"]
    return {
        "live": [mean_dice(tests[v]) for v in live],
        "newest": [mean_dice(tests[v]) for v in newest],
        "offline": offline,
        "forgetting": max(first) - first[-1],
        "fall": max(max(first[: n + 1]) - value for n, value in enumerate(first)),
        "groups": float(np.mean([max(curve) - curve[-1] for curve in curves])),
        "verdicts": judged,
        "steps": steps,
        "share": float(np.mean(shares)),
        "accepted": float(np.mean(after)),
        "seconds": seconds,
    }


def _grouped(wanted: Set) -> dict[str, list[str]]:
    """Test cases by pathology, in the order of the stream; one group where there are none."""
    if wanted.first == [c.name for c in wanted.test]:
        return {"all": wanted.first}
    order = dict.fromkeys(map(group, wanted.stream))
    return {name: [c.name for c in wanted.test if group(c) == name] for name in order}


def _points(value: float | None) -> str:
    return "" if value is None else f"{100 * value:+.2f}"


def _main_row(name: str, s: dict[str, Any]) -> list[str]:
    live, newest, offline = s["live"][-1], s["newest"][-1], s["offline"]
    gaps = [None, None] if offline is None else [live - offline, newest - offline]
    return [
        name,
        f"{s['live'][0]:.4f}",
        f"{live:.4f}",
        f"{newest:.4f}",
        *map(_points, gaps),
        f"{100 * s['forgetting']:.2f}",
        f"{100 * s['fall']:.2f}",
        f"{100 * s['groups']:.2f}",
    ]


def _aims(found: dict[str, Any]) -> list[str]:
    """What was aimed at, what came out, and whether it was reached, live versions against offline."""
    body = []

    def aim(what: str, value: float, reached: bool, unit: str = "points") -> None:
        body.append([what, f"{value:.2f} {unit}", "yes" if reached else "**no**"])

    for name, most in (("full system", 1.5), ("full masks", 0.5)):
        if name in found and found[name]["offline"] is not None:
            for which in ("live", "newest"):
                behind = 100 * (found[name]["offline"] - found[name][which][-1])
                aim(f"{name}, {which}: at most {most} below offline", behind, behind <= most)
    if (full := found.get("full system")) is None:
        return _table(["aim", "found", "reached"], body)
    aim("forgetting at most 1", 100 * full["forgetting"], full["forgetting"] <= 0.01)
    if "no replay" in found:
        more = 100 * (found["no replay"]["groups"] - full["groups"])
        aim("forgetting without replay is more (mean of groups) by", more, more > 0)
    aim("boundary not drawn at least 75 %", 100 * (1 - full["share"]), full["share"] <= 0.25, "%")
    steps = [step for s in found.values() for step in s["steps"]]
    worse = 100 * float(np.mean([step < -WORSE for step in steps])) if steps else 0.0
    aim(f"published worse by > 0.5 on test, of {len(steps)} in all arms: at most 10 %", worse, worse <= 10, "%")
    aim(
        "accepted → verdict at most 180 s, longest, busy machine",
        max(full["seconds"]),
        max(full["seconds"]) <= 180,
        "s",
    )
    return _table(["aim", "found", "reached"], body)


def _gate_row(name: str, s: dict[str, Any]) -> list[str]:
    outcomes = Counter(v.outcome for v in s["verdicts"])
    worse = sum(step < -WORSE for step in s["steps"])
    counts = [str(outcomes[kind]) for kind in ("published", "refused", "waiting", "skipped")]
    return [name, *counts, f"{worse} of {len(s['steps'])}", _points(min(s["steps"], default=None))]


def _time_row(name: str, s: dict[str, Any]) -> list[str]:
    seconds = s["seconds"]
    return [
        name,
        f"{100 * s['share']:.0f} %" if ARMS[name].slices else "100 %",
        f"{s['accepted']:.3f}",
        f"{np.median(seconds):.0f}",
        f"{max(seconds):.0f}",
    ]


def _curves(wanted: Set) -> list[str]:
    """Every arm as far as it has come, so that one that is not finished can be compared until there."""
    at, body = [*range(0, len(wanted.stream), 5), len(wanted.stream)], []
    for name in ARMS:
        if not rows_of(arm_folder(wanted, name)):
            continue
        s = _summary(wanted, name, None)
        both = [f"{live:.3f} / {newest:.3f}" for live, newest in zip(s["live"], s["newest"], strict=True)]
        body.append([name, *(both[n] if n < len(both) else "" for n in at)])
    return _table(["arm", *map(str, at)], body)


def _groups(wanted: Set, done: list[str]) -> list[str]:
    names = {
        name: [c.name for c in wanted.test if group(c) == name] for name in dict.fromkeys(map(group, wanted.stream))
    }
    body = []
    for arm in done:
        tests, rows = _tests(wanted, arm), rows_of(arm_folder(wanted, arm))
        line = []
        for cases in names.values():
            curve = [mean_dice(tests[row["newest"]], cases) for row in rows]
            line.append(f"{curve[-1]:.3f} ({max(curve):.3f})")
        body.append([arm, *line])
    return _table(["arm", *(f"{n} ({len(c)} images)" for n, c in names.items())], body)


def _table(heads: list[str], body: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads), *(f"| {' | '.join(row)} |" for row in body)]
