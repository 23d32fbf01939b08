"""Who may compute now: whoever clicks first, then inference, learning last.

Interactions are short and run in the threads of their requests. While one is under way, inference waits at its next
tile and the learners' processes are held; while inference is under way, the learners are held. A held learner goes on
exactly where it was.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from RefSegLib.progress import Progress

# Somebody clicking without a pause must not keep another from a segmentation for ever: a tile waits no longer.
LONGEST_WAIT = 2.0


class Held(Protocol):
    """A learner that can be held for a while."""

    def pause(self) -> None:
        """Stop computing, at once."""
        ...

    def resume(self) -> None:
        """Go on."""
        ...


class Turns:
    """hands out turns; learners: what is held while anybody else computes."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._clicks = self._inferences = self._writes = 0
        self._learners: list[Held] = []

    @contextmanager
    def learning_goes_on(self) -> Iterator[None]:
        """While it lasts no learner is held: it might hold the lock of a file or a database that is waited for."""
        with self._counted("_writes"):
            yield

    @contextmanager
    def interactive(self) -> Iterator[None]:
        """While it lasts nothing else computes but what has begun its tile."""
        with self._counted("_clicks"):
            yield

    @contextmanager
    def inference(self) -> Iterator[None]:
        """While it lasts nobody learns."""
        with self._counted("_inferences"):
            yield

    def yielding(self, progress: Progress) -> Progress:
        """A progress for inference that lets interactions go first, wherever progress is reported."""

        def report(fraction: float, message: str) -> None:
            self._let_clicks_pass(progress)
            progress.report(fraction, message)

        return Progress(report, progress.cancelled)

    def add(self, learner: Held) -> None:
        """From now on this one is held, too; also now, if somebody computes."""
        with self._free:
            self._learners.append(learner)
            if self.held:
                learner.pause()

    def remove(self, learner: Held) -> None:
        """It has ended."""
        with self._free:
            if learner in self._learners:
                self._learners.remove(learner)

    @property
    def held(self) -> bool:
        """Whether learners are held now."""
        return bool(self._clicks or self._inferences) and not self._writes

    @contextmanager
    def _counted(self, name: str) -> Iterator[None]:
        self._count(name, 1)
        try:
            yield
        finally:
            self._count(name, -1)

    def _count(self, name: str, change: int) -> None:
        with self._free:
            before = self.held
            setattr(self, name, getattr(self, name) + change)
            if self.held != before:
                for learner in self._learners:
                    learner.pause() if self.held else learner.resume()
            self._free.notify_all()

    def _let_clicks_pass(self, progress: Progress) -> None:
        until = time.monotonic() + LONGEST_WAIT
        with self._free:
            while self._clicks and not progress.cancelled() and (left := until - time.monotonic()) > 0:
                self._free.wait(min(left, 0.1))
