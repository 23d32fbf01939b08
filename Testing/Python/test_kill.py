"""Killed at any moment, nothing accepted is lost, nothing half-written is seen. `make bench-kill` does it 50 times."""

import json
import os
import subprocess
import sys
from pathlib import Path


def test_kill_9_loses_no_accepted_case_and_shows_no_half_written_version(tmp_path):
    script = Path(__file__).parents[1] / "benchmarks" / "bench_kill.py"
    command = [
        sys.executable,
        str(script),
        "--writers",
        "6",
        "--learners",
        "4",
        "--report",
        str(tmp_path / "report.json"),
    ]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["faults"] == [] and report["cases acknowledged"] >= 6
    assert sum(report["killed while"].values()) == 4
    assert sum(report["verdicts"].values()) >= 2
