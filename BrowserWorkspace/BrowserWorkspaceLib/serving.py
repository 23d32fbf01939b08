"""`refseg app`: the launcher as a process."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import ssl
import sys
import threading
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from InteractiveLearningLib.service.serve import check_address, listening_at, shown_address

from BrowserWorkspaceLib.launcher import Launcher


def serve(
    home: Path,
    *,
    host: str,
    port: int,
    certificate: Path | None,
    key: Path | None,
    volume: Path | None,
    images: Path | None,
    tell: Callable[[str], None],
    browser: bool,
) -> None:
    """Serve until SIGTERM or SIGINT; every workspace is saved then.

    volume, images: see Launcher; tell: gets the lines for whoever started this, the address among them; browser: also
    open it, if there is one.
    Raises BadInput for an address without TLS that others can reach, RefSegError if the port is taken.
    """
    check_address(host, certificate, key)
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
    launcher = Launcher(home, volume, images, context)
    with listening_at(host, port) as listening:
        base = f"{'https' if context else 'http'}://{shown_address(listening)}/"
        address = base if launcher.access.token is None else f"{base}?token={launcher.access.token}"

        def told() -> None:
            tell(f"RefSeg's workspace is at {address}")
            if launcher.access.token is None:
                tell("Sign in with the token of a user: refseg users token NAME")
            tell("It ends with Ctrl+C; what is open is kept.")
            if browser:  # in a thread, as some browsers keep who opened them waiting
                threading.Thread(target=_open, args=(address,), daemon=True).start()

        asyncio.run(_run(launcher, listening, context, told))


async def _run(launcher: Launcher, listening, context: ssl.SSLContext | None, told: Callable[[], None]) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Windows has no add_signal_handler
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(ended.set))
    # No access log: the first address holds the token.
    logging.getLogger("aiohttp.server").addFilter(_is_ours)
    runner = web.AppRunner(launcher.app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.SockSite(runner, listening, ssl_context=context).start()
    told()
    try:
        await ended.wait()
    finally:
        await runner.cleanup()


def _is_ours(record: logging.LogRecord) -> bool:
    """No lines for what port scanners send and is no HTTP: they hold what was sent."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def _open(address: str) -> None:
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return  # a text browser in the terminal would only be in the way
    with suppress(webbrowser.Error):
        webbrowser.open(address)
