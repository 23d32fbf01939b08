"""Learning without labels, step by step: fetal head, optic disc, lungs.

    python Testing/benchmarks/bench_bootstrap.py [--sets ...] [--jobs ...] [--tables docs/bootstrap-tables.md]

Kept in out/bench-bootstrap (REFSEG_OUT names another folder than out); goes on where it was stopped, arm by arm, and
within a training too (remove the folder after changing a setting).
REFSEG_DATA names the folder with hc18_fetal_head, fundus_optic_disc_drishti and cxr_lung.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bootstrap_tables import OTHER, tables
from RefSegLib.bootstrapping.cyclegan import GanSettings, train_cyclegan
from RefSegLib.bootstrapping.gan_networks import CycleGan
from RefSegLib.bootstrapping.mask_vae import MaskVae, train_mask_vae
from RefSegLib.bootstrapping.pictures import FILTERS
from RefSegLib.bootstrapping.rounds import (
    Rounds,
    RoundSettings,
    bootstrap_rounds,
    probabilities,
    pseudo_labels,
    shaped,
    starting_labels,
    train_on,
)
from RefSegLib.bootstrapping.selection import found_masks
from RefSegLib.bootstrapping.template import match, prominence
from RefSegLib.models.spec import Label, Network, SegmenterSpec
from shape_data import ROOT, SETS, Set, load_set

OUT = Path(os.environ.get("REFSEG_OUT", ROOT / "out")) / "bench-bootstrap"
VAE_STEPS, GAN_STEPS, STEPS, ROUNDS = 500, 350, 300, 3
HALF = (0.5, 0.65, 0.8)  # shares kept where quality is plausibility and agreement with itself
GANS = {
    "CycleGAN": GanSettings(vae=False, calibration=False, steps=GAN_STEPS),
    "+ VAE discriminator": GanSettings(calibration=False, steps=GAN_STEPS),
    "+ channel calibration": GanSettings(steps=GAN_STEPS),
}
FULL, LONG = "+ channel calibration", "the same, twice the steps"
GANS[LONG] = GanSettings(steps=2 * GAN_STEPS)
# What is done in one go gives several rows; what tells most comes first.
JOBS = (FULL, LONG, "oracle", "peer", "agreement", "weighted", "CycleGAN", "+ VAE discriminator")
JOBS = (*JOBS, "all", "selection", "rounds", "other site")


def main() -> None:
    """Every job of every set that has no result yet, then the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tables", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    file = OUT / "results.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    results = read_results(file)
    sets = {name: load_set(name) for name in options.sets}
    done = {(r["set"], r["job"], r["seed"]) for r in results}
    for job in options.jobs:
        for name, wanted in sets.items():
            if (name, job, options.seed) in done:
                continue
            started = time.process_time()
            rows = run(job, wanted, options.seed)
            seconds = round(time.process_time() - started)
            memory = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            entry = {"set": name, "job": job, "seed": options.seed, "seconds": seconds, "memory": memory, "rows": rows}
            append(file, entry)
            print(f"{time.strftime('%H:%M:%S')} {name} / {job}: {seconds} s of a core, {memory} MB")
            for row in rows:
                print(f"    {row['arm']}: {np.mean(row['dice']):.3f}", flush=True)
    settings = {"translation": asdict(GANS[FULL]), "VAE steps": VAE_STEPS, "steps": STEPS, "rounds": ROUNDS}
    text = tables(read_results(file), settings)
    if options.tables:
        options.tables.write_text(text)
    else:
        print(text)


def read_results(file: Path) -> list[dict[str, Any]]:
    """The jobs that are done; a line that was cut off by a kill is as good as none."""
    results = []
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            results.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return results


def append(file: Path, entry: dict[str, Any]) -> None:
    """One line, in one write: several of these may run side by side, each on sets of its own."""
    stream = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(stream, (json.dumps(entry) + "\n").encode())
    finally:
        os.close(stream)


