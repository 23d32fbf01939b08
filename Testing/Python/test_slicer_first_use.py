"""First use: what is missing is explained, installed after one question, or found elsewhere. Real pip, real processes.

Slicer's own Python is a virtual environment of each test; what is installed is a tiny package made here.
"""

import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path

import pytest
import shiboken6
import slicer
from slicer_standin.fixtures import an_empty_scene, no_swallowed_exceptions  # noqa: F401

# Slicer's own layer has to be there before what imports it.

# isort: split

from InteractiveLearningLib.engine_check import check_engine
from packaging.requirements import Requirement
from RefSegLib.errors import BadInput, Cancelled, RefSegError
from RefSegLib.progress import Progress
from RefSegSlicerLib import first_use, installing, loading, packages, settings
from RefSegSlicerLib.first_use import FirstUse

ROOT = Path(__file__).parents[2]
PACKAGE = "refseg-tiny-test"
pytestmark = pytest.mark.usefixtures("an_empty_scene", "no_swallowed_exceptions")


@pytest.fixture(autouse=True)
def no_settings(tmp_path, monkeypatch):
    """Nothing is chosen before, nothing after."""
    monkeypatch.setattr(slicer.app, "temporaryPath", str(tmp_path / "temporary"))
    slicer.app.settings().clear()
    yield slicer.app.settings()
    slicer.app.settings().clear()


