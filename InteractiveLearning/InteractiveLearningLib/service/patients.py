"""A keyed hash per patient: the same patient is recognized, and nobody without the key can tell who it is.

    home/service/patient.key      32 random bytes, readable by their owner alone
    home/service/patient.check    a hash of the key, to notice that it was lost or replaced

HMAC-SHA256 (RFC 2104). A plain hash would be undone by trying all the ids a hospital has.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import unicodedata
from pathlib import Path

from filelock import FileLock
from RefSegLib.durable import write_durably
from RefSegLib.errors import BadInput, RefSegError


def patient_key(home: str | Path, patient: str) -> str:
    """The keyed hash (64 hex digits) of a patient's id at this site; the key is made at the first use.

    Upper and lower case, compatible Unicode forms and surrounding blanks make no difference.
    Raises BadInput for an empty id, RefSegError if the key is lost or is not the one of before.
    """
    name = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", patient).casefold())
    name = name.replace("\0", " ").strip()  # DICOM pads with blanks and zero bytes
    if not name:
        raise BadInput("The patient has no id, so nobody could recognize the patient later. Give an id.")
    return hmac.new(_key(Path(home) / "service"), name.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def _key(folder: Path) -> bytes:
    path, check = folder / "patient.key", folder / "patient.check"
    try:
        if not (path.exists() and check.exists()):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with FileLock(folder / "patient.lock"):
                # The key goes first: killed in between, the check is made up for at the next use.
                if not path.exists() and not check.exists():
                    write_durably(path, os.urandom(32), mode=0o600)
                if not check.exists():
                    write_durably(check, _check(path.read_bytes()), mode=0o600)
        key, expected = path.read_bytes(), check.read_bytes()
    except FileNotFoundError as error:
        raise RefSegError(
            f"The key {path} is missing, so known patients cannot be recognized. Restore it from a backup."
        ) from error
    except OSError as error:
        raise RefSegError(f"The key {path} cannot be read or made: {error.strerror}.") from error
    if len(key) != 32 or not hmac.compare_digest(_check(key), expected):
        raise RefSegError(
            f"The key {path} is not the one this site began with, so known patients would be taken for new ones. "
            f"Restore the key, together with {check.name}, from a backup."
        )
    return key


def _check(key: bytes) -> bytes:
    return hmac.new(key, b"check of the key of patients", hashlib.sha256).hexdigest().encode()
