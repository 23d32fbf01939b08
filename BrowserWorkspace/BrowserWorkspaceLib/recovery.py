"""A workspace on disk, so that it outlives the page and the process.

folder/workspace.json      what there is, and where exactly; names the files beside it; replaced whole, last of all
folder/volume-ID.npz       the voxels of the image, written once
folder/segments-ID.npz     the voxels of the segments
folder/segments-ID.seg.nrrd   all else about them, as Slicer writes it, without voxels

Whatever is killed when, workspace.json and the files that it names belong together. What was said in sessions is in the
log of the service, and in tags of the segments.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import uuid
import zipfile
import zlib
from pathlib import Path

import numpy as np
from RefSegLib.durable import write_durably, written_whole
from RefSegLib.errors import RefSegError
from RefSegLib.jobs import Job, Signal
from RefSegSlicerLib.translation import tr as _

from BrowserWorkspaceLib import snapshot

SCHEMA = 1
EVERY_SECONDS = 2.0
# After a failure: a full disk does not get emptier within seconds.
AGAIN_SECONDS = 15.0
_STATE = "workspace.json"
_OWN = ("volume-*.npz", "segments-*", ".writing-*", f"{_STATE}.*.tmp")


class Recovery:
    """Saves a workspace a little after it has changed, and restores it. Event loop's thread only.

    app: what has `scene`, `volume_node`, `segmentation_node`, `changed` (a Signal), `chosen` (a dict for JSON) and
    `restored(volume node, segmentation node, chosen)`, such as WorkspaceApp. folder: no other process uses it.
    saved(); failed(RefSegError): told once, until it works again; nothing that was saved before is lost.
    """

    def __init__(self, app, folder) -> None:
        self.saved, self.failed = Signal(), Signal()
        self._app, self._folder = app, Path(folder)
        self._job: Job | None = None
        self._changed = self._broken = False
        self._due = 0.0
        self._volume: tuple[object, str] | None = None  # which voxels are in which file
        app.changed.connect(self._on_change)

    def poll(self) -> None:
        """To be called now and then: saves what has changed, at most every EVERY_SECONDS."""
        if self._job is not None:
            self._job.poll()
        if self._changed and self._job is None and time.monotonic() >= self._due:
            self.save()

    def save(self) -> None:
        """Begin to save. What is read of MRML is read now, the rest takes place in a thread; `poll` tells the news."""
        self._finish()
        self._changed = False
        if self._app.volume_node is None:
            return
        try:
            taken = snapshot.take(self._app.volume_node, self._app.segmentation_node)
        except RefSegError as error:
            self._on_failed(error)
            return
        chosen, key, known = self._app.chosen, _voxels_of(self._app.volume_node), self._volume
        file = known[1] if known is not None and known[0] == key else None
        self._job = Job(lambda _report, _stop: (key, _write(self._folder, taken, chosen, file)))
        self._job.finished.connect(self._on_saved)
        self._job.failed.connect(self._on_failed)

    def restore(self) -> bool:
        """Bring back what was saved last, through `app.restored`. False if there is nothing, or nothing readable: that
        is put aside, and told."""
        try:
            content = (self._folder / _STATE).read_bytes()
        except FileNotFoundError:
            return False
        except OSError as error:
            return self._put_aside(error)
        try:
            said = _unpacked(content)
            if said["schema"] != SCHEMA:
                raise RefSegError(_("It was saved by another version of RefSeg."))
            with np.load(self._folder / said["volume_file"]) as stored:
                volume = stored["voxels"]
            with np.load(self._folder / said["segments_file"]) as stored:
                layers = [stored[f"layer{number}"] for number in range(len(stored.files))]
            header = self._folder / said["header_file"]
            taken = snapshot.Snapshot(said["about"], volume, layers, header.read_bytes())
            if hashlib.sha256(taken.header).hexdigest() != said["header_sha256"]:
                raise RefSegError(_("It was damaged."))
            volume_node, segmentation_node = snapshot.put_back(self._app.scene, taken, header)
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            EOFError,
            zipfile.BadZipFile,
            zlib.error,
            RefSegError,
        ) as error:
            return self._put_aside(error)
        _tidy(self._folder, said)
        self._volume = _voxels_of(volume_node), said["volume_file"]
        self._app.restored(volume_node, segmentation_node, said["chosen"])
        return True

    def close(self) -> None:
        """Save what has changed since, and wait for it."""
        self._finish()
        if self._changed or self._broken:
            self.save()
            self._finish()

    def _finish(self) -> None:
        if self._job is not None:
            self._job.wait()

    def _on_change(self, *_args) -> None:
        self._changed = True

    def _on_saved(self, done) -> None:
        self._job, self._volume, self._broken = None, done, False
        self._due = time.monotonic() + EVERY_SECONDS
        self.saved()

    def _on_failed(self, error) -> None:
        self._job, self._changed = None, True
        self._due = time.monotonic() + AGAIN_SECONDS
        if not self._broken:
            self._broken = True
            self.failed(error)

    def _put_aside(self, error) -> bool:
        place = self._folder / f"unreadable-{uuid.uuid4().hex[:8]}"
        place.mkdir()
        for pattern in (_STATE, *_OWN):
            for file in self._folder.glob(pattern):
                file.rename(place / file.name)
        text = _("What was open last cannot be restored: {reason} It was put aside in {place}.")
        self.failed(RefSegError(text.format(reason=str(error).rstrip(".") + ".", place=place)))
        return False


def _write(folder: Path, taken: snapshot.Snapshot, chosen: dict, volume_file: str | None) -> str:
    """Write what was taken; returns the name of the volume's file. volume_file: where its voxels are already."""
    try:
        if volume_file is None:
            volume_file = f"volume-{uuid.uuid4().hex}.npz"
            with written_whole(folder / volume_file) as stream:
                np.savez(stream, voxels=taken.volume)
        segments_file = f"segments-{uuid.uuid4().hex}.npz"
        header_file = f"{segments_file.removesuffix('.npz')}.seg.nrrd"
        write_durably(folder / header_file, taken.header, mode=0o600)
        with written_whole(folder / segments_file) as stream:
            np.savez_compressed(stream, **{f"layer{number}": array for number, array in enumerate(taken.layers)})
        said = {
            "schema": SCHEMA,
            "volume_file": volume_file,
            "segments_file": segments_file,
            "header_file": header_file,
            "header_sha256": hashlib.sha256(taken.header).hexdigest(),
            "about": taken.about,
            "chosen": chosen,
        }
        write_durably(folder / _STATE, _packed(said), mode=0o600)
    except (OSError, RefSegError) as error:
        reason = error.__cause__ if isinstance(error.__cause__, OSError) else error
        text = _(
            "Your work could not be saved: {reason}. It is still here, and will be saved once that is over; "
            "download what you must not lose."
        )
        raise RefSegError(text.format(reason=getattr(reason, "strerror", None) or reason)) from error
    _tidy(folder, said)
    return volume_file


def _packed(said: dict) -> bytes:
    """With a checksum, as the files of voxels have one."""
    text = json.dumps(said, sort_keys=True)
    return json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest(), "state": said}).encode()


def _unpacked(content: bytes) -> dict:
    found = json.loads(content)
    text = json.dumps(found["state"], sort_keys=True)
    if hashlib.sha256(text.encode()).hexdigest() != found["sha256"]:
        raise RefSegError(_("It was damaged."))
    return found["state"]


def _tidy(folder: Path, said: dict) -> None:
    """Remove what workspace.json does not name: earlier states, and what was being written at a kill."""
    for pattern in _OWN:
        for file in folder.glob(pattern):
            if file.name in (said["volume_file"], said["segments_file"], said["header_file"]):
                continue
            if file.is_dir():
                shutil.rmtree(file, ignore_errors=True)
            else:
                file.unlink(missing_ok=True)


def _voxels_of(volume_node) -> tuple[str, int]:
    """Equal as long as the voxels of a volume are the same."""
    image = volume_node.GetImageData()
    return image.GetAddressAsString(""), image.GetMTime()
