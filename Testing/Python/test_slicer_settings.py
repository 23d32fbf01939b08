"""The page of RefSeg in the application's settings, and its images in Sample Data."""

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import shiboken6
import slicer
from slicer_standin.fixtures import an_empty_scene, no_swallowed_exceptions  # noqa: F401

# Slicer's own layer has to be there before what imports it.
# isort: split

import ctk
import qt
from RefSegLib.jobs import Signal
from RefSegSlicerLib import sample_data, settings, settings_page, startup

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("an_empty_scene", "no_swallowed_exceptions")
A_SERVER = "https://segment.example.org:8443"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    """Nothing is chosen before, nothing after; pages of other tests hear of nothing."""
    monkeypatch.setattr(settings, "changed", Signal())
    monkeypatch.setattr(settings_page, "_added", [])
    slicer.app.settings().clear()
    yield
    slicer.app.settings().clear()


@pytest.fixture
def a_dialog(monkeypatch, sample_data_module):
    """The settings of an application with a main window."""
    dialog = ctk.ctkSettingsDialog()
    monkeypatch.setattr(slicer.app, "settingsDialog", lambda: dialog, raising=False)
    monkeypatch.setattr(slicer.app, "commandOptions", lambda: SimpleNamespace(noMainWindow=False), raising=False)
    yield dialog
    shiboken6.delete(dialog)


@pytest.fixture
def sample_data_module(monkeypatch):
    """Sample Data: sources by category; one that is there already is not added again."""
    module = ModuleType("SampleData")
    module.sources = {}

    class SampleDataLogic:
        @staticmethod
        def registerCustomSampleDataSource(category="Custom", **source):
            known = {"sampleName", "uris", "fileNames", "nodeNames", "customDownloader", "thumbnailFileName"}
            assert source.keys() <= known | {"loadFileTypes", "loadFiles", "loadFileProperties", "checksums"}
            if source not in module.sources.setdefault(category, []):
                module.sources[category].append(source)

    module.SampleDataLogic = SampleDataLogic
    monkeypatch.setitem(sys.modules, "SampleData", module)
    return module


@pytest.fixture
def a_page(a_dialog):
    startup.register()
    return a_dialog._panels[0]


def field(page, label):
    """The control beside a label."""
    form = page.layout()
    for row in range(form.rowCount()):
        if form.itemAt(row, form.ItemRole.LabelRole).widget().text.replace("&", "") == label:
            return form.itemAt(row, form.ItemRole.FieldRole).widget()
    raise KeyError(label)


