"""Where model versions live: immutable folders, and a pointer to the active one that moves in one step.

home/models/NAME/versions/N/model.json, model.json.sha256, segmenter.safetensors (or .torchscript),
                            synthesizer.safetensors
home/models/NAME/MODEL_CARD.md   if there is one: what people should know about the model
home/models/NAME/active      versions that have been active, one a line; the last one is
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from RefSegLib.durable import sync_folder, write_durably, written_whole
from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.models.manifest import Manifest
from RefSegLib.models.spec import SegmenterSpec
from RefSegLib.models.version import (
    DIGEST,
    MANIFEST,
    SCRIPT,
    SEGMENTER,
    SYNTHESIZER,
    ModelVersion,
    Weights,
    described,
    packed,
    read_archive,
    record,
    verified,
)
from RefSegLib.resources import resource

__all__ = ["ModelStore", "ModelVersion"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
CARD = "MODEL_CARD.md"
LARGEST_CARD = 1 << 18  # bytes
_ABOUT = ("created", "spec", "parent", "data", "settings", "scores", "reflection")


class ModelStore:
    """All models under one home folder (argument, else REFSEG_HOME, else ~/.refseg). Safe with many processes.

    Every method raises BadInput for a model or version that is not there, RefSegError for one that is damaged.
    """

    def __init__(self, home: Path | str | None = None) -> None:
        self.home = Path(home or os.environ.get("REFSEG_HOME") or Path.home() / ".refseg").expanduser()
        self.root = self.home / "models"

    def names(self) -> list[str]:
        """Models in the store and models that ship with the extension."""
        here = {p.name for p in self.root.iterdir() if self._numbers(p)} if self.root.is_dir() else set()
        return sorted(here | _shipped().keys())

    def versions(self, name: str) -> list[str]:
        """Versions of a model, oldest first."""
        return [str(n) for n in sorted(self._numbers(self._model(name)))]

    def active(self, name: str) -> str:
        """The version in use."""
        return self._history(name)[-1]

    def load(self, name: str, version: str | None = None) -> ModelVersion:
        """A version (the active one if none is named), after its hashes have been checked."""
        version = version or self.active(name)
        folder = self._version(name, version)
        return ModelVersion(folder, verified(folder, name, version))

    def manifest(self, name: str, version: str | None = None) -> Manifest:
        """What is written down about a version (the active one if none is named). Its weights are not read: `load`
        finds damage that leaves their size as it was."""
        version = version or self.active(name)
        return verified(self._version(name, version), name, version, whole=False)

    def card(self, name: str) -> str:
        """The model's card (Markdown): of the file MODEL_CARD.md in its folder, else what was shipped with it, else
        empty."""
        own, shipped = self._model(name) / CARD, _shipped().get(name)
        if not own.is_file() and shipped is not None:
            first = self._numbers(own.parent)[:1] and verified(own.parent / "versions" / "1", name, "1", whole=False)
            if first and first.files == verified(shipped, name, shipped.name, whole=False).files:
                own = shipped.parent / CARD
        try:
            with own.open("rb") as file:
                return file.read(LARGEST_CARD).decode(errors="replace")
        except OSError:
            return ""

    def verify(self, name: str, version: str) -> None:
        """Raise RefSegError unless every file of the version is what its manifest says."""
        verified(self._version(name, version), name, version)

    def add(
        self,
        spec: SegmenterSpec,
        segmenter: Weights | bytes,
        synthesizer: Weights | None = None,
        *,
        parent: str | None = None,
        data: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        scores: Mapping[str, Any] | None = None,
        reflection: Mapping[str, Any] | None = None,
    ) -> ModelVersion:
        """Write a new version of spec.name. It is not active until activate() is called.

        segmenter: its weights, or the content of a file of a segmenter: weights as safetensors, or a TorchScript file
        where spec.network is called torchscript.
        """
        content = segmenter if isinstance(segmenter, bytes) else packed(segmenter)
        files = {SCRIPT if spec.network.name == "torchscript" else SEGMENTER: content}
        if synthesizer is not None:
            files[SYNTHESIZER] = packed(synthesizer)
        about = {
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "spec": spec,
            "parent": parent,
            "data": dict(data or {}),
            "settings": dict(settings or {}),
            "scores": dict(scores or {}),
            "reflection": dict(reflection or {}),
        }
        if spec.name in _shipped():
            self._model(spec.name)  # version 1 is the shipped one
        return self._write(spec.name, files, about)

    def activate(self, name: str, version: str) -> None:
        """Make a version the one in use, in one step: readers see the old one or the new one."""
        self.verify(name, version)
        folder = self._model(name)
        with _locked(folder):
            history = self._read_history(folder)
            if not history or history[-1] != version:
                self._write_history(folder, [*history, version])

    def previous(self, name: str) -> str | None:
        """The version that rollback() would return to, None if there is none."""
        return next(iter(self._history(name)[-2:-1]), None)

    def rollback(self, name: str, *, only: str | None = None) -> str:
        """Return to the version that was in use before; returns its number.

        only: the version to leave; if another one is in use by now, nothing is done and that one is returned.
        """
        folder = self._model(name)
        with _locked(folder):
            history = self._read_history(folder)
            if only is not None and history and history[-1] != only:
                return history[-1]
            if len(history) < 2:
                used = f"has only ever used version {history[0]}" if history else "has no active version yet"
                raise BadInput(f"'{name}' {used}; there is nothing to go back to.")
            verified(folder / "versions" / history[-2], name, history[-2])
            self._write_history(folder, history[:-1])
            return history[-2]

    def export(self, name: str, version: str, file: Path) -> None:
        """Write a version to one file (its folder as an uncompressed zip archive; people name it NAME.refseg)."""
        found = self.load(name, version)
        with written_whole(file) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
            for part in (MANIFEST, DIGEST, *found.manifest.files):
                archive.write(found.folder / part, part)

    def import_(self, file: Path) -> ModelVersion:
        """Read a version from an exported file as the next version of its model; active only if the model is new.

        Raises BadInput for a file that is no intact export, see read_archive.
        """
        version = self.take(*read_archive(Path(file)))
        if self.versions(version.name) == [version.version]:
            self.activate(version.name, version.version)
        return version

    def take(self, manifest: Manifest, parts: dict[str, bytes]) -> ModelVersion:
        """Write a version that was made elsewhere, its files checked, as the next one of its model. Not active."""
        if manifest.name in _shipped():
            self._model(manifest.name)
        return self._write(manifest.name, parts, {key: getattr(manifest, key) for key in _ABOUT})

    # -- folders

    def _model(self, name: str) -> Path:
        """The folder of a model; a shipped model is copied in when it is first asked for."""
        _check_name(name)
        folder = self.root / name
        if self._read_history(folder):
            return folder
        shipped = _shipped().get(name)
        if shipped is not None:
            self._adopt(shipped, folder)
        elif not self._numbers(folder):
            known = ", ".join(self.names()) or "none"
            raise BadInput(f"There is no model '{name}' in {self.root}. Models there: {known}.")
        return folder

    def _adopt(self, shipped: Path, folder: Path) -> None:
        """Make a shipped model version 1 of an empty store, and active; also if another process is about to."""
        manifest = verified(shipped, folder.name, shipped.name).model_copy(update={"version": "1"})
        first = folder / "versions" / "1"
        if not first.exists():
            with _writing(folder) as partial:
                for part in manifest.files:
                    write_durably(partial / part, (shipped / part).read_bytes())
                for part, content in described(manifest).items():
                    write_durably(partial / part, content)
                _publish(partial, first)
        if verified(first, folder.name, "1").files != manifest.files:
            return  # somebody's own model of that name, which nobody has activated
        with _locked(folder):
            if not self._read_history(folder):
                self._write_history(folder, ["1"])

    def _version(self, name: str, version: str) -> Path:
        folder = self._model(name) / "versions" / version
        if not _NUMBER.fullmatch(version) or not folder.is_dir():
            known = ", ".join(self.versions(name)) or "none"
            raise BadInput(f"'{name}' has no version '{version}'. Versions: {known}.")
        return folder

    @staticmethod
    def _numbers(folder: Path) -> list[int]:
        versions = folder / "versions"
        found = versions.iterdir() if versions.is_dir() else ()
        return [int(p.name) for p in found if _NUMBER.fullmatch(p.name) and p.is_dir()]

    def _write(self, name: str, files: dict[str, bytes], about: dict[str, Any]) -> ModelVersion:
        folder = self.root / name
        records = {part: record(content) for part, content in files.items()}
        with _writing(folder) as partial:
            for part, content in files.items():
                write_durably(partial / part, content)
            while True:
                number = max(self._numbers(folder), default=0) + 1
                manifest = Manifest(name=name, version=str(number), files=records, **about)
                for part, content in described(manifest).items():
                    write_durably(partial / part, content)
                if _publish(partial, folder / "versions" / str(number)):
                    return ModelVersion(folder / "versions" / str(number), manifest)

    # -- which one is active

    def _history(self, name: str) -> list[str]:
        history = self._read_history(self._model(name))
        if not history:
            raise BadInput(f"No version of '{name}' is active yet. Activate one: refseg models activate {name}@N.")
        return history

    @staticmethod
    def _read_history(folder: Path) -> list[str]:
        file = folder / "active"
        return file.read_text(errors="replace").split() if file.exists() else []

    @staticmethod
    def _write_history(folder: Path, history: list[str]) -> None:
        """To be called by who holds the lock of the model."""
        for left in folder.glob("active.*.tmp"):  # of processes that were killed: the lock is ours
            left.unlink()
        write_durably(folder / "active", "\n".join(history).encode())


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise BadInput(f"'{name}' cannot be the name of a model; use letters, digits, '-', '_' and '.'.")


def _shipped() -> dict[str, Path]:
    """Models that come with the extension: name to the folder of the newest shipped version."""
    try:
        root = resource("models")
    except RefSegError:
        return {}
    found = {}
    for manifest in root.glob(f"*/*/{MANIFEST}"):
        name, number = manifest.parts[-3], manifest.parts[-2]
        if _NUMBER.fullmatch(number) and (name not in found or int(number) > int(found[name].name)):
            found[name] = manifest.parent
    return found


@contextmanager
def _writing(folder: Path) -> Iterator[Path]:
    """A folder to prepare a version in, invisible to readers, gone afterwards whatever happens.

    Its writer holds a lock beside it. The system drops the lock when the process dies, so whoever writes next knows
    what to clear away: also across containers, where numbers of processes say nothing.
    """
    versions = folder / "versions"
    partial = versions / f".tmp-{uuid.uuid4().hex}"
    held = FileLock(f"{partial}.lock")
    try:
        versions.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            _clear_abandoned(versions)
            held.acquire()
            partial.mkdir()
        yield partial
    except OSError as error:
        raise RefSegError(
            f"The model could not be written to {folder}: {error.strerror}. Free some room, or choose another --store; "
            "nothing was changed."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        held.release()
        Path(held.lock_file).unlink(missing_ok=True)


def _clear_abandoned(versions: Path) -> None:
    """Remove what killed writers left. To be called by who holds the lock of the model."""
    for file in versions.glob(".tmp-*.lock"):
        lock = FileLock(file)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue  # its writer is alive
        shutil.rmtree(file.with_suffix(""), ignore_errors=True)
        lock.release()
        file.unlink(missing_ok=True)


def _publish(partial: Path, target: Path) -> bool:
    """Give a finished folder its final name; False if another process took that name first."""
    sync_folder(partial)
    try:
        partial.rename(target)
    except OSError:
        if target.exists():
            return False
        raise
    sync_folder(target.parent)
    return True


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time in here; the system lets go of the lock when a process dies. Not to be nested."""
    try:
        with FileLock(folder / ".lock"):
            yield
    except OSError as error:
        raise RefSegError(f"{folder} cannot be changed: {error.strerror}; nothing was changed.") from error
