"""How good the mask is after so many slices or clicks, on real patients, by robot annotators perfect and imprecise.

    python Testing/benchmarks/bench_interaction.py [--split test] [--limit N] [--parts proxy,clicks,slices] [--out FILE]

proxy: from k = 1, 2, 3, 5, 8 outlined slices at even places (never the tips), with the limits of the structure marked
and without; Dice over all voxels and over slices nobody outlined, HD95, seconds for the first proxy and after one more
slice. clicks, slices: a session on a model's mask that is wrong in a simulated way (its border wanders smoothly), ten
clicks or five outlined slices by a perfect and an imprecise annotator; and slices on a structure no model knows.

Data: hippocampus (msd_hippocampus, coronal) and heart (acdc, short axis; its files have lost the spacing, 10 x 1.5 x
1.5 mm is assumed). Patients are split by the hash of their name; constants were chosen on training patients. Every
finished case is one line of the output file and is not computed again.
"""

import argparse
import json
import os
import tempfile
import time
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")

import numpy as np
from InteractiveLearningLib.annotator import annotate
from InteractiveLearningLib.propagation import FlowCache, propagate
from InteractiveLearningLib.session import Session
from RefSegLib.models.spec import Label
from RefSegLib.quality.metrics import dice, hd95
from RefSegLib.training.split import patient_of, split_of
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.io import read_image, read_labels
from RefSegLib.volume.volume import LabelMap, Volume
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy import ndimage

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("REFSEG_DATA", ROOT.parent / "shared" / "data"))
SLICES = (1, 2, 3, 5, 8)
# folder -> axis slices are outlined along, spacing if the files lost it, structures as sets of label values
SETS = {
    "msd_hippocampus": (1, None, {"hippocampus": (1, 2)}, {1: "anterior", 2: "posterior"}),
    "acdc": (0, (10.0, 1.5, 1.5), {"RV": (1,), "myocardium": (2,), "LV": (3,)}, {1: "RV", 2: "myocardium", 3: "LV"}),
}


def cases(folder: str, split: str, limit: int | None) -> list[str]:
    """Names of the cases of a split, in order."""
    names = sorted(p.name for p in (DATA / folder / "images").glob("*.nii.gz"))
    return [n for n in names if split_of(patient_of(n.removesuffix(".nii.gz"))) == split][:limit]


def load(folder: str, name: str) -> tuple[Volume, LabelMap]:
    """Image and labels of a case, with the spacing its set has."""
    volume, labels = read_image(DATA / folder / "images" / name), read_labels(DATA / folder / "labels" / name)
    spacing = SETS[folder][1]
    grid = volume.grid if spacing is None else Grid(volume.grid.shape, spacing)
    return Volume(volume.array, grid), LabelMap(labels.array, grid)


def proxy(volume: Volume, truth: np.ndarray, axis: int) -> list[dict]:
    """Proxy masks of one structure from more and more slices."""
    image, spacing = volume.array[0], volume.grid.spacing
    at = np.nonzero(truth.any(axis=tuple(a for a in range(3) if a != axis)))[0]
    low, high = int(at[0]), int(at[-1])
    rows = []
    for k in SLICES:
        if high - low + 1 <= k:
            continue
        chosen = sorted({int(low + (n + 0.5) * (high - low + 1) / k) for n in range(k)})
        outlined = {n: np.take(truth, n, axis) for n in chosen}
        rest = [n for n in range(truth.shape[axis]) if n not in chosen]
        for limits in ((low, high), None):
            cache = FlowCache()
            start = time.perf_counter()
            found = propagate(image, axis, outlined, limits=limits, spacing=spacing, cache=cache)
            first = time.perf_counter() - start
            one_more = chosen[-1] + 1 if chosen[-1] < high else chosen[-1] - 1
            start = time.perf_counter()
            more = outlined | {one_more: np.take(truth, one_more, axis)}
            propagate(image, axis, more, limits=limits, spacing=spacing, cache=cache)
            again = time.perf_counter() - start
            rows.append(
                {
                    "k": k,
                    "limits": limits is not None,
                    "dice": dice(found.mask, truth),
                    "dice_unannotated": dice(np.take(found.mask, rest, axis), np.take(truth, rest, axis)),
                    "hd95": hd95(found.mask, truth, spacing),
                    "exact": all(np.array_equal(np.take(found.mask, n, axis), m) for n, m in outlined.items()),
                    "estimated": found.estimated_dice,
                    "method": found.method,
                    "first_s": first,
                    "again_s": again,
                }
            )
    return rows


def wandering_model(labels: LabelMap, values: tuple[int, ...], seed: int) -> np.ndarray:
    """Probabilities of a model whose borders wander: 1.2 (hippocampus) or 2 voxels, correlated over 3 or 5."""
    spacing = np.asarray(labels.grid.spacing) / min(labels.grid.spacing)
    amplitude, width = (1.2, 3.0) if spacing.max() < 2 else (2.0, 5.0)
    random = np.random.default_rng(seed)
    logits = [np.zeros(labels.grid.shape)]
    for value in values:
        mask = labels.array == value
        inside = ndimage.distance_transform_edt(mask, sampling=spacing)
        outside = ndimage.distance_transform_edt(~mask, sampling=spacing)
        noise = ndimage.gaussian_filter(random.normal(size=mask.shape), width / spacing)
        logits.append((inside - outside - np.where(mask, 0.5, -0.5) + amplitude * noise / noise.std()) / 1.5)
    powers = np.exp(np.clip(np.stack(logits), -20, 20))
    return (powers / powers.sum(axis=0)).astype(np.float32)


