"""A volume that a service sends: a line of JSON that says what it is, then the zlib stream of its voxels."""

from __future__ import annotations

import tempfile
from math import prod
from typing import BinaryIO

import httpx
import numpy as np
from pydantic import ValidationError
from RefSegLib.errors import BadInput
from RefSegLib.progress import Progress
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import Volume

from InteractiveLearningLib.service.failures import ServiceError
from InteractiveLearningLib.service.uploads import LARGEST, MOST_CHANNELS
from InteractiveLearningLib.service.wire import PIECE, VolumeMessage, unpacked, volume_id

MOST_HEAD = 2**16
_IN_MEMORY = 2**26  # bytes of a stream; a larger one is kept on the disk until it is whole
_DAMAGED = "The image was damaged on its way from the server. Open it again."


def received(response: httpx.Response, progress: Progress) -> Volume:
    """The volume that a streamed answer holds, verified by its hash. Cancelled between pieces.

    Never takes more room than a volume may have, whatever the answer claims. Raises ServiceError if it is not whole
    or not what it was said to be.
    """
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
        about = _receive(response, file, progress)
        file.seek(0)
        try:
            array = unpacked(file, about.shape, about.dtype)
            volume = Volume(array, Grid.from_dict(about.grid.model_dump()))
        except BadInput as error:
            raise ServiceError(_DAMAGED) from error
    if volume_id(volume) != about.id:
        raise ServiceError(_DAMAGED)
    return volume


def _receive(response: httpx.Response, file: BinaryIO, progress: Progress) -> VolumeMessage:
    """What the answer says it is; its stream goes to `file`."""
    pieces, begun, about, got = response.iter_bytes(PIECE), b"", None, 0
    for piece in pieces:
        if about is None:
            begun += piece
            head, end, piece = begun.partition(b"\n")
            if not end and len(begun) <= MOST_HEAD:
                continue
            about = _head(head)
        got += len(piece)
        if got > about.packed:
            break
        file.write(piece)
        progress(got / about.packed, "Receiving the image")
    if about is None or got != about.packed:
        raise ServiceError(_DAMAGED)
    return about


def _head(line: bytes) -> VolumeMessage:
    try:
        about = VolumeMessage.model_validate_json(line)
    except ValidationError as error:
        raise ServiceError("The server sent what is no image. Update the server and this RefSeg.") from error
    size = prod(about.shape) * np.dtype(about.dtype).itemsize
    if not 1 <= about.shape[0] <= MOST_CHANNELS or size > LARGEST or about.packed > size + size // 1000 + 1024:
        raise ServiceError("The server sent an image that is larger than an image can be.")
    return about
