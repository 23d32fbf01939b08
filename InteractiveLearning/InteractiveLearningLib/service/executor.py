"""Where jobs run: on this machine, or on a cluster (cluster.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from RefSegLib.jobs import Segmented
from RefSegLib.progress import Progress
from RefSegLib.volume.volume import Volume


@dataclass(frozen=True)
class SegmentTask:
    """A volume to be segmented. model: NAME@VERSION, so that work goes on with the version it began with.

    roi: voxels k0, j0, i0, k1, j1, i1, the upper ones exclusive. reflect, suspect: see RefSegLib.jobs.Runner.
    """

    volume: Volume
    model: str
    reflect: bool | None = None
    roi: tuple[int, ...] | None = None
    suspect: bool = False


class LearnerHandle(Protocol):
    """A learner at work, wherever that is."""

    def running(self) -> bool:
        """False once it has ended, by itself or not."""
        ...

    def why(self) -> str | None:
        """A sentence on what ended it, None while it runs or if it ended by itself."""
        ...

    def pause(self) -> None:
        """Hold it; it keeps its memory and goes on where it was."""
        ...

    def resume(self) -> None:
        """Let it go on."""
        ...

    def stop(self) -> None:
        """End it, after a checkpoint; a few seconds at most."""
        ...


class Executor(Protocol):
    """Whoever segments and learns for the service."""

    def prepare(self) -> None:
        """Get ready for the first task."""
        ...

    def segment(self, task: SegmentTask, progress: Progress) -> Segmented:
        """Blocks. Raises RefSegError or Cancelled."""
        ...

    def learner(self, model: str) -> LearnerHandle:
        """Start to learn what a model has to learn; it ends by itself when nothing is left."""
        ...

    def close(self) -> None:
        """End everything that runs."""
        ...
