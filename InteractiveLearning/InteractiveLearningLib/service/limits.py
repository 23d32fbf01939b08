"""What of a request is read at all: from whom, how many at once, so many bytes, within so much time.

Nothing of a body is read, let alone parsed, before the token in front of it is known: FastAPI would parse first.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from RefSegLib.errors import RefSegError

from InteractiveLearningLib.service.wire import API, CHUNK, HEADER

MOST_BYTES = 32 * 2**20  # of JSON: the mask of a 512 x 512 x 300 volume takes some 2 MB
# Numbers, lists and objects in JSON. Each takes up to 30 times the room in memory that it takes on the wire, and up to
# a kilobyte if it is wrong and has to be explained. A scribble of 20,000 points has 80,000.
MOST_VALUES = 500_000
HELD_BYTES = 512 * 2**20  # of bodies in memory at any time
AT_ONCE = 16  # requests of one user: one user cannot take all threads
PIECE_SECONDS = 20.0  # until the next piece of a body
BODY_SECONDS = 120.0  # for all of it
UNWANTED_SECONDS = 3.0  # for the rest of a body that nobody will look at, so that the answer is read
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


class _Gone(Exception):
    """The client has left."""


class Limits:
    """ASGI middleware: 401 and 429 by the token, 413 for a body that is too large, 408 for one that does not come,
    503 when too much is being read at once; a header on every answer.

    caller: whose request this is, by its scope; raises RefSegError. refused: the answer to such an error.
    """

    def __init__(self, app: Any, caller: Callable[[dict], Any], refused: Callable[[Any, Exception], Any]) -> None:
        self._app, self._caller, self._refused = app, caller, refused
        self._turns: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONCE))
        self._held = 0

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """See ASGI."""

        async def marked(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = message | {"headers": [*message.get("headers", []), *_HEADERS]}
            await send(message)

        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, marked)
            return
        try:
            who = await run_in_threadpool(self._caller, scope)
        except RefSegError as error:
            answer = self._refused(None, error)
            if not await _ended(receive):
                answer.headers["connection"] = "close"
            await answer(scope, receive, marked)
            return
        scope.setdefault("state", {})["caller"] = who
        async with self._turns[who.name]:
            body = bytearray()
            try:
                await self._read(body, scope, receive)
                await self._app(scope, _replayed(bytes(body), receive), marked)
            except _Refused as error:
                if error.status == 413:
                    await _ended(receive)  # a client that is cut off in the middle of sending never sees why
                headers = {"connection": "close"} | ({"retry-after": "5"} if error.status == 503 else {})
                await JSONResponse({"error": str(error)}, error.status, headers)(scope, receive, marked)
            except _Gone:
                return
            finally:
                self._held -= len(body)

    async def _read(self, body: bytearray, scope: dict[str, Any], receive: Any) -> None:
        raw = _VOLUME.fullmatch(scope["path"]) is not None
        most, until, more = CHUNK if raw else MOST_BYTES, time.monotonic() + BODY_SECONDS, True
        too_large = _Refused(413, f"A request may have {most // 2**20} MB at most.")
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if len(length) > 12 or int(length) > most:
            raise too_large
        while more:
            try:
                message = await asyncio.wait_for(receive(), max(0.0, min(PIECE_SECONDS, until - time.monotonic())))
            except (TimeoutError, asyncio.TimeoutError) as error:
                raise _Refused(408, "The request did not come to its end in time. Send it again.") from error
            if message["type"] == "http.disconnect":
                raise _Gone
            piece, more = message.get("body", b""), message.get("more_body", False)
            body += piece
            self._held += len(piece)
            if len(body) > most:
                raise too_large
            if self._held > HELD_BYTES:
                raise _Refused(503, "The server is taking in as much as it can. Try again soon.")
        if not raw and sum(map(body.count, (b",", b"[", b"{"))) > MOST_VALUES:
            raise _Refused(413, f"A request may have {MOST_VALUES} values at most. Say less at once.")


def _replayed(body: bytes, receive: Any) -> Callable[[], Any]:
    """ASGI's receive of a body that was read already."""
    given = False

    async def read() -> dict[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return read


async def _ended(receive: Any) -> bool:
    """Whether a body that nobody wants comes to its end soon. Nothing of it is kept."""

    async def end() -> bool:
        left = CHUNK
        while left >= 0:
            message = await receive()
            left -= len(message.get("body", b""))
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                return True
        return False

    try:
        return await asyncio.wait_for(end(), UNWANTED_SECONDS)
    except (TimeoutError, asyncio.TimeoutError):
        return False
