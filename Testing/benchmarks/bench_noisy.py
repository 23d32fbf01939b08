"""Training on masks that are wrong, measured: noise put in on purpose, and what several people really drew.

    python Testing/benchmarks/bench_noisy.py [--tables docs/noisy-tables.md] [--minutes 110]

Every arm leaves one line in out/bench-noisy/results.jsonl (REFSEG_OUT names another folder than out); goes on where it
was stopped, arm by arm. REFSEG_DATA names the folder with cxr_lung, hc18_fetal_head,
qubiq_brain_growth and fundus_vessels.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    """Do what is left to do, each arm in a process of its own, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tables", type=Path)
    parser.add_argument("--minutes", type=float, default=110, help="begin no arm after that")
    parser.add_argument("--arm", help="do this one arm (a key of the results), in this process")
    options = parser.parse_args()
    from noisy_arms import RESULTS, Job, jobs, run

    if options.arm:
        found = run(Job(**json.loads(options.arm)))
        with RESULTS.open("a") as file:
            file.write(json.dumps({"key": options.arm} | found) + "\n")
        return
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    from noisy_tables import read, tables

    end = time.monotonic() + 60 * options.minutes
    done = read(RESULTS)
    waiting = [job for job in jobs() if job.key not in done]
    failed = False
    while waiting and time.monotonic() < end:
        job = waiting.pop(0)
        started = time.monotonic()
        code = subprocess.run([sys.executable, __file__, "--arm", job.key], check=False).returncode
        failed = failed or bool(code)
        said = "done" if code == 0 else f"failed ({code})"
        sys.stdout.write(f"{time.strftime('%H:%M:%S')} {job.key}: {said}, {time.monotonic() - started:.0f} s\n")
        sys.stdout.flush()
    text = tables(read(RESULTS))
    if options.tables:
        options.tables.write_text(text)
    else:
        sys.stdout.write(text)
    if failed or waiting:
        sys.exit(1)


if __name__ == "__main__":
    main()
