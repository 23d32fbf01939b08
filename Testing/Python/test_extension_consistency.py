"""Module files, panels, CMake lists and metadata fit together, as an installed extension would show."""

import ast
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
MODULES = ("RefSegSlicer", "InteractiveLearning")
# Set by code, because their choices are only known at run time.
UNBOUND = {"RefSegSlicer": {"model", "regionKind"}, "InteractiveLearning": {"model"}}
FILE_SCOPE = {"slicer", "vtk", "qt", "ctk", "numpy", "SimpleITK", "scipy"}
OWN = ("RefSegLib", "InteractiveLearningLib", "RefSegSlicerLib", "InteractiveLearningSlicerLib")

each_module = pytest.mark.parametrize("module", MODULES)


@pytest.fixture(scope="module")
def a_staged_extension(tmp_path_factory):
    """The extension as Slicer would install it, by a stand-in for find_package(Slicer)."""
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    build, stage = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("stage")
    fake = ROOT / "Testing" / "cmake" / "FakeSlicer"
    run("cmake", "-S", ROOT, "-B", build, f"-DSlicer_DIR={fake}")
    run("cmake", "--install", build, "--prefix", stage)
    return stage / "qt-scripted-modules"


def run(*command):
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def panel(module):
    return ElementTree.parse(ROOT / module / "Resources" / "UI" / f"{module}.ui").getroot()


def update_lists():
    import importlib.util

    spec = importlib.util.spec_from_file_location("update_lists", ROOT / "Testing" / "cmake" / "update_lists.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@each_module
def test_cmake_lists_every_file_and_nothing_else(module):
    tool = update_lists()
    for name, listed in tool.listed(module).items():
        found = tool.files(module)[name]
        missing, extra = sorted(set(found) - set(listed)), sorted(set(listed) - set(found))
        assert not missing and not extra, (
            f"{module}/CMakeLists.txt, {name}: add {missing}, remove {extra} (python Testing/cmake/update_lists.py)"
        )


def test_the_extension_is_staged_whole_and_its_packages_import_from_there(a_staged_extension):
    names = [p.stem for p in a_staged_extension.glob("*.py")]
    assert sorted(names) == sorted(MODULES)
    code = f"""
import sys
stage = {str(a_staged_extension)!r}
sys.path.insert(0, stage)
import importlib, pkgutil
from pathlib import Path
for package in {("RefSegLib", "InteractiveLearningLib")!r}:
    found = importlib.import_module(package)
    assert found.__file__.startswith(stage), found.__file__
for name in ("RefSegLib.volume.io", "RefSegLib.models.store", "InteractiveLearningLib.service.local",
             "InteractiveLearningLib.session", "InteractiveLearningLib.replay"):
    assert importlib.import_module(name).__file__.startswith(stage)
from RefSegLib.resources import resource
assert str(resource("specs/hippocampus.json")).startswith(stage)
assert not {{"torch", "monai"}} & set(sys.modules)
"""
    run(sys.executable, "-I", "-c", code)


def test_both_modules_open_from_the_staged_extension(a_staged_extension):
    code = f"""
import os, sys
stage = {str(a_staged_extension)!r}
sys.path[:0] = [stage, {str(ROOT / "Testing")!r}]
from pathlib import Path
from slicer_standin import application
application.start()
for name in {MODULES!r}:
    widget = application.open_module(name, Path(stage))
    assert sys.modules[name].__file__.startswith(stage)
    widget.cleanup()
"""
    run(sys.executable, "-I", "-c", code)


@each_module
def test_module_files_import_nothing_that_slicer_lacks(module):
    """Slicer imports every module file at its start: file scope may need Slicer's own packages and ours, no others."""
    own = [*(ROOT / module).glob("*.py"), *(ROOT / module).glob(f"{module}*Lib/*.py")]
    own = [p for p in own if p.parent.name not in ("RefSegLib", "InteractiveLearningLib")]
    assert len(own) >= 4
    for path in own:
        for node in ast.parse(path.read_text()).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                top = name.partition(".")[0]
                assert top in FILE_SCOPE or top in OWN or top in sys.stdlib_module_names, f"{path.name}: {name}"


def test_importing_both_module_files_loads_no_third_party_package_and_does_nothing(tmp_path):
    """In a process of its own, with Slicer's stand-in: neither pydantic nor torch nor files, threads or processes."""
    code = f"""
import sys, threading
sys.path[:0] = [{str(ROOT / "Testing")!r}, *{[str(ROOT / m) for m in MODULES]!r}]
from slicer_standin import application
application.start()
import slicer, numpy, scipy, SimpleITK
before = {{name.partition(".")[0] for name in sys.modules}}
nodes, threads = slicer.mrmlScene.GetNumberOfNodes(), threading.active_count()
happened = []
sys.addaudithook(lambda event, args: happened.append(event) if event in ("subprocess.Popen", "socket.connect") else 0)
import RefSegSlicer, InteractiveLearning
added = {{name.partition(".")[0] for name in sys.modules}} - before - set(sys.stdlib_module_names)
assert added <= set({[*OWN, *MODULES]!r}), added
assert not happened and slicer.mrmlScene.GetNumberOfNodes() == nodes and threading.active_count() == threads
import os
assert not os.listdir()
"""
    result = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert result.returncode == 0, result.stderr


@each_module
def test_every_bound_control_is_a_parameter_and_every_parameter_is_bound(module):
    tree = ast.parse((ROOT / module / f"{module}.py").read_text())
    (kind,) = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == f"{module}ParameterNode")
    parameters = {n.target.id for n in kind.body if isinstance(n, ast.AnnAssign)}
    bound = [p.findtext("string") for p in panel(module).iter("property") if p.get("name") == "SlicerParameterName"]
    assert len(bound) == len(set(bound))
    assert set(bound) | UNBOUND[module] == parameters and not set(bound) & UNBOUND[module]


