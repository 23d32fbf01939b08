"""Starting a Python that has the engine: with RefSeg's packages in sight, apart from the terminal, errors as sentences.

A client needs no torch and survives what the engine does: the engine is in a process of its own.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from RefSegLib.errors import RefSegError

PACKAGES = ("RefSegLib", "InteractiveLearningLib", "RefSegResources", "BrowserWorkspaceLib")


def python_environment(start: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a process that can import RefSeg's packages, wherever this process has them from."""
    environment = dict(os.environ if start is None else start)
    folders = []
    for name in PACKAGES:
        found = importlib.util.find_spec(name)  # a source checkout in Slicer has no RefSegResources package
        if found is not None and found.origin is not None:
            folders.append(str(Path(found.origin).parents[1]))
    known = [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder]
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([*folders, *known]))
    environment["PYTHONIOENCODING"] = "utf-8"
    return environment


def start_process(
    command: Sequence[str], environment: Mapping[str, str], output: IO[bytes], stdin: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start a command that no Ctrl+C in this terminal reaches and that opens no window; it writes into `output`.

    stdin: subprocess.PIPE for a command that is told something, or that ends when this process does.

    Raises RefSegError if there is no such program.
    """
    apart: dict[str, bool | int] = {"start_new_session": True}
    if os.name == "nt":
        apart = {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    try:
        return subprocess.Popen(command, stdin=stdin, stdout=output, stderr=subprocess.STDOUT, env=environment, **apart)
    except OSError as error:
        msg = f"The Python '{command[0]}' could not be started: {error.strerror}. Choose another one in the settings."
        raise RefSegError(msg) from error


def why_it_ended(code: int, said: str, python: str) -> str:
    """A sentence on why a process of the engine ended, from its exit code and what it wrote."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    if code == 2 and last:
        return last.removeprefix("Error: ")
    if "ModuleNotFoundError" in last:
        package = last.partition("named ")[2].strip("'") or "a package"
        return f"The Python '{python}' lacks {package}. Install the engine there, or choose another Python."
    if code < 0:
        what = signal.Signals(-code).name
        return f"The engine was ended by the system ({what}); most often the memory was too small."
    return f"The engine stopped with code {code}: {last or 'it said nothing'}"
