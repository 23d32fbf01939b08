"""Learners as processes of this machine: started, held while somebody else computes, ended with the service."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
from RefSegLib.engine_process import python_environment, why_it_ended

LEAVE_SECONDS = 5.0
_MOST_SAID = 4096
MODULE = "InteractiveLearningLib.learner"


class LearnerProcess:
    """The learner of one model in a process of its own; a LearnerHandle. It ends when nothing is left to learn.

    What it complains of is in home/learner/NAME.log.
    """

    def __init__(self, home: Path, model: str) -> None:
        self._log = home / "learner" / f"{model}.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", MODULE, "--store", str(home), "--model", model, "--once"],
                env=python_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        self._known = psutil.Process(self._process.pid)
        with suppress(psutil.Error):  # from its first instruction: what it imports takes seconds
            self._known.nice(15 if os.name == "posix" else psutil.IDLE_PRIORITY_CLASS)

    def running(self) -> bool:
        """See LearnerHandle."""
        return self._process.poll() is None

    def why(self) -> str | None:
        """See LearnerHandle."""
        code = self._process.poll()
        if not code:
            return None
        with suppress(OSError):
            return why_it_ended(code, self._log.read_bytes()[-_MOST_SAID:].decode(errors="replace"), sys.executable)
        return why_it_ended(code, "", sys.executable)

    def pause(self) -> None:
        """See LearnerHandle. The operating system holds it: within a millisecond, whatever it is doing."""
        self._told("suspend")

    def resume(self) -> None:
        """See LearnerHandle."""
        self._told("resume")

    def stop(self) -> None:
        """See LearnerHandle."""
        self.resume()
        if self.running():
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(LEAVE_SECONDS)
        if self.running():
            self._process.kill()
        self._process.wait()

    def _told(self, what: str) -> None:
        if self.running():
            with suppress(psutil.Error):
                getattr(self._known, what)()


def end_left_over(home: Path) -> None:
    """End the learners that a killed service has left behind: one that was held would keep its locks for ever."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if {MODULE, str(home)} <= set(process.cmdline()):
                process.resume()
                process.terminate()
                found.append(process)
    _, alive = psutil.wait_procs(found, LEAVE_SECONDS)
    for process in alive:
        with suppress(psutil.Error):
            process.kill()
