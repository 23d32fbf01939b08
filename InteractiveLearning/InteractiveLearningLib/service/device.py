"""The one thread that owns the device, and the networks it keeps ready.

One thread, because two inferences at once would share the memory of one GPU, and on a CPU each would take twice as
long. It stays for the life of the service: what OpenVINO and CUDA keep per thread is made once.
"""

from __future__ import annotations

import gc
import logging
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from RefSegLib import __version__
from RefSegLib.errors import RefSegError, is_out_of_memory
from RefSegLib.jobs import Segmented
from RefSegLib.models.store import ModelStore
from RefSegLib.progress import Progress

from InteractiveLearningLib.service.executor import SegmentTask

if TYPE_CHECKING:
    from RefSegLib.engine import Engine

log = logging.getLogger(__name__)
Result = TypeVar("Result")
# Two: the version everybody uses, and the one before it for work that began with it.
KEPT = 2


class DeviceThread:
    """Runs what it is given in the order it came, one after another. workers: more, where a cluster does the work."""

    def __init__(self, workers: int = 1) -> None:
        self._pool = ThreadPoolExecutor(workers, "device")

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        """Queue work."""
        return self._pool.submit(work)

    def close(self) -> None:
        """Let what runs come to its end, drop the rest."""
        self._pool.shutdown(cancel_futures=True)


class Engines:
    """The networks of the versions used last, on one device. To be used by one thread.

    Raises what ModelStore and Engine raise for versions that are not there or damaged.
    """

    def __init__(self, home: str | Path, device: str = "auto") -> None:
        self._store, self._device = ModelStore(home), device
        self._engines: OrderedDict[str, Engine] = OrderedDict()

    def get(self, model: str) -> Engine:
        """The engine of NAME@VERSION."""
        from RefSegLib.engine import Engine  # torch: only in the process that computes

        if model not in self._engines:
            version = self._store.load(*model.split("@"))
            while len(self._engines) >= KEPT:
                self._engines.popitem(last=False)
            gc.collect()
            self._engines[model] = Engine(version, self._device)
        self._engines.move_to_end(model)
        return self._engines[model]

    def drop(self) -> None:
        """Free what is kept."""
        self._engines.clear()
        gc.collect()

    def segment(self, task: SegmentTask, progress: Progress) -> Segmented:
        """Segment on this device. Raises RefSegError if the memory does not suffice."""
        from RefSegLib.engine import first_mask, suspect_map

        try:
            engine = self.get(task.model)
            result = engine.segment(task.volume, roi=task.roi, reflect=task.reflect, progress=progress)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self.drop()
            raise OutOfMemory from error
        said = {"image": "image", "seconds": None} | engine.describe(result)
        report = {
            "model": engine.version.name,
            "version": engine.version.version,
            "weights": {name: file.sha256 for name, file in engine.version.manifest.files.items()},
            "refseg": __version__,
            "images": [said],
        }
        suspect = suspect_map(result) if task.suspect else None
        return Segmented(result.labels, result.names, report, suspect, first_mask(result))


class OutOfMemory(RefSegError):
    """The device's memory did not suffice."""

    def __init__(self) -> None:
        super().__init__(
            "The memory of the server did not suffice for this image. Give a region of interest, or try again when "
            "less is going on."
        )
