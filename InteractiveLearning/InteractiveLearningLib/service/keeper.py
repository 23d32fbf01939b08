"""Keeps learners at work wherever something is left to learn: after an acceptance, and after any crash.

What is left is read from the disk, so it does not matter who accepted: this service, another one, or a command.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from RefSegLib.errors import RefSegError
from RefSegLib.models.store import ModelStore

from InteractiveLearningLib.replay import ReplayStore
from InteractiveLearningLib.service.executor import Executor, LearnerHandle
from InteractiveLearningLib.service.turns import Turns
from InteractiveLearningLib.verdicts import Verdict, VerdictLog

log = logging.getLogger(__name__)
POLL_SECONDS = 2.0
RETRY_SECONDS = 30.0


class LearnerKeeper:
    """A learner for every model that has something to learn, held by `turns` while anybody else computes."""

    def __init__(self, home: Path, replay: ReplayStore, executor: Executor, turns: Turns) -> None:
        self._home, self._replay, self._executor, self._turns = home, replay, executor, turns
        self._handles: dict[str, LearnerHandle] = {}
        self._not_before: dict[str, float] = {}
        self._looked: dict[str, tuple] = {}
        self._trouble: dict[str, str] = {}
        self._wake, self._over = threading.Event(), False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="learners", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Something was accepted."""
        self._wake.set()

    def running(self, model: str) -> bool:
        """Whether a learner is at work for a model."""
        handle = self._handles.get(model)
        return handle is not None and handle.running()

    def trouble(self, model: str) -> str | None:
        """Why the learner of a model does not run though something is left to learn; None if that is not so, or if
        nothing went wrong. It is tried again after a while."""
        return self._trouble.get(model)

    def stop(self) -> None:
        """End all learners, after their checkpoints; they start again at the next look."""
        with self._lock:
            for model in list(self._handles):
                handle = self._handles.pop(model)
                self._turns.remove(handle)
                handle.stop()
                self._not_before[model] = time.monotonic() + RETRY_SECONDS
            self._looked.clear()

    def close(self) -> None:
        """End all learners, for good."""
        self._over = True
        self._wake.set()
        self._thread.join()
        self.stop()

    def _run(self) -> None:
        while not self._over:
            try:
                with self._lock:
                    self._look()
            except Exception:  # a disk that was full, a database that was locked: the next look may go better
                log.exception("Could not look for what is to be learnt")
            self._wake.wait(POLL_SECONDS)
            self._wake.clear()

    def _look(self) -> None:
        for model in ModelStore(self._home).names():
            handle = self._handles.get(model)
            if handle is not None:
                if handle.running():
                    continue
                self._turns.remove(self._handles.pop(model))
                # Whatever it was that ended it with work left: not again at once.
                if self._left(model):
                    self._wait(model, handle.why() or "The learner ended before its work was done.")
                    continue
            if time.monotonic() >= self._not_before.get(model, 0) and self._left(model):
                try:
                    handle = self._executor.learner(model)
                except (OSError, RefSegError) as error:  # of one model; the others are looked after all the same
                    self._wait(model, str(error))
                    continue
                self._trouble.pop(model, None)
                self._handles[model] = handle
                self._turns.add(handle)

    def _wait(self, model: str, why: str) -> None:
        self._trouble[model] = why
        self._not_before[model] = time.monotonic() + RETRY_SECONDS

    def _left(self, model: str) -> bool:
        """Whether anything is left to learn or to judge. Looked at anew only when cases or verdicts have changed."""
        verdicts = VerdictLog(self._home, model)
        cases = self._replay.cases(model)
        size = verdicts.path.stat().st_size if verdicts.path.exists() else 0
        now = len(cases), sum(case.consent for case in cases), size
        known = self._looked.get(model)
        if known is None or known[0] != now:
            self._looked[model] = now, waiting(self._home, self._replay, model, verdicts.verdicts()).work
        return self._looked[model][1]


@dataclass(frozen=True)
class Waiting:
    """pending: cases without a verdict, of `cases` that may be learnt; missing: validation patients that are needed
    still; work: something to do."""

    pending: int
    cases: int
    missing: int
    work: bool


def waiting(home: Path, replay: ReplayStore, model: str, verdicts: Sequence[Verdict]) -> Waiting:
    """What a model has to learn, from the disk. verdicts: all of that model."""
    judged = {verdict.case for verdict in verdicts}
    able_to_teach = [c.id for c in replay.cases(model, "train") if c.consent]
    pending = sum(case not in judged for case in able_to_teach)
    able = {c.patient for c in replay.cases(model, "validation") if c.consent}
    missing = max(0, replay.validation_patients - len(able))
    last = next((v for v in verdicts[::-1] if v.candidate is not None), None)
    again = last is not None and last.outcome == "waiting" and not missing
    if again:
        with suppress(RefSegError):
            again = ModelStore(home).active(model) == last.champion
    return Waiting(pending, len(able_to_teach), missing, bool(pending) or again)
