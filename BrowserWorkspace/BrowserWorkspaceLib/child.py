"""The process that works for one user: `python -m BrowserWorkspaceLib.child`, told what to do on its standard input.

It listens on this machine alone and answers nobody but its launcher. It ends, with everything saved, when its standard
input does (so also if the launcher was killed), on SIGTERM, or when no page was open for a while.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from RefSegLib.durable import write_durably
from RefSegLib.errors import RefSegError

from BrowserWorkspaceLib.children import END_SECONDS, HEADER

IDLE_SECONDS = 3600
SAVE_LOOK_SECONDS = 0.25


def main() -> None:
    """Serve one user until it is over."""
    order = json.loads(sys.stdin.buffer.readline())
    folder = Path(order["folder"])
    try:
        with _alone(folder):
            _serve(order, folder)
    except RefSegError as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two processes must not save into one folder. One whose launcher was killed is about to end: wait for that."""
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=END_SECONDS + 5)
    except Timeout as error:
        raise RefSegError(
            "This workspace is open already, by another `refseg app` on the same store. Use that one, or end it first."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _serve(order: dict, folder: Path) -> None:
    from trame.app import get_server

    from BrowserWorkspaceLib.recovery import Recovery
    from BrowserWorkspaceLib.workspace_app import WorkspaceApp

    server = get_server("refseg")
    server.controller.on_server_bind.add(lambda web: _only_for_launcher(web.app, order["secret"]))
    app = WorkspaceApp(server, Path(order["home"]), folder, order["images"], order["token"])
    recovery = Recovery(app, folder)
    recovery.failed.connect(app.failed)
    tasks = []

    def ready(**_):
        tasks.append(asyncio.get_running_loop().create_task(_save_now_and_then(recovery)))
        threading.Thread(target=_end_with_launcher, args=(asyncio.get_running_loop(), server), daemon=True).start()
        if not recovery.restore() and order["volume"] is not None:
            app.open_files([order["volume"]])
        told = {"pid": os.getpid(), "port": server.port}
        write_durably(folder / "child.json", json.dumps(told).encode(), mode=0o600)

    server.controller.on_server_ready.add(ready)
    server.start(
        host="127.0.0.1", port=0, open_browser=False, show_connection_info=False, timeout=IDLE_SECONDS, exec_mode="main"
    )
    for task in tasks:
        task.cancel()
    recovery.close()
    app.close()


def _only_for_launcher(web, secret: str) -> None:
    """Refuse every request, also of websockets and of what there is not, that does not bear the secret."""
    from aiohttp.web import HTTPForbidden, middleware

    @middleware
    async def check(request, handler):
        said = request.headers.get(HEADER, "").encode(errors="replace")
        if not hmac.compare_digest(said, secret.encode()):
            raise HTTPForbidden
        return await handler(request)

    web.middlewares.insert(0, check)


async def _save_now_and_then(recovery) -> None:
    while True:
        recovery.poll()
        await asyncio.sleep(SAVE_LOOK_SECONDS)


def _end_with_launcher(loop, server) -> None:
    sys.stdin.buffer.read()
    loop.call_soon_threadsafe(lambda: asyncio.ensure_future(server.stop()))
    time.sleep(END_SECONDS)
    os._exit(1)  # what is at work does not come to its end; what could be saved was saved while it was at work


if __name__ == "__main__":
    main()
