"""Work that a client starts and does not wait for: a Runner makes a Job, a Job tells its news when it is polled."""

from __future__ import annotations

import atexit
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from RefSegLib.errors import Cancelled, RefSegError
from RefSegLib.progress import SILENT, Progress
from RefSegLib.volume.volume import LabelMap, Volume

if TYPE_CHECKING:  # a panel must open before pydantic is installed
    from RefSegLib.models.spec import Label

# Estimated Dice below which a user is asked to look, as in reflection/reflect.py, which a client cannot import.
POOR = 0.7
# How long the interpreter waits at its end for work that was told to stop.
END_SECONDS = 10.0


@dataclass(frozen=True)
class Estimate:
    """How good the mask of one structure probably is. interval: low and high end, None where the model gives none."""

    name: str
    dice: float
    interval: tuple[float, float] | None = None

    def __str__(self) -> str:
        ends = "" if self.interval is None else " ({:.2f} to {:.2f})".format(*self.interval)
        return f"{self.dice:.2f}{ends}"


@dataclass(frozen=True)
class Segmented:
    """What a job found. labels: on the grid of the image; names: what its values mean; report: what
    `refseg segment --report` says; suspect: how likely each label is wrong, 0..1 on the grid of the image, None if it
    was not asked for or nothing was reflected on; before: the mask before reflection, None where reflection left it as
    it was; image: the hash by which a service knows the image, None where none was asked.
    """

    labels: LabelMap
    names: tuple[Label, ...]
    report: dict[str, Any] = field(default_factory=dict)
    suspect: Volume | None = None
    before: LabelMap | None = None
    image: str | None = None

    @property
    def estimates(self) -> list[Estimate]:
        """Estimated Dice of every structure that was reflected on."""
        return [estimate for image in self.report.get("images", ()) for estimate in estimates_of(image)]


def estimates_of(image: dict[str, Any]) -> list[Estimate]:
    """The estimates in the entry of one image in the report of `refseg segment`, region by region."""
    found = []
    for region in image["regions"]:
        said = region["reflection"] or {"estimated_dice": {}}
        for value, dice in said["estimated_dice"].items():
            ends = said["estimated_interval"].get(value)
            found.append(Estimate(region["labels"][value], dice, None if ends is None else tuple(ends)))
    return found


class Runner(Protocol):
    """Whatever can segment an image, here or elsewhere."""

    def segmented(
        self,
        volume: Volume,
        model: str,
        *,
        reflect: bool | None = None,
        roi: Sequence[int] | None = None,
        suspect: bool = False,
        progress: Progress = SILENT,
    ) -> Segmented:
        """Segment, and wait for it: for threads. Raises RefSegError, or Cancelled once `progress` says so.

        model: NAME or NAME@VERSION; roi: voxels k0, j0, i0, k1, j1, i1, the upper ones exclusive; suspect: also give
        the map of where the mask may be wrong, if the image is reflected on.
        """
        ...

    def close(self) -> None:
        """Nothing more will be asked for."""
        ...


class Signal:
    """Functions to call when something happened. (Qt signals defined in Python crash under PythonQt.)"""

    def __init__(self) -> None:
        self._functions: list[Callable[..., None]] = []

    def connect(self, function: Callable[..., None]) -> None:
        """Call `function` from now on, after those connected before."""
        self._functions.append(function)

    def __call__(self, *values: Any) -> None:
        """Tell everybody."""
        for function in tuple(self._functions):
            function(*values)


class Job:
    """Work in a thread whose news are delivered by `poll`, in the thread that calls it.

    progressed(fraction, message), then exactly one of finished(result) and failed(RefSegError). work gets a report
    function (fraction, message) and a function that says whether to stop; it raises RefSegError, or Cancelled. stop is
    called by `cancel` and must not wait.
    """

    def __init__(
        self,
        work: Callable[[Callable[[float, str], None], Callable[[], bool]], Any],
        stop: Callable[[], None] = lambda: None,
    ) -> None:
        self.progressed, self.finished, self.failed = Signal(), Signal(), Signal()
        self._news: queue.SimpleQueue[tuple[Signal, tuple[Any, ...]]] = queue.SimpleQueue()
        self._cancelled, self._stop, self._open = threading.Event(), stop, True
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        atexit.register(self._end)  # daemon threads end with the interpreter, their processes would not
        self._thread.start()

    @property
    def open(self) -> bool:
        """False once finished or failed was delivered."""
        return self._open

    def poll(self) -> bool:
        """Deliver what has happened since the last call; returns `open`. Never waits."""
        while self._open:
            if self._cancelled.is_set():
                tell, values = self.failed, (Cancelled(),)
            elif self._news.empty():  # nobody else takes from it
                break
            else:
                tell, values = self._news.get()
            self._open = tell is self.progressed
            tell(*values)
        return self._open

    def cancel(self) -> None:
        """Stop the work, without waiting for it: its thread ends by itself.

        All that is told from now on is a Cancelled, by the next poll, even if the work has come to its end meanwhile.
        """
        self._cancelled.set()
        self._stop()

    def wait(self, timeout: float | None = None) -> None:
        """For scripts: wait until the work is over, then deliver everything."""
        self._thread.join(timeout)
        self.poll()

    def _end(self) -> None:
        self.cancel()
        self._thread.join(END_SECONDS)

    def _run(self, work: Callable[..., Any]) -> None:
        def report(fraction: float, message: str) -> None:
            self._news.put((self.progressed, (fraction, message)))

        try:
            news = self.finished, work(report, self._cancelled.is_set)
        except RefSegError as error:
            news = self.failed, error
        except Exception as error:  # of the machine: no room, no rights, no memory
            news = self.failed, RefSegError(f"The engine could not be used: {error}")
        atexit.unregister(self._end)
        self._news.put((news[0], (news[1],)))
