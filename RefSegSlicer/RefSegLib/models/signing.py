"""Who vouches for a model: Ed25519 keys (RFC 8032) of those who sign, and the public keys this store trusts.

A private key is a file (PEM, PKCS8, mode 0600). Trusted public keys are HOME/trusted-keys/NAME.pem, under the name
that this site gave them: what a stranger calls himself is never shown as known.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from RefSegLib.durable import sync_folder, write_durably
from RefSegLib.errors import BadInput, RefSegError

try:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
        load_pem_private_key,
        load_pem_public_key,
    )
except ImportError as missing:  # a client has no engine; it imports this module only to pack or unpack a model
    raise RefSegError(
        "Signed models need the package 'cryptography', which is not installed here: pip install cryptography."
    ) from missing

SIGNER = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
LARGEST_KEY = 64 << 10  # bytes; a key file has some hundred


@dataclass(frozen=True)
class PublicKey:
    """Somebody's public key and what that somebody is called here."""

    name: str
    key: Ed25519PublicKey

    @property
    def fingerprint(self) -> str:
        """The key in 12 groups of 5 digits, which two people of any language can compare on the telephone.

        The lowest 60 decimal digits (199 bits) of the sha256 of the key.
        """
        hashed = hashlib.sha256(self.key.public_bytes_raw()).digest()
        digits = f"{int.from_bytes(hashed, 'big') % 10**60:060d}"
        return " ".join(digits[start : start + 5] for start in range(0, 60, 5))

    def signed(self, signature: bytes, message: bytes) -> bool:
        """Whether the signature under the message was made with the private half of this key."""
        try:
            self.key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class Signer:
    """Who can sign: a private key, with its public half."""

    public: PublicKey
    key: Ed25519PrivateKey

    def sign(self, message: bytes) -> bytes:
        """The signature under a message, 64 bytes."""
        return self.key.sign(message)


def new_key(file: Path, passphrase: str | None) -> PublicKey:
    """Make a key: FILE (private, for its owner alone) and beside it NAME.pub (to be given away).

    NAME, what the signer is called, is the name of the file without its ending. passphrase: None leaves the private
    key readable for who has the file. Raises BadInput if one of the files is there: a key is never overwritten.
    """
    name, public_file = _named(file), public_file_of(file)
    for path in (file, public_file):
        if path.exists():
            raise BadInput(f"'{path}' is there already, and a key is never overwritten. Choose another name.")
    private = Ed25519PrivateKey.generate()
    how = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    secret = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)
    public = PublicKey(name, private.public_key())
    try:
        write_durably(file, secret, mode=0o600)
        write_durably(public_file, _pem(public))
    except OSError as error:
        file.unlink(missing_ok=True)
        raise RefSegError(f"The key could not be written to '{file.parent}': {error.strerror}.") from error
    return public


def public_file_of(file: Path) -> Path:
    """Where new_key writes the public half of the key in a file. Raises BadInput for a name that leaves no room."""
    if file.suffix == ".pub":
        raise BadInput(f"'{file}' would be the file of the public key. Choose a name like {file.stem}.key.")
    return file.with_suffix(".pub")


def read_signer(file: Path, ask: Callable[[], str]) -> Signer:
    """The private key in a file. ask: gives the passphrase, and is called only if there is one.

    Raises BadInput for a file that is no private Ed25519 key, that others can read, or for a wrong passphrase.
    """
    name, content = _named(file), _content(file)
    if b"PRIVATE KEY-----" not in content:
        raise BadInput(f"'{file}' is no private key. One is made by: refseg models keys new FILE.")
    if os.name != "nt" and file.stat().st_mode & 0o077:
        raise BadInput(f"The private key '{file}' can be read by others. Make it yours alone: chmod 600 {file}.")
    locked = b"ENCRYPTED" in content
    try:
        key = load_pem_private_key(content, ask().encode() if locked else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        wrong = "The passphrase is wrong, or the file is damaged." if locked else "The file is damaged."
        raise BadInput(f"The private key '{file}' cannot be read. {wrong}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadInput(f"'{file}' is a key of another kind. Make an Ed25519 key: refseg models keys new FILE.")
    return Signer(PublicKey(name, key.public_key()), key)


def read_public(file: Path, name: str | None = None) -> PublicKey:
    """The public key in a file, under a name of one's own or that of the file. Raises BadInput for anything else."""
    content = _content(file)
    if b"PRIVATE KEY-----" in content:
        raise BadInput(f"'{file}' is a private key, which only its owner may have. Ask for the file ending in .pub.")
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadInput(f"'{file}' is no public key, or it is damaged. Ask again for the one ending in .pub.") from error
    if not isinstance(key, Ed25519PublicKey):
        raise BadInput(f"'{file}' is a key of another kind; models are signed with Ed25519 keys.")
    return PublicKey(_checked(name) if name else _named(file), key)


class TrustedKeys:
    """The public keys whose signatures this store accepts, in HOME/trusted-keys."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "trusted-keys"

    def all(self) -> list[PublicKey]:
        """Every trusted key, by name. Raises BadInput, naming the file, if one is damaged."""
        if not self.folder.is_dir():
            return []
        return [read_public(file, file.stem) for file in sorted(self.folder.glob("*.pem"))]

    def find(self, fingerprint: str) -> PublicKey | None:
        """The trusted key with this fingerprint."""
        return next((key for key in self.all() if key.fingerprint == fingerprint), None)

    def trust(self, key: PublicKey) -> None:
        """Accept what this key signs, from now on. Raises BadInput if the name or the key is there under another."""
        for known in self.all():
            same = known.fingerprint == key.fingerprint
            if same and known.name != key.name:
                raise BadInput(f"This key is trusted already, as '{known.name}'.")
            if known.name.lower() == key.name.lower() and not same:  # disks may not tell cases apart
                raise BadInput(
                    f"Another key is trusted as '{known.name}'. Give this one another --name, or, if it replaces that "
                    f"one, first: refseg models keys forget {known.name}."
                )
        try:
            write_durably(self.folder / f"{key.name}.pem", _pem(key))
        except OSError as error:
            raise RefSegError(f"The key could not be written to '{self.folder}': {error.strerror}.") from error

    def forget(self, name: str) -> None:
        """Accept nothing more from this key; versions that are in the store stay. Works for a damaged key too."""
        file = self.folder / f"{_checked(name)}.pem"
        if not file.is_file():
            known = ", ".join(sorted(path.stem for path in self.folder.glob("*.pem"))) or "none"
            raise BadInput(f"No key is trusted as '{name}'. Trusted: {known}.")
        try:
            file.unlink()
            sync_folder(self.folder)
        except OSError as error:
            raise RefSegError(f"'{file}' could not be removed: {error.strerror}. The key is still trusted.") from error


def _pem(public: PublicKey) -> bytes:
    return public.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _content(file: Path) -> bytes:
    if not file.is_file():
        raise BadInput(f"There is no file '{file}'.")
    try:
        with file.open("rb") as stream:
            return stream.read(LARGEST_KEY)
    except OSError as error:
        raise BadInput(f"'{file}' cannot be read: {error.strerror}.") from error


def _named(file: Path) -> str:
    return _checked(file.stem)


def _checked(name: str) -> str:
    if not re.fullmatch(SIGNER, name):
        raise BadInput(f"'{name}' cannot be the name of a signer; use letters, digits, '-', '_' and '.'.")
    return name
