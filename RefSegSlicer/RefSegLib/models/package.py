"""A model version as one signed file, for a site without a network.

    RefSeg model package 1
    {"key":"12345 ...","model":{...},"signer":"..."}     manifest: canonical JSON on one line
    <128 hexadecimal digits>                             Ed25519 signature over the two lines above
    <the files of the version, one after the other, in the order of their names>

No archive format: there is nothing to decompress, no names of files to follow, and no byte that is neither signed nor
hashed. In a zip file dates, flags and comments are neither, and two readers may disagree about what it holds.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from RefSegLib.durable import write_durably
from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.models.manifest import Manifest
from RefSegLib.models.signing import SIGNER, PublicKey, Signer, TrustedKeys
from RefSegLib.models.store import ModelStore
from RefSegLib.models.version import LARGEST_ARCHIVE, LARGEST_MANIFEST, ModelVersion, check_parts, parse

_FIRST = b"RefSeg model package 1\n"
_ANY_FIRST = re.compile(rb"RefSeg model package ([1-9][0-9]{0,8})\n")
_SIGNATURE = re.compile(rb"([0-9a-f]{128})\n")


class _Header(BaseModel):
    """The manifest line. key: fingerprint of the signer's key; signer: what the signer calls himself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: Annotated[str, Field(pattern=r"^[0-9]{5}( [0-9]{5}){11}$")]
    signer: Annotated[str, Field(pattern=SIGNER)]
    model: dict[str, Any]

    def line(self) -> bytes:
        """The one way to write this down."""
        return json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":")).encode() + b"\n"


@dataclass(frozen=True)
class Unpacked:
    """What became of a package. added: False where the identical version was in the store already."""

    version: ModelVersion
    signer: PublicKey
    added: bool


def pack(version: ModelVersion, signer: Signer, file: Path) -> None:
    """Write a version and the signature under it to one file (people name it NAME.refsegpkg).

    Raises RefSegError, with nothing written, if the file cannot be written.
    """
    described = version.manifest.model_dump(mode="json")
    header = _Header(key=signer.public.fingerprint, signer=signer.public.name, model=described)
    signed = _FIRST + header.line()
    parts = {name: (version.folder / name).read_bytes() for name in sorted(version.manifest.files)}
    check_parts(version.manifest, parts, version.folder)
    try:
        write_durably(file, b"".join((signed, signer.sign(signed).hex().encode(), b"\n", *parts.values())))
    except OSError as error:
        raise RefSegError(f"'{file}' could not be written: {error.strerror}. Choose another place.") from error


def unpack(file: Path, store: ModelStore) -> Unpacked:
    """Add the version in a package to the store as the next one of its model, not active.

    Nothing is written before the signature of a trusted key, every size and every hash have been checked. Raises
    BadInput for a package that is damaged, changed, of a newer format, or signed by nobody who is trusted.
    """
    if not file.is_file():
        raise BadInput(f"There is no file '{file}'.")
    try:
        with file.open("rb") as stream:
            signer, manifest, parts = _read(stream, file, TrustedKeys(store.home))
    except OSError as error:
        raise BadInput(f"'{file}' cannot be read: {error.strerror}.") from error
    there = _already(store, manifest)
    return Unpacked(there or store.take(manifest, parts), signer, there is None)


def _read(stream: BinaryIO, file: Path, trusted: TrustedKeys) -> tuple[PublicKey, Manifest, dict[str, bytes]]:
    again = "It was changed or damaged on the way; ask for it again."
    first = _ANY_FIRST.fullmatch(stream.readline(64))
    if first is None:
        raise BadInput(f"'{file}' is no signed model package, or it is damaged. One is made by: refseg models pack.")
    if first[0] != _FIRST:
        raise BadInput(f"'{file}' has format {int(first[1])} and this RefSeg reads format 1. Update the extension.")
    line = stream.readline(LARGEST_MANIFEST)
    signature = _SIGNATURE.fullmatch(stream.readline(130))
    try:
        header = _Header.model_validate_json(line)
    except ValidationError as error:
        raise BadInput(f"The manifest of '{file}' cannot be read. {again}") from error
    if signature is None:
        raise BadInput(f"The signature of '{file}' cannot be read. {again}")
    signer = trusted.find(header.key)
    if signer is None:
        raise BadInput(
            f"'{file}' says that '{header.signer}' signed it, with the key {header.key}, which is not trusted here. "
            "If it should be, get the public key from them, compare these digits on the telephone, and: "
            "refseg models keys trust FILE."
        )
    if not signer.signed(bytes.fromhex(signature[1].decode()), _FIRST + line):
        raise BadInput(f"'{file}' is not what '{signer.name}' signed: the signature does not match. {again}")
    if header.line() != line:
        raise BadInput(f"The manifest of '{file}' is not written in the one form that is signed. Pack the model again.")
    manifest = parse(json.dumps(header.model).encode(), file)
    sizes = {name: manifest.files[name].bytes for name in sorted(manifest.files)}
    expected, found = sum(sizes.values()), os.fstat(stream.fileno()).st_size - stream.tell()
    if expected > LARGEST_ARCHIVE:
        raise BadInput(f"'{file}' would unpack to {expected >> 20} MB; that is no model of ours.")
    if found != expected:
        raise BadInput(f"'{file}' holds {found} bytes of files, and its manifest says {expected}. {again}")
    parts = {name: stream.read(size) for name, size in sizes.items()}
    check_parts(manifest, parts, file)
    return signer, manifest, parts


def _already(store: ModelStore, manifest: Manifest) -> ModelVersion | None:
    """The version of the store that differs in nothing but its number, and is whole."""
    for number in reversed(store.versions(manifest.name)) if manifest.name in store.names() else ():
        try:
            found = store.load(manifest.name, number)
        except RefSegError:
            continue  # damaged: the remedy for that is to bring it in again
        if found.manifest == manifest.model_copy(update={"version": number}):
            return found
    return None
