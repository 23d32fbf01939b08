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

PICTURES = ROOT / "Resources" / "pictures"
SCREEN = (1280, 720)
PAGE = (1440, 900)
SAMPLE = "RefSegHead"  # in Sample Data

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


def panels(module):
    """The .ui files of a module."""
    files = sorted((ROOT / module / "Resources" / "UI").glob("*.ui"))
    assert files
    return {file.stem: ElementTree.parse(file).getroot() for file in files}


def widgets(module):
    """All widgets of a module's .ui files."""
    return [widget for root in panels(module).values() for widget in root.iter("widget")]


def slicer_layer(module):
    """The Python files of a module that know Slicer."""
    found = [*(ROOT / module).glob("*.py"), *(ROOT / module).glob(f"{module}SlicerLib/*.py")]
    found += [*(ROOT / module).glob(f"{module.removesuffix('Slicer')}SlicerLib/*.py")]
    return sorted(set(found))


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
    assert len(slicer_layer(module)) >= 10
    for path in slicer_layer(module):
        for node in ast.parse(path.read_text()).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                top = name.partition(".")[0]
                assert top in FILE_SCOPE or top in OWN or top in sys.stdlib_module_names, f"{path.name}: {name}"


# In a process of its own: nothing that has to be installed first can be imported, nor is it known to be installed.
BARE = """
import importlib.abc, importlib.metadata, sys, threading
sys.path[:0] = {paths!r}
from slicer_standin import application
application.start()
import packaging.requirements, packaging.specifiers, packaging.version, slicer, numpy, scipy, SimpleITK
raised = []
sys.excepthook = lambda kind, value, trace: raised.append(value)

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)

sys.meta_path.insert(0, Missing())
known = importlib.metadata.version

def version(name):
    if name.lower().replace("-", "_") in {missing!r}:
        raise importlib.metadata.PackageNotFoundError(name)
    return known(name)

importlib.metadata.version = version
"""
# By the names they are imported by.
TO_INSTALL = {
    *("pydantic", "pydantic_core", "httpx", "httpcore", "certifi", "keyring", "filelock", "psutil", "cryptography"),
    *("torch", "monai", "openvino", "fastapi", "starlette", "uvicorn", "anyio", "ray", "psycopg", "typer", "rich"),
    *("skimage", "itk", "zstandard", "nibabel", "pydicom"),
}


def bare(code, folder):
    """Run code in Slicer's stand-in before anything was installed. Returns what it printed."""
    paths = [str(ROOT / "Testing"), *(str(ROOT / module) for module in MODULES)]
    command = [sys.executable, "-I", "-c", BARE.format(paths=paths, missing=TO_INSTALL) + code]
    command[-1] += f"\nassert not {TO_INSTALL!r} & {{name.partition('.')[0] for name in sys.modules}}"
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_both_module_files_loads_no_third_party_package_and_does_nothing(tmp_path):
    code = f"""
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
    bare(code, tmp_path)


def test_both_panels_open_before_anything_is_installed_and_say_what_is_missing(tmp_path):
    code = f"""
import pathlib
for name, button in (("RefSegSlicer", "segmentButton"), ("InteractiveLearning", "startButton")):
    widget = application.open_module(name, pathlib.Path({str(ROOT)!r}) / name)
    slicer.app.processEvents()
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    slicer.mrmlScene.Clear(0)
    assert not getattr(widget.ui, button).enabled and getattr(widget.ui, button).toolTip
    widget.exit()
    widget.enter()
    print(getattr(widget.ui, button).toolTip)
    widget.cleanup()
    assert not raised, raised
