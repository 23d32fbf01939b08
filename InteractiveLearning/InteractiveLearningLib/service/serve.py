"""`refseg serve`: the service as a process."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import os
import secrets
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import uvicorn
from filelock import FileLock, Timeout
from RefSegLib.durable import write_durably
from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.terminal import console
from uvicorn.protocols.http.h11_impl import H11Protocol

from InteractiveLearningLib.service.app import create_app
from InteractiveLearningLib.service.executor import Executor
from InteractiveLearningLib.service.learners import end_left_over
from InteractiveLearningLib.service.service import LocalExecutor, Service
from InteractiveLearningLib.service.wire import API

log = logging.getLogger(__name__)
CONNECTIONS = 200
HEADER_SECONDS = 20.0
KEEP_ALIVE_SECONDS = 30
LEAVE_SECONDS = 5
ENDING_SECONDS = 30.0
LOOK_SECONDS = 0.5


class PatientProtocol(H11Protocol):
    """HTTP/1.1, closing connections that do not say what they want in time (uvicorn waits for ever)."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self._late: asyncio.TimerHandle | None = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        super().data_received(data)
        if not self._idle():
            self._cancel()
        elif self._late is None:  # of the next request, or of a body whose request is answered already
            self._late = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._cancel()
        super().connection_lost(exc)

    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _cancel(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        if self._idle():
            self.transport.close()


class _Server(uvicorn.Server):
    """Leaves the signals to `serve`, which has more to end than connections."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(
    home: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    certificate: Path | None = None,
    key: Path | None = None,
    device: str = "auto",
    executor: str = "local",
    local: bool = False,
    worklist: Path | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, or, if `local`, until nobody needs it any more. worklist: see Service.

    Raises BadInput for an address without TLS that others can reach, RefSegError if another service has this store.
    """
    check_address(host, certificate, key)
    folder = home / "service"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # One that nobody needed any more may still be ending: whoever comes in that moment needs the next one.
    lock = FileLock(folder / "lock", timeout=ENDING_SECONDS if local else 0, poll_interval=0.1)
    try:
        lock.acquire()
    except Timeout as error:
        raise RefSegError(f"Another service is at work on the store {home}. Use that one, or end it first.") from error
    with contextlib.ExitStack() as stack:
        stack.callback(lock.release)
        end_left_over(home)
        for name in ("local.json", "served.json"):  # of one that was killed
            (folder / name).unlink(missing_ok=True)
        told = folder / ("local.json" if local else "served.json")
        listening = stack.enter_context(listening_at(host, port))
        token = secrets.token_urlsafe(32) if local else None
        where, workers = _executor(executor, home, device)
        stack.callback(where.close)
        service = Service(home, where, token=token, workers=workers, worklist=worklist)
        stack.callback(service.close)
        server = _Server(_config(service, certificate, key))
        _end_on_signals(server, service)
        scheme = "https" if certificate else "http"
        url = f"{scheme}://{shown_address(listening)}"
        about = {"url": url, "token": token, "pid": os.getpid(), "api": [API]}
        about["certificate"] = None if certificate is None else str(certificate.resolve())
        stack.callback(lambda: told.unlink(missing_ok=True))
        threading.Thread(target=_announce, args=(server, told, about), daemon=True).start()
        if local:
            threading.Thread(target=_end_when_unneeded, args=(server, service), daemon=True).start()
        console.print(f"RefSeg serves the store {home} at {url}", highlight=False, soft_wrap=True)
        server.run(sockets=[listening])


def _config(service: Service, certificate: Path | None, key: Path | None) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(service),
        http=PatientProtocol,
        ws="none",
        lifespan="off",
        ssl_certfile=None if certificate is None else str(certificate),
        ssl_keyfile=None if key is None else str(key),
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=LEAVE_SECONDS,
        h11_max_incomplete_event_size=32 * 2**10,
        server_header=False,
        access_log=False,  # addresses hold no patient, but logs are read by many
        log_level="error",  # no line for every port scanner
    )


def check_address(host: str, certificate: Path | None, key: Path | None) -> None:
    """Raise BadInput for an address without TLS that others can reach, and for a certificate that cannot be used."""
    if (certificate is None) != (key is None):
        raise BadInput("Give both --tls-cert and --tls-key, or neither.")
    if certificate is not None and key is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            raise BadInput(f"The certificate '{certificate}' and its key cannot be used: {error}.") from error
    loopback = host == "localhost"
    with suppress(ValueError):
        loopback = ipaddress.ip_address(host).is_loopback
    if not loopback and certificate is None:
        raise BadInput(
            f"'{host}' can be reached from other machines, so images and tokens would travel readable. "
            "Give --tls-cert and --tls-key, or serve on 127.0.0.1."
        )


def _executor(said: str, home: Path, device: str) -> tuple[Executor, int]:
    if said == "local":
        return LocalExecutor(home, device), 1
    if said == "ray" or said.startswith("ray://"):
        from InteractiveLearningLib.service.cluster import RayExecutor

        replicas = 2
        return RayExecutor(said, home, device, replicas=replicas), replicas
    raise BadInput(f"'{said}' is no executor. Use local, ray (started on this machine), or ray://HOST:PORT.")


@contextmanager
def listening_at(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens there; port 0: any free one. Raises RefSegError if it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as found:
        if os.name == "posix":
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((host, port))
            found.listen(CONNECTIONS)  # whoever reads the address that is printed may connect at once
        except (OSError, OverflowError) as error:
            raise RefSegError(f"The service cannot listen at {host}, port {port}: {error}. Choose another.") from error
        yield found


def shown_address(listening: socket.socket) -> str:
    """HOST:PORT of a socket, as it stands in an address."""
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _end_on_signals(server: uvicorn.Server, service: Service) -> None:
    def end(_number: int, _frame: object) -> None:
        service.clients.end()
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


def _announce(server: uvicorn.Server, told: Path, about: dict[str, object]) -> None:
    while not server.started and not server.should_exit:
        threading.Event().wait(0.02)
    if server.started:
        write_durably(told, json.dumps(about).encode(), mode=0o600)


def _end_when_unneeded(server: uvicorn.Server, service: Service) -> None:
    while service.clients.needed():
        threading.Event().wait(LOOK_SECONDS)
    server.should_exit = True
