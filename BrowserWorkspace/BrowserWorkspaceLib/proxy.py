"""Requests and websockets passed on to the process that answers them."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import aiohttp
from aiohttp import web
from yarl import URL

# About one connection alone (RFC 9110), or of the launcher's own concern.
_ONE_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-authorization"}
_NOT_ASKED = _ONE_HOP | {"host", "cookie", "authorization", "origin", "referer", "accept-encoding"}
_NOT_ANSWERED = _ONE_HOP | {"server", "date", "set-cookie", "content-length"}
CHUNK = 2**16


def new_session() -> aiohttp.ClientSession:
    """What requests are passed on by: no proxy of the environment, no cookies, no waiting for a slot."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
        trust_env=False,
        auto_decompress=False,
    )


async def pass_request(
    session: aiohttp.ClientSession, request: web.Request, port: int, secret: dict[str, str], before_end: bytes = b""
) -> web.StreamResponse:
    """The answer of the process at that port of this machine. before_end: put in the place of the page's `</body>`.

    Raises aiohttp.ClientError if it does not answer.
    """
    headers = {name: value for name, value in request.headers.items() if name.lower() not in _NOT_ASKED}
    body = request.content if request.can_read_body else None
    async with session.request(
        request.method, _address("http", port, request), headers=headers | secret, data=body, allow_redirects=False
    ) as answer:
        kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in _NOT_ANSWERED]
        if before_end and answer.content_type == "text/html":
            page = (await answer.read()).replace(b"</body>", before_end, 1)
            return web.Response(status=answer.status, headers=kept, body=page)
        length = answer.headers.get("Content-Length")
        passed = web.StreamResponse(status=answer.status, headers=kept)
        passed.content_length = None if length is None else int(length)
        await passed.prepare(request)
        try:
            async for chunk in answer.content.iter_chunked(CHUNK):
                await passed.write(chunk)
        except aiohttp.ClientError:  # it ended in between: what is cut short must not look whole
            if request.transport is not None:
                request.transport.abort()
            return passed
        await passed.write_eof()
        return passed


async def pass_websocket(
    session: aiohttp.ClientSession, request: web.Request, port: int, secret: dict[str, str], opened: set
) -> web.StreamResponse:
    """Pass messages both ways until one side closes. opened: holds the page's side as long, so that it can be closed.

    Not compressed: pictures are already, and the rest goes no further than this machine or its network.
    Raises aiohttp.ClientError if the process does not answer.
    """
    async with session.ws_connect(
        _address("ws", port, request), headers=secret, max_msg_size=0, compress=0, autoping=True
    ) as there:
        here = web.WebSocketResponse(max_msg_size=0, compress=False, heartbeat=30)
        await here.prepare(request)
        opened.add(here)
        try:
            ways = {asyncio.create_task(_pass_on(here, there)), asyncio.create_task(_pass_on(there, here))}
            _done, waiting = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in waiting:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        finally:
            opened.discard(here)
            with suppress(ConnectionError):
                await here.close()
        return here


async def _pass_on(source, target) -> None:
    async for message in source:
        if message.type is aiohttp.WSMsgType.BINARY:
            await target.send_bytes(message.data)
        elif message.type is aiohttp.WSMsgType.TEXT:
            await target.send_str(message.data)


def _address(scheme: str, port: int, request: web.Request) -> URL:
    # Made of parts: a path such as "@elsewhere/" pasted behind the port would be another machine.
    path, query = request.rel_url.raw_path, request.rel_url.raw_query_string
    if not path.startswith("/"):
        raise web.HTTPBadRequest
    return URL.build(scheme=scheme, host="127.0.0.1", port=port, path=path, query_string=query, encoded=True)
