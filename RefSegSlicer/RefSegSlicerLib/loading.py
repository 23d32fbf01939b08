"""Loading what the panels work with, in the background: all of it takes seconds the first time.

Measured on two cores: 0.8 s until a service is opened, 1.2 s more until a session is; in a thread the longest time
that Slicer stands still for is 0.2 s, while the system loads one library.
"""

import importlib
import threading

import slicer

# What the panels import at their first use; the rest comes with these.
MODULES = (
    "InteractiveLearningLib.service.local",
    "InteractiveLearningLib.service.service_desk",
    "InteractiveLearningLib.listing",
    "InteractiveLearningLib.advice",
    "InteractiveLearningLib.curves",
    "InteractiveLearningLib.worklist",
    "RefSegLib.volume.io",
    "RefSegLib.training.split",
)
_threads = {}


def begin():
    """Load it, once, now that everything is installed. In testing mode it is there when this returns."""
    if MODULES not in _threads:
        _threads[MODULES] = threading.Thread(target=_load, args=(MODULES,), name="loading", daemon=True)
        _threads[MODULES].start()
    if slicer.app.testingEnabled():
        _threads[MODULES].join()


def done() -> bool:
    """Whether it is there, or has been tried: what cannot be loaded is told by whoever needs it."""
    return MODULES in _threads and not _threads[MODULES].is_alive()


def _load(modules):
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception:  # whoever needs it tells why
            continue
