"""What pretraining leaves behind: one safetensors file with the weights a segmenter starts from and what they are.

home/pretrained/NAME.safetensors. The description is in the file's own header, so that handing the file over is handing
over all of it; a digest over the weights tells whether they are still what they were. It is no model version: it
segments nothing, so it stands beside the store of models and not in it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from RefSegLib.durable import write_durably
from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.models.spec import Normalization

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
HEADER = "refseg"
ENDING = ".safetensors"
Method = Literal["tiles", "masked"]


class About(BaseModel):
    """Written into the file. network, channels, dimensions, spacing, patch, normalization: of the specification it was
    pretrained with; data: fingerprint and numbers of images; digest: sha256 over names and weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    name: Annotated[str, Field(pattern=NAME)]
    method: Method
    created: str
    network: dict[str, Any]
    channels: tuple[str, ...]
    dimensions: Literal[2, 3]
    spacing: tuple[float, float, float]
    patch: tuple[int, int, int]
    normalization: Normalization
    data: dict[str, Any]
    settings: dict[str, Any]
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class Pretrained:
    """Weights to start a segmenter from, by the names they have in it, and what is written about them."""

    about: About
    weights: Mapping[str, npt.NDArray]

    @property
    def origin(self) -> str:
        """The name and the beginning of the digest: which file it was."""
        return f"{self.about.name} ({self.about.digest[:12]})"


def place_of(home: Path, name: str) -> Path:
    """Where a pretrained encoder of that name is kept."""
    return home / "pretrained" / f"{name}{ENDING}"


def check_free(home: Path, name: str) -> None:
    """Raise BadInput if the name cannot be given to a new one."""
    if not re.fullmatch(NAME, name):
        raise BadInput(
            f"'{name}' cannot be the name of a pretrained encoder: letters, digits, and . _ - inside, 64 at most."
        )
    if place_of(home, name).exists():
        raise BadInput(f"There is already a pretrained encoder '{name}'; what others started from is never changed.")


def write_pretrained(home: Path, weights: Mapping[str, npt.NDArray], **about: Any) -> Path:
    """Store weights with what About says of them (all but created and digest). Raises BadInput for a name that is
    taken or none, RefSegError if the file cannot be written; then nothing is left behind."""
    check_free(home, about["name"])
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    told = About(created=created, digest=_digest(weights), **about)
    content = save(
        {name: np.ascontiguousarray(value) for name, value in weights.items()}, {HEADER: told.model_dump_json()}
    )
    file = place_of(home, told.name)
    try:
        write_durably(file, content)
    except OSError as error:
        raise RefSegError(f"'{file}' could not be written: {error.strerror}. Free some room.") from error
    return file


def find_pretrained(home: Path, wanted: str) -> Path | None:
    """The file meant by the name of a pretrained encoder in `home`, or by the path of one; None if there is none."""
    if wanted.endswith(ENDING) and Path(wanted).is_file():
        return Path(wanted)
    named = place_of(home, wanted) if "/" not in wanted and "\\" not in wanted else None
    return named if named is not None and named.is_file() else None


def read_pretrained(file: Path) -> Pretrained:
    """Read and verify a file of write_pretrained, from wherever it came. Raises BadInput if it is something else,
    RefSegError if it is damaged."""
    try:
        with safe_open(file, framework="numpy") as opened:
            header = (opened.metadata() or {}).get(HEADER)
            if header is None:
                raise BadInput(f"'{file}' holds weights, but none that refseg pretrain has made.")
            about = About.model_validate_json(header)
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise BadInput(f"'{file}' is no file of refseg pretrain, or it is damaged ({error}).") from error
    except ValidationError as error:
        raise BadInput(
            f"'{file}' is described in a way this RefSeg does not understand; it may come from a newer one."
        ) from error
    if _digest(weights) != about.digest:
        raise RefSegError(f"The weights in '{file}' have been changed or damaged. Get the file again.")
    return Pretrained(about, weights)


def _digest(weights: Mapping[str, npt.NDArray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = np.ascontiguousarray(weights[name])
        digest.update(f"{name} {value.dtype} {value.shape}\n".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
