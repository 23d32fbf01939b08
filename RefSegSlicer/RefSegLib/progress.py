"""Progress and cancel for everything that can take more than a second, and how long it will take."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from RefSegLib.errors import Cancelled


def _ignore(fraction: float, message: str) -> None:
    """The listener of a job that nobody watches."""


@dataclass(frozen=True)
class Progress:
    """What a long job is given to speak through.

    report: called with a fraction in 0..1 and a short sentence.
    cancelled: returns True once the user asked to stop.
    """

    report: Callable[[float, str], None] = _ignore
    cancelled: Callable[[], bool] = lambda: False

    def __call__(self, fraction: float, message: str = "") -> None:
        """Report, then raise Cancelled if the user asked to stop."""
        if self.cancelled():
            raise Cancelled
        self.report(min(max(float(fraction), 0.0), 1.0), message)

    def part(self, start: float, end: float) -> "Progress":
        """The same listener, for a step that covers start..end of the whole."""
        return Progress(
            lambda fraction, message: self.report(start + (end - start) * fraction, message), self.cancelled
        )


SILENT = Progress()

# Before both, a guess would be noise.
KNOWN_FROM, KNOWN_AFTER_SECONDS = 0.05, 2.0
# What a new guess counts against those before it.
SHARE = 0.3


class TimeLeft:
    """How long a job will still take, guessed from how far it has come since this was made. clock: seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._start, self._end = clock, clock(), None

    def told(self, fraction: float) -> None:
        """So much of 0..1 is done."""
        now = self._clock()
        elapsed = now - self._start
        if fraction >= KNOWN_FROM and elapsed >= KNOWN_AFTER_SECONDS:
            end = now + elapsed * (1 - fraction) / fraction
            # Smoothed is when it ends: what is left then shrinks steadily while nothing new is told.
            self._end = end if self._end is None else self._end + SHARE * (end - self._end)

    @property
    def seconds(self) -> float | None:
        """What is left; None as long as nobody can know."""
        return None if self._end is None else max(0.0, self._end - self._clock())
