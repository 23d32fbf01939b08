"""Jobs of the service: queued, running, over; they go on when the client that asked for them goes away."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from RefSegLib.errors import Cancelled, RefSegError
from RefSegLib.progress import Progress

log = logging.getLogger(__name__)
State = Literal["queued", "running", "done", "failed", "cancelled"]
Work = Callable[[Progress], dict[str, Any]]
KEPT_SECONDS = 3600.0
PER_USER = 8  # queued and running
KEPT_PER_USER = 16  # results wait in memory: a head's mask takes some 100 kB


class Full(RefSegError):
    """No room now; `wait` seconds later there may be."""

    def __init__(self, message: str, wait: float) -> None:
        super().__init__(message)
        self.wait = wait


class Missing(RefSegError):
    """There is no such thing, or it is somebody else's."""


@dataclass
class Job:
    """One piece of work of one user. revision counts what was told; changed: notified at each."""

    owner: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    state: State = "queued"
    fraction: float = 0.0
    message: str = "Waiting for its turn"
    error: str | None = None
    result: dict[str, Any] | None = None
    revision: int = 0
    touched: float = field(default_factory=time.monotonic)
    stop: threading.Event = field(default_factory=threading.Event)
    changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def over(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in ("done", "failed", "cancelled")

    def told(self, **values: Any) -> None:
        """Something changed."""
        with self.changed:
            for name, value in values.items():
                setattr(self, name, value)
            self.revision += 1
            self.touched = time.monotonic()
            self.changed.notify_all()

    def describe(self, *, result: bool) -> dict[str, Any]:
        """As it travels."""
        names = ("id", "state", "fraction", "message", "error", "revision")
        return {name: getattr(self, name) for name in names} | {"result": self.result if result else None}

    def wait(self, seen: int, seconds: float) -> None:
        """Return once there is something newer than revision `seen`, or after some seconds."""
        with self.changed:
            self.touched = time.monotonic()
            self.changed.wait_for(lambda: self.revision > seen or self.over, seconds)


class Jobs:
    """All jobs. submit: hands a function to whoever runs it (the device's thread)."""

    def __init__(self, submit: Callable[[Callable[[], None]], object]) -> None:
        self._submit, self._jobs, self._lock = submit, {}, threading.Lock()

    def start(self, owner: str, work: Work) -> Job:
        """Queue work for a user. Raises Full if the user has too much under way."""
        job = Job(owner)
        with self._lock:
            self._clear()
            own = [j for j in self._jobs.values() if j.owner == owner]
            if sum(not j.over for j in own) >= PER_USER:
                raise Full(f"{PER_USER} of your jobs are under way already. Wait for one, or cancel one.", 5)
            for old in sorted((j for j in own if j.over), key=lambda j: j.touched)[: -KEPT_PER_USER + 1]:
                del self._jobs[old.id]
            self._jobs[job.id] = job
        self._submit(lambda: _run(job, work))
        return job

    def get(self, owner: str, identifier: str) -> Job:
        """Raises Missing for a job that is not there or not this user's."""
        job = self._jobs.get(identifier)
        if job is None or job.owner != owner:
            raise Missing("There is no such job (any more). Start it again.")
        return job

    def of(self, owner: str) -> list[Job]:
        """A user's jobs, oldest first."""
        with self._lock:
            return [job for job in self._jobs.values() if job.owner == owner]

    def cancel(self, owner: str, identifier: str) -> Job:
        """Stop a job at its next report; a finished one is dropped."""
        job = self.get(owner, identifier)
        with self._lock:
            if job.over:
                self._jobs.pop(identifier, None)
        job.stop.set()
        return job

    def stop_all(self) -> None:
        """For the end of the service."""
        with self._lock:
            for job in self._jobs.values():
                job.stop.set()

    def _clear(self) -> None:
        now = time.monotonic()
        for job in [j for j in self._jobs.values() if j.over and now - j.touched > KEPT_SECONDS]:
            del self._jobs[job.id]


def _run(job: Job, work: Work) -> None:
    if job.stop.is_set():
        job.told(state="cancelled", message="Cancelled.")
        return
    job.told(state="running", message="Starting")
    progress = Progress(lambda fraction, message: job.told(fraction=fraction, message=message), job.stop.is_set)
    try:
        job.told(result=work(progress), state="done", fraction=1.0, message="Done")
    except Cancelled:
        job.told(state="cancelled", message="Cancelled.")
    except RefSegError as error:
        job.told(state="failed", error=str(error))
    except Exception as error:  # the thread must live on
        log.exception("A job failed")
        job.told(state="failed", error=f"The server could not finish this job ({type(error).__name__}).")
