"""The learner: a process of its own that learns accepted cases one after another, in the background.

    python -m InteractiveLearningLib.learner --store HOME --model NAME [--once] [--seconds N]

One at a time per model (a lock that the operating system frees when the process ends, however it ends). What is left to
do is read from the disk alone: an accepted training case without a version is learnt; a version without a verdict is
judged; a verdict that was not carried out is carried out. So it may be killed at any moment. On SIGTERM it writes a
checkpoint and leaves within a second.

    home/learner/NAME.json        what it is doing, for panels (LearnerStatus)
    home/learner/NAME.checkpoint  the case being learnt, every few iterations
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from filelock import FileLock, Timeout
from RefSegLib.durable import write_durably
from RefSegLib.errors import BadInput, Cancelled, RefSegError
from RefSegLib.models.store import ModelStore, ModelVersion
from RefSegLib.progress import SILENT, Progress

from InteractiveLearningLib.accepted import AcceptedCase, CaseInfo
from InteractiveLearningLib.learning import MOST_LOSSES, LearningSettings, learn
from InteractiveLearningLib.promotion import MARGIN, promote
from InteractiveLearningLib.replay import DamagedCase, ReplayStore
from InteractiveLearningLib.replay_traces import begin_learning, end_learning
from InteractiveLearningLib.reviews import settle
from InteractiveLearningLib.verdicts import Verdict, VerdictLog

POLL_SECONDS = 2.0
RETRY_SECONDS = 30.0
STATUS_SECONDS = 0.5
LEAVE_SECONDS = 0.8
NICENESS = 15


@dataclass(frozen=True)
class LearnerStatus:
    """What panels show. losses: of the case being learnt, or the last one, the newest MOST_LOSSES up to `iteration`,
    which is counted from 1 to at most `iterations`; verdict: the last one as a dict."""

    state: Literal["idle", "learning", "validating", "failed", "stopped"] = "idle"
    message: str = ""
    case: str | None = None
    iteration: int = 0
    iterations: int = 0
    losses: list[float] = field(default_factory=list)
    verdict: dict | None = None
    pid: int = 0
    updated_at: float = 0.0


def read_status(home: str | Path, model: str) -> LearnerStatus | None:
    """What the learner of a model last said, or None if there never was one. Needs a look at pid: it may have died."""
    path = _folder(home) / f"{model}.json"
    return LearnerStatus(**json.loads(path.read_bytes())) if path.exists() else None


class AlreadyAtWork(RefSegError):
    """Another learner holds the lock of this model."""


class Learner:
    """Everything one model has to learn.

    Raises RefSegError if there is no such model, AlreadyAtWork if another learner is at work for it.
    """

    def __init__(
        self, home: str | Path, model: str, settings: LearningSettings | None = None, *, margin: float = MARGIN
    ) -> None:
        self.home, self.model, self.settings, self.margin = Path(home), model, settings or LearningSettings(), margin
        self.store = ModelStore(self.home)
        self.store.load(model, self.store.active(model))
        _folder(home).mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(_folder(home) / f"{model}.lock", timeout=0)
        try:
            self._lock.acquire()
        except Timeout:
            raise AlreadyAtWork(f"A learner for '{model}' is already at work on this store.") from None
        for kind in ("json", "checkpoint"):  # what a killed learner was writing
            for left in _folder(home).glob(f"{model}.{kind}.[0-9]*.tmp"):
                left.unlink(missing_ok=True)
        self.replay = ReplayStore(self.home)
        self.log, self.checkpoint = VerdictLog(home, model), _folder(home) / f"{model}.checkpoint"
        self._status, self._said = LearnerStatus(pid=os.getpid()), 0.0
        settle(self.store, self.home, model)

    def close(self) -> None:
        """Free the lock and the database."""
        self.replay.close()
        self._lock.release()

    def work(self, progress: Progress = SILENT) -> list[Verdict]:
        """Do all there is to do now; returns the verdicts. Cancelled is raised through, after a checkpoint."""
        verdicts = []
        while (verdict := self._step(progress)) is not None:
            verdicts.append(verdict)
            # Without scores: panels need none, and who is forgotten must not be found here.
            self.say("idle", verdict.reason, verdict=verdict.to_dict() | {"scores": []}, now=True)
        return verdicts

    def pending(self) -> list[CaseInfo]:
        """Cases to learn from that have no verdict yet, oldest first."""
        done = {verdict.case for verdict in self.log.verdicts()}
        return [c for c in self.replay.cases(self.model, "train") if c.consent and c.id not in done]

    def say(self, state: str, message: str, *, now: bool = False, **more) -> None:
        """Write the status, at most twice a second unless `now`. A disk that is full does not stop the learning."""
        self._status = replace(self._status, state=state, message=message, updated_at=time.time(), **more)
        if now or time.monotonic() - self._said > STATUS_SECONDS:
            self._said = time.monotonic()
            with suppress(OSError):
                write_durably(_folder(self.home) / f"{self.model}.json", json.dumps(asdict(self._status)).encode())

    def _step(self, progress: Progress) -> Verdict | None:
        """One verdict, or None if there is nothing to do."""
        if (again := self._waiting_candidate()) is not None:
            return self._judge(again, None, progress)
        pending = self.pending()
        if not pending:
            return None
        info = pending[0]
        made = self._unjudged(info.id)
        if made is None:
            begin_learning(self.home, self.model)
            try:
                case = self.replay.load(info.id)
                made = self._learn(info, case, progress.part(0, 0.8))
            except (BadInput, DamagedCase) as error:  # trying again would not help
                return self._skip(info, str(error))
        if made is None:
            return self._step(progress)
        end_learning(self.home, self.model)
        return self._judge(made, info.id, progress.part(0.8, 1))

    def _learn(self, info: CaseInfo, case: AcceptedCase, progress: Progress) -> ModelVersion | None:
        """The version that learnt a case, or None if a case was forgotten, or its consent withdrawn, meanwhile."""
        parent = self._head()
        replayed: dict[str, AcceptedCase] = {}
        for earlier in self.replay.sample(self.model, self.settings.capacity, self.settings.seed, leave_out=[info.id]):
            with suppress(DamagedCase):  # left out; the new case can be learnt without it
                replayed[earlier.id] = self.replay.load(earlier.id)
        losses: list[float] = []
        most = self.settings.iterations
        self.say("learning", "Preparing", case=info.id, iteration=0, iterations=most, losses=[], now=True)

        def report(loss: float) -> None:
            losses.append(round(loss, 4))
            message = f"Learning: iteration {len(losses)} of {most}"
            self.say("learning", message, iteration=len(losses), losses=losses[-MOST_LOSSES:])

        used = [info.id, *replayed]
        try:
            learnt = learn(
                parent, (info.id, case), list(replayed.values()), self.settings, self.checkpoint, report, progress
            )
        finally:
            self._may_be_learnt(used)
        with self.replay.writing():  # who forgets a patient waits until the version is there, and names it
            if not self._may_be_learnt(used):
                return None
            return self.store.add(
                parent.spec,
                learnt.weights,
                parent.synthesizer(),
                parent=f"{parent.name}@{parent.version}",
                data={"case": info.id, "cases": used},
                settings=asdict(self.settings) | learnt.summary(),
                reflection=parent.manifest.reflection,
            )

    def _may_be_learnt(self, cases: list[str]) -> bool:
        """False, and no checkpoint is left, if a case was forgotten or its consent withdrawn."""
        if self.replay.may_be_learnt(cases):
            return True
        end_learning(self.home, self.model)
        return False

    def _judge(self, candidate: ModelVersion, case: str | None, progress: Progress) -> Verdict:
        self.say("validating", f"Comparing version {candidate.version} with the active one", case=case, now=True)
        return promote(self.store, self.replay, candidate, case=case, margin=self.margin, progress=progress)

    def _skip(self, info: CaseInfo, reason: str) -> Verdict:
        verdict = Verdict("skipped", reason, self.model, case=info.id)
        self.log.add(verdict)
        return verdict

    def _unjudged(self, case: str) -> ModelVersion | None:
        """The version that a killed learner made from a case without coming to a verdict."""
        last = self._last()
        for number in self.store.versions(self.model)[::-1]:
            if last is not None and number == last.candidate:
                return None
            version = self.store.load(self.model, number)
            if version.manifest.data.get("case") == case:
                return version
        return None

    def _last(self) -> Verdict | None:
        return next((v for v in self.log.verdicts()[::-1] if v.candidate is not None), None)

    def _waiting_candidate(self) -> ModelVersion | None:
        """The candidate that waited for validation patients, once there are enough and nobody chose another version."""
        last = self._last()
        if last is None or last.outcome != "waiting" or self.store.active(self.model) != last.champion:
            return None
        able = {c.patient for c in self.replay.cases(self.model, "validation") if c.consent}
        return self.store.load(self.model, last.candidate) if len(able) >= self.replay.validation_patients else None

    def _head(self) -> ModelVersion:
        """The version to go on from: the last candidate while it is not clearly worse, else the active one.

        A candidate that was refused because its gain was too small to tell still carries what it learnt, and the next
        case adds to it. Once a person has activated another version, learning goes on from there.
        """
        active, last = self.store.active(self.model), self._last()
        if last is not None and last.candidate is not None:
            expected = last.candidate if last.published else last.champion
            close = last.outcome == "waiting" or last.published
            close = close or (
                last.before is not None and last.after is not None and last.after >= last.before - self.margin
            )
            if close and active == expected:
                return self.store.load(self.model, last.candidate)
        return self.store.load(self.model, active)


def _folder(home: str | Path) -> Path:
    return Path(home) / "learner"


def _leave_on_sigterm() -> Callable[[], bool]:
    """Install the handler; returns what tells whether to leave."""
    leaving = threading.Event()

    def leave(_number: int, _frame: object) -> None:
        leaving.set()
        # An iteration of a large network may take longer than a second; nothing is lost by not waiting for it.
        late = threading.Timer(LEAVE_SECONDS, os._exit, (0,))
        late.daemon = True
        late.start()

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    return leaving.is_set


def run(
    store: Annotated[Path, typer.Option(help="Folder of models and accepted cases.")],
    model: Annotated[str, typer.Option(help="Name of the model that learns.")],
    once: Annotated[bool, typer.Option(help="Leave when nothing is left to learn.")] = False,
    seconds: Annotated[float, typer.Option(help="Longest time to learn one case.")] = LearningSettings.seconds,
    iterations: Annotated[int, typer.Option(help="Most iterations for one case.")] = LearningSettings.iterations,
    rate: Annotated[
        float, typer.Option(help="Learning rate; a network at its beginning bears 0.001 to 0.002.")
    ] = LearningSettings.rate,
) -> None:
    """Learn accepted cases in the background."""
    leaving = _leave_on_sigterm()
    with suppress(OSError, AttributeError):  # no such thing on Windows
        os.nice(NICENESS)
    learner = Learner(store, model, LearningSettings(seconds=seconds, iterations=iterations, rate=rate))
    progress = Progress(cancelled=leaving)
    try:
        while not leaving():
            try:
                learner.work(progress)
                wait = POLL_SECONDS
                learner.say("idle", learner._status.message or "Nothing to learn.", now=True)
            except Cancelled:
                break
            except Exception as error:  # the next try may go better: a disk that was full, memory that was short
                learner.say("failed", str(error) or type(error).__name__, now=True)
                wait = RETRY_SECONDS
                if once:
                    raise
            if once:
                return
            until = time.monotonic() + wait
            while not leaving() and time.monotonic() < until:
                time.sleep(0.1)
    finally:
        if learner._status.state != "failed":
            learner.say("stopped", "The learner is not running.", now=True)
        learner.close()


def main() -> None:
    """The process: 0 when it ended as asked, 2 with one line for an error that a person can mend."""
    try:
        typer.run(run)
    except RefSegError as error:
        print(error, file=sys.stderr)  # noqa: T201
        sys.exit(2)


if __name__ == "__main__":
    main()
