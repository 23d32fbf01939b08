"""The one address that people open: lets in who may, and passes on to the process of that user.

Nothing is answered, not even with what every page has, before somebody has signed in: the token in the first address
becomes a cookie of this run, which scripts cannot read, other sites do not send and logs do not see.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import aiohttp
from aiohttp import web
from InteractiveLearningLib.service.accounts import NotAllowed
from InteractiveLearningLib.service.guard import TooManyAttempts
from RefSegLib.errors import RefSegError

from BrowserWorkspaceLib import pages, proxy
from BrowserWorkspaceLib.access import CHECK_SECONDS, Access, Visitor
from BrowserWorkspaceLib.children import HEADER, Child

HEADERS = {
    # Vue compiles its templates in the page, hence 'unsafe-eval'; nothing comes from or goes to another machine.
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; "
        "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers hide where their own forms come from, too
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
SESSION = "/paraview/"  # trame's own address for it
SAFE_METHODS = ("GET", "HEAD")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Launcher:
    """The application of aiohttp that `app_cli.py` runs.

    home: the store; volume: opened in workspaces that are empty; images: the only folder of this machine whose images
    can be opened from the page (None: any by whoever started this, none by users with accounts); certificate: None for
    plain HTTP, on this machine.
    """

    def __init__(
        self,
        home: Path,
        volume: Path | None = None,
        images: Path | None = None,
        certificate: ssl.SSLContext | None = None,
    ) -> None:
        self.access = Access(home)
        self.certificate = certificate
        self._home, self._volume, self._images = home, volume, images
        self._children: dict[str, Child] = {}
        self._sockets: dict[str, set[web.WebSocketResponse]] = {}
        self._session: aiohttp.ClientSession | None = None
        self.app = web.Application(middlewares=[self._guard])
        self.app.cleanup_ctx.append(self._running)
        self.app.on_response_prepare.append(_add_headers)
        self.app.router.add_post(pages.SIGN_IN, self._sign_in)
        self.app.router.add_post("/-/sign-out", self._sign_out)
        self.app.router.add_post(SESSION, self._where)
        self.app.router.add_get("/-/workspace", self._workspace)
        self.app.router.add_get("/-/watch.js", self._watch)
        self.app.router.add_route("*", "/{path:.*}", self._pass)

    def folder_of(self, visitor: Visitor) -> Path:
        """Where the workspace of this user is kept."""
        return self._home / "app" / visitor.user

    def images_for(self, visitor: Visitor) -> Path | None:
        """The only folder of this machine whose images this user can open; None: any."""
        # Users with accounts are not who started this, and what he may read is none of theirs.
        return self.folder_of(visitor) if self._images is None and visitor.token is not None else self._images

    async def _running(self, _app: web.Application):
        self._session = proxy.new_session()
        checking = asyncio.create_task(self._check_sockets())
        yield
        checking.cancel()
        await asyncio.gather(*(child.end() for child in self._children.values()))
        await self._session.close()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every request comes by here, of unknown addresses, too."""
        try:
            return await self._checked(request, handler)
        except web.HTTPException as error:
            return _page(pages.refused(error.reason), error.status)

    async def _checked(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        socket = request.headers.get("Upgrade", "").lower() == "websocket"
        if (socket or request.method not in SAFE_METHODS) and not self._same_origin(request):
            return _page(pages.refused("This was asked by another site."), 403)
        if request.method == "POST" and request.path == pages.SIGN_IN:
            return await handler(request)
        if request.method == "GET" and request.path == "/" and "token" in request.query and not socket:
            return await self._let_in(request, request.query["token"])
        cookie = request.cookies.get(self._cookie(request))
        who = None if cookie is None else await asyncio.to_thread(self.access.visitor, cookie)
        if who is None:
            return _page(pages.sign_in("Sign in with your token."), 401)
        request["visitor"] = who
        return await handler(request)

    def _same_origin(self, request: web.Request) -> bool:
        return request.headers.get("Origin") == f"{self._scheme}://{request.host}"

    @property
    def _scheme(self) -> str:
        return "http" if self.certificate is None else "https"

    @staticmethod
    def _cookie(request: web.Request) -> str:
        """Cookies know no ports: two workspaces of one machine have a name each."""
        return f"refseg-{request.transport.get_extra_info('sockname')[1]}"

    async def _let_in(self, request: web.Request, token: str) -> web.StreamResponse:
        try:
            cookie = await asyncio.to_thread(self.access.sign_in, token, request.remote or "")
        except TooManyAttempts as error:
            return _page(pages.refused(str(error)), 429, {"Retry-After": str(error.wait)})
        except NotAllowed as error:
            return _page(pages.sign_in(str(error)), 403)
        answer = web.HTTPSeeOther("/")
        secure = self.certificate is not None
        answer.set_cookie(self._cookie(request), cookie, httponly=True, samesite="Strict", secure=secure, path="/")
        return _plain(answer)

    async def _sign_in(self, request: web.Request) -> web.StreamResponse:
        said = await request.post()
        return await self._let_in(request, str(said.get("token", "")).strip())

    async def _sign_out(self, request: web.Request) -> web.StreamResponse:
        name = self._cookie(request)
        self.access.sign_out(request.cookies[name])
        answer = web.HTTPSeeOther("/")
        answer.del_cookie(name, path="/")
        await self._close_sockets(request.cookies[name])
        return _plain(answer)

    async def _where(self, request: web.Request) -> web.Response:
        """Where a page's websocket is. Pages of trame ask that first, and the process itself would refuse it."""
        scheme = "ws" if self.certificate is None else "wss"
        return web.json_response({"sessionURL": f"{scheme}://{request.host}/ws"})

    async def _workspace(self, request: web.Request) -> web.StreamResponse:
        """Which process is at work for this user, so that a page learns that its own has ended."""
        child = self._children.get(request["visitor"].user)
        return web.json_response({"run": child.run if child is not None and child.running else ""})

    async def _watch(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(text=pages.WATCH, content_type="text/javascript")

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        try:
            child = await self._child(request["visitor"])
            port = child.port()
        except RefSegError as error:
            return _page(pages.failed(str(error)), 503)
        if port is None:
            return _page(pages.starting(), 503, {"Retry-After": "1"})
        secret = {HEADER: child.secret}
        try:
            if request.headers.get("Upgrade", "").lower() == "websocket":
                opened = self._sockets.setdefault(request.cookies[self._cookie(request)], set())
                return await proxy.pass_websocket(self._session, request, port, secret, opened)
            return await proxy.pass_request(self._session, request, port, secret, pages.WATCHED)
        except aiohttp.ClientError:
            return _page(pages.starting(), 503, {"Retry-After": "1"})

    async def _child(self, visitor: Visitor) -> Child:
        child = self._children.get(visitor.user)
        if child is None:
            folder = self.folder_of(visitor)
            images = self.images_for(visitor)
            child = Child(self._home, folder, volume=self._volume, images=images, token=visitor.token)
            self._children[visitor.user] = child
        elif child.token != visitor.token and not await asyncio.to_thread(self.access.holds, child.token, visitor.user):
            await child.end()  # it works with a token that was revoked, or has expired
            child.token = visitor.token
        return child

    async def _check_sockets(self) -> None:
        """Nobody keeps a connection that he could not open any more."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            for cookie in list(self._sockets):
                if not self._sockets[cookie]:
                    del self._sockets[cookie]
                elif await asyncio.to_thread(self.access.visitor, cookie) is None:
                    await self._close_sockets(cookie)

    async def _close_sockets(self, cookie: str) -> None:
        for socket in list(self._sockets.pop(cookie, ())):
            with suppress(ConnectionError):
                await socket.close(code=aiohttp.WSCloseCode.POLICY_VIOLATION)


async def _add_headers(_request: web.Request, answer: web.StreamResponse) -> None:
    answer.headers.update(HEADERS)


def _page(text: str, status: int, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(text=text, content_type="text/html", status=status, headers=headers)


def _plain(answer: web.HTTPException) -> web.Response:
    """A response that can be returned, as aiohttp wants its exceptions raised."""
    made = web.Response(status=answer.status, headers={"Location": answer.headers["Location"]})
    for name, morsel in answer.cookies.items():
        made.cookies[name] = morsel
    return made
