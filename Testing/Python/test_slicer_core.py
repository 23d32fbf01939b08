"""Both Slicer layers without the application, as below other front ends: slicer-core alone, and no stand-in."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATHS = [str(ROOT / name) for name in ("RefSegSlicer", "InteractiveLearning")]
# Builds widgets of the application's settings.
NEEDS_QT = ["RefSegSlicerLib.settings_page"]
PROGRAM = f"""
import importlib, pkgutil, sys
sys.path[:0] = {PATHS!r}
import RefSegSlicerLib, InteractiveLearningSlicerLib
packages = RefSegSlicerLib, InteractiveLearningSlicerLib
names = [f"{{p.__name__}}.{{found.name}}" for p in packages for found in pkgutil.iter_modules(p.__path__)]
assert len(names) > 50 and set({NEEDS_QT!r}) < set(names)
for name in names:
    if name not in {NEEDS_QT!r}:
        importlib.import_module(name)
import slicer
assert not hasattr(slicer, "app") and not hasattr(slicer, "i18n") and not {{"qt", "ctk"}} & set(sys.modules)
"""


def run(code):
    """What a Python of its own prints once everything is imported."""
    command = [sys.executable, "-I", "-c", PROGRAM + code]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout.strip()


def test_every_file_is_imported_and_sentences_are_there_without_translation():
    said = run("""
from RefSegLib.errors import BadInput
from RefSegSlicerLib import mrml
scene = slicer.vtkMRMLScene()
try:
    mrml.volumeFromNode(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "head"))
except BadInput as error:
    print(error)
""")
    assert said == "The volume 'head' holds no voxels."
