"""Continual learning, measured: two streams of patients, nine arms each, two arms at a time.

    python Testing/benchmarks/bench_learning.py [--jobs 2] [--sets hippocampus heart] [--tables docs/learning-tables.md]

Kept in out/bench-learning (REFSEG_OUT names another folder than out); goes on where it was stopped, arm by arm and case
by case. REFSEG_DATA names the folder with msd_hippocampus and acdc.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

SETS = ("hippocampus", "heart")


def jobs_of(sets: list[str]) -> list[tuple[str, str]]:
    """Set and arm, in the order to do them: what the targets speak of first, the sets in turns."""
    from learning_arms import ARMS, OFFLINE

    arms = list(ARMS)
    arms.insert(3, OFFLINE)  # needs the roles drawn in "full masks"
    return [(one, arm) for arm in arms for one in sets]


def main() -> None:
    """Start every unfinished arm as a process of its own, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--tables", type=Path)
    parser.add_argument("--arm", nargs=2, metavar=("SET", "ARM"), help="do this one arm, in this process")
    options = parser.parse_args()
    from learning_arms import OFFLINE, finished, run_arm, run_offline
    from learning_data import load_set, start_model

    if options.arm:
        wanted, arm = load_set(options.arm[0]), options.arm[1]
        if arm == OFFLINE:
            run_offline(wanted)
        else:
            run_arm(wanted, arm)
        return
    sets = {name: load_set(name) for name in options.sets}
    for wanted in sets.values():
        start_model(wanted)
    waiting = [job for job in jobs_of(options.sets) if not finished(sets[job[0]], job[1])]
    running: dict[tuple[str, str], subprocess.Popen] = {}
    failed = []
    while waiting or running:
        for job in list(running):
            if (code := running[job].poll()) is not None:
                del running[job]
                say(f"{' / '.join(job)}: {'done' if code == 0 else f'failed ({code})'}")
                if code:
                    failed.append(job)
        able = [j for j in waiting if j[1] != OFFLINE or finished(sets[j[0]], "full masks")]
        if able and len(running) < options.jobs:
            job = able[0]
            waiting.remove(job)
            say(f"{' / '.join(job)}: begins")
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            running[job] = subprocess.Popen([sys.executable, __file__, "--arm", *job], env=environment)
        elif waiting and not running and not able:
            break  # what they need has failed
        time.sleep(1)
    from learning_tables import tables

    text = tables(list(sets.values()))
    if options.tables:
        options.tables.write_text(text)
    else:
        sys.stdout.write(text)
    if failed or waiting:
        sys.exit(1)


def say(line: str) -> None:
    """A line with the time."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
