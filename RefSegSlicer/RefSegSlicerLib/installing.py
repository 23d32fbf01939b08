"""Installing into Slicer's own Python, step by step, by Slicer's own means, driven from the main thread.

Slicer 5.12 and later install packages in the background (slicer.packaging). Slicer 5.10 cannot, and neither can the
PyTorch extension: such steps say so, and begin one poll later, so that a panel can show what they say.
"""

import importlib
import os
from contextlib import contextmanager
from pathlib import Path

import slicer
from RefSegLib.errors import BadInput, Cancelled, RefSegError
from RefSegLib.jobs import Signal

from RefSegSlicerLib import packages, settings
from RefSegSlicerLib.translation import tr as _


class Installation:
    """Steps, one after the other. Main thread only; somebody has to call `poll`.

    progressed(fraction, message), then exactly one of finished() and failed(error: RefSegError or Cancelled).
    """

    def __init__(self, steps):
        self.progressed, self.finished, self.failed = Signal(), Signal(), Signal()
        self.open = True
        self._steps, self._at, self._next = steps, 0, None
        self._stopped = self._busy = False

    def poll(self):
        """Go on. Does nothing while a step runs, also where a step that blocks lets timers run."""
        if not self.open or self._busy:
            return
        if self._at == len(self._steps):
            importlib.invalidate_caches()
            self._end(None)
        elif self._stopped:
            self._end(Cancelled(_("Stopped. What was installed before stays.")))
        elif self._next is None:
            self._next = self._steps[self._at]
            self.progressed(self._at / len(self._steps), self._next.title())
        else:
            self._busy = True
            self._next.start(lambda line: self.progressed(self._at / len(self._steps), line), self._done)

    def cancel(self):
        """Stop before the next step: Slicer cannot stop the one that runs."""
        self._stopped = True

    def _done(self, error=None):
        self._busy, self._next = False, None
        self._at += 1
        if error is not None and self.open:
            self._end(error)

    def _end(self, error):
        self.open = False
        self.finished() if error is None else self.failed(error)


class InstallPackages:
    """Requirements by pip, from the internet or from the folder of the settings."""

    def __init__(self, requirements):
        self._requirements, self._errors = requirements, []

    @staticmethod
    def blocks():
        """Whether Slicer does not respond meanwhile."""
        return not hasattr(_packaging(), "pip_install")

    def title(self):
        """What is being done, for people."""
        names = ", ".join(line.partition(">")[0] for line in self._requirements)
        text = _("Installing packages: {names}.").format(names=names)
        return text if not self.blocks() else f"{text} {waiting()}"

    def start(self, said, done):
        """said(line) for every line of pip; done(error or None) once, maybe before this returns."""
        try:
            constraints = Path(slicer.app.temporaryPath) / "RefSegConstraints.txt"
            arguments = packages.pipArguments(self._requirements, constraints, wheelhouse())
            if self.blocks():
                slicer.util.pip_install(arguments)
                done()
                return
            self._inBackground(arguments, said, done)
        except RefSegError as error:
            done(error)
        except Exception as error:  # of Slicer's installer, which raises what pip, the system or a dialog gives it
            done(self._failed(str(error)))

    def _inBackground(self, arguments, said, done):
        def line(text):
            if "ERROR:" in text:
                self._errors.append(text.partition("ERROR:")[2].strip())
            said(text)

        def completed(code):
            done(None if code == 0 else self._failed(_("pip ended with code {code}").format(code=code)))

        options = {"show_progress": False, "requester": "RefSeg", "logCallback": line, "completedCallback": completed}
        _packaging().pip_install(arguments, blocking=False, **options)
        if slicer.app.testingEnabled():  # then it was not in the background, and tells nobody
            done()

    def _failed(self, what):
        reason = self._errors[0] if self._errors else what
        advice = _("Is this computer connected to the internet? If not, choose a folder with the packages.")
        text = _("The packages could not be installed: {reason}. {advice}")
        return RefSegError(text.format(reason=reason.rstrip("."), advice=advice))


class InstallTorch:
    """PyTorch, by the PyTorch extension, which knows what this computer's graphics card needs."""

    @staticmethod
    def blocks():
        """Whether Slicer does not respond meanwhile."""
        return True

    @staticmethod
    def title():
        """What is being done, for people."""
        return f"{_('Installing PyTorch.')} {waiting()}"

    def start(self, said, done):
        """As InstallPackages.start."""
        if not packages.torchExtension():
            done(RefSegError(withoutExtension()))
            return
        try:
            with _pipFrom(wheelhouse()):
                import PyTorchUtils

                version = packages.TORCH
                torch = PyTorchUtils.PyTorchUtilsLogic().installTorch(
                    askConfirmation=False, torchVersionRequirement=version
                )
            importlib.invalidate_caches()
            failed = torch is None or packages.torchMissing()
            done(RefSegError(_("PyTorch was not installed. The Python console says why.")) if failed else None)
        except RefSegError as error:
            done(error)
        except Exception as error:  # of the extension, or of importing what it has installed
            done(RefSegError(_("PyTorch could not be installed: {reason}.").format(reason=str(error).rstrip("."))))


def wheelhouse() -> str:
    """The folder that packages come from on a computer without internet; empty if there is none.

    Raises BadInput if it is not there.
    """
    folder = settings.chosen(settings.WHEELHOUSE_KEY)
    if folder and not Path(folder).is_dir():
        text = _("The folder of packages '{folder}' is not there. Choose another one, or none.")
        raise BadInput(text.format(folder=folder))
    return folder


def waiting():
    """What has to be said before Slicer stands still."""
    return _("Slicer does not respond meanwhile; please wait.")


def withoutExtension():
    """How to get the PyTorch extension."""
    return _(
        "PyTorch comes by the extension PyTorch, which is not installed. Open View > Extensions Manager, search for "
        "PyTorch, install it, and restart Slicer."
    )


def _packaging():
    try:
        from slicer import packaging
    except ImportError:  # Slicer 5.10
        return None
    return packaging


@contextmanager
def _pipFrom(folder):
    """Every pip that is started inside takes packages from this folder alone; empty: from where it likes."""
    if not folder:
        yield
        return
    wanted = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": Path(folder).absolute().as_uri()}  # split at spaces
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
