import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).parents[2]

# What a client (Slicer) imports; none of it may need torch, which clashes with other extensions' torch.
CLIENT = [
    "RefSegLib.volume.io",
    "RefSegLib.volume.resample",
    "RefSegLib.models.store",
    "InteractiveLearningLib.prompts",
    "InteractiveLearningLib.session",
    "InteractiveLearningLib.slices",
    "InteractiveLearningLib.propagation.propagate",
    "InteractiveLearningLib.guidance",
    "InteractiveLearningLib.replay",
    "InteractiveLearningLib.service.local",
    "InteractiveLearningLib.service.remote_session",
    "InteractiveLearningLib.cli",
]
FORBIDDEN = ["torch", "monai", "openvino", "slicer", "qt", "ctk", "PySide6"]


@pytest.mark.parametrize("module", CLIENT)
def test_the_client_part_imports_without_torch_slicer_or_qt(module):
    blocked = f"import sys; sys.modules.update(dict.fromkeys({FORBIDDEN!r})); import {module}"
    run = subprocess.run([sys.executable, "-c", blocked], check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_the_lower_floor_never_reaches_up_and_the_engine_never_reaches_for_the_screen():
    for folder, above in (
        ("RefSegSlicer/RefSegLib", ["InteractiveLearningLib", "slicer", "qt", "ctk", "PySide6"]),
        ("InteractiveLearning/InteractiveLearningLib", ["slicer", "qt", "ctk", "PySide6"]),
    ):
        files = list((ROOT / folder).rglob("*.py"))
        assert files
        for file in files:
            for line in file.read_text().splitlines():
                words = line.split()
                if words[:1] in (["import"], ["from"]):
                    assert words[1].split(".")[0] not in above, f"{file}: {line}"


def test_the_code_parses_on_the_oldest_python_it_is_for():
    import ast

    for folder in ("RefSegSlicer", "InteractiveLearning", "BrowserWorkspace"):
        for file in (ROOT / folder).rglob("*.py"):
            ast.parse(file.read_text(), str(file), feature_version=(3, 10))


def test_torch_comes_only_with_the_engine():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not any(line.startswith(("torch", "monai")) for line in project["dependencies"])
    assert any(line.startswith("torch") for line in project["optional-dependencies"]["engine"])


def test_every_package_and_every_shipped_file_goes_into_the_distribution():
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    listed = set(setup["packages"])
    for name, folder in setup["package-dir"].items():
        for init in (ROOT / folder).rglob("__init__.py"):
            assert ".".join((name, *init.relative_to(ROOT / folder).parts[:-1])) in listed
    shipped = {f for pattern in setup["package-data"]["RefSegResources"] for f in (ROOT / "Resources").glob(pattern)}
    left_out = {"__pycache__", "pictures"}  # pictures are for the README
    present = {f for f in (ROOT / "Resources").rglob("*") if f.suffix != ".py" and not left_out & set(f.parts)}
    assert present - shipped <= {f for f in present if f.is_dir()}