def sessions(volume: Volume, labels: LabelMap, names: dict[int, str], axis: int, kind: str, seed: int) -> list[dict]:
    """One case corrected by clicks or outlines, by both kinds of annotators."""
    structures = [Label(value=v, name=n, color=(1, 0, 0)) for v, n in names.items()]
    wrong = wandering_model(labels, tuple(names), seed)
    rows = []
    for model in (True, False) if kind == "slices" else (True,):
        for imprecise in (False, True):
            with (
                tempfile.TemporaryDirectory() as folder,
                Session.create(folder, volume, structures, wrong if model else None) as session,
            ):
                apply, seconds = session.apply, []

                def timed(prompt, apply=apply, seconds=seconds):
                    start = time.perf_counter()
                    changed = apply(prompt)
                    seconds.append(time.perf_counter() - start)
                    return changed

                session.apply = timed
                budget = 10 if kind == "clicks" else 5
                run = annotate(labels, session, budget, prompts=kind, imprecise=imprecise, seed=seed, axis=axis)
            rows.append(
                {
                    "model": model,
                    "imprecise": imprecise,
                    "dice": run.mean,
                    "seconds": seconds,
                    "boundary_pixels": run.effort.boundary_pixels,
                    "interactions": run.effort.interactions,
                }
            )
    return rows


def run(folder: str, name: str, part: str) -> list[dict]:
    """All rows of one case and part."""
    axis, _, structures, names = SETS[folder]
    volume, labels = load(folder, name)
    if part != "proxy":
        present = {v: n for v, n in names.items() if (labels.array == v).any()}
        rows = sessions(volume, labels, present, axis, part, sum(map(ord, name)))
        return [row | {"structure": folder} for row in rows]
    rows = []
    for structure, values in structures.items():
        truth = np.isin(labels.array, values)
        if truth.any():
            rows += [row | {"structure": structure} for row in proxy(volume, truth, axis)]
    return rows


def table_of_proxies(rows: list[dict]) -> Table:
    """Mean Dice per structure and number of slices."""
    table = Table("structure", "limits", "", *[f"k={k}" for k in SLICES], title="proxy masks from k outlined slices")
    groups = defaultdict(list)
    for row in rows:
        groups[row["structure"], row["limits"], row["k"]].append(row)
    for structure, limits in dict.fromkeys((s, limit) for s, limit, _ in groups):
        for what in ("dice", "dice_unannotated", "hd95", "estimated", "first_s", "again_s"):
            cells = []
            for k in SLICES:
                values = [r[what] for r in groups[structure, limits, k] if r[what] is not None]
                values = [v for v in values if np.isfinite(v)]
                cells.append(f"{np.mean(values):.3f}" if values else "-")
            table.add_row(structure, "marked" if limits else "none", what, *cells)
    counts = {s: len(groups[s, True, 3]) for s, _, _ in groups}
    table.caption = f"cases: {counts}; annotated slices exact: {all(r['exact'] for r in rows)}"
    return table


def table_of_sessions(rows: list[dict], part: str) -> Table:
    """Mean Dice after each interaction."""
    steps = 11 if part == "clicks" else 7
    head = [
        "start",
        *(["limits"] if part == "slices" else []),
        *[str(n) for n in range(1, 11 if part == "clicks" else 6)],
    ]
    table = Table("set", "annotator", "cases", *head, "worse by > .01", "median s", "95 % s", title=part)
    groups = defaultdict(list)
    for row in rows:
        who = f"{'imprecise' if row['imprecise'] else 'perfect'}{'' if row['model'] else ', no model'}"
        groups[row["structure"], who].append(row)
    for (structure, who), found in groups.items():
        curves = np.array([(r["dice"] + [r["dice"][-1]] * steps)[:steps] for r in found])
        steps_taken = np.concatenate([np.diff(r["dice"]) for r in found])
        seconds = np.concatenate([r["seconds"] for r in found])
        timing = [f"{np.percentile(seconds, q):.2f}" for q in (50, 95)]
        means = [f"{v:.3f}" for v in curves.mean(axis=0)]
        table.add_row(structure, who, str(len(found)), *means, f"{100 * np.mean(steps_taken < -0.01):.0f} %", *timing)
    return table


def main() -> None:
    """Compute what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"))
    parser.add_argument("--limit", type=int, help="cases per data set")
    parser.add_argument("--parts", default="proxy,clicks,slices")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench-interaction.jsonl")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    known = {(d["split"], d["part"], d["folder"], d["case"]): d["rows"] for d in done}
    parts = options.parts.split(",")
    wanted = [
        (options.split, part, folder, name)
        for part in parts
        for folder in SETS
        for name in cases(folder, options.split, options.limit)
    ]
    with options.out.open("a") as out:
        for key in track([w for w in wanted if w not in known], "cases"):
            known[key] = run(key[2], key[3], key[1])
            names = ("split", "part", "folder", "case")
            out.write(json.dumps(dict(zip(names, key, strict=True)) | {"rows": known[key]}) + "\n")
            out.flush()
    console = Console(width=170)
    for part in parts:
        rows = [row for key in wanted if key[1] == part for row in known[key]]
        if rows:
            console.print(table_of_proxies(rows) if part == "proxy" else table_of_sessions(rows, part))


if __name__ == "__main__":
    main()
