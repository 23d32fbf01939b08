"""Gives slicer-core the application attributes that slicer.util and scripted modules expect."""

import ctypes
import importlib
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import slicer

HERE = Path(__file__).parent
LOGICS = ("Volumes", "Markups", "Segmentations")  # Terminologies would complain about files that slicer-core lacks
LAYER = ("i18n", "packaging", "ScriptedLoadableModule", "parameterNodeWrapper")


def start() -> None:
    """Make `slicer`, `qt` and `ctk` look as they do inside the application. Does its work once per process."""
    if hasattr(slicer, "app"):
        return
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    os.environ.setdefault("QT_LOGGING_RULES", "qt.qpa.*=false")
    scene = slicer.vtkMRMLScene()
    logic = slicer.vtkSlicerApplicationLogic()
    logic.SetMRMLScene(scene)
    logic.GetColorLogic().SetMRMLScene(scene)
    logic.GetColorLogic().AddDefaultColorNodes()
    logic.SetModuleLogic("Colors", logic.GetColorLogic())
    modules = {name.lower(): _module_with_logic(name, logic, scene) for name in LOGICS}
    _keep_none_alive()
    for name in ("qt", "ctk"):
        sys.modules[name] = importlib.import_module(f"slicer_standin.{name}")
    qt = sys.modules["qt"]
    application = qt.QApplication.instance() or qt.QApplication(["Slicer"])
    slicer.app = _application(application, logic, scene, qt)
    slicer.mrmlScene = scene
    slicer.modules = SimpleNamespace(**modules)
    for widgets in ("qmrml", "qmrml_segments"):
        importlib.import_module(f"slicer_standin.{widgets}").install()
    # slicer-core imports whatever lies in any folder called slicer on sys.path, so this one joins afterwards.
    slicer.__path__.append(str(HERE / "layer"))
    for name in LAYER:
        importlib.import_module(f"slicer.{name}")


def open_module(name: str, folder: Path):
    """Import <folder>/<name>.py, make its module object and its widget as the application does; returns the widget."""
    import qt

    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    module: ModuleType = importlib.import_module(name)
    path = str(Path(module.__file__))
    parent = qt.QWidget()
    parent.path = path
    getattr(module, name)(parent)
    setattr(slicer.modules, name.lower(), SimpleNamespace(path=path, name=name))
    host = slicer.qMRMLWidget()
    host.setLayout(qt.QVBoxLayout())
    host.setMRMLScene(slicer.mrmlScene)
    widget = getattr(module, f"{name}Widget")(host)
    widget.setup()
    if hasattr(widget, "enter"):
        widget.enter()
    widget.module_parent = parent  # Qt would delete it otherwise
    return widget


def _keep_none_alive() -> None:
    """Give None references to lose.

    PySide6 6.12 drops one reference to None with every call that returns nothing (measured on Python 3.11.7:
    QPushButton.setText, click, update). Some ten thousand calls later the interpreter aborts at its end, after all
    tests have passed. From Python 3.12 on None is immortal.
    """
    if sys.version_info < (3, 12):
        ctypes.c_ssize_t.from_address(id(None)).value += 1 << 40


def _module_with_logic(name: str, application_logic, scene) -> SimpleNamespace:
    names = (f"vtkSlicer{name}ModuleLogic", f"vtkSlicer{name}Logic")
    kind = next(k for k in (getattr(slicer, n, None) for n in names) if isinstance(k, type))
    logic = kind()
    logic.SetMRMLApplicationLogic(application_logic)
    logic.SetMRMLScene(scene)
    application_logic.SetModuleLogic(name, logic)
    return SimpleNamespace(name=name, logic=lambda: logic)


def _application(application, logic, scene, qt) -> SimpleNamespace:
    qt.QCoreApplication.setOrganizationName("RefSegTests")
    qt.QSettings.setDefaultFormat(qt.QSettings.IniFormat)
    folder = tempfile.TemporaryDirectory(prefix="refseg-slicer-")
    qt.QSettings.setPath(qt.QSettings.IniFormat, qt.QSettings.UserScope, folder.name)
    return SimpleNamespace(
        applicationName="Slicer",
        applicationLogic=lambda: logic,
        mrmlScene=lambda: scene,
        testingEnabled=lambda: True,
        processEvents=lambda *_: application.processEvents(),
        temporaryPath=str(Path(folder.name) / "temporary"),
        slicerUserSettingsFilePath=str(Path(folder.name) / "Slicer.ini"),
        topLevelWidgets=qt.QApplication.topLevelWidgets,
        layoutManager=lambda: None,
        moduleManager=lambda: SimpleNamespace(connect=lambda *_: True, disconnect=lambda *_: True),
        settings=qt.QSettings,
        userSettings=qt.QSettings,
        connect=lambda *_: True,
        startupEnvironment=qt.QProcessEnvironment.systemEnvironment,
        setOverrideCursor=application.setOverrideCursor,
        restoreOverrideCursor=application.restoreOverrideCursor,
        folder=folder,  # lives as long as the application
    )
