"""Where model versions live: immutable folders, and a pointer to the active one that moves in one step.

home/models/NAME/versions/N/model.json, model.json.sha256, segmenter.safetensors, synthesizer.safetensors
home/models/NAME/active      versions that have been active, one a line; the last one is
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock
from safetensors.numpy import load_file, save

from RefSegLib.durable import sync_folder, write_durably
from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.models.manifest import FileRecord, Manifest
from RefSegLib.models.spec import SegmenterSpec
from RefSegLib.resources import resource

Weights = Mapping[str, npt.NDArray]

MANIFEST, DIGEST = "model.json", "model.json.sha256"
SEGMENTER, SYNTHESIZER = "segmenter.safetensors", "synthesizer.safetensors"
LARGEST_FILE = 4 << 30  # a package from elsewhere cannot fill the disk
ABANDONED = 3600.0  # seconds after which a half-written version without a living writer is cleared away
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class ModelVersion:
    """One verified version. manifest: what is written down about it; weights come as dicts of numpy arrays."""

    folder: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """The version's number, as a string."""
        return self.manifest.version

    @property
    def spec(self) -> SegmenterSpec:
        """What the model expects and gives."""
        return self.manifest.spec

    def segmenter(self) -> dict[str, npt.NDArray]:
        """Weights of the segmenter."""
        return load_file(self.folder / SEGMENTER)

    def synthesizer(self) -> dict[str, npt.NDArray] | None:
        """Weights of the synthesizer; None if the version has none."""
        return load_file(self.folder / SYNTHESIZER) if SYNTHESIZER in self.manifest.files else None


class ModelStore:
    """All models under one home folder (argument, else REFSEG_HOME, else ~/.refseg). Safe with many processes.

    Every method raises BadInput for a model or version that is not there, RefSegError for one that is damaged.
    """

    def __init__(self, home: Path | str | None = None) -> None:
        self.home = Path(home or os.environ.get("REFSEG_HOME") or Path.home() / ".refseg").expanduser()
        self.root = self.home / "models"

    def names(self) -> list[str]:
        """Models in the store and models that ship with the extension."""
        here = {p.name for p in self.root.iterdir() if (p / "versions").is_dir()} if self.root.is_dir() else set()
        return sorted(here | _shipped().keys())

    def versions(self, name: str) -> list[str]:
        """Versions of a model, oldest first."""
        return [str(n) for n in sorted(self._numbers(self._model(name)))]

    def active(self, name: str) -> str:
        """The version in use."""
        return self._history(name)[-1]

    def load(self, name: str, version: str | None = None) -> ModelVersion:
        """A version (the active one if none is named), after its hashes have been checked."""
        folder = self._version(name, version or self.active(name))
        return ModelVersion(folder, _verified(folder))

    def verify(self, name: str, version: str) -> None:
        """Raise RefSegError unless every file of the version is what its manifest says."""
        _verified(self._version(name, version))

    def add(
        self,
        spec: SegmenterSpec,
        segmenter: Weights,
        synthesizer: Weights | None = None,
        *,
        parent: str | None = None,
        data: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        scores: Mapping[str, Any] | None = None,
        reflection: Mapping[str, Any] | None = None,
    ) -> ModelVersion:
        """Write a new version of spec.name. It is not active until activate() is called."""
        files = {SEGMENTER: _packed(segmenter)}
        if synthesizer is not None:
            files[SYNTHESIZER] = _packed(synthesizer)
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

    def rollback(self, name: str) -> str:
        """Return to the version that was in use before; returns its number."""
        folder = self._model(name)
        with _locked(folder):
            history = self._read_history(folder)
            if len(history) < 2:
                raise BadInput(
                    f"'{name}' has only ever used version {self.active(name)}; there is nothing to go back to."
                )
            _verified(self._version(name, history[-2]))
            self._write_history(folder, history[:-1])
            return history[-2]

    def export(self, name: str, version: str, file: Path) -> None:
        """Write a version to one file (a zip archive of the version's folder)."""
        found = self.load(name, version)
        partial = file.with_name(f".{file.name}.partial")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
                for part in (MANIFEST, DIGEST, *found.manifest.files):
                    archive.write(found.folder / part, part)
            partial.replace(file)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise RefSegError(f"'{file}' could not be written: {error.strerror}.") from error

    def import_(self, file: Path) -> ModelVersion:
        """Read a version from an exported file as the next version of its model; active only if the model is new.

        Nothing in the file is trusted: only known names, bounded sizes, matching hashes and a valid description.
        """
        try:
            with zipfile.ZipFile(file) as archive:
                parts = _read_archive(archive, file)
        except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise BadInput(f"'{file}' is not an exported model, or it is damaged ({error}).") from error
        manifest = _parse(parts.pop(MANIFEST), file)
        _check_name(manifest.name)
        about = manifest.model_dump(exclude={"name", "version", "format", "files", "spec"}) | {"spec": manifest.spec}
        if manifest.name in _shipped():
            self._model(manifest.name)
        version = self._write(manifest.name, parts, about)
        if self.versions(version.name) == [version.version]:
            self.activate(version.name, version.version)
        return version

    # -- folders

    def _model(self, name: str) -> Path:
        """The folder of a model; a shipped model is copied in when it is first asked for."""
        _check_name(name)
        folder = self.root / name
        if not self._numbers(folder):
            shipped = _shipped().get(name)
            if shipped is None:
                known = ", ".join(self.names()) or "none"
                raise BadInput(f"There is no model '{name}' in {self.root}. Models there: {known}.")
            self._adopt(shipped, folder)
        return folder

    def _adopt(self, shipped: Path, folder: Path) -> None:
        _verified(shipped)
        with _writing(folder) as partial:
            for part in shipped.iterdir():
                write_durably(partial / part.name, part.read_bytes())
            _publish(partial, folder / "versions" / "1")
        with _locked(folder):
            if not self._read_history(folder):
                self._write_history(folder, ["1"])

    def _version(self, name: str, version: str) -> Path:
        folder = self._model(name) / "versions" / str(version)
        if not re.fullmatch(r"[1-9][0-9]{0,8}", str(version)) or not folder.is_dir():
            known = ", ".join(self.versions(name))
            raise BadInput(f"'{name}' has no version '{version}'. Versions: {known}.")
        return folder

    @staticmethod
    def _numbers(folder: Path) -> list[int]:
        versions = folder / "versions"
        return [int(p.name) for p in versions.iterdir() if p.name.isdigit()] if versions.is_dir() else []

    def _write(self, name: str, files: dict[str, bytes], about: dict[str, Any]) -> ModelVersion:
        folder = self.root / name
        records = {n: FileRecord(sha256=hashlib.sha256(c).hexdigest(), bytes=len(c)) for n, c in files.items()}
        with _writing(folder) as partial:
            for part, content in files.items():
                write_durably(partial / part, content)
            while True:
                number = max(self._numbers(folder), default=0) + 1
                manifest = Manifest(name=name, version=str(number), files=records, **about)
                text = manifest.model_dump_json(indent=1).encode()
                write_durably(partial / MANIFEST, text)
                write_durably(partial / DIGEST, hashlib.sha256(text).hexdigest().encode())
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
        return file.read_text().split() if file.exists() else []

    @staticmethod
    def _write_history(folder: Path, history: list[str]) -> None:
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
        if name not in found or int(number) > int(found[name].name):
            found[name] = manifest.parent
    return found


