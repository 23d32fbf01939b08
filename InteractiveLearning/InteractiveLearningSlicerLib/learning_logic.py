"""Accepting cases, the learner's process, and the versions it makes: from files alone, so panels may come and go."""

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from RefSegLib.errors import RefSegError

LEAVE_SECONDS = 3.0


class LearningLogic:
    """store: folder of models and accepted cases (None: REFSEG_HOME or ~/.refseg); python: runs the learner, in
    `environment` (None: this process's own).
    """

    def __init__(self, store=None, python=sys.executable, environment=None):
        from RefSegLib.models.store import ModelStore

        self.models, self.python, self._environment = ModelStore(store), python, environment
        self.home = self.models.home
        self._learner = None

    def accept(self, case):
        """Keep an accepted case for good; returns its id once it is on the disk."""
        from InteractiveLearningLib.replay import ReplayStore

        replay = ReplayStore(self.home)
        try:
            return replay.accept(case)
        finally:
            replay.close()

    def startLearner(self, model):
        """Learn what was accepted, in the background, until nothing is left. Does nothing while it still runs."""
        from RefSegLib.engine_process import python_environment

        if self.learnerRuns():
            return
        command = [str(self.python), "-m", "InteractiveLearningLib.learner", "--store", str(self.home)]
        try:
            self._learner = subprocess.Popen(
                [*command, "--model", model, "--once"],
                env=python_environment(self._environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            msg = (
                f"The case is kept, but the Python '{self.python}' could not be started to learn it: {error.strerror}."
            )
            raise RefSegError(msg) from error

    def learnerRuns(self):
        """True while the process that startLearner made is at work."""
        return self._learner is not None and self._learner.poll() is None

    def stopLearner(self):
        """Stop it; it writes a checkpoint and goes on from there when it is started again."""
        if self.learnerRuns():
            self._learner.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._learner.wait(LEAVE_SECONDS)
        if self.learnerRuns():
            self._learner.kill()
            self._learner.wait()
        self._learner = None

    def status(self, model):
        """A sentence on what the learner of a model does or did last."""
        # Read here and not by learner.read_status: that module needs torch.
        path = Path(self.home) / "learner" / f"{model}.json"
        with suppress(OSError, ValueError):
            return json.loads(path.read_bytes())["message"]
        return "Nothing has been learnt yet."

    def verdicts(self, model):
        """Why versions were published or refused, oldest first."""
        from InteractiveLearningLib.verdicts import VerdictLog

        return VerdictLog(self.home, model).verdicts()

    def versions(self, model):
        """(version, is active, verdict in words) of a model, newest first."""
        reasons = {verdict.candidate: verdict.reason for verdict in self.verdicts(model)}
        active = self.models.active(model)
        return [(v, v == active, reasons.get(v, "")) for v in reversed(self.models.versions(model))]

    def rollBack(self, model):
        """Return to the version that was active before; returns it."""
        return self.models.rollback(model)