def test_the_page_shows_what_is_chosen_and_keeps_what_is_changed(a_dialog, tmp_path):
    settings.choose(settings.STORE_KEY, tmp_path)
    startup.register()
    (page,) = a_dialog._panels
    assert field(page, "Models and cases in:").currentPath == str(tmp_path)
    assert field(page, "Engine runs on:").currentText == "This computer" and not settings.atSite()
    field(page, "Engine runs on:").setCurrentIndex(1)
    field(page, "Address of the server:").text = A_SERVER
    field(page, "Certificate of the server:").currentPath = "/etc/site.pem"
    field(page, "Python of the engine:").currentPath = "/opt/engine/bin/python"
    field(page, "Packages from:").currentPath = str(tmp_path)
    assert settings.atSite() and settings.python() == "/opt/engine/bin/python" and settings.store() == str(tmp_path)
    expected = (settings.SITE, A_SERVER, "/etc/site.pem", "/opt/engine/bin/python", str(tmp_path), str(tmp_path))
    assert settings.snapshot() == expected
    folder = Path(os.environ.get("REFSEG_SCREENSHOTS", ROOT / "out" / "screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    page.resize(560, page.sizeHint().height())
    assert page.grab().save(str(folder / "settings.png"))


def test_a_python_that_was_chosen_starts_without_slicers_libraries(monkeypatch):
    assert settings.environment() is None and settings.python() and settings.store() is None
    before_slicer = qt.QProcessEnvironment()
    before_slicer.insert("PATH", "/usr/bin")
    monkeypatch.setattr(slicer.app, "startupEnvironment", lambda: before_slicer)
    settings.choose(settings.PYTHON_KEY, "/opt/engine/bin/python")
    assert settings.python() == "/opt/engine/bin/python" and settings.environment() == {"PATH": "/usr/bin"}


def test_every_control_of_the_page_says_what_it_is_and_can_be_reached_by_a_key(a_page):
    form = a_page.layout()
    assert form.rowCount() == len(settings.KEYS)
    for row in range(form.rowCount()):
        label, control = (
            form.itemAt(row, role).widget() for role in (form.ItemRole.LabelRole, form.ItemRole.FieldRole)
        )
        assert control.toolTip.endswith(".") and "&" in label.text and label.buddy() is control
    letters = [form.itemAt(row, form.ItemRole.LabelRole).widget().text.partition("&")[2][0] for row in range(6)]
    assert len({letter.lower() for letter in letters}) == 6


def test_cancel_takes_back_what_the_page_changed_and_nothing_else(a_dialog, a_page):
    settings.choose(settings.URL_KEY, A_SERVER)  # in a panel, before the dialog is opened
    settings.choose(settings.WHERE_KEY, settings.SITE)
    assert field(a_page, "Address of the server:").text == A_SERVER
    assert field(a_page, "Engine runs on:").currentUserDataAsString == settings.SITE
    field(a_page, "Python of the engine:").currentPath = "/opt/engine/bin/python"
    a_dialog.reject()
    assert settings.chosen(settings.URL_KEY) == A_SERVER and settings.atSite()
    assert settings.chosen(settings.PYTHON_KEY) == "" == field(a_page, "Python of the engine:").currentPath


def test_there_is_one_page_and_none_without_a_main_window(a_dialog, a_page, monkeypatch):
    startup.register()
    assert a_dialog._panels == [a_page] and a_page.windowTitle == "RefSeg"
    monkeypatch.setattr(slicer.app, "commandOptions", lambda: SimpleNamespace(noMainWindow=True))
    monkeypatch.setattr(settings_page, "_added", [])
    monkeypatch.delattr(slicer.app, "settingsDialog")
    startup.register()
    assert not settings_page._added


def test_the_module_registers_both_once_slicer_is_up_and_not_before(a_dialog, sample_data_module, monkeypatch):
    waiting = []
    monkeypatch.setattr(slicer.app, "connect", lambda signal, function: waiting.append((signal, function)))
    parent = qt.QWidget()
    parent.path = str(ROOT / "RefSegSlicer" / "RefSegSlicer.py")
    importlib.import_module("RefSegSlicer").RefSegSlicer(parent)
    assert not a_dialog._panels and not sample_data_module.sources
    ((signal, function),) = waiting
    assert signal == "startupCompleted()"
    function()
    assert [page.windowTitle for page in a_dialog._panels] == ["RefSeg"] and sample_data_module.sources["RefSeg"]


def test_sample_images_are_offered_once_with_a_picture_and_an_address_that_names_their_hash(sample_data_module):
    sample_data.register()
    sample_data.register()  # as after a reload
    (source,) = sample_data_module.sources["RefSeg"]
    algorithm, _, digest = source["checksums"].partition(":")
    assert algorithm == "SHA256" and len(bytes.fromhex(digest)) == 32
    assert source["uris"].startswith("https://github.com/Slicer/SlicerTestingData/") and source["uris"].endswith(digest)
    assert source["fileNames"].endswith(".nrrd") and Path(source["thumbnailFileName"]).is_file()


def test_a_slicer_without_sample_data_is_no_reason_to_fail(monkeypatch):
    monkeypatch.setitem(sys.modules, "SampleData", None)
    sample_data.register()
