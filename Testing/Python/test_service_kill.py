"""Killed or without room on the disk, the service loses nothing. `make bench-kill` does it a thousand times."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "bench_service_kill.py"


def told(folder: Path, *options: str) -> dict:
    """The summary of a short run."""
    command = [sys.executable, str(SCRIPT), "--out", str(folder), *options]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "summary.json").read_text())


def test_a_killed_service_comes_back_with_everything_it_had_acknowledged(tmp_path):
    # With these seeds nothing is learnt meanwhile (test_kill.py does that), so that a turn takes no time.
    found = told(tmp_path, "--part", "services", "--kills", "8", "--seed", "1")
    assert found["faults"] == []
    assert found["kills"]["service"] >= 2 and found["killed"] >= 5
    assert found["answers"]["200"] > 0


def test_a_full_disk_is_told_in_a_sentence_and_costs_nothing_that_was_acknowledged(tmp_path):
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        pytest.skip("only root can mount a small file system")
    found = told(tmp_path, "--part", "disks", "--kills", "0", "--disks", "2", "--seed", "1")
    assert found["faults"] == []
    assert found["disks filled"] == 2 and found["answers"]["507"] > 0
