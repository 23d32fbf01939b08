"""Progress and cancel for everything that can take more than a second."""

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