@each_module
def test_every_control_has_a_tooltip_and_every_selector_gets_the_scene(module):
    root = panel(module)
    silent = {"QLabel", "ctkCollapsibleButton", "qMRMLWidget"}
    for widget in root.iter("widget"):
        told = [p.findtext("string") for p in widget.findall("property") if p.get("name") == "toolTip"]
        labels_a_control = widget.get("class") in silent and not widget.get("name").startswith("status")
        assert labels_a_control or (told and told[0].endswith(".")), f"{module}: {widget.get('name')} has no tooltip"
    selectors = {w.get("name") for w in root.iter("widget") if w.get("class") == "qMRMLNodeComboBox"}
    wired = {c.findtext("receiver") for c in root.iter("connection") if c.findtext("sender") == root.findtext("class")}
    assert selectors == wired


@each_module
def test_every_control_that_the_code_names_is_in_the_panel(module):
    names = {w.get("name") for w in panel(module).iter("widget")}
    text = (ROOT / module / f"{module}.py").read_text()
    used = set(re.findall(r"self\.ui\.(\w+)", text)) | set(re.findall(r'"(\w+Button)": ', text))
    assert used <= names


def test_metadata_names_the_extension_the_same_everywhere():
    entry = json.loads((ROOT / "RefSeg.json").read_text())
    text = (ROOT / "CMakeLists.txt").read_text()
    assert re.search(r"^project\((\w+)\)$", text, re.M).group(1) == "RefSeg"
    values = dict(re.findall(r'^set\(EXTENSION_(\w+) "([^"$]*)"\)$', text, re.M))
    assert set(values) == {"HOMEPAGE", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS"}
    depends = [] if values["DEPENDS"] == "NA" else values["DEPENDS"].split()
    assert entry["build_dependencies"] == depends
    assert entry["scm_url"] == values["HOMEPAGE"] and entry["scm_url"].rsplit("/", 1)[1].startswith("Slicer")
    allowed = {"$schema", "category", "scm_url", "scm_revision", "scm_type", "build_dependencies", "build_subdirectory"}
    assert set(entry) <= allowed | {"dicom_support_rule", "enabled", "tier"}
    assert (ROOT / "LICENSE").is_file()


@each_module
def test_icons_are_128_pixels_square(module):
    content = (ROOT / module / "Resources" / "Icons" / f"{module}.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert [int.from_bytes(content[n : n + 4], "big") for n in (16, 20)] == [128, 128]


def test_what_the_modules_install_is_what_the_package_needs_minus_what_slicer_brings():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {Requirement(line).name: Requirement(line).specifier for line in project["dependencies"]}
    brought = {"numpy", "scipy", "SimpleITK", "requests"}
    only_commands = {"typer", "rich"}
    asked = {}
    for module in MODULES:
        file = ROOT / module / "Resources" / f"{module}Requirements.txt"
        lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
        asked[module] = {Requirement(line).name: Requirement(line).specifier for line in lines}
        assert asked[module].items() <= needed.items(), module
    assert asked["InteractiveLearning"].keys() == needed.keys() - brought - only_commands
    assert asked["RefSegSlicer"].keys() <= asked["InteractiveLearning"].keys()


def test_both_modules_resources_have_names_of_their_own():
    """Slicer installs the Resources of all modules into one folder."""
    names = [[p.relative_to(ROOT / m / "Resources") for p in (ROOT / m / "Resources").rglob("*.*")] for m in MODULES]
    assert not set(names[0]) & set(names[1])
