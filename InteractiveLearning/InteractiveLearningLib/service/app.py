"""The service's face: FastAPI, with every error as a sentence."""

from __future__ import annotations

import errno
import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from RefSegLib import __version__
from RefSegLib.errors import BadInput, RefSegError
from starlette.exceptions import HTTPException

from InteractiveLearningLib.service.clients import Ending
from InteractiveLearningLib.service.guard import Forbidden, TooManyAttempts, Unknown, signed_in
from InteractiveLearningLib.service.jobs import Full, Missing
from InteractiveLearningLib.service.learning_routes import router as learning_router
from InteractiveLearningLib.service.limits import Limits
from InteractiveLearningLib.service.routes import router
from InteractiveLearningLib.service.service import Service
from InteractiveLearningLib.service.uploads import DiskFull, Elsewhere
from InteractiveLearningLib.service.wire import API, HEADER
from InteractiveLearningLib.service.worklist import Taken
from InteractiveLearningLib.service.worklist_routes import router as worklist_router

log = logging.getLogger(__name__)
# The first that fits; other RefSegErrors are the server's own trouble.
_STATUS: list[tuple[type[Exception], int]] = [
    (Unknown, 401),
    (Forbidden, 403),
    (TooManyAttempts, 429),
    (Missing, 404),
    (Elsewhere, 409),
    (Taken, 409),
    (Ending, 409),
    (Full, 503),
    (DiskFull, 507),
    (BadInput, 400),
]
_FULL = (errno.ENOSPC, errno.EDQUOT)


def create_app(service: Service) -> FastAPI:
    """The application. No pages for browsers, no CORS, and the description of the API only for those with a token."""
    app = FastAPI(
        title="RefSeg", version=__version__, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )
    app.state.service = service
    app.add_middleware(Limits, caller=lambda scope: signed_in(service, scope), refused=_refused)
    app.include_router(router)
    app.include_router(learning_router)
    app.include_router(worklist_router)
    app.add_exception_handler(RefSegError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)

    @app.get("/hello")
    def hello() -> dict[str, Any]:
        """Who is here; the only thing told without a token."""
        return {"service": "refseg", "api": [API], "version": __version__}

    return app


def _refused(_request: Request, error: Exception) -> JSONResponse:
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 507 if _disk_full(error) else 500)
    if status == 500:
        log.error("%s", error)
    headers = {}
    if isinstance(error, Full | TooManyAttempts):
        headers["Retry-After"] = str(int(error.wait))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    more = {"received": error.received} if isinstance(error, Elsewhere) else {}
    return JSONResponse({"error": str(error)} | more, status, headers)


def _invalid(_request: Request, error: Exception) -> JSONResponse:
    first = error.errors()[0]  # what was sent is not repeated: it may name a patient
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    return JSONResponse({"error": f"The request cannot be used: {where or 'body'}: {first['msg']}."}, 400)


def _http(_request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": f"{error.detail}."}, error.status_code, error.headers)


def _unexpected(_request: Request, error: Exception) -> JSONResponse:
    known = {HEADER: str(API)}  # this answer passes by limits.py, and without it a client takes us for a proxy
    if _disk_full(error):
        return JSONResponse({"error": "The disk of the server is full; nothing was kept."}, 507, known)
    said = f"The server could not do this ({type(error).__name__}). Its log tells more."
    return JSONResponse({"error": said}, 500, known)


def _disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if "disk is full" in str(error):  # SQLite
            return True
        error = error.__cause__ or error.__context__
    return False
