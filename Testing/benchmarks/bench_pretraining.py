"""Robust transfer, measured: lungs of JSRT from few labels, pretrained or not, on bad images and in other hospitals.

    python Testing/benchmarks/bench_pretraining.py [--tables docs/pretraining-tables.md] [--seeds 0 1] [--shares 30 10]
                                                   [--only volumes]

After the X-rays the same arms on volumes, hippocampi from 8 patients with masks, one seed (pretraining_volumes.py).
Kept in out/bench-pretraining (REFSEG_OUT names another folder than out); goes on where it was stopped, arm by arm and
within an arm. REFSEG_DATA names the folder with cxr_lung and msd_hippocampus. One process on one core:
OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from pretraining_arms import ARMS, JOBS, OUT, SHARES, keep, results, run_arm
from pretraining_tables import tables
from pretraining_volumes import ARMS as VOLUME_ARMS
from pretraining_volumes import LABELED, run_volume_arm


def main() -> None:
    """Run every arm that has no line yet, those that say most first, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tables", type=Path, help="write them here instead of to the terminal")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--shares", nargs="+", type=int, choices=SHARES, default=list(SHARES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--only", choices=("xrays", "volumes"))
    parser.add_argument("--minutes", type=float, default=120.0, help="begin no arm after so many")
    options = parser.parse_args()
    begun = time.monotonic()
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    jobs = [("xrays", *job, seed) for seed in options.seeds for job in JOBS if job[1] in options.shares]
    jobs += [("volumes", arm, LABELED, 0) for arm in VOLUME_ARMS]
    done = {(row.get("task", "xrays"), row["arm"], row["share"], row["seed"]) for row in results()}
    for job in jobs:
        if job in done or job[1] not in options.arms or options.only not in (None, job[0]):
            continue
        if time.monotonic() - begun > 60 * options.minutes:
            break
        started = time.monotonic()
        row = run_arm(*job[1:]) if job[0] == "xrays" else run_volume_arm(job[1], job[3])
        keep(row)
        say(f"{job}: validation {row['validation']:.4f}, {time.monotonic() - started:.0f} s, {row['MB']} MB")
    text = tables(results())
    if options.tables:
        options.tables.write_text(text)
    else:
        sys.stdout.write(text)


def say(line: str) -> None:
    """A line with the time."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
