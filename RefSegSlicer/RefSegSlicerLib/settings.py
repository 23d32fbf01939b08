"""What people have chosen for both modules, in Slicer's settings: where the engine runs, and with what.

No secret is among it: tokens are kept by tokens.py.
"""

import shutil
import sys

import slicer
from RefSegLib.jobs import Signal

WHERE_KEY = "RefSeg/Where"
URL_KEY = "RefSeg/ServerUrl"
CERTIFICATE_KEY = "RefSeg/Certificate"
PYTHON_KEY = "RefSeg/Python"
STORE_KEY = "RefSeg/Store"
WHEELHOUSE_KEY = "RefSeg/Wheelhouse"
LOCAL, SITE = "local", "site"
KEYS = (WHERE_KEY, URL_KEY, CERTIFICATE_KEY, PYTHON_KEY, STORE_KEY, WHEELHOUSE_KEY)

# For what lives as long as Slicer. Panels come and go: they compare `snapshot()` when they are polled.
changed = Signal()


def chosen(key) -> str:
    """What a key is set to; empty if nothing was chosen."""
    return str(slicer.util.settingsValue(key, "") or "").strip()


def choose(key, value):
    """Set a key; empty to choose nothing."""
    slicer.app.settings().setValue(key, str(value))
    changed()


def snapshot() -> tuple[str, ...]:
    """All that is chosen, to see whether anything has changed, by whomever."""
    return tuple(chosen(key) for key in KEYS)


def atSite() -> bool:
    """Whether a server does the work, and not this computer."""
    return chosen(WHERE_KEY) == SITE


def python() -> str:
    """The Python that runs the engine: the chosen one, else Slicer's own."""
    return chosen(PYTHON_KEY) or shutil.which("PythonSlicer") or sys.executable


def environment() -> dict[str, str] | None:
    """What a chosen Python starts with: Slicer's own libraries would break it. None (inherit) for Slicer's own."""
    return slicer.util.startupEnvironment() if chosen(PYTHON_KEY) else None


def store() -> str | None:
    """The folder of models and accepted cases, or None for REFSEG_HOME or ~/.refseg."""
    return chosen(STORE_KEY) or None
