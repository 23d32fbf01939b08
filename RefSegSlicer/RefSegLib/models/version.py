"""One model version: its files, what is written down about them, and whether they are still what they were."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, load_file, save

from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.models.manifest import FileRecord, Manifest
from RefSegLib.models.spec import SegmenterSpec

Weights = Mapping[str, npt.NDArray]

MANIFEST, DIGEST = "model.json", "model.json.sha256"
SEGMENTER, SYNTHESIZER = "segmenter.safetensors", "synthesizer.safetensors"
SCRIPT = "segmenter.torchscript"  # instead of SEGMENTER, for a network that came as a TorchScript file
# A package from elsewhere fills neither memory nor disk. Bytes.
LARGEST_ARCHIVE, LARGEST_MANIFEST = 4 << 30, 16 << 20


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
        """Weights of the segmenter. Raises BadInput for a TorchScript file: it is a program, see segmenter_bytes."""
        if SCRIPT in self.manifest.files:
            raise BadInput(
                f"Model '{self.name}' is a TorchScript file: it segments, and a synthesizer can be trained for it, but "
                "it cannot be trained further. Start from a model with a network of RefSeg, nnU-Net or MONAI."
            )
        return load_file(self.folder / SEGMENTER)

    def segmenter_bytes(self) -> bytes:
        """The file of the segmenter as it is."""
        return (self.folder / (SCRIPT if SCRIPT in self.manifest.files else SEGMENTER)).read_bytes()

    def synthesizer(self) -> dict[str, npt.NDArray] | None:
        """Weights of the synthesizer; None if the version has none."""
        return load_file(self.folder / SYNTHESIZER) if SYNTHESIZER in self.manifest.files else None


def packed(weights: Weights) -> bytes:
    """Weights as the content of a safetensors file."""
    return save({name: np.ascontiguousarray(value) for name, value in weights.items()})


def record(content: bytes) -> FileRecord:
    """Hash and size of a file."""
    return FileRecord(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def described(manifest: Manifest) -> dict[str, bytes]:
    """The two files that say what the others must be."""
    text = manifest.model_dump_json(indent=1).encode()
    return {MANIFEST: text, DIGEST: hashlib.sha256(text).hexdigest().encode()}


def verified(folder: Path, name: str, version: str, *, whole: bool = True) -> Manifest:
    """The manifest of the folder of a version whose every byte is accounted for.

    whole: False to believe the files of weights if they have the right size; reading large ones takes seconds.
    Raises RefSegError, naming the file and what to do, if any is missing, changed, cut short or too many.
    """
    remedy = f"Version {version} of '{name}' in {folder} is not used. Roll back to another version, or import it again."
    try:
        text = (folder / MANIFEST).read_bytes()
        if not _matches(text, (folder / DIGEST).read_bytes()):
            raise RefSegError(f"The file {MANIFEST} has been changed or damaged. {remedy}")
        manifest = parse(text, folder)
        if (manifest.name, manifest.version) != (name, version):
            raise RefSegError(f"{MANIFEST} belongs to '{manifest.name}' version {manifest.version}. {remedy}")
        extra = {p.name for p in folder.iterdir()} - {MANIFEST, DIGEST, *manifest.files}
        if extra:
            raise RefSegError(f"There are files that do not belong to the model: {', '.join(sorted(extra))}. {remedy}")
        for part, expected in manifest.files.items():
            path = folder / part
            if path.stat().st_size != expected.bytes or (whole and record(path.read_bytes()) != expected):
                raise RefSegError(f"The file {part} has been changed or damaged. {remedy}")
    except FileNotFoundError as error:
        raise RefSegError(f"The file {Path(error.filename).name} is missing. {remedy}") from error
    except OSError as error:
        raise RefSegError(f"The file {error.filename} cannot be read: {error.strerror}. {remedy}") from error
    return manifest


def read_archive(file: Path) -> tuple[Manifest, dict[str, bytes]]:
    """Manifest and weight files of an exported version. Nothing in the file is trusted: only known names, bounded
    sizes, no compression, matching hashes, a valid description and readable weights. Raises BadInput otherwise.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            names = {entry.filename for entry in entries}
            if names - {SYNTHESIZER} not in ({MANIFEST, DIGEST, SEGMENTER}, {MANIFEST, DIGEST, SCRIPT}):
                raise BadInput(f"'{file}' does not hold what an exported model holds.")
            if len(entries) != len(names) or any(e.compress_type != zipfile.ZIP_STORED for e in entries):
                raise BadInput(f"'{file}' was packed by something else; export the model again.")
            sizes = {entry.filename: entry.file_size for entry in entries}
            if sum(sizes.values()) > LARGEST_ARCHIVE or sizes[MANIFEST] + sizes[DIGEST] > LARGEST_MANIFEST:
                raise BadInput(f"'{file}' would unpack to {sum(sizes.values()) >> 20} MB; that is no model of ours.")
            parts = {entry.filename: archive.read(entry) for entry in entries}
    except FileNotFoundError as error:
        raise BadInput(f"There is no file '{file}'.") from error
    # Every one of these came out of the zip reader for some damaged file.
    except (OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        raise BadInput(f"'{file}' is not an exported model, or it is damaged: {error}.") from error
    text = parts.pop(MANIFEST)
    if not _matches(text, parts.pop(DIGEST)):
        raise BadInput(f"{MANIFEST} in '{file}' has been changed or damaged; export the model again.")
    manifest = parse(text, file)
    check_parts(manifest, parts, file)
    return manifest, parts


def check_parts(manifest: Manifest, parts: Mapping[str, bytes], file: Path) -> None:
    """Raise BadInput, naming the file they came in, unless these are the files of the manifest and hold weights."""
    if manifest.files.keys() != parts.keys():
        raise BadInput(f"'{file}' does not hold the files that its {MANIFEST} lists; export the model again.")
    for name, content in parts.items():
        if record(content) != manifest.files[name]:
            raise BadInput(f"{name} in '{file}' has been changed or damaged; export the model again.")
        try:
            if name != SCRIPT:  # a program is looked at by models/foreign.py before it runs
                load(content)
        except SafetensorError as error:
            raise BadInput(f"{name} in '{file}' holds no weights ({error}).") from error


def _matches(text: bytes, digest: bytes) -> bool:
    return hashlib.sha256(text).hexdigest().encode() == digest.strip()


def parse(text: bytes, where: Path) -> Manifest:
    """The manifest that is written there. Raises BadInput if this RefSeg does not understand it."""
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise BadInput(
            f"{MANIFEST} in '{where}' is not one that this RefSeg understands ({place}: {first['msg']}). "
            "It may come from a newer one; update the extension."
        ) from error
