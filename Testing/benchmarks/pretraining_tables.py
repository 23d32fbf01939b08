"""The tables of bench_pretraining, as markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pretraining_arms import ARMS, JOBS, PRETRAINING_STEPS, SHARES, SIZE, SPEC, STEPS
from pretraining_volumes import ARMS as VOLUME_ARMS
from pretraining_volumes import LABELED, TASK, TEST
from RefSegLib.quality.corruptions import ALL

Row = dict[str, Any]
BOTH, MASKED, RANDOM = "T-AE + reconstruction", "masked autoencoding", "random init"
OWN, CEILING = "own augmentation", "ceiling"
HOSPITALS = ("Montgomery", "Shenzhen")
WORST = 5


def clean(row: Row) -> float:
    """Dice on the test patients of JSRT as they are."""
    return row["found"]["clean"]


def corrupted(row: Row, severities: Sequence[int] = (WORST,)) -> float:
    """Mean Dice over 17 corruptions."""
    return float(np.mean([row["found"][f"{name} {severity}"] for name in ALL for severity in severities]))


def elsewhere(row: Row) -> float:
    """Mean Dice of the two hospitals nobody learned from."""
    return float(np.mean([row["found"][site] for site in HOSPITALS]))


MEASURES: dict[str, Callable[[Row], float]] = {
    "clean": clean,
    "17 corruptions, severity 5": corrupted,
    "severities 1 to 5": lambda row: corrupted(row, range(1, 6)),
    "Montgomery": lambda row: row["found"]["Montgomery"],
    "Shenzhen": lambda row: row["found"]["Shenzhen"],
}


def tables(rows: list[Row]) -> str:
    """Everything that has been measured so far."""
    volumes = [row for row in rows if row.get("task") == "volumes"]
    rows = [row for row in rows if row.get("task") != "volumes"]
    lines = [
        "# Robust transfer: tables",
        "",
        "    OMP_NUM_THREADS=1 python Testing/benchmarks/bench_pretraining.py --tables docs/pretraining-tables.md",
        "",
        "Dice x 100 of both lungs. Trained on JSRT (119 patients train, 24 validate, 57 test, by hash), tested on its "
        "57 test patients, clean and under the 17 corruptions of RefSegLib/quality/corruptions.py, and on all X-rays "
        "of Montgomery (80) and Shenzhen (400), which nothing was learned or chosen on. Pretraining saw the 119 "
        "training images of JSRT without masks, whatever the share of labels; the 24 validation patients choose the "
        "epoch of pretraining and, with their masks, of training in every arm. No arm adapts to what it is tested on: "
        "there are no batch statistics in the network.",
        "",
        f"Every arm: {SIZE} x {SIZE} pixels, the residual U-Net {SPEC.network.arguments['filters']} with instance "
        f"norm, intensities from the 0.5th to the 99.5th percentile to 0..1, {STEPS} steps of 16 images. Both ways of "
        f"pretraining: {PRETRAINING_STEPS} steps as `refseg pretrain` makes them: pose varies, the network sees "
        "intensities varied (gamma, bias field, blur, low resolution, contrast, brightness, Gaussian noise, each in "
        "about every other image) and draws them as they were. Training varies nothing, as in the paper's code (but "
        'for its brightness), in all arms but those called "own augmentation", which vary pose and intensities as '
        "`refseg train` does: the honest peer, which needs no pretraining. Nine of the 17 corruptions resemble "
        "something that is varied (noise of several kinds, blur, contrast, brightness).",
        "",
        '"Ceiling" is no contender: it trains on the masked images and on copies of them under each of the 17 '
        "corruptions of the test at severity 5 (drawn otherwise), in as many steps. It tells what there is to gain.",
        "",
    ]
    for share in SHARES:
        here = [row for row in rows if row["share"] == share]
        if here:
            lines += [f"## {share} % of the labels ({here[0]['labels']} images)", "", *_main(here), ""]
    lines += ["## What was aimed at", "", *_aims(rows), ""]
    lines += ["## What decided the default, on validation patients", "", *_chosen(rows), ""]
    for share in SHARES:
        here = [row for row in rows if row["share"] == share]
        if here:
            lines += [f"## Each corruption at severity {WORST}, {share} % of the labels", "", *_kinds(here), ""]
    lines += ["## Volumes", "", *_volumes(volumes), ""]
    lines += ["## Time and memory", "", *_costs(rows), ""]
    missing = [f"{arm} ({share} %)" for arm, share in JOBS if not _of(rows, arm, share)]
    if missing:
        lines += [f"Not measured: {', '.join(missing)}.", ""]
    return "\n".join(lines)


def _of(rows: list[Row], arm: str, share: int | None = None) -> list[Row]:
    return [row for row in rows if row["arm"] == arm and share in (None, row["share"])]


def _mean(rows: list[Row], measure: Callable[[Row], float]) -> float | None:
    return 100 * float(np.mean([measure(row) for row in rows])) if rows else None


def _main(rows: list[Row]) -> list[str]:
    body = []
    for arm in ARMS:
        mine = _of(rows, arm)
        if not mine:
            continue
        seeded = {row["seed"] for row in mine}
        bases = [row for row in _of(rows, RANDOM) if row["seed"] in seeded]
        cells = []
        for measure in MEASURES.values():
            value, base = _mean(mine, measure), _mean(bases, measure)
            apart = "" if base is None or arm == RANDOM else f" ({value - base:+.1f})"
            seeds = [100 * measure(row) for row in mine]
            spread = f" ±{(max(seeds) - min(seeds)) / 2:.1f}" if len(seeds) > 1 else ""
            cells.append(f"{value:.1f}{spread}{apart}")
        body.append([arm, str(len(mine)), *cells])
    return _table(["arm (against random init of the same seeds)", "seeds", *MEASURES], body)


def _aims(rows: list[Row]) -> list[str]:
    body = []
    here = [row for row in rows if row["share"] == 30]
    if not all(_of(here, arm) for arm in (BOTH, RANDOM, MASKED)):
        return ["Not measured yet."]

    def aim(what: str, measure: Callable[[Row], float], other: str, least: float) -> None:
        apart = _mean(_of(here, BOTH), measure) - _mean(_of(here, other), measure)
        body.append([what, f"{least:+.0f}", f"{apart:+.1f}", "yes" if apart >= least else "**no**"])

    aim("17 corruptions, severity 5, against random init", corrupted, RANDOM, 8)
    aim("17 corruptions, severity 5, against masked autoencoding", corrupted, MASKED, 3)
    aim("other hospitals (mean of the two), against random init", elsewhere, RANDOM, 5)
    contenders = [arm for arm in ARMS if not ARMS[arm].seen]
    best = {name: max(contenders, key=lambda arm, m=m: _mean(_of(here, arm), m) or 0.0) for name, m in MEASURES.items()}
    won = "; ".join(f"{name}: {arm}" for name, arm in best.items())
    text = [*_table([f"{BOTH}, 30 % of the labels", "aim", "found", "reached"], body), "", f"What did best: {won}."]
    if _of(here, CEILING):
        apart = _mean(_of(here, CEILING), corrupted) - _mean(_of(here, RANDOM), corrupted)
        text += ["", f"The ceiling, which has seen the corruptions of the test: {apart:+.1f} against random init."]
    return text


def _chosen(rows: list[Row]) -> list[str]:
    """What each way adds to the arm without pretraining, seed by seed, in points on validation patients."""
    body = []
    for base, ways in ((RANDOM, (MASKED, BOTH)), (OWN, (f"{OWN}, {MASKED}", f"{OWN}, {BOTH}"))):
        for way in ways:
            added = []
            for row in _of(rows, way):
                same = [r for r in _of(rows, base, row["share"]) if r["seed"] == row["seed"]]
                if same:
                    apart = 100 * (_validation(row) - _validation(same[0]))
                    plain = 100 * (row["validation"] - same[0]["validation"])
                    added.append(f"{row['share']} %, seed {row['seed']}: {apart:+.1f} ({plain:+.1f})")
            body.append([way, base, "; ".join(added)])
    return _table(["arm", "against", "17 corruptions at severity 5 (clean)"], body)


def _volumes(rows: list[Row]) -> list[str]:
    """The arms on hippocampi, one seed."""
    if not rows:
        return ["Not measured yet."]

    def worst(row: Row, role: str) -> float:
        return 100 * float(np.mean([row["found"][role][name] for name in ALL]))

    noises = ALL[:6]
    body = [
        [
            row["arm"],
            f"{100 * row['found']['test']['clean']:.1f}",
            f"{worst(row, 'test'):.1f}",
            f"{100 * np.mean([row['found']['test'][name] for name in noises]):.1f}",
            f"{worst(row, 'validation'):.1f}",
            f"{row['seconds before']:.0f}",
            f"{row['seconds']:.0f}",
        ]
        for arm in VOLUME_ARMS
        for row in _of(rows, arm)
    ]
    size = "x".join(map(str, TASK.spec.patch))
    head = ["arm", "clean", f"17 corruptions, severity {WORST}", "of them the six kinds of noise", "on validation"]
    missing = [arm for arm in VOLUME_ARMS if not _of(rows, arm)]
    return [
        f"Hippocampus (MSD, T1-weighted MR), Dice x 100 of anterior and posterior part, masks of {LABELED} patients, "
        f"pretrained on 127 images without masks; {size} voxels, U-Net {TASK.spec.network.arguments['filters']}, "
        f"{TASK.steps} steps of 2 patches, pretraining {TASK.before}; {TEST} test patients, one seed. The corruptions "
        "act on slices along k, noise on voxels (corruptions.py).",
        "",
        *_table([*head, "pretraining, s", "training, s"], body),
        *(["", f"Not measured: {', '.join(missing)}."] if missing else []),
    ]


def _validation(row: Row) -> float:
    return float(np.mean([row["validation, corrupted"][f"{name} {WORST}"] for name in ALL]))


def _kinds(rows: list[Row]) -> list[str]:
    arms = [arm for arm in ARMS if _of(rows, arm)]
    body = [
        [name, *(f"{_mean(_of(rows, arm), lambda r, n=name: r['found'][f'{n} {WORST}']):.1f}" for arm in arms)]
        for name in ALL
    ]
    return _table(["", *arms], body)


def _costs(rows: list[Row]) -> list[str]:
    body = []
    for arm in ARMS:
        mine = _of(rows, arm)
        if mine:
            body.append(
                [
                    arm,
                    f"{np.median([row['seconds before'] for row in mine]):.0f}",
                    f"{np.median([row['seconds'] for row in mine]):.0f}",
                    str(max(row["MB"] for row in mine)),
                ]
            )
    head = ["arm", "pretraining, s", "training, s (one core, shared with others)", "most memory of the process, MB"]
    return _table(head, body)


def _table(heads: list[str], body: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads), *(f"| {' | '.join(row)} |" for row in body)]
