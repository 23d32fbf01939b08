"""Slicer's own files of segments (.seg.nrrd), written and read by a process of its own.

Slicer's reader and writer hold the interpreter as long as they are at work, even in a thread (measured on 256 cubed
voxels, one layer: written in 0.2 to 0.5 s, read in 0.1), and all views would stand still. Both ways go what
`snapshot.py` knows of segments.

    python -m BrowserWorkspaceLib.segmentation_file write|read FOLDER
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from RefSegLib.engine_process import python_environment, start_process
from RefSegLib.errors import BadInput, RefSegError
from RefSegSlicerLib.translation import tr as _

from BrowserWorkspaceLib.snapshot import Snapshot

_COMMAND = "BrowserWorkspaceLib.segmentation_file"
_FILE, _VALUES = "masks.seg.nrrd", "values.pickle"
MOST_SECONDS = 600


def write(taken: Snapshot) -> bytes:
    """The file of the segments that were taken. Any thread; takes seconds. Raises RefSegError."""
    with tempfile.TemporaryDirectory(prefix="refseg-") as name:
        folder = Path(name)
        with (folder / _VALUES).open("wb") as stream:
            pickle.dump((taken.about, taken.volume.shape, taken.layers, taken.header), stream, protocol=5)
        _run("write", folder)
        return (folder / _FILE).read_bytes()


def read(file: Path) -> Snapshot:
    """The segments of a file; of an image, the Snapshot knows nothing. Any thread; takes seconds.

    Raises BadInput if Slicer cannot read it.
    """
    with tempfile.TemporaryDirectory(prefix="refseg-") as name:
        folder = Path(name)
        (folder / _FILE).symlink_to(Path(file).resolve())
        try:
            _run("read", folder)
        except _Failed as error:  # or crashed: Slicer's reader does so for files that were cut short
            text = _("'{name}' could not be read as a mask: it is damaged, or no segmentation of Slicer.")
            raise BadInput(text.format(name=Path(file).name)) from error
        with (folder / _VALUES).open("rb") as stream:
            about, layers, header = pickle.load(stream)  # of a process of ours
        return Snapshot({"volume": None, "segmentation": about}, np.zeros((0, 0, 0)), layers, header)


class _Failed(RefSegError):
    """What the process said last."""


def _run(what: str, folder: Path) -> None:
    with (folder / "said").open("w+b") as said:
        process = start_process([sys.executable, "-m", _COMMAND, what, str(folder)], python_environment(), said)
        try:
            code = process.wait(MOST_SECONDS)
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.wait()
            raise RefSegError(_("The masks took too long. Is this computer busy with something else?")) from error
        if code:
            said.seek(0)
            last = said.read().decode(errors="replace").strip().rsplit("\n", 1)[-1]
            text = _("The masks could not be converted: {reason}. Nothing of them was lost.")
            raise _Failed(text.format(reason=last.rstrip(".") or code))


def _main() -> int:
    import slicer
    from trame_slicer.core import SlicerApp

    from BrowserWorkspaceLib import platform, snapshot

    what, folder = sys.argv[1], Path(sys.argv[2])
    app = SlicerApp()  # without it, scenes know no colors and segmentations no conversions
    platform.prepare(app.scene)
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(folder / _FILE))
    if what == "write":
        with (folder / _VALUES).open("rb") as stream:
            about, shape, layers, header = pickle.load(stream)  # of who started this
        (folder / "header.seg.nrrd").write_bytes(header)
        taken = Snapshot(about, np.zeros(shape, np.uint8), layers, header)
        _volume, node = snapshot.put_back(app.scene, taken, folder / "header.seg.nrrd")
        return 0 if storage.WriteData(node) else 1
    node = app.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    if not storage.ReadData(node):
        return 1
    about, layers = snapshot.take_segmentation(node)
    with (folder / _VALUES).open("wb") as stream:
        pickle.dump((about, layers, snapshot.header_of(node.GetSegmentation())), stream, protocol=5)
    return 0


if __name__ == "__main__":
    sys.exit(_main())
