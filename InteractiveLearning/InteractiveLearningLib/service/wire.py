"""What client and service say to each other: arrays, volumes and requests as they travel.

Arrays travel as raw little-endian bytes in C order, under zlib: nothing of it can run code, and what it unpacks to is
known and bounded before a byte is unpacked. (Compressed frames that describe themselves, or pickles, are not read from
the wire.)
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import zlib
from collections.abc import Sequence
from math import prod
from typing import Annotated, Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, StringConstraints
from RefSegLib.errors import BadInput
from RefSegLib.models.spec import Label
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import LabelMap, Volume

API = 1
HEADER = "X-RefSeg-API"
CHUNK = 4 * 2**20
MOST_PIXELS = 2**28  # of all outlines said at once: a thousand slices of 512 x 512
PIECE = 2**20
LEVEL = 1  # of zlib: a head of 256 cubed in 0.5 s; level 6 takes four times as long for a tenth less

Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Identifier = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}(@[1-9][0-9]{0,8})?$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Index = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Count = Annotated[int, Field(ge=0, lt=2**31)]
LabelValue = Annotated[int, Field(ge=1, le=65535)]
Axis = Annotated[int, Field(ge=0, le=2)]
# Millimeters, LPS; nothing in a patient is farther than a kilometer from anything else.
Coordinate = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Spacing = Annotated[float, Field(ge=1e-4, le=1e4, allow_inf_nan=False)]
Cosine = Annotated[float, Field(ge=-1.01, le=1.01, allow_inf_nan=False)]
Point = tuple[Coordinate, Coordinate, Coordinate]
VoxelType = Literal["int8", "uint8", "int16", "uint16", "int32", "float32"]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid")


class GridMessage(_Message):
    """Grid.to_dict()."""

    shape: tuple[Count, Count, Count]
    spacing: tuple[Spacing, Spacing, Spacing]
    direction: tuple[tuple[Cosine, Cosine, Cosine], tuple[Cosine, Cosine, Cosine], tuple[Cosine, Cosine, Cosine]]
    origin: Point
    planar: bool = False


class ArrayBox(_Message):
    """A box of an array (k, j, i): lower and upper corner, upper exclusive, and its values."""

    lower: tuple[Count, Count, Count]
    upper: tuple[Count, Count, Count]
    dtype: Literal["bool", "uint8", "uint16", "float16"]
    data: str


class ClickMessage(_Message):
    """prompts.Click"""

    kind: Literal["click"]
    point: Point
    positive: bool
    label: LabelValue
    axis: Axis | None = None
    normal: Point | None = None


class ScribbleMessage(_Message):
    """prompts.Scribble"""

    kind: Literal["scribble"]
    points: Annotated[list[Point], Field(min_length=1, max_length=20_000), FailFast()]
    positive: bool
    label: LabelValue
    axis: Axis | None = None
    normal: Point | None = None


class LassoMessage(_Message):
    """prompts.Lasso"""

    kind: Literal["lasso"]
    points: Annotated[list[Point], Field(min_length=3, max_length=20_000), FailFast()]
    positive: bool
    label: LabelValue
    axis: Axis | None = None
    normal: Point | None = None


class BoxMessage(_Message):
    """prompts.Box"""

    kind: Literal["box"]
    corners: tuple[Point, Point]
    label: LabelValue


class LimitsMessage(_Message):
    """prompts.Limits"""

    kind: Literal["limits"]
    axis: Axis
    lower: Point
    upper: Point
    label: LabelValue


class OutlineMessage(_Message):
    """prompts.Outline; bits: its pixels packed, under zlib, in base64."""

    kind: Literal["outline"]
    label: LabelValue
    shape: tuple[Count, Count]
    axis: Axis
    index: Count
    bits: str
    plane: GridMessage | None = None


class ObliqueOutlineMessage(_Message):
    """prompts.ObliqueOutline"""

    kind: Literal["oblique outline"]
    label: LabelValue
    shape: tuple[Count, Count]
    bits: str
    plane: GridMessage


PromptMessage = Annotated[
    ClickMessage | ScribbleMessage | LassoMessage | BoxMessage | LimitsMessage | OutlineMessage | ObliqueOutlineMessage,
    Field(discriminator="kind"),
]


def _drawable(prompts: list[PromptMessage]) -> list[PromptMessage]:
    """Outlines unpack to a thousand times what they take on the wire."""
    if sum(prod(p.shape) for p in prompts if isinstance(p, OutlineMessage | ObliqueOutlineMessage)) > MOST_PIXELS:
        raise ValueError(f"at most {MOST_PIXELS // 2**20} million pixels can be outlined at once")
    return prompts


class VolumeMessage(_Message):
    """A volume about to be sent: its content hash, what it is, and the bytes of its zlib stream."""

    id: Hash
    shape: tuple[Count, Count, Count, Count]
    dtype: VoxelType
    grid: GridMessage
    packed: Count


class SegmentMessage(_Message):
    """A volume to be segmented."""

    kind: Literal["segment"] = "segment"
    volume: Hash
    model: ModelName
    reflect: bool | None = None
    roi: tuple[Index, Index, Index, Index, Index, Index] | None = None
    suspect: bool = False


class SessionMessage(_Message):
    """A case to be annotated. name: what the client calls it; one of that name that was cut off goes on."""

    volume: Hash
    labels: Annotated[list[Label], Field(min_length=1, max_length=512), FailFast()]
    channel: Annotated[int, Field(ge=0, lt=2**15)] = 0
    earlier: Annotated[list[PromptMessage], Field(max_length=10_000), FailFast(), AfterValidator(_drawable)] = []
    mask: ArrayBox | None = None
    name: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None


class PromptsMessage(_Message):
    """What was said at once."""

    prompts: Annotated[list[PromptMessage], Field(min_length=1, max_length=2000), FailFast(), AfterValidator(_drawable)]
    editable: ArrayBox | None = None
    locked: Annotated[list[LabelValue], Field(max_length=512), FailFast()] = []


class NextMessage(_Message):
    """Which slice to look at next?"""

    label: LabelValue | None = None
    axis: Axis | None = None
    suspect: ArrayBox | None = None


class AcceptMessage(_Message):
    """The case is as it should be. patient: only its keyed hash is kept."""

    model: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    patient: Text
    site: Annotated[str, StringConstraints(max_length=64, pattern=r"^[A-Za-z0-9 _.-]*$")] = ""
    consent: bool = True


class ActivateMessage(_Message):
    """The version to be used."""

    version: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,8}$")]


class ReviewMessage(_Message):
    """What a reviewer thinks of what a version made."""

    version: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,8}$")]
    case: Identifier | None = None
    accepted: bool


class ForgetMessage(_Message):
    """The patient to be forgotten."""

    patient: Text


def volume_head(volume: Volume) -> dict[str, Any]:
    """What a volume is, besides its voxels. Raises BadInput for voxels of a type that does not travel."""
    dtype = volume.array.dtype.name
    if dtype not in VoxelType.__args__:
        raise BadInput(f"Voxels of type {dtype} cannot be sent; convert the image to float32 or int16 first.")
    return {"dtype": dtype, "grid": volume.grid.to_dict(), "shape": list(volume.array.shape)}


def volume_id(volume: Volume) -> str:
    """The hash by which a volume is known: of what it is and of its voxels."""
    digest = hashlib.sha256(head_bytes(volume_head(volume)))
    digest.update(_plain(volume.array))
    return digest.hexdigest()


def head_bytes(head: dict[str, Any]) -> bytes:
    """The part of the content before the voxels, the same for the same head."""
    return json.dumps(head, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def pack_volume(volume: Volume) -> bytes:
    """The voxels as they travel."""
    return zlib.compress(_plain(volume.array), LEVEL)


def pack_box(array: npt.NDArray, lower: Sequence[int], upper: Sequence[int]) -> ArrayBox:
    """The values of an array (k, j, i) inside a box."""
    part = array[tuple(map(slice, lower, upper))]
    data = base64.b64encode(zlib.compress(_plain(part), LEVEL)).decode()
    return ArrayBox(lower=tuple(map(int, lower)), upper=tuple(map(int, upper)), dtype=part.dtype.name, data=data)


def pack_where(array: npt.NDArray) -> ArrayBox:
    """An array (k, j, i) as the smallest box outside of which it is 0."""
    lower, upper = [], []
    for axis in range(3):
        seen = np.flatnonzero(array.any(axis=tuple(a for a in range(3) if a != axis)))
        lower.append(int(seen[0]) if seen.size else 0)
        upper.append(int(seen[-1]) + 1 if seen.size else 0)
    return pack_box(array, lower, upper)


def unpack_values(box: ArrayBox) -> npt.NDArray:
    """The values inside a box, in its shape. Raises BadInput if they are not what the box says."""
    shape = tuple(high - low for low, high in zip(box.lower, box.upper, strict=True))
    if min(shape) < 0:
        raise BadInput("A box of voxels must not end before it begins.")
    dtype = np.dtype(box.dtype)
    try:
        content = base64.b64decode(box.data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInput("The voxels of a box are not base64.") from error
    if prod(shape) * dtype.itemsize > 1032 * len(content) + 64:  # deflate cannot shrink more than that
        raise BadInput(f"{len(content)} bytes cannot hold a box of {shape} voxels.")
    return unpacked(io.BytesIO(content), shape, dtype)


def unpack_box(box: ArrayBox, shape: Sequence[int]) -> npt.NDArray:
    """An array of `shape` (k, j, i), 0 outside the box. Raises BadInput if the box does not lie inside it."""
    if any(high > size for high, size in zip(box.upper, shape, strict=True)):
        raise BadInput(f"A box up to {box.upper} does not lie in an image of {tuple(shape)} voxels.")
    values = unpack_values(box)
    whole = np.zeros(tuple(shape), values.dtype)
    whole[tuple(map(slice, box.lower, box.upper))] = values
    return whole


def unpacked(stream: BinaryIO, shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray:
    """The array that a zlib stream holds. Raises BadInput if it does not.

    Never more memory than the array and a megabyte, and no more of the array than the stream has filled.
    """
    dtype = np.dtype(dtype).newbyteorder("<")
    raw, at, unpacker = np.empty(prod(shape) * dtype.itemsize, np.uint8), 0, zlib.decompressobj()
    try:
        while not unpacker.eof and at <= raw.size:
            piece = unpacker.unconsumed_tail or stream.read(PIECE)
            part = unpacker.decompress(piece, PIECE)
            if not piece and not part:
                break
            raw[at : at + len(part)] = np.frombuffer(part, np.uint8)[: raw.size - at]
            at += len(part)
    except zlib.error as error:
        raise BadInput(f"The compressed voxels are damaged ({error}). Send them again.") from error
    if at != raw.size or not unpacker.eof or unpacker.unused_data or stream.read(1):
        raise BadInput(f"The compressed voxels are not the {raw.size} bytes of an array of {tuple(shape)} values.")
    if dtype.kind == "b" and (raw > 1).any():
        raise BadInput("A mask holds only 0 and 1.")
    raw.flags.writeable = False
    return raw.view(dtype).reshape(tuple(shape))


def label_map(box: ArrayBox, grid: Grid) -> LabelMap:
    """A label map from its box."""
    if np.dtype(box.dtype).kind != "u":
        raise BadInput(f"A label map holds whole numbers from 0 up, not {box.dtype}.")
    return LabelMap(unpack_box(box, grid.shape), grid)


def _plain(array: npt.NDArray) -> bytes:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
