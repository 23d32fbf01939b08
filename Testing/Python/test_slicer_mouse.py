"""Every tool, used with a mouse in Slicer's own slice views."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OFF_SCREEN = {"VTK_DEFAULT_OPENGL_WINDOW": "vtkEGLRenderWindow"}
PATHS = os.pathsep.join(str(ROOT / name) for name in ("RefSegSlicer", "InteractiveLearning", "Testing"))


def run(*arguments):
    """A Python that draws off screen, in a process of its own: the views choose how to draw when they are loaded."""
    environment = os.environ | OFF_SCREEN | {"PYTHONPATH": PATHS}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_every_tool_works_with_a_mouse_in_slice_views():
    pytest.importorskip("trame_slicer")
    can = run("-c", "import vtk; window = vtk.vtkRenderWindow(); window.SetOffScreenRendering(1); window.Render()")
    if can.returncode:
        pytest.skip("nothing can be drawn off screen here: EGL is missing")
    folder = Path(os.environ.get("REFSEG_SCREENSHOTS", ROOT / "out" / "screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    done = run(str(ROOT / "Testing" / "mouse_session.py"), str(folder))
    assert done.returncode == 0, done.stderr[-3000:]
