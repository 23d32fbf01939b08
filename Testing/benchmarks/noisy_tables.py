"""What bench_noisy found, as Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from noisy_arms import (
    ALL,
    CLEAN,
    CLEAN_T,
    CO,
    CO_TOLD,
    FEW,
    FILTERS,
    LEVELS,
    NOISE,
    PLAIN,
    SINGLE,
    STRENGTH,
    T_LOSS,
    Job,
    jobs,
)

Found = dict[str, dict[str, Any]]
ARMS = (CLEAN, CLEAN_T, PLAIN, T_LOSS, CO, CO_TOLD, *LEVELS)
COMMAND = "make bench-noisy"
SETS = {
    "lungs": ("Lungs (JSRT X-rays)", "48 x 48"),
    FEW: ("Lungs, few images", "48 x 48"),
    "heads": ("Fetal heads (hc18 ultrasound)", "48 x 64"),
}
WRONG = {
    "mixed": "dilation, erosion, shift, missing parts and border noise, as often each",
    "dilation": "all of them too wide, noise that leans to one side",
    "too small": "erosion and missing parts, as often each",
}
RATED = ("image only", "both", "image, with Dice")
MISSING = "not measured"


def read(file: Path) -> Found:
    """The results by the key of their arm; a line that was being written when somebody killed it is left out."""
    found: Found = {}
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[entry.pop("key")] = entry
    return found


def tables(found: Found) -> str:
    """Everything that is there; arms that are missing are named."""
    lines = [_head(found)]
    for wanted in SETS:
        for kinds in NOISE:
            lines += _noise(found, wanted, kinds)
    lines += _maps(found)
    for name, what in (("brains", "Newborns' brains, seven raters"), ("vessels", "Vessels of the retina, two raters")):
        lines += _raters(found, name, what)
    left = [job for job in jobs() if job.key not in found]
    if left:
        told = "; ".join(f"{job.set} {job.noise:.0%} {job.kinds}, {job.arm}, seed {job.seed}" for job in left)
        lines += ["", f"Not finished: {told}. `{COMMAND}` goes on there."]
    return "\n".join(lines) + "\n"


def _head(found: Found) -> str:
    memory = max((one["memory"] for one in found.values()), default=0)
    spent = sum(one["cpu"] for one in found.values())
    return f"""# Training on masks that are wrong, measured

`{COMMAND}` writes these tables (one core, one thread; {len(found)} arms, {spent / 60:.0f} minutes of one core, peak
memory {memory} MB). Arms and roles: `Testing/benchmarks/noisy_arms.py`, pictures: `rater_data.py`. The network (UNet
{FILTERS}, instance norm, dropout 0.1), its first weights, steps, poses and looks are those of `refseg train` and
the same for every arm. Masks of validation patients are as wrong as those that train; masks
of test patients are true. Nobody is told how many masks are wrong, but the arm that says so. Plain: Dice +
cross-entropy. The three levels learn by T-Loss; "image, with Dice" by the sum of T-Loss and Dice, which is what
`refseg train --noisy` does. They keep the weights that are best on the better half of validation, all others those
that are best on all of it. Settings were chosen on validation patients and on the noise maps of those that train. Dice
in percent, on test patients, mean of images.
"""


def _of(found: Found, *about: Any) -> dict[str, Any] | None:
    """The result of Job(*about), if it is there."""
    return found.get(Job(*about).key)


def _points(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.1f}"


def _noise(found: Found, wanted: str, kinds: str) -> list[str]:
    """A row an arm, a column a share of wrong masks and a seed."""
    planned = [job for job in jobs() if (job.set, job.kinds) == (wanted, kinds) and job.noise]
    columns = sorted({(job.noise, job.seed) for job in planned if job.key in found})
    if not columns:
        return []
    rows = {"*Dice of the masks given*": [_of(found, wanted, share, kinds, PLAIN, seed) for share, seed in columns]}
    for arm in (CLEAN, CLEAN_T):
        rows[arm] = [_of(found, wanted, 0.0, "mixed", arm, seed) for _, seed in columns]
    for arm in [name for name in ARMS if any(job.arm == name for job in planned)]:
        rows[arm] = [_of(found, wanted, share, kinds, arm, seed) for share, seed in columns]
    patients = next(one["patients"] for row in rows.values() for one in row if one)
    heading = [f"{share:.0%} wrong{f', seed {seed}' if seed else ''}" for share, seed in columns]
    lines = [
        "",
        f"## {SETS[wanted][0]}, {kinds} noise",
        "",
        f"{patients['train']} images train, {patients['test']} test, {SETS[wanted][1]} pixels, 480 steps.",
        f"Wrong masks: {WRONG[kinds]}, strength {STRENGTH:g}.",
        "",
        f"| arm | {' | '.join(heading)} |",
        "|---|" + "---:|" * len(columns),
    ]
    for name, row in rows.items():
        if any(row) or name not in (CLEAN, CLEAN_T):
            what = "given" if name.startswith("*") else "test"
            lines.append(f"| {name} | " + " | ".join(_points(one and one[what]) for one in row) + " |")
    return lines


def _maps(found: Found) -> list[str]:
    """How well the noise put in is found."""
    lines = [
        "",
        "## The noise map",
        "",
        "Precision / recall of what was changed on purpose, in the masks that train. Pixels, pixel level: one table of",
        "errors for all masks; pixels, both levels: one for each mask. Peer: where the network of the arm predicts",
        "something else than the mask. Masks: those suspected as a whole. Last column: Dice of the masks once",
        "corrected by both levels.",
        "",
        "| noise | arm | pixels, pixel level | pixels, both levels | pixels, peer | masks | corrected masks |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for job in jobs():
        one = found.get(job.key)
        if one and "maps" in one and job.arm in (PLAIN, *LEVELS):
            maps = one["maps"]
            cells = [
                f"{maps[k]['precision']:.2f} / {maps[k]['recall']:.2f}"
                for k in ("pixel", "both", "prediction", "image")
            ]
            noise = f"{job.set}, {job.noise:.0%} {job.kinds}{f', seed {job.seed}' if job.seed else ''}"
            lines.append(f"| {noise} | {job.arm} | {' | '.join(cells)} | {_points(maps['both']['masks'])} |")
    both = _of(found, "lungs", 0.5, "mixed", "both")
    if both:
        recalls = ", ".join(f"{kind} {v['recall']:.2f}" for kind, v in sorted(both["maps"]["kinds"].items()) if kind)
        lines += ["", f"Recall by kind of noise at 50 %, both levels: {recalls}."]
    return lines


def _raters(found: Found, name: str, what: str) -> list[str]:
    done = [job for job in jobs() if job.set == name and job.key in found]
    if not done:
        return []
    columns = [(seed, arm) for seed in sorted({job.seed for job in done}) for arm in (PLAIN, *RATED)]
    lines = [
        "",
        f"## {what}",
        "",
        "Tested against what most raters say (of two: where both say so). One rater: each image has the mask of one of",
        "them, drawn by lot. All raters: every image has all masks; plain takes what most say.",
        "",
        "| masks | " + " | ".join(f"{arm}{f', seed {seed}' if seed else ''}" for seed, arm in columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for who in (SINGLE, ALL):
        row = [_of(found, name, 1.0, "raters", who + arm, seed) for seed, arm in columns]
        lines.append(f"| {who.removesuffix(': ')} | {' | '.join(_points(one and one['test']) for one in row)} |")
    patients = found[done[0].key]["patients"]
    return [*lines, "", f"{patients['train']} images train, {patients['test']} test."]
