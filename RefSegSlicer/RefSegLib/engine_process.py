"""Segmenting in a process of its own, so that a client needs no torch, never waits, and survives what the engine does.

EngineProcess is the Runner (jobs.py) of one machine: it hands the image to `refseg segment` through a temporary
folder and reads its progress line by line.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from RefSegLib.errors import Cancelled, RefSegError
from RefSegLib.jobs import Job, Segmented
from RefSegLib.models.spec import Code, Label
from RefSegLib.volume.io import read_image, read_labels, write_image
from RefSegLib.volume.volume import Volume

COMMAND = "InteractiveLearningLib.cli"
PACKAGES = ("RefSegLib", "InteractiveLearningLib", "RefSegResources")


class EngineProcess:
    """Segments by `python -m InteractiveLearningLib.cli segment` in a new process for every image.

    store: where the models are (None: as the command decides); python: an interpreter that has the engine's packages;
    environment: what the process starts with (None: this one's).
    """

    def __init__(
        self,
        store: str | Path | None = None,
        *,
        python: str | Path = sys.executable,
        device: str = "auto",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.store, self.python, self.device = store, str(python), device
        self.environment = python_environment(environment)

    def segment(
        self,
        volume: Volume,
        model: str,
        *,
        reflect: bool | None = None,
        roi: Sequence[int] | None = None,
        suspect: bool = False,
    ) -> Job:
        """Start segmenting; returns at once. The result is a Segmented; errors are the command's sentences."""
        process = _Process(self.environment)

        def work(report: Callable[[float, str], None], cancelled: Callable[[], bool]) -> Segmented:
            with tempfile.TemporaryDirectory(prefix="refseg-", ignore_cleanup_errors=True) as name:
                folder = Path(name)
                image, mask, said = folder / "image.nrrd", folder / "mask.seg.nrrd", folder / "report.json"
                doubt = folder / "suspect.nrrd"
                report(0.0, "Handing the image over")
                write_image(volume, image)
                options = self._options(image, model, mask, said, reflect, roi)
                options += ["--suspect", str(doubt)] if suspect else []
                try:
                    process.run([self.python, "-m", COMMAND, "segment", *options], report, cancelled)
                except RefSegError as error:
                    # The report comes last: all is there but a map, for want of a reflection.
                    if isinstance(error, Cancelled) or not said.exists():
                        raise
                found = read_image(doubt) if doubt.exists() else None
                return Segmented(read_labels(mask), _names(mask), json.loads(said.read_text()), found)

        return Job(work, process.kill)

    def _options(
        self, image: Path, model: str, mask: Path, said: Path, reflect: bool | None, roi: Sequence[int] | None
    ) -> list[str]:
        options = [str(image), "--model", model, "--out", str(mask), "--report", str(said), "--progress-json"]
        options += ["--device", self.device]
        options += [] if self.store is None else ["--store", str(self.store)]
        options += [] if reflect is None else ["--reflect" if reflect else "--no-reflect"]
        if roi is not None:  # the command counts I J K
            options += ["--roi", *(str(int(roi[n])) for n in (2, 1, 0, 5, 4, 3))]
        return options


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


def _names(mask: Path) -> tuple[Label, ...]:
    """What the values of a `.seg.nrrd` file mean, from its header."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(mask))
    reader.ReadImageInformation()
    names = []
    while reader.HasMetaDataKey(f"Segment{len(names)}_LabelValue"):
        value, name, color, tags = (
            reader.GetMetaData(f"Segment{len(names)}_{key}") for key in ("LabelValue", "Name", "Color", "Tags")
        )
        codes = [code.split("^") for code in tags.partition("TerminologyEntry:")[2].split("~")[1:4]]
        known = ("category", "type", "modifier")
        coded = {
            key: Code(scheme=scheme, value=number, meaning=meaning)
            for key, (scheme, number, meaning) in zip(known, codes, strict=True)
            if number
        }
        names.append(Label(value=value, name=name, color=[float(part) for part in color.split()], **coded))
    return tuple(names)


class _Process:
    """One run of a command, which can be killed from another thread together with whatever it started."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment, self._process = environment, None
        self._lock, self._dead = threading.Lock(), False

    def run(self, command: list[str], report: Callable[[float, str], None], cancelled: Callable[[], bool]) -> None:
        """Run to the end. Raises RefSegError with the sentence the command ended with, or Cancelled."""
        with tempfile.TemporaryFile() as complaints:
            with self._lock:
                if self._dead or cancelled():
                    raise Cancelled
                self._process = _start(command, self._environment, complaints)
            with self._process:
                for line in self._process.stdout or ():
                    with suppress(ValueError, KeyError, TypeError):  # a library that prints is no progress
                        news = json.loads(line)
                        report(float(news["fraction"]), str(news["message"]))
            if cancelled():
                raise Cancelled
            complaints.seek(0)
            _check(self._process.returncode, complaints.read().decode(errors="replace"), command[0])

    def kill(self) -> None:
        """End it now, with its children. Does nothing if it has ended."""
        with self._lock:
            self._dead = True
            if self._process is None or self._process.poll() is not None:
                return
            if os.name == "nt":
                subprocess.run(
                    ["taskkill", "/T", "/F", "/PID", str(self._process.pid)], check=False, capture_output=True
                )
            else:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)


def _start(command: list[str], environment: Mapping[str, str], complaints: Any) -> subprocess.Popen[bytes]:
    own_group = {"start_new_session": True}
    if os.name == "nt":
        own_group = {"creationflags": subprocess.CREATE_NO_WINDOW}
    try:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints, env=environment, **own_group
        )
    except OSError as error:
        msg = f"The Python '{command[0]}' could not be started: {error.strerror}. Choose another one in the settings."
        raise RefSegError(msg) from error


def _check(code: int, complaints: str, python: str) -> None:
    """Raise what the command complained of, as a sentence."""
    if code == 0:
        return
    lines = [line.strip() for line in complaints.splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    if code == 2 and last:
        raise RefSegError(last.removeprefix("Error: "))
    if "ModuleNotFoundError" in last:
        package = last.partition("named ")[2].strip("'") or "a package"
        raise RefSegError(f"The Python '{python}' lacks {package}. Install the engine there, or choose another Python.")
    if code < 0:
        what = signal.Signals(-code).name
        raise RefSegError(f"The engine was ended by the system ({what}); most often the memory was too small.")
    raise RefSegError(f"The engine stopped with code {code}: {last or 'it said nothing'}")
