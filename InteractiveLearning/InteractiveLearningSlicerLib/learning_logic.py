"""Accepting cases, the service that learns them, and the versions it makes. Nothing here waits for the service."""

import json
import sys
import threading
from contextlib import suppress
from pathlib import Path

from RefSegLib.errors import RefSegError

LOOK_SECONDS = 1.0
RETRY_SECONDS = 30.0


class LearningLogic:
    """store: folder of models and accepted cases (None: REFSEG_HOME or ~/.refseg); python: runs the service that
    learns, in `environment` (None: this process's own).
    """

    def __init__(self, store=None, python=sys.executable, environment=None):
        from InteractiveLearningLib.service.local import LocalService
        from RefSegLib.models.store import ModelStore

        self.models, self.python = ModelStore(store), python
        self.home = self.models.home
        self._service = LocalService(self.home, python, environment)
        self._watch = None

    def accept(self, case):
        """Keep an accepted case for good; returns its id once it is on the disk."""
        from InteractiveLearningLib.replay import ReplayStore

        replay = ReplayStore(self.home)
        try:
            return replay.accept(case)
        finally:
            replay.close()

    def startLearner(self, model):
        """Have what was accepted learnt by the service of this computer, which is started if it does not run."""
        if self._watch is not None and self._watch.model == model and not self._watch.error:
            return
        self._end()
        self._watch = _Watch(self._service, model)

    def learnerRuns(self):
        """True while the service learns, or has cases before it, as far as it has told."""
        said = {} if self._watch is None else self._watch.said
        return bool(said.get("running") or said.get("pending"))

    def stopLearner(self):
        """Need the service no more. What it was learning when it ends goes on when it is started again."""
        self._end()
        self._service.leave()

    def status(self, model):
        """A sentence on what the learner of a model does or did last."""
        watch = self._watch
        if watch is not None and watch.model == model:
            if watch.error:
                return f"What was accepted is kept, but cannot be learnt now: {watch.error}"
            with suppress(KeyError, TypeError):  # the service has not told yet
                return watch.said["status"]["message"]
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
        client = self._service.found() if self._watch is not None else None
        return self.models.rollback(model) if client is None else client.roll_back(model)

    def _end(self):
        if self._watch is not None:
            self._watch.over.set()
        self._watch = None


class _Watch:
    """Starts the service, again if it was killed, and asks what it learns of a model: in a thread, until `over`.

    said: its last answer, {} before the first; error: why it cannot be asked, empty if it can.
    """

    def __init__(self, service, model):
        self.model, self.said, self.error, self.over = model, {}, "", threading.Event()
        self._service = service
        threading.Thread(target=self._run, name="learning", daemon=True).start()

    def _run(self):
        from InteractiveLearningLib.service.failures import Unreachable
        from RefSegLib.progress import Progress

        waiting = 0
        while not self.over.wait(waiting):
            try:
                client = self._service.client(Progress(cancelled=self.over.is_set))
                self.said, self.error, waiting = client.learning(self.model), "", LOOK_SECONDS
            except Unreachable:  # it was killed, most likely: the next look starts it again
                waiting = LOOK_SECONDS
            except RefSegError as error:
                self.error, waiting = str(error), RETRY_SECONDS
