"""The section of a panel that explains what is missing, and sets it up once the user has agreed.

The engine may run in Slicer's own Python, in another one of this computer, or on a server of the site.
"""

from pathlib import Path

import slicer
from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.jobs import Job, Signal

from RefSegSlicerLib import loading, packages, settings, signing
from RefSegSlicerLib.connection import checkedUrl
from RefSegSlicerLib.installing import Installation, InstallPackages, InstallTorch, wheelhouse, withoutExtension
from RefSegSlicerLib.translation import tr as _

UI_FILE = Path(__file__).parents[1] / "Resources" / "UI" / "RefSegFirstUse.ui"
HERE, THERE = "here", "there"


class FirstUse:
    """ui: widgets by name of UI_FILE; requirementsFile: what the module's own Python needs; guarded(work) and
    say(sentence): tell in the panel; confirm(question) -> bool: asks the user.

    changed(): what was missing is there, or somebody has changed the settings: open the service anew.
    """

    def __init__(self, ui, requirementsFile, guarded, say, confirm=None):
        self.ui, self.requirementsFile, self.guarded, self.say = ui, requirementsFile, guarded, say
        self.confirm = confirm or slicer.util.confirmOkCancelDisplay
        self.changed = Signal()
        self._running, self._seen = None, settings.snapshot()
        self._buttons = {HERE: ui.hereButton, THERE: ui.thereButton, settings.SITE: ui.siteButton}
        self._look()
        self._tell("")
        for button in self._buttons.values():
            button.connect("toggled(bool)", self.update)
        ui.setUpButton.connect("clicked(bool)", lambda *_: self.guarded(lambda: self._next(self.setUp)))
        ui.stopButton.connect("clicked(bool)", lambda *_: self._running.cancel())
        for edit in (ui.urlEdit, ui.tokenEdit):
            edit.connect("textChanged(QString)", self.update)
        ui.pythonEdit.connect("currentPathChanged(QString)", self.update)
        self._fromSettings()
        self.enter()

    def needed(self):
        """Whether the module cannot work yet, as of the last `enter`; `changed` tells when it can."""
        return bool(self.reason())

    def reason(self):
        """Why the module cannot work yet; empty if it can."""
        if self._incomplete():
            return _("RefSeg has to be set up first: see the section First use.")
        return "" if loading.done() else _("RefSeg is being loaded.")

    @property
    def busy(self):
        """Whether something is being set up."""
        return self._running is not None

    def enter(self):
        """Packages may have been installed since the last visit. Reads a few files; imports nothing."""
        self._look()
        self.ui.firstUse.visible = self.busy or self._incomplete()
        self.update()

    def exit(self):
        """What is being installed goes on."""

    def poll(self):
        """Go on with what is being set up; notice settings that were changed elsewhere."""
        if self._running is not None:
            self._running.poll()
        elif self._loading and loading.done():
            self._loading = False
            self.changed()
        elif settings.snapshot() != self._seen:
            self._seen = settings.snapshot()
            self._fromSettings()
            self.enter()
            self.changed()

    def close(self):
        """Begin no further step."""
        if self._running is not None:
            self._running.cancel()
            self._running = None

    def update(self, *_unused):
        """Enable what can succeed, and say why the rest cannot."""
        ui, way, busy = self.ui, self._way(), self.busy
        reason = self._reason(way)
        ui.therePanel.visible, ui.sitePanel.visible = way == THERE, way == settings.SITE
        ui.hereLabel.visible = way == HERE
        ui.hereLabel.text, ui.introLabel.text = self._aboutHere(), self._intro()
        ui.setUpButton.enabled = not reason
        ui.setUpButton.toolTip = reason or _("Tell what would be installed, and begin once you agree.")
        ui.stopButton.enabled = busy
        ui.stopButton.toolTip = (
            _("Stop before the next step. What is being installed just now is finished first.")
            if busy
            else _("Nothing is running.")
        )
        ui.setUpBar.visible = busy
        for widget in (*self._buttons.values(), ui.therePanel, ui.sitePanel, ui.wheelhouseEdit):
            widget.enabled = not busy

    def setUp(self):
        """Do what was chosen: try the Python, ask once, install, sign in, and remember it."""
        way = self._way()
        settings.choose(settings.WHEELHOUSE_KEY, self.ui.wheelhouseEdit.currentPath)
        self._seen = settings.snapshot()
        wheelhouse()
        if way == THERE:
            python = self.ui.pythonEdit.currentPath.strip()
            self._run(_tried(python), lambda versions: self._install(way, _told(versions)))
        else:
            self._install(way, "")

    def _install(self, way, said):
        self._look()
        missing = self._lacks[way]
        steps, inUse = _steps(missing), packages.inUse(missing)
        if not steps:
            self._installed(way, said, inUse)
        elif self.confirm(_question(missing, steps)):
            self._run(Installation(steps), lambda: self._installed(way, said, inUse))
        else:
            self._end(_("Nothing was installed."))

    def _installed(self, way, said, inUse):
        self._look()
        if self._lacks[way]:
            text = _("These packages are still missing: {names}.")
            raise RefSegError(text.format(names=_names(self._lacks[way])))
        if inUse:
            text = _("Restart Slicer: it still uses earlier versions of {names}.")
            said = f"{said} {text.format(names=', '.join(inUse))}".strip()
        if way == settings.SITE:
            url, certificate = checkedUrl(self.ui.urlEdit.text), self.ui.certificateEdit.currentPath.strip()
            job = signing.signIn(url, self.ui.tokenEdit.text.strip(), certificate or None)
            self.ui.tokenEdit.text = ""  # it is not shown again, nor kept in a widget
            self._run(job, lambda found: self._done(way, f"{found.sentence} {said}".strip(), url, certificate))
        else:
            self._done(way, said or _("The engine is installed."))

    def _done(self, way, said, url="", certificate=""):
        settings.choose(settings.WHERE_KEY, settings.SITE if way == settings.SITE else settings.LOCAL)
        if way == settings.SITE:
            settings.choose(settings.URL_KEY, url)
            settings.choose(settings.CERTIFICATE_KEY, certificate)
        else:
            python = self.ui.pythonEdit.currentPath.strip() if way == THERE else ""
            settings.choose(settings.PYTHON_KEY, python)
        self._seen = settings.snapshot()
        self._end(said)
        self.enter()
        self.changed()
        self.say(said)

    def _run(self, work, then):
        """Have a Job or an Installation polled; `then` gets its result."""
        self._running = work
        work.progressed.connect(self._progressed)
        work.failed.connect(self._failed)
        work.finished.connect(lambda *result: self._next(lambda: then(*result)))
        self.update()

    def _next(self, then):
        """Go on; an error for people is told beside what they have pressed."""
        self._running = None
        try:
            then()
        except RefSegError as error:
            self._failed(error)

    def _progressed(self, _fraction, message):
        if message and self.busy:  # what Slicer installs goes on when the panel is closed
            self._tell(message)

    def _failed(self, error):
        self._end(str(error))
        self.ui.firstUse.visible = True

    def _end(self, sentence):
        self._running = None
        self._tell(sentence)
        self.update()

    def _tell(self, sentence):
        self.ui.setUpLabel.text, self.ui.setUpLabel.visible = sentence, bool(sentence)

    def _way(self):
        return next(way for way, button in self._buttons.items() if button.checked)

    def _fromSettings(self):
        """Show what is chosen."""
        ui = self.ui
        self._buttons[_chosenWay()].checked = True
        ui.pythonEdit.currentPath = settings.chosen(settings.PYTHON_KEY)
        ui.urlEdit.text = settings.chosen(settings.URL_KEY)
        ui.certificateEdit.currentPath = settings.chosen(settings.CERTIFICATE_KEY)
        ui.wheelhouseEdit.currentPath = settings.chosen(settings.WHEELHOUSE_KEY)

    def _intro(self):
        missing = self._lacks[_chosenWay()]
        text = _("RefSeg computes by an engine, which has to be set up once.")
        parts = [text, *([_("Missing in Slicer: {names}.").format(names=_names(missing))] if missing else [])]
        return " ".join([*parts, _("Choose where it is to run:")])

    def _look(self):
        """What each way needs in Slicer's own Python and does not find; PyTorch first."""
        own = packages.missingPackages(self.requirementsFile)
        torch = [f"torch{packages.TORCH}"] if packages.torchMissing() else []
        here = [*torch, *packages.missingPackages(packages.ENGINE_FILE)]
        self._lacks = {HERE: here, THERE: own, settings.SITE: own}
        self._unaided = bool(torch) and not packages.torchExtension()
        if not own:
            loading.begin()
        self._loading = not own and not loading.done()

    def _incomplete(self):
        return bool(self._lacks[_chosenWay()] or self._unset())

    def _unset(self):
        """What of the settings is not usable, in words; empty if all is."""
        if settings.atSite():
            return "" if settings.chosen(settings.URL_KEY) else _("Enter the address of the server.")
        python = settings.chosen(settings.PYTHON_KEY)
        gone = _("The Python '{path}' is not there any more. Choose another one.").format(path=python)
        return gone if python and not Path(python).is_file() else ""

    def _reason(self, way):
        """Why Set up cannot be pressed; empty if it can."""
        ui = self.ui
        if self.busy:
            return _("It is being set up.")
        if way == HERE and self._unaided:
            return withoutExtension()
        if way == THERE and not ui.pythonEdit.currentPath.strip():
            return _("Choose the Python that has the engine.")
        if way == settings.SITE and not ui.urlEdit.text.strip():
            return _("Enter the address of the server.")
        return ""

    def _aboutHere(self):
        missing = self._lacks[HERE]
        if not missing:
            return _("Everything is installed.")
        if self._unaided:
            return withoutExtension()
        text = _("Installs {names}.").format(names=_names(missing))
        if not missing[0].startswith("torch>"):
            return text
        # Measured on Linux: 0.75 GB of PyTorch for the processor, 0.35 GB of others.
        return f"{text} {_('It takes about 1 GB of the disk, and several GB for a graphics card.')}"


