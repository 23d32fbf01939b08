"""slicer.packaging (Slicer 5.12): checks what is installed, and installs by PythonSlicer in the background.

As in Slicer, pip_install in testing mode waits, and calls nobody back; pip_ensure installs nothing then.
"""

import importlib.metadata
import queue
import shutil
import subprocess
import threading
from pathlib import Path

from packaging.requirements import Requirement

asked = []
_running = []


def load_requirements(path):
    lines = (line.strip() for line in Path(path).read_text().splitlines())
    return [Requirement(line) for line in lines if line and line[0] not in "#-"]


def pip_check(requirements):
    one = isinstance(requirements, (str, Requirement))
    return all(_there(Requirement(str(r))) for r in ([requirements] if one else requirements))


def _there(requirement):
    if requirement.marker is not None and not requirement.marker.evaluate():
        return True
    try:
        return importlib.metadata.version(requirement.name) in requirement.specifier
    except importlib.metadata.PackageNotFoundError:
        return False


def pip_ensure(requirements, requester=None, **options):
    asked.extend(str(r) for r in requirements if not pip_check(r))


def pip_install(requirements, blocking=True, show_progress=True, requester=None, logCallback=None, **options):
    import slicer

    completed = options.pop("completedCallback", None)
    assert not options, f"slicer.packaging.pip_install has no {options}"
    assert isinstance(requirements, list)
    python = shutil.which("PythonSlicer")
    if not python:
        raise RuntimeError("PythonSlicer executable not found")
    command = [python, "-m", "pip", "install", *requirements]
    if blocking or slicer.app.testingEnabled():
        subprocess.run(command, check=True, capture_output=True)
        return
    if _running:
        raise RuntimeError("A non-blocking pip_install is already in progress.")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    _running.append(process)
    lines = queue.SimpleQueue()
    threading.Thread(target=_read, args=(process, lines), daemon=True).start()
    _deliver(process, lines, logCallback or print, completed)


def _read(process, lines):
    for line in process.stdout:
        lines.put(line.rstrip())
    process.stdout.close()
    lines.put(process.wait())


def _deliver(process, lines, log, completed):
    """In the main thread, ten times a second."""
    import qt

    while not lines.empty():
        said = lines.get()
        if isinstance(said, str):
            log(said)
            continue
        _running.remove(process)
        if completed is not None:
            completed(said)
        return
    qt.QTimer.singleShot(100, lambda: _deliver(process, lines, log, completed))
