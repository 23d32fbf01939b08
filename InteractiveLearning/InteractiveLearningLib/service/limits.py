"""What of a request is read at all: so many bytes, within so much time."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

from InteractiveLearningLib.service.wire import API, CHUNK, HEADER

MOST_BYTES = 32 * 2**20  # of JSON: the mask of a 512 x 512 x 300 volume takes some 2 MB
PIECE_SECONDS = 20.0  # until the next piece of a body
BODY_SECONDS = 120.0  # for all of it
_VOLUME = re.compile(r"/v1/volumes/[0-9a-f]{64}")
_HEADERS = [
    (HEADER.lower().encode(), str(API).encode()),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
]


class _Refused(Exception):
    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Limits:
    """ASGI middleware: 413 for a body that is too large, 408 for one that does not come; a header on every answer."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = CHUNK if _VOLUME.fullmatch(scope["path"]) else MOST_BYTES
        read, until, begun = 0, time.monotonic() + BODY_SECONDS, False

        async def bounded() -> dict[str, Any]:
            nonlocal read
            if begun:  # the answer is on its way: what comes now is only the end of the connection
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, min(PIECE_SECONDS, until - time.monotonic())))
            except (TimeoutError, asyncio.TimeoutError) as error:
                raise _Refused(408, "The request did not come to its end in time. Send it again.") from error
            read += len(message.get("body", b""))
            if read > most:
                raise _Refused(413, f"A request may have {most // 2**20} MB at most.")
            return message

        async def marked(message: dict[str, Any]) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message = message | {"headers": [*message.get("headers", []), *_HEADERS]}
            await send(message)

        length = dict(scope["headers"]).get(b"content-length", b"0")
        try:
            if length.isdigit() and int(length) > most:
                raise _Refused(413, f"A request may have {most // 2**20} MB at most.")
            await self._app(scope, bounded, marked)
        except _Refused as error:
            if not begun:
                await _refuse(marked, error)


async def _refuse(send: Any, error: _Refused) -> None:
    body = b'{"error":"%s"}' % str(error).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