def _chosenWay():
    if settings.atSite():
        return settings.SITE
    return THERE if settings.chosen(settings.PYTHON_KEY) else HERE


def _tried(python):
    def work(report, cancelled):
        from InteractiveLearningLib.engine_check import check_engine
        from RefSegLib.progress import Progress

        return check_engine(python, slicer.util.startupEnvironment(), Progress(report, cancelled))

    if not Path(python).is_file():
        raise BadInput(_("There is no program '{path}'. Choose the python of an environment.").format(path=python))
    return Job(work)


def _told(versions):
    text = _("Python {python} runs the engine, with PyTorch {torch}.")
    return text.format(python=versions.get("python", ""), torch=versions.get("torch", ""))


def _steps(missing):
    """PyTorch before what needs it: pip would otherwise bring another one along."""
    rest = [line for line in missing if not line.startswith("torch>")]
    return [*([InstallTorch()] if len(rest) < len(missing) else []), *([InstallPackages(rest)] if rest else [])]


def _question(missing, steps):
    """Everything that is about to happen, in one question."""
    source = wheelhouse() or _("the internet")
    text = _("RefSeg is about to install into Slicer, from {source}: {names}. This takes some minutes.")
    lines = [text.format(source=source, names=_names(missing))]
    if any(step.blocks() for step in steps):
        lines.append(_("Slicer does not respond for some of them."))
    return " ".join([*lines, _("Go on?")])


def _names(requirements):
    return ", ".join(line.partition(">")[0] for line in requirements)