def run(job: str, wanted: Set, seed: int) -> list[dict[str, Any]]:
    """The rows of a job: {"arm", "dice": of every test image, ...}."""
    jobs: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "oracle": lambda: _supervised(wanted, wanted, seed, "oracle: the true labels"),
        "other site": lambda: [] if wanted.other is None else _supervised(wanted.other, wanted, seed, OTHER),
        "peer": lambda: _peer(wanted),
        "rounds": lambda: _rounds(wanted, seed),
        "agreement": lambda: _agreement(wanted, seed),
        "all": lambda: _once(wanted, seed, "a segmenter on all pseudo labels", kept=1.0, weighting=False),
        "selection": lambda: _once(wanted, seed, "+ selection", kept=HALF[0], weighting=False),
        "weighted": lambda: _once(wanted, seed, "+ noise-weighted Dice", kept=HALF[0], weighting=True),
    }
    return jobs[job]() if job in jobs else _translation(wanted, seed, job)


def dice(found: torch.Tensor, truth: torch.Tensor) -> list[float]:
    """Of each of (n, 1, j, i), 0 or 1."""
    overlap, total = (found * truth).sum((1, 2, 3)), (found + truth).sum((1, 2, 3))
    return [round(float(value), 4) for value in 2 * overlap / total.clamp(min=1)]


def spec_of(wanted: Set) -> SegmenterSpec:
    """The network of every arm and of the oracle."""
    return SegmenterSpec(
        name="bootstrap",
        dimensions=2,
        channels=("gray",),
        labels=(Label(value=1, name=wanted.name, color=(1, 0, 0)),),
        spacing=(0, 1, 1),
        patch=(1, *wanted.frame),
        aligned=False,
        network=Network(name="unet", arguments={"filters": FILTERS}),
    )


def folder_of(wanted: Set, seed: int) -> Path:
    """Where the networks of a set are kept."""
    return OUT / wanted.name.replace(" ", "-") / f"seed-{seed}"


