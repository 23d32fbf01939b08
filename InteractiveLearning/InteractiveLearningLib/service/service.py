"""Everything one engine service is made of, put together."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from anyio import CapacityLimiter
from RefSegLib.errors import RefSegError
from RefSegLib.jobs import Segmented
from RefSegLib.models.store import ModelStore
from RefSegLib.progress import Progress

from InteractiveLearningLib.replay import ReplayStore
from InteractiveLearningLib.reviews import settle
from InteractiveLearningLib.service.accounts import Accounts, FailedAttempts
from InteractiveLearningLib.service.audit import AuditLog
from InteractiveLearningLib.service.clients import Clients
from InteractiveLearningLib.service.device import DeviceThread, Engines, OutOfMemory
from InteractiveLearningLib.service.executor import Executor, LearnerHandle, SegmentTask
from InteractiveLearningLib.service.jobs import Job, Jobs
from InteractiveLearningLib.service.keeper import LearnerKeeper
from InteractiveLearningLib.service.learners import LearnerProcess
from InteractiveLearningLib.service.sessions import Sessions
from InteractiveLearningLib.service.turns import Turns
from InteractiveLearningLib.service.uploads import Uploads
from InteractiveLearningLib.service.wire import SegmentMessage, pack_where
from InteractiveLearningLib.service.worklist import ServedWorklist

log = logging.getLogger(__name__)
SWEEP_SECONDS = 15.0
TORN_SECONDS = 600.0
UNPACKED = 2  # volumes that requests unpack at once: each may be a gigabyte made from a megabyte
WAITING = 200  # requests that wait for jobs


class LocalExecutor:
    """Segments in the calling thread, which has to be the device's, and learns in processes of this machine."""

    def __init__(self, home: Path, device: str) -> None:
        self._home, self._engines = home, Engines(home, device)

    def segment(self, task: SegmentTask, progress: Progress) -> Segmented:
        """See Executor."""
        return self._engines.segment(task, progress)

    def prepare(self) -> None:
        """See Executor. Importing torch takes two seconds, and nobody should wait for it with an image in hand."""
        import RefSegLib.engine  # noqa: F401

    def learner(self, model: str) -> LearnerHandle:
        """See Executor."""
        return LearnerProcess(self._home, model)

    def close(self) -> None:
        """See Executor."""
        self._engines.drop()


class Service:
    """The parts of one service on the store under `home`, and what needs more than one of them.

    token: of the one who started a local service; None for a site, whose users have accounts. workers: how many
    segmentations the executor takes at once. worklist: a folder of images to be annotated. Raises RefSegError if the
    store cannot be used.
    """

    def __init__(
        self,
        home: Path,
        executor: Executor,
        *,
        token: str | None = None,
        workers: int = 1,
        worklist: Path | None = None,
    ) -> None:
        self.home, self.token, self.executor = home, token, executor
        self.models, self.replay = ModelStore(home), ReplayStore(home)
        self.accounts, self.audit, self.failed = Accounts(home), AuditLog(home), FailedAttempts()
        self.turns, self.device = Turns(), DeviceThread(workers)
        self.jobs = Jobs(self.device.submit)
        self.uploads, self.sessions = Uploads(home), Sessions(home, self.turns)
        self.clients = Clients()
        self.worklist = None if worklist is None else ServedWorklist(home, worklist)
        self.unpacking = threading.BoundedSemaphore(UNPACKED)
        self.waiting = CapacityLimiter(WAITING)
        for name in self.models.names():
            with suppress(RefSegError):  # of a damaged model; the others are served
                settle(self.models, home, name)
        self.keeper = LearnerKeeper(home, self.replay, executor, self.turns)
        self._over = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep, name="sweeper", daemon=True)
        self._sweeper.start()
        self.device.submit(executor.prepare)

    def segment(self, user: str, about: SegmentMessage) -> Job:
        """Queue a segmentation. Raises Missing, BadInput or Full at once if it can be known at once."""
        name, _, version = about.model.partition("@")
        chosen = self.models.load(name, version or None)  # work that began with a version ends with it
        with self.unpacking:
            self.uploads.load(user, about.volume).check()

        def work(progress: Progress) -> dict[str, Any]:
            # Not before its turn: what waits takes no memory.
            volume = self.uploads.load(user, about.volume)
            task = SegmentTask(volume, f"{name}@{chosen.version}", about.reflect, about.roi, about.suspect)
            try:
                return _travelling(self._inferred(task, progress))
            except OutOfMemory:
                progress(0.0, "Making room: learning stops for a while")
                self.keeper.stop()
                return _travelling(self._inferred(task, progress))

        return self.jobs.start(user, work)

    def learner_status(self, model: str) -> dict[str, Any] | None:
        """What the learner of a model last said (learner.LearnerStatus, which only a process with torch can import)."""
        try:
            return json.loads((self.home / "learner" / f"{model}.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def close(self) -> None:
        """End everything: jobs at their next tile, learners after a checkpoint, sessions where they are."""
        self._over.set()
        self.jobs.stop_all()
        self.keeper.close()
        self.device.close()
        self.executor.close()
        self.sessions.close()
        self.replay.close()
        self.audit.close()

    def _inferred(self, task: SegmentTask, progress: Progress) -> Segmented:
        with self.turns.inference():
            return self.executor.segment(task, self.turns.yielding(progress))

    def _sweep(self) -> None:
        while not self._over.wait(SWEEP_SECONDS):
            for sweep in (self.sessions.sweep, self.uploads.sweep, self._remove_torn):
                _safely(sweep)

    def _remove_torn(self) -> None:
        """What killed processes were writing (durable.py) and nobody will put into its place."""
        for folder in ("service", "learner"):
            for path in (self.home / folder).glob("*.tmp"):
                if time.time() - path.stat().st_mtime > TORN_SECONDS:
                    path.unlink(missing_ok=True)


def _travelling(found: Segmented) -> dict[str, Any]:
    """A result as it travels."""
    return {
        "labels": pack_where(found.labels.array).model_dump(),
        "names": [name.model_dump(mode="json") for name in found.names],
        "report": found.report,
        "suspect": None if found.suspect is None else pack_where(found.suspect.array[0].astype("float16")).model_dump(),
        "before": None if found.before is None else pack_where(found.before.array).model_dump(),
    }


def _safely(work: Callable[[], None]) -> None:
    with suppress(OSError, RefSegError):  # at the next time again
        work()
