"""What can go wrong between a client and a service, in sentences that say what, where and what to do."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import httpx
from RefSegLib.errors import BadInput, RefSegError

PROBE_SECONDS = 2.0
# What OpenSSL calls an answer that is no TLS, through its versions.
_NO_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG", "RECORD_TOO_SMALL"}
# OpenSSL's numbers of reasons not to trust a certificate (x509_vfy.h).
_NOT_YET, _EXPIRED, _SELF_SIGNED, _OTHER_NAME = 9, 10, (18, 19), (62, 64)


class ServiceError(RefSegError):
    """The service could not do what it was asked for. status: of its answer, None if there was none."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Unreachable(ServiceError):
    """No answer came. sent: the request may have been carried out all the same."""

    def __init__(self, message: str, *, sent: bool = False) -> None:
        super().__init__(message)
        self.sent = sent


class NotTrusted(ServiceError):
    """The server's certificate does not prove that it is the one that was asked for."""


class WrongServer(ServiceError):
    """What answers is no RefSeg service, or one that this RefSeg cannot talk to."""


class Denied(ServiceError):
    """The token opens nothing, or its user may not do this."""


class NotFound(ServiceError):
    """There is no such thing on the server (any more), or it is somebody else's."""


class Elsewhere(ServiceError):
    """Not now, or not from there. answer: what the server said."""

    def __init__(self, message: str, answer: dict[str, Any]) -> None:
        super().__init__(message, 409)
        self.answer = answer


class Busy(ServiceError):
    """The server has no room now. wait: seconds after which it may have."""

    def __init__(self, message: str, status: int, wait: float) -> None:
        super().__init__(message, status)
        self.wait = wait


def no_answer(error: httpx.HTTPError, url: httpx.URL, *, met: bool) -> ServiceError:
    """Why there was no answer from the service at `url`, for people. met: one has answered there before."""
    where, causes = place(url), list(_causes(error))
    untrusted = next((c for c in causes if isinstance(c, ssl.SSLCertVerificationError)), None)
    handshake = isinstance(error, httpx.ConnectError)
    tls = next((c for c in causes if handshake and isinstance(c, ssl.SSLError)), None)
    if isinstance(error, httpx.ProxyError):
        return Unreachable(
            f"The proxy on the way to {where} refused: {error}. Ask for the server to be allowed, or name it in the "
            "environment variable NO_PROXY."
        )
    if untrusted is not None:
        return NotTrusted(_not_trusted(untrusted, where))
    if tls is not None and tls.reason in _NO_TLS:
        return WrongServer(f"What answers at {where} does not speak https. Check the port, or ask the administrator.")
    if tls is not None:
        reason = tls.reason or str(tls)
        return WrongServer(f"No safe connection to {where} could be made ({reason}). Ask the server's administrator.")
    if any(isinstance(c, socket.gaierror) for c in causes):
        return Unreachable(f"There is no server named '{url.host}' in this network. Check the address and the network.")
    if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
        return Unreachable(
            f"{where} did not answer in time. Is the server on, and does the firewall let this computer through?"
        )
    if isinstance(error, httpx.ConnectError):
        return Unreachable(_not_connected(causes, where))
    if isinstance(error, httpx.TimeoutException):
        return Unreachable(f"{where} took the request but did not answer in time. Try again later.", sent=True)
    if met:
        return Unreachable(f"The connection to {where} was lost. Try again.", sent=True)
    if url.scheme == "http" and speaks_tls(url):
        return WrongServer(_wants_https(where))
    if isinstance(error, httpx.RemoteProtocolError) and "without sending" not in str(error):
        return WrongServer(no_refseg(url))
    return Unreachable(
        f"{where} ended the connection without an answer. Check the port, and whether the server is well.", sent=True
    )


def refused(status: int, answer: dict[str, Any], retry_after: str | None, url: httpx.URL) -> RefSegError:
    """What an answer of a service means that is no success. answer: its JSON."""
    said, where = answer.get("error"), place(url)
    if not isinstance(said, str) or not said:
        said = f"The server at {where} failed (status {status}). Its administrator finds more in its log."
        if status in (404, 405):  # a path of the API that an earlier server has not
            return WrongServer(f"The server at {where} does not know what was asked for. Update the server.", status)
    if status in (401, 403):
        return Denied(said, status)
    if status == 404:
        return NotFound(said, status)
    if status == 409:
        return Elsewhere(said, answer)
    if status in (429, 503):
        wait = float(retry_after) if retry_after and retry_after.isdecimal() else 1.0
        return Busy(said, status, wait)
    if status in (400, 413, 415, 422):
        return BadInput(said)
    return ServiceError(said, status)


def not_ours(response: httpx.Response) -> ServiceError:
    """What an answer without our header means: a proxy, a login page, another program."""
    url, status, place_ = response.request.url, response.status_code, response.headers.get("Location")
    where = place(url)
    if status == 407:
        return Unreachable(f"The proxy on the way to {where} wants a password. Give it in HTTPS_PROXY.")
    if status in (502, 503, 504):
        return Unreachable(
            f"Something in front of {where} answers that it cannot reach the server (status {status}). Is the server "
            "running?",
            sent=status != 503,
        )
    if url.scheme == "http" and speaks_tls(url):
        return WrongServer(_wants_https(where))
    if place_ and 300 <= status < 400:
        return WrongServer(f"{where} sends elsewhere, to {place_}. Give the address of the server itself.")
    return WrongServer(no_refseg(url))


def no_refseg(url: httpx.URL) -> str:
    """What answers is something else."""
    return f"What answers at {place(url)} is no RefSeg server. Check the address and the port."


def place(url: httpx.URL) -> str:
    """Where a server is, without anything that may be secret."""
    return f"{url.scheme}://{url.netloc.decode()}"


def speaks_tls(url: httpx.URL) -> bool:
    """Whether a server begins a TLS handshake. Only to tell why talking to it failed: nothing is sent to it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((url.host, url.port or 80), PROBE_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=url.host),
        ):
            return True
    except OSError:
        return False


def _wants_https(where: str) -> str:
    return f"The server at {where} wants https. Write https:// instead of http://."


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _not_trusted(error: ssl.SSLCertVerificationError, where: str) -> str:
    code = error.verify_code
    if code == _EXPIRED:
        return f"The certificate of {where} has expired. Its administrator has to renew it (or is this clock wrong?)."
    if code == _NOT_YET:
        return f"The certificate of {where} is not valid yet. Is the clock of this computer right?"
    if code in _OTHER_NAME:
        return f"The certificate of {where} is for another name. Use the name that the certificate was made for."
    whose = "is signed by itself" if code in _SELF_SIGNED else "is signed by somebody this computer does not know"
    return (
        f"The certificate of {where} {whose}. If the site has a certificate file of its own, choose it in the settings."
    )


def _not_connected(causes: list[BaseException], where: str) -> str:
    codes = {c.errno for c in causes if isinstance(c, OSError)}
    if codes & {errno.ECONNREFUSED, getattr(errno, "WSAECONNREFUSED", errno.ECONNREFUSED)}:
        return f"Nothing answers at {where}. Is the server running, and is the port right?"
    if codes & {errno.ENETUNREACH, errno.EHOSTUNREACH}:
        return f"There is no way in the network to {where}. Is the network or the VPN connected?"
    return f"{where} cannot be reached ({causes[0]}). Is the server running, and is the address right?"
