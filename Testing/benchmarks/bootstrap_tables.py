"""What bench_bootstrap found, as Markdown."""

from __future__ import annotations

from typing import Any

import numpy as np

COMMAND = "make bench-bootstrap"
OTHER = "true labels of the other site, with its images"
ROWS = (
    "no learning: threshold or template",
    "any prior: the shape whose border stands out most",
    "CycleGAN",
    "+ VAE discriminator",
    "+ channel calibration",
    "the same, twice the steps",
    "+ four views, made a shape",
    "a segmenter on all pseudo labels",
    "+ selection",
    "+ noise-weighted Dice",
    "+ iterations, round 1",
    "+ iterations, round 2",
    "+ iterations, round 3",
    "the translation whose borders stand out more",
    "+ agreement with the borders",
    "+ agreement, round 1",
    "+ agreement, round 2",
    "+ agreement, round 3",
    OTHER,
    "oracle: the true labels",
)
ROUNDS = {"agreement": "`refseg bootstrap`", "rounds": "the ladder up to iterations"}  # by job
REACH = {"fetal head": 4.0, "optic disc": 4.0, "lungs": 3.0}


def tables(results: list[dict[str, Any]], settings: dict[str, Any]) -> str:
    """Everything that is done; what is not is said to be missing."""
    sets = [name for name in REACH if any(r["set"] == name for r in results)]
    cells: dict[tuple[str, str], list[list[float]]] = {}
    labels: dict[tuple[str, str], float] = {}
    for entry in results:
        for row in entry["rows"]:
            cells.setdefault((row["arm"], entry["set"]), []).append(row["dice"])
            if "labels" in row:
                labels.setdefault((row["arm"], entry["set"]), row["labels"])
        if entry["job"] in ROUNDS:  # what the last round gave that was kept, whichever it is
            cells.setdefault((entry["job"], entry["set"]), []).append(entry["rows"][-1]["dice"])
    lines = [
        "# Learning without labels, measured",
        "",
        f"`{COMMAND}` writes this (`REFSEG_DATA` names the folder of the data; goes on where it was stopped). Sets, "
        "frames, priors and the ways without learning: `Testing/benchmarks/shape_data.py`. Mean Dice of test patients, "
        "on the frame the networks see, and in brackets the share of images below .7; two numbers are two seeds "
        "(`--seed 1 --jobs agreement oracle`). All segmenters and the oracle: "
        f"the same network, {settings['steps']} steps from random weights (each round anew), the same augmentation. "
        "Checkpoints are chosen without labels, except the oracle's. "
        f"Settings of the translation: {settings['translation']}; VAE: {settings['VAE steps']} steps. From `the "
        "translation whose borders stand out more` on it is what `refseg bootstrap` does; the rows before go on from "
        "the longer translation. `ended before`: labels had settled, or borders were lost and the round was "
        "dropped.",
        "",
        "| | " + " | ".join(sets) + " |",
        "|---" * (len(sets) + 1) + "|",
    ]
    alone = {r["set"] for r in results if r["job"] == "other site" and not r["rows"]}
    for arm in ROWS:
        told = [_cell(cells.get((arm, name)), _began(cells, arm, name)) for name in sets]
        if arm == OTHER:
            told = ["there is none" if name in alone else cell for name, cell in zip(sets, told, strict=True)]
        lines.append(f"| {arm} | " + " | ".join(told) + " |")
    lines += ["", "| behind the oracle, points | " + " | ".join(sets) + " |", "|---" * (len(sets) + 1) + "|"]
    for job, what in ROUNDS.items():
        lines.append(f"| {what} | " + " | ".join(_behind(cells, name, job) for name in sets) + " |")
    best = " | ".join(_best(cells, name) for name in sets)
    lines.append(f"| at the best step, known only afterwards | {best} |")
    lines += [
        "",
        "How good the pseudo labels were that each round learned from, before selection (train and validation ",
    ]
    lines[-1] += "patients; looked at afterwards only):"
    lines += ["", "| | " + " | ".join(sets) + " |", "|---" * (len(sets) + 1) + "|"]
    for arm in ROWS:
        if any((arm, name) in labels for name in sets):
            told = [f"{labels[arm, name]:.3f}" if (arm, name) in labels else "" for name in sets]
            lines.append(f"| {arm} | " + " | ".join(told) + " |")
    seconds, memory = sum(r["seconds"] for r in results), max(r["memory"] for r in results)
    lines += ["", f"Seconds of one core: {seconds}. Peak memory: {memory} MB."]
    return "\n".join(lines) + "\n"


def _behind(cells: dict[tuple[str, str], list[list[float]]], name: str, job: str) -> str:
    """Points behind the oracle after the last round."""
    last, oracle = cells.get((job, name)), cells.get((ROWS[-1], name))
    if not last or not oracle:
        return "not measured"
    return f"{100 * (_mean(oracle) - _mean(last)):.1f} (aim: {REACH[name]:g})"


def _best(cells: dict[tuple[str, str], list[list[float]]], name: str) -> str:
    """Points behind the oracle of whichever learned row is best."""
    learned = {arm: _mean(cells[arm, name]) for arm in ROWS[2:-2] if (arm, name) in cells}
    if not learned or (ROWS[-1], name) not in cells:
        return "not measured"
    arm = max(learned, key=learned.get)
    return f"{100 * (_mean(cells[ROWS[-1], name]) - learned[arm]):.1f} ({arm})"


def _mean(runs: list[list[float]]) -> float:
    """Of all seeds and images."""
    return float(np.mean([np.mean(run) for run in runs]))


def _began(cells: dict[tuple[str, str], list[list[float]]], arm: str, name: str) -> bool:
    """Whether `arm` is a later round of rounds that were done."""
    return (arm[:-1] + "1", name) in cells


def _cell(runs: list[list[float]] | None, began: bool) -> str:
    """The mean of one seed, or of each."""
    if runs is None:
        return "ended before" if began else "not measured"
    below = [np.mean(np.array(run) < 0.7) for run in runs]
    means = " and ".join(f"{np.mean(run):.3f}".lstrip("0") for run in runs)
    return f"{means} ({100 * np.mean(below):.0f} %)"