def _vae(wanted: Set, seed: int) -> MaskVae:
    file = folder_of(wanted, seed) / "vae.pt"
    if file.exists():
        vae = MaskVae(wanted.frame)
        vae.load_state_dict(torch.load(file, weights_only=True))
        return vae.eval().requires_grad_(False)
    vae = train_mask_vae(wanted.pool, wanted.frame, steps=VAE_STEPS, seed=seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(vae.state_dict(), file)
    return vae


def _gan(wanted: Set, seed: int, arm: str) -> CycleGan:
    settings, place = GANS[arm], folder_of(wanted, seed)
    name = arm.strip("+ ").replace(",", "").replace(" ", "-")
    file = place / f"{name}.pt"
    if file.exists():
        gan = CycleGan(vae=settings.vae, calibration=settings.calibration)
        gan.load_state_dict(torch.load(file, weights_only=True))
        return gan.eval().requires_grad_(False)
    images = [wanted.images[wanted.of(role)] for role in ("train", "validation")]
    found = train_cyclegan(
        *images, wanted.pool, _vae(wanted, seed), settings, seed=seed, checkpoint=place / f"{name}.checkpoint"
    )
    torch.save(found.gan.state_dict(), file)
    (place / f"{name}.json").write_text(json.dumps(found.history))
    return found.gan


def _translation(wanted: Set, seed: int, arm: str) -> list[dict[str, Any]]:
    gan, vae, test = _gan(wanted, seed, arm), _vae(wanted, seed), wanted.of("test")
    images, truth = wanted.images[test], wanted.truth[test]
    rows = [{"arm": arm, "dice": dice((gan.find(images) > 0.5).float(), truth)}]
    if arm == LONG:
        labels = pseudo_labels(found_masks(gan, images, seed=seed), vae, wanted.pool).labels
        rows.append({"arm": "+ four views, made a shape", "dice": dice(labels, truth)})
    return rows


def _started(wanted: Set, seed: int, arm: str = LONG) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images, truth (to report how good pseudo labels were), who validates, and what the CycleGAN finds."""
    learned = ~wanted.of("test")
    images = wanted.images[learned]
    found = found_masks(_gan(wanted, seed, arm), images, seed=seed)
    return images, wanted.truth[learned], wanted.of("validation")[learned], found


def _tested(module: torch.nn.Module, wanted: Set) -> list[float]:
    test = wanted.of("test")
    return dice((probabilities(module, wanted.images[test]) > 0.5).float(), wanted.truth[test])


def _learned(wanted: Set, seed: int, settings: RoundSettings, job: str) -> Rounds:
    """Rounds on the masks of the longer translation alone, without a look at borders but to stop."""
    images, _, validates, found = _started(wanted, seed)
    vae, kind = _vae(wanted, seed), match(images, found, wanted.pool, seed).kind
    first = pseudo_labels(found, vae, wanted.pool)
    folder = folder_of(wanted, seed) / job
    return bootstrap_rounds(
        spec_of(wanted), images, validates, [first], vae, wanted.pool, settings, kind, seed=seed, folder=folder
    )


def _once(wanted: Set, seed: int, arm: str, *, kept: float, weighting: bool) -> list[dict[str, Any]]:
    settings = RoundSettings(kept=(kept,), weighting=weighting, rounds=1, steps=STEPS)
    return [{"arm": arm, "dice": _tested(_learned(wanted, seed, settings, arm.strip("+ ")).segmenters[0], wanted)}]


def _rounds(wanted: Set, seed: int) -> list[dict[str, Any]]:
    settings = RoundSettings(kept=HALF, weighting=True, rounds=ROUNDS, steps=STEPS)
    return _by_round(_learned(wanted, seed, settings, "rounds"), wanted, "+ iterations")


def _agreement(wanted: Set, seed: int) -> list[dict[str, Any]]:
    """What `refseg bootstrap` does: the translation whose borders stand out more, a template, rounds."""
    stands = {}
    for arm in (FULL, LONG):
        images, _, validates, found = _started(wanted, seed, arm)
        template = match(images, found, wanted.pool, seed)
        masks = shaped(found, wanted.pool)
        border = float(prominence(images, masks, wanted.pool, template.kind, seed).mean())
        stands[arm] = (border, found, template)
    arm = max(stands, key=lambda arm: stands[arm][0])
    _, found, template = stands[arm]
    done = bootstrap_rounds(
        spec_of(wanted),
        images,
        validates,
        starting_labels(found, template, wanted.pool),
        _vae(wanted, seed),
        wanted.pool,
        RoundSettings(rounds=ROUNDS, steps=STEPS),
        template.kind,
        seed=seed,
        folder=folder_of(wanted, seed) / "agreement",
    )
    test = wanted.of("test")
    seen, truth = wanted.images[test], wanted.truth[test]
    found = found_masks(_gan(wanted, seed, arm), seen, seed=seed)
    tried = match(seen, found, wanted.pool, seed)
    labels = starting_labels(found, tried, wanted.pool)[-1].labels
    told = {"kind": template.kind, "border": {arm: round(value[0], 3) for arm, value in stands.items()}}
    return [
        {"arm": "any prior: the shape whose border stands out most", "dice": dice(tried.alone, truth)},
        {"arm": "the translation whose borders stand out more", "dice": dice((found > 0.5).float(), truth), **told},
        {"arm": "+ agreement with the borders", "dice": dice(labels, truth)},
        *_by_round(done, wanted, "+ agreement"),
    ]


def _by_round(done: Rounds, wanted: Set, name: str) -> list[dict[str, Any]]:
    truth = wanted.truth[~wanted.of("test")]
    rows = []
    for number, module in enumerate(done.segmenters):
        labels = float(np.mean(dice(done.labels[number].labels, truth)))
        arm = f"{name}, round {number + 1}"
        rows.append({"arm": arm, "dice": _tested(module, wanted), "labels": labels, **done.history[number]})
    return rows


def _supervised(source: Set, wanted: Set, seed: int, arm: str) -> list[dict[str, Any]]:
    """Trained on the true labels of `source`, tested on `wanted`."""
    train, validation = (source.of(role) for role in ("train", "validation"))
    truth = source.truth[train]
    module, _ = train_on(
        spec_of(source),
        source.images[train],
        truth,
        torch.ones_like(truth),
        (source.images[validation], source.truth[validation]),
        steps=STEPS,
        seed=seed,
    )
    return [{"arm": arm, "dice": _tested(module, wanted)}]


def _peer(wanted: Set) -> list[dict[str, Any]]:
    test = wanted.of("test")
    found = np.stack(wanted.peer(list(wanted.images[test][:, 0].numpy()), wanted.pool))
    masks = torch.from_numpy(found[:, None].astype(np.float32))
    return [{"arm": "no learning: threshold or template", "dice": dice(masks, wanted.truth[test])}]


if __name__ == "__main__":
    main()