@pytest.fixture(scope="module")
def a_wheelhouse(tmp_path_factory):
    """A folder with a wheel of a tiny package; there is a space in its name, as people have it."""
    folder = tmp_path_factory.mktemp("wheel house")
    name = f"{PACKAGE.replace('-', '_')}-1.0"
    with zipfile.ZipFile(folder / f"{name}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("refseg_tiny_test.py", "")
        wheel.writestr(f"{name}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n")
        wheel.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{name}.dist-info/RECORD", "")
    return folder


@pytest.fixture(scope="module")
def an_environment(tmp_path_factory):
    """A virtual environment with pip."""
    folder = tmp_path_factory.mktemp("slicer")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return folder


@pytest.fixture
def slicers_python(an_environment, tmp_path, monkeypatch):
    """PythonSlicer is on the PATH, and this process sees what it installs, as in Slicer. Nothing is left of it."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    script = bin_folder / "PythonSlicer"
    script.write_text(f'#!/bin/sh\nexec "{an_environment}/bin/python" "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_folder}{os.pathsep}{os.environ['PATH']}")
    site = sysconfig.get_path("purelib", vars={"base": str(an_environment), "platbase": str(an_environment)})
    monkeypatch.syspath_prepend(site)
    yield an_environment
    subprocess.run([script, "-m", "pip", "uninstall", "-q", "-y", PACKAGE], check=True, capture_output=True)
    importlib.invalidate_caches()


@pytest.fixture
def requirements(tmp_path):
    """What a module asks for, and the running Python lacks."""
    file = tmp_path / "ModuleRequirements.txt"
    file.write_text(f"# of the module\nnumpy>=1.0\n{PACKAGE}>=1.0\n")
    return file


@pytest.fixture
def an_engine_that_lacks_it(requirements, monkeypatch):
    """The engine's requirements are those of the module."""
    monkeypatch.setattr(packages, "ENGINE_FILE", requirements)


class Panel:
    """The section in a panel of its own, with a person in front of it who answers `answer`."""

    def __init__(self, requirementsFile, answer=True):
        self.parent = slicer.util.loadUI(str(first_use.UI_FILE))
        self.ui = slicer.util.childWidgetVariables(self.parent)
        self.said, self.asked, self.answer, self.changes = [], [], answer, []
        self.section = FirstUse(self.ui, requirementsFile, self.guarded, self.said.append, self.confirm)
        self.section.changed.connect(lambda: self.changes.append(settings.snapshot()))

    def confirm(self, question):
        self.asked.append(question)
        return self.answer

    def guarded(self, work):
        try:
            return work()
        except RefSegError as error:
            self.said.append(str(error))

    def until_done(self, seconds=120):
        end = time.monotonic() + seconds
        while self.section.busy and time.monotonic() < end:
            slicer.app.processEvents()
            self.section.poll()
            time.sleep(0.01)
        assert not self.section.busy


@pytest.fixture
def open_panel():
    """Opens sections; they are closed in the end."""
    opened = []

    def make(*arguments, **options):
        opened.append(Panel(*arguments, **options))
        return opened[-1]

    yield make
    for panel in opened:
        panel.section.close()
        shiboken6.delete(panel.parent)


@pytest.fixture
def not_testing(monkeypatch):
    """As in a Slicer that somebody uses: in testing mode nothing runs in the background. All is loaded by now."""
    loading.begin()
    monkeypatch.setattr(slicer.app, "testingEnabled", lambda: False)


def picture(panel, name):
    """What the section looks like now, as a file for people."""
    folder = Path(os.environ.get("REFSEG_SCREENSHOTS", ROOT / "out" / "screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    panel.parent.show()
    slicer.app.processEvents()
    panel.parent.resize(420, panel.parent.layout().totalHeightForWidth(420))
    slicer.app.processEvents()
    assert panel.parent.grab().save(str(folder / f"{name}.png"))
    panel.parent.hide()


# What is missing


def test_missing_packages_are_found_without_importing_them(tmp_path):
    file = tmp_path / "requirements.txt"
    file.write_text("# comment\nnumpy>=1.0\nno-such-package-at-all>=3\nnumpy>=999\n")
    assert packages.missingPackages(file) == ["no-such-package-at-all>=3", "numpy>=999"]
    assert packages.inUse(["numpy>=999", "no-such-package-at-all>=3", "pip>=999"]) == ["numpy"]


def test_a_slicer_that_has_everything_shows_no_first_use(open_panel, tmp_path):
    file = tmp_path / "requirements.txt"
    file.write_text("numpy>=1.0\n")
    panel = open_panel(file)
    assert not panel.section.needed() and not panel.ui.firstUse.visible
    panel.parent.show()
    assert not panel.ui.firstUse.visible


def test_what_the_engine_installs_is_what_the_package_needs_minus_torch_and_what_slicer_brings():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = {*project["dependencies"], *extras["engine"], *extras["service"]}
    wanted = {str(Requirement(line)) for line in needed if Requirement(line).name not in packages.KEPT}
    lines = [line for line in packages.ENGINE_FILE.read_text().splitlines() if not line.startswith("#")]
    assert {str(Requirement(line)) for line in lines} == wanted and len(lines) == len(set(lines))
    assert f"torch{packages.TORCH}" in extras["engine"]
    assert not any(re.match(r"torch\b", line) for file in ROOT.glob("*/Resources/*.txt") for line in file.open())


def test_what_takes_long_to_load_is_loaded_in_the_background_and_told(open_panel, tmp_path, monkeypatch, not_testing):
    name, go = "refseg_slow_to_load", tmp_path / "go"
    (tmp_path / f"{name}.py").write_text(
        f"import os, time\nwhile not os.path.exists({str(go)!r}):\n    time.sleep(0.01)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(loading, "MODULES", ("refseg_not_there", name))
    file = tmp_path / "requirements.txt"
    file.write_text("numpy>=1.0\n")
    panel = open_panel(file)
    assert panel.section.needed() and panel.section.reason() == "RefSeg is being loaded."
    assert not panel.ui.firstUse.visible and not panel.section.busy
    panel.section.poll()
    assert not panel.changes
    go.touch()
    end = time.monotonic() + 60
    while not panel.changes and time.monotonic() < end:
        panel.section.poll()
        time.sleep(0.01)
    assert len(panel.changes) == 1 and name in sys.modules and not panel.section.needed()
    panel.section.poll()
    assert len(panel.changes) == 1


# (a) into Slicer


def test_what_is_missing_is_explained_and_installed_after_one_question(
    open_panel, slicers_python, a_wheelhouse, requirements, an_engine_that_lacks_it, not_testing
):
    panel = open_panel(requirements)
    ui = panel.ui
    assert panel.section.needed() and not ui.firstUse.isHidden() and ui.hereButton.checked
    assert f"Missing in Slicer: {PACKAGE}." in ui.introLabel.text and PACKAGE in ui.hereLabel.text
    assert ui.setUpButton.enabled and not ui.stopButton.enabled and not panel.asked
    picture(panel, "first-use-1-install")
    ui.wheelhouseEdit.currentPath = str(a_wheelhouse)
    ui.setUpButton.click()
    assert panel.section.busy and not ui.setUpButton.enabled and ui.stopButton.enabled and not ui.hereButton.enabled
    panel.section.poll()
    assert ui.setUpLabel.text == f"Installing packages: {PACKAGE}."
    picture(panel, "first-use-2-installing")
    panel.until_done()
    assert len(panel.asked) == 1 and str(a_wheelhouse) in panel.asked[0] and PACKAGE in panel.asked[0]
    assert importlib.metadata.version(PACKAGE) == "1.0"
    assert not panel.section.needed() and ui.firstUse.isHidden() and panel.said == ["The engine is installed."]
    assert len(panel.changes) == 1 and settings.python() and not settings.atSite()
    assert settings.chosen(settings.WHEELHOUSE_KEY) == str(a_wheelhouse)


def test_who_says_no_gets_nothing_installed(open_panel, slicers_python, requirements, an_engine_that_lacks_it):
    panel = open_panel(requirements, answer=False)
    panel.ui.setUpButton.click()
    assert len(panel.asked) == 1 and not panel.section.busy and panel.ui.setUpLabel.text == "Nothing was installed."
    assert packages.missingPackages(requirements) and panel.section.needed() and not panel.changes


def test_without_an_installer_in_the_background_slicer_says_that_it_will_not_respond(
    open_panel, slicers_python, a_wheelhouse, requirements, an_engine_that_lacks_it, monkeypatch
):
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    monkeypatch.delattr(slicer, "packaging")
    shown = []

    def pip_install(arguments):  # as in Slicer 5.10
        shown.append(panel.ui.setUpLabel.text)
        assert isinstance(arguments, list)
        command = ["PythonSlicer", "-m", "pip", "install", *arguments]
        panel.section.poll()  # Slicer lets timers run meanwhile
        subprocess.run(command, check=True, capture_output=True)

    monkeypatch.setattr(slicer.util, "pip_install", pip_install)
    panel = open_panel(requirements)
    panel.ui.wheelhouseEdit.currentPath = str(a_wheelhouse)
    panel.ui.setUpButton.click()
    panel.until_done()
    assert "does not respond" in panel.asked[0]
    assert shown == [f"Installing packages: {PACKAGE}. Slicer does not respond meanwhile; please wait."]
    assert not panel.section.needed() and panel.said == ["The engine is installed."]


def test_in_testing_mode_slicer_waits_and_calls_nobody_back(
    open_panel, slicers_python, a_wheelhouse, requirements, an_engine_that_lacks_it
):
    panel = open_panel(requirements)
    panel.ui.wheelhouseEdit.currentPath = str(a_wheelhouse)
    panel.ui.setUpButton.click()
    panel.until_done()
    assert not panel.section.needed()


def test_a_package_that_cannot_be_had_is_told_with_what_pip_said(
    open_panel, slicers_python, tmp_path, requirements, an_engine_that_lacks_it, not_testing
):
    empty = tmp_path / "empty"
    empty.mkdir()
    panel = open_panel(requirements)
    panel.ui.wheelhouseEdit.currentPath = str(empty)
    panel.ui.setUpButton.click()
    panel.until_done()
    said = panel.ui.setUpLabel.text
    assert f"Could not find a version that satisfies the requirement {PACKAGE}>=1.0" in said and "internet?" in said
    assert panel.section.needed() and not panel.ui.firstUse.isHidden() and panel.ui.setUpButton.enabled
    picture(panel, "first-use-3-failed")


def test_a_folder_of_packages_that_is_gone_is_told(open_panel, requirements, tmp_path):
    panel = open_panel(requirements)
    panel.ui.wheelhouseEdit.currentPath = str(tmp_path / "gone")
    panel.ui.setUpButton.click()
    assert "is not there" in panel.ui.setUpLabel.text and not panel.asked and not panel.section.busy


def test_stop_ends_before_the_next_step(
    open_panel, slicers_python, a_wheelhouse, requirements, an_engine_that_lacks_it, not_testing, monkeypatch
):
    panel = open_panel(requirements)
    begun = []
    monkeypatch.setattr(installing.InstallPackages, "start", lambda *_: begun.append(1))
    panel.ui.setUpButton.click()
    panel.ui.stopButton.click()
    panel.until_done()
    assert not begun and "Stopped" in panel.ui.setUpLabel.text and panel.section.needed()


def test_a_panel_that_is_closed_meanwhile_is_told_nothing_more(
    open_panel, slicers_python, a_wheelhouse, requirements, an_engine_that_lacks_it, not_testing
):
    panel = open_panel(requirements)
    panel.ui.wheelhouseEdit.currentPath = str(a_wheelhouse)
    panel.ui.setUpButton.click()
    panel.section.poll()
    panel.section.poll()
    assert slicer.packaging._running
    shown = panel.ui.setUpLabel.text
    panel.section.close()
    end = time.monotonic() + 60
    while slicer.packaging._running and time.monotonic() < end:
        slicer.app.processEvents()
        time.sleep(0.01)
    assert importlib.metadata.version(PACKAGE) == "1.0"
    assert panel.ui.setUpLabel.text == shown and not panel.changes and not panel.section.busy


def test_what_is_slicers_own_is_kept_as_it_is(tmp_path):
    file = tmp_path / "folder" / "constraints.txt"
    arguments = packages.pipArguments(["no-such-package-at-all>=3"], file)
    assert f"numpy=={importlib.metadata.version('numpy')}" in file.read_text().splitlines()
    assert arguments[-1] == "no-such-package-at-all>=3" and str(file) in arguments and "--no-index" not in arguments


# PyTorch comes by its extension alone


EXTENSION = """
import os
asked = []
class PyTorchUtilsLogic:
    def installTorch(self, askConfirmation=False, forceComputationBackend=None, torchVersionRequirement=None):
        asked.append((askConfirmation, torchVersionRequirement, os.environ.get("PIP_FIND_LINKS")))
        return {answer}
"""


@pytest.fixture
def no_torch(monkeypatch):
    """Slicer's Python without PyTorch until it is installed; returns a list that says when it is there."""
    there = []
    monkeypatch.setattr(packages, "torchMissing", lambda: not there)
    return there


def the_extension(folder, monkeypatch, answer):
    monkeypatch.delitem(sys.modules, "PyTorchUtils", raising=False)
    (folder / "PyTorchUtils.py").write_text(EXTENSION.format(answer=answer))
    monkeypatch.syspath_prepend(folder)
    import PyTorchUtils

    return PyTorchUtils


def test_without_the_pytorch_extension_it_is_said_how_to_get_it(open_panel, requirements, no_torch):
    panel = open_panel(requirements)
    assert panel.section.needed() and not panel.ui.setUpButton.enabled
    assert "Extensions Manager" in panel.ui.setUpButton.toolTip == panel.ui.hereLabel.text
    picture(panel, "first-use-4-no-extension")
    panel.ui.thereButton.click()
    assert panel.ui.hereLabel.isHidden() and "Choose the Python" in panel.ui.setUpButton.toolTip


def test_pytorch_comes_first_and_by_its_extension_and_what_is_left_by_pip(
    open_panel, slicers_python, a_wheelhouse, requirements, an_engine_that_lacks_it, no_torch, tmp_path, monkeypatch
):
    extension = the_extension(tmp_path, monkeypatch, "__import__('sys')")
    monkeypatch.setattr(extension, "asked", no_torch)
    before = dict(os.environ)
    panel = open_panel(requirements)
    assert "torch, " in panel.ui.hereLabel.text
    panel.ui.wheelhouseEdit.currentPath = str(a_wheelhouse)
    panel.ui.setUpButton.click()
    assert "does not respond for some of them" in panel.asked[0]
    panel.until_done()
    assert no_torch == [(False, packages.TORCH, a_wheelhouse.absolute().as_uri())]
    assert importlib.metadata.version(PACKAGE) == "1.0" and not panel.section.needed()
    assert dict(os.environ) == before


@pytest.mark.parametrize("answer", ["None", "1 / 0"])
def test_a_pytorch_that_was_not_installed_is_told_and_nothing_follows(
    open_panel, requirements, an_engine_that_lacks_it, no_torch, tmp_path, monkeypatch, answer
):
    the_extension(tmp_path, monkeypatch, answer)
    panel = open_panel(requirements)
    panel.ui.setUpButton.click()
    panel.until_done()
    assert "PyTorch" in panel.ui.setUpLabel.text and panel.section.needed()
    assert packages.missingPackages(requirements)


# (b) another Python


@pytest.fixture
def nothing_but_the_client(requirements, an_engine_that_lacks_it, tmp_path):
    """Slicer's Python lacks the engine, and has what the module itself needs."""
    file = tmp_path / "ClientRequirements.txt"
    file.write_text("numpy>=1.0\n")
    return file


def test_pythons_that_cannot_are_told_apart(an_environment, tmp_path):
    def a_program(text):
        file = tmp_path / "program"
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
        return str(file)

    with pytest.raises(BadInput, match=r"lacks cryptography. Install the engine there"):
        check_engine(str(an_environment / "bin" / "python"), {"PATH": os.environ["PATH"]})
    with pytest.raises(RefSegError, match="could not be started"):
        check_engine("/no/python")
    with pytest.raises(BadInput, match="is no Python"):
        check_engine(a_program("echo hello"))
    with pytest.raises(BadInput, match=r"it is Python 3\.6, and RefSeg needs 3\.10"):
        check_engine(a_program("echo it is Python 3.6, and RefSeg needs 3.10 or newer; exit 2"))
    with pytest.raises(BadInput, match="did not answer in time"):
        check_engine(a_program("exec sleep 60"), timeout=0.2)
    with pytest.raises(Cancelled):
        check_engine(a_program("exec sleep 60"), progress=Progress(cancelled=iter([False, True]).__next__))


def test_another_python_is_tried_and_then_remembered(open_panel, nothing_but_the_client, tmp_path):
    panel = open_panel(nothing_but_the_client)
    panel.ui.thereButton.click()
    assert not panel.ui.setUpButton.enabled
    panel.ui.pythonEdit.currentPath = str(tmp_path / "gone")
    assert panel.ui.setUpButton.enabled
    panel.ui.setUpButton.click()
    assert "There is no program" in panel.ui.setUpLabel.text and not settings.chosen(settings.PYTHON_KEY)
    panel.ui.pythonEdit.currentPath = sys.executable
    panel.ui.setUpButton.click()
    assert panel.section.busy and panel.ui.stopButton.enabled
    panel.until_done()
    assert "{}.{}.{} runs the engine, with PyTorch".format(*sys.version_info[:3]) in panel.said[-1] and not panel.asked
    assert settings.python() == sys.executable and settings.environment() and not panel.section.needed()


def test_a_python_without_the_engine_is_refused_and_not_remembered(
    open_panel, nothing_but_the_client, an_environment, monkeypatch
):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    panel = open_panel(nothing_but_the_client)
    panel.ui.thereButton.click()
    picture(panel, "first-use-5-another-python")
    panel.ui.pythonEdit.currentPath = str(an_environment / "bin" / "python")
    panel.ui.setUpButton.click()
    panel.until_done()
    assert "lacks cryptography" in panel.ui.setUpLabel.text and not panel.asked
    assert not settings.chosen(settings.PYTHON_KEY)
    picture(panel, "first-use-6-python-without-engine")


def test_a_python_that_was_removed_is_asked_for_again(open_panel, requirements, tmp_path):
    requirements.write_text("numpy>=1.0\n")
    settings.choose(settings.PYTHON_KEY, tmp_path / "gone")
    panel = open_panel(requirements)
    assert panel.section.needed() and panel.ui.thereButton.checked
    assert panel.ui.pythonEdit.currentPath == str(tmp_path / "gone")


def test_settings_that_were_changed_elsewhere_are_shown_and_told(open_panel, requirements):
    requirements.write_text("numpy>=1.0\n")
    panel = open_panel(requirements)
    panel.section.poll()
    assert not panel.changes
    settings.choose(settings.WHERE_KEY, settings.SITE)
    panel.section.poll()
    panel.section.poll()
    assert len(panel.changes) == 1 and panel.ui.siteButton.checked
    assert panel.section.needed() and not panel.ui.setUpButton.enabled
    assert panel.ui.setUpButton.toolTip == "Enter the address of the server."
    picture(panel, "first-use-7-site")