def _packed(weights: Weights) -> bytes:
    return save({name: np.ascontiguousarray(value) for name, value in weights.items()})


def _parse(text: bytes, where: Path) -> Manifest:
    try:
        return Manifest.model_validate_json(text)
    except ValueError as error:
        raise RefSegError(f"The description {MANIFEST} in {where} cannot be read: {error}") from error


def _verified(folder: Path) -> Manifest:
    """The manifest of a version whose every byte is accounted for."""
    remedy = f"Version {folder.name} in {folder.parent} is not used. Roll back, or import it again."
    try:
        text = (folder / MANIFEST).read_bytes()
        if hashlib.sha256(text).hexdigest() != (folder / DIGEST).read_text().strip():
            raise RefSegError(f"The file {MANIFEST} has been changed or damaged. {remedy}")
        manifest = _parse(text, folder)
        extra = {p.name for p in folder.iterdir()} - {MANIFEST, DIGEST, *manifest.files}
        if extra:
            raise RefSegError(f"There are files that do not belong to the model: {', '.join(sorted(extra))}. {remedy}")
        for name, record in manifest.files.items():
            if name not in (SEGMENTER, SYNTHESIZER):
                raise RefSegError(f"The model lists an unknown file '{name}'. {remedy}")
            content = (folder / name).read_bytes()
            if len(content) != record.bytes or hashlib.sha256(content).hexdigest() != record.sha256:
                raise RefSegError(f"The file {name} has been changed or damaged. {remedy}")
    except FileNotFoundError as error:
        raise RefSegError(f"The file {Path(error.filename).name} is missing. {remedy}") from error
    return manifest


def _read_archive(archive: zipfile.ZipFile, file: Path) -> dict[str, bytes]:
    entries = {info.filename: info for info in archive.infolist()}
    if not {MANIFEST, DIGEST, SEGMENTER} <= entries.keys() <= {MANIFEST, DIGEST, SEGMENTER, SYNTHESIZER}:
        raise BadInput(
            f"'{file}' does not hold what an exported model holds; it holds {', '.join(sorted(entries)) or 'nothing'}."
        )
    if sum(info.file_size for info in entries.values()) > LARGEST_FILE:
        raise BadInput(f"'{file}' would unpack to more than {LARGEST_FILE >> 30} GB; that is no model of ours.")
    parts = {name: archive.read(info) for name, info in entries.items()}
    manifest = _parse(parts[MANIFEST], file)
    if hashlib.sha256(parts[MANIFEST]).hexdigest() != parts.pop(DIGEST).decode(errors="replace").strip():
        raise BadInput(f"{MANIFEST} in '{file}' has been changed or damaged.")
    if manifest.files.keys() != parts.keys() - {MANIFEST}:
        raise BadInput(f"'{file}' lacks files that its {MANIFEST} lists.")
    for name, record in manifest.files.items():
        if hashlib.sha256(parts[name]).hexdigest() != record.sha256:
            raise BadInput(f"{name} in '{file}' has been changed or damaged; export it again.")
    return parts


@contextmanager
def _writing(folder: Path) -> Iterator[Path]:
    """A folder to prepare a version in, invisible to readers, gone afterwards whatever happens."""
    versions = folder / "versions"
    partial = versions / f".partial-{os.getpid()}-{time.time_ns()}"
    try:
        versions.mkdir(parents=True, exist_ok=True)
        for left in versions.glob(".partial-*"):  # of writers that were killed
            if time.time() - left.stat().st_mtime > ABANDONED:
                shutil.rmtree(left, ignore_errors=True)
        partial.mkdir()
        yield partial
    except OSError as error:
        raise RefSegError(
            f"The model could not be written to {folder}: {error.strerror}. Free some room, or choose another --store; "
            "nothing was changed."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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


def _locked(folder: Path) -> FileLock:
    """One process at a time moves the pointer; the system lets go of the lock when a process dies."""
    return FileLock(folder / ".lock")
