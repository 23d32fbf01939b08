"""Whether a Python can run the engine, found out by letting it try: for a person who chooses one."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress

from RefSegLib.engine_process import python_environment, start_process, why_it_ended
from RefSegLib.errors import BadInput, Cancelled
from RefSegLib.progress import SILENT, Progress

# PyTorch and MONAI from a cold and slow disk.
CHECK_SECONDS = 180.0
LOOK_SECONDS = 0.05
# Read by Pythons of every age, so it says no more than all of them understand. What it imports is what the service
# imports when it starts, and what it imports later.
PROGRAM = """
import json, sys
if sys.version_info < (3, 10):
    print("it is Python %d.%d, and RefSeg needs 3.10 or newer" % sys.version_info[:2])
    sys.exit(2)
import cryptography, fastapi, monai, openvino, torch, uvicorn
import InteractiveLearningLib.cli, RefSegLib.engine
from importlib.metadata import version
names = ("torch", "monai")
print(json.dumps(dict([(name, version(name)) for name in names], python="%d.%d.%d" % sys.version_info[:3])))
"""


def check_engine(
    python: str,
    environment: Mapping[str, str] | None = None,
    progress: Progress = SILENT,
    *,
    timeout: float = CHECK_SECONDS,
) -> dict[str, str]:
    """Versions of python, torch and monai, if the program `python` can run the engine. Takes seconds.

    environment: what it starts with (None: this process's own). timeout: seconds. Raises RefSegError with the reason
    if it cannot, or Cancelled; nothing of it runs then.
    """
    progress(0.0, "Trying the Python")
    with tempfile.TemporaryFile() as output:
        process = start_process([python, "-c", PROGRAM], python_environment(environment), output)
        try:
            _wait(process, python, progress, time.monotonic() + timeout)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        output.seek(0)
        said = output.read().decode(errors="replace").strip()
    last = said.splitlines()[-1] if said else ""
    if process.returncode == 2 and last.startswith("it is Python"):
        raise BadInput(f"'{python}' cannot run the engine: {last}. Choose another Python.")
    if process.returncode != 0:
        raise BadInput(why_it_ended(process.returncode, said, python))
    with suppress(ValueError):
        versions = json.loads(last)
        if isinstance(versions, dict):
            return {str(name): str(version) for name, version in versions.items()}
    raise BadInput(f"'{python}' is no Python: it ended without an answer. Choose the program python of an environment.")


def _wait(process: subprocess.Popen[bytes], python: str, progress: Progress, until: float) -> None:
    while process.poll() is None:
        if progress.cancelled():
            raise Cancelled
        if time.monotonic() > until:
            raise BadInput(f"'{python}' did not answer in time. Choose another Python, or try again.")
        time.sleep(LOOK_SECONDS)