import os
assert not os.listdir()
"""
    said = bare(code, tmp_path).splitlines()
    assert len(said) == 2 and all(len(sentence) > 10 for sentence in said)


@each_module
def test_every_bound_control_is_a_parameter_and_every_parameter_is_bound(module):
    tree = ast.parse((ROOT / module / f"{module}.py").read_text())
    (kind,) = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == f"{module}ParameterNode")
    parameters = {n.target.id for n in kind.body if isinstance(n, ast.AnnAssign)}
    properties = [p for root in panels(module).values() for p in root.iter("property")]
    bound = [p.findtext("string") for p in properties if p.get("name") == "SlicerParameterName"]
    assert len(bound) == len(set(bound))
    assert set(bound) | UNBOUND[module] == parameters and not set(bound) & UNBOUND[module]


@each_module
def test_every_selector_gets_the_scene(module):
    for name, root in panels(module).items():
        top = root.find("widget").get("name")
        kinds = {w.get("name"): w.get("class") for w in root.iter("widget")}
        selectors = {found for found, kind in kinds.items() if kind.startswith("qMRML") and found != top}
        wires = [[c.findtext(tag) for tag in ("sender", "signal", "receiver", "slot")] for c in root.iter("connection")]
        wired = [
            to for sender, signal, to, slot in wires if (sender, signal) == (top, "mrmlSceneChanged(vtkMRMLScene*)")
        ]
        assert selectors == set(wired) and len(wires) == len(selectors), name
        assert all(slot == "setMRMLScene(vtkMRMLScene*)" for *_, slot in wires)
        assert not selectors or kinds[top] == "qMRMLWidget", f"{name}: its root has no mrmlSceneChanged"


@each_module
def test_every_widget_of_another_library_is_declared(module):
    for name, root in panels(module).items():
        used = {w.get("class") for w in root.iter("widget") if not w.get("class").startswith("Q")}
        declared = [c.findtext("class") for c in root.iter("customwidget")]
        assert sorted(declared) == sorted(used), name


@each_module
def test_every_control_that_the_code_names_is_in_a_panel(module):
    names = {w.get("name") for other in MODULES for w in widgets(other)}
    for path in slicer_layer(module):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            of_ui = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute)
            if of_ui and getattr(node.value, "attr", getattr(node.value, "id", "")) in ("ui", "_ui"):
                assert node.attr in names, f"{path.name}:{node.lineno}: ui.{node.attr}"


@each_module
def test_no_control_is_there_for_nothing(module):
    """Each is named by the code or bound to a parameter; so are the labels whose words the code changes."""
    from both_panels import is_operated
    from slicer_standin import application

    application.start()
    code = "".join(path.read_text() for other in MODULES for path in slicer_layer(other))
    for widget in widgets(module):
        bound = any(p.get("name") == "SlicerParameterName" for p in widget.findall("property"))
        name = widget.get("name")
        used = bound or re.search(rf"\b{name}\b", code) or re.search(rf"\b{name.removesuffix('Button')}\b", code)
        assert used or not is_operated(widget.get("class")), f"{name} does nothing"


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
    assert entry["tier"] == 3 and entry["category"] == "Segmentation"
    assert (ROOT / "LICENSE").is_file()


def size_of(png):
    """Width and height of a PNG file; fails where it is none."""
    content = png.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n", f"{png} is no PNG"
    return tuple(int.from_bytes(content[n : n + 4], "big") for n in (16, 20))


def test_the_index_finds_icon_and_screenshots_in_the_repository():
    entry = json.loads((ROOT / "RefSeg.json").read_text())
    home = entry["scm_url"].replace("https://github.com/", "https://raw.githubusercontent.com/")
    text = (ROOT / "CMakeLists.txt").read_text()
    urls = {
        name: re.search(rf'^set\(EXTENSION_{name} "([^"$]*)"\)$', text, re.M).group(1).split()
        for name in ("ICONURL", "SCREENSHOTURLS")
    }
    assert len(urls["ICONURL"]) == 1 and len(urls["SCREENSHOTURLS"]) > 1
    for url in [url for found in urls.values() for url in found]:
        assert url.startswith(f"{home}/{entry['scm_revision']}/"), url
        path = ROOT / url.removeprefix(f"{home}/{entry['scm_revision']}/")
        assert size_of(path) == ((128, 128) if url in urls["ICONURL"] else SCREEN)


def test_the_tutorials_show_every_picture_and_no_other():
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    pictures = sorted(PICTURES.iterdir())
    assert {ROOT / path for path in shown} == set(pictures)
    assert all(size_of(picture) == (PAGE if picture.name.startswith("app-") else SCREEN) for picture in pictures)
    assert sum(picture.stat().st_size for picture in pictures) < 3e6


def test_pictures_for_the_web_are_not_installed(a_staged_extension):
    assert (a_staged_extension / "RefSegResources" / "templates").is_dir()
    assert not (a_staged_extension / "RefSegResources" / PICTURES.name).exists()


def test_the_tutorials_name_buttons_and_sections_that_are_in_the_panels():
    text = (ROOT / "README.md").read_text()
    tutorials = text[text.index("\n## Tutorials\n") : text.index("\n## In the browser")]
    files = [file for module in MODULES for file in (ROOT / module / "Resources" / "UI").glob("*.ui")]
    written = [p for f in files for p in ElementTree.parse(f).getroot().iter("property") if p.get("name") == "text"]
    said = {(p.findtext("string") or "").replace("&", "").rstrip(":") for p in written}
    named = set(re.findall(r"\*\*([^*]+)\*\*", tutorials)) - {SAMPLE}
    assert len(named) > 20 and named <= said, named - said


def test_the_browsers_tutorial_names_buttons_that_are_on_its_page():
    text = (ROOT / "README.md").read_text()
    tutorial = text[text.index("\n## In the browser") : text.index("\n## What ships\n")]
    # What it shares with the panels is in their packages.
    packages = ("BrowserWorkspace/BrowserWorkspaceLib", "InteractiveLearning/InteractiveLearningSlicerLib")
    page = "".join(file.read_text() for package in packages for file in (ROOT / package).glob("*.py"))
    named = set(re.findall(r"\*\*([^*]+)\*\*", tutorial))
    assert len(named) > 5 and not {name for name in named if f'_("{name}")' not in page}


@each_module
def test_icons_are_128_pixels_square(module):
    assert size_of(ROOT / module / "Resources" / "Icons" / f"{module}.png") == (128, 128)


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
