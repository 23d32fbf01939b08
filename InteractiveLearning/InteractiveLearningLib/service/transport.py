"""One request to a service and its answer: verified TLS, proxies, versions of the API, second tries."""

from __future__ import annotations

import ipaddress
import json
import random
import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import certifi
import httpx
from RefSegLib.errors import BadInput, Cancelled
from RefSegLib.progress import SILENT, Progress

from InteractiveLearningLib.service.failures import (
    Busy,
    Unreachable,
    WrongServer,
    no_answer,
    no_refseg,
    not_ours,
    place,
    refused,
)
from InteractiveLearningLib.service.wire import API, HEADER

APIS = (API,)
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
# A service that crashed is back in 5 s.
PATIENCE_SECONDS = 15.0
FIRST_PAUSE = 0.2
_TOKEN = re.compile(r"[\x21-\x7e]{1,512}")


class Transport:
    """Talks to the service at `url` as the owner of `token`. Safe with many threads. See Client for what is raised.

    certificate: a file of certificates (PEM or DER) to trust instead of the system's. timeout: seconds for an answer.
    patience: for how long requests are sent again that a lost connection or a server without room have cost; a server
    that never answered yet is not waited for.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        certificate: Path | None = None,
        timeout: float = ANSWER_SECONDS,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self.url, self._token, self.patience = checked_url(url), token.strip(), patience
        if not _TOKEN.fullmatch(self._token):
            raise BadInput("The token holds characters that no token has. Copy it again, from its first to its last.")
        loopback = is_loopback(self.url.host)
        try:
            self._http = httpx.Client(
                base_url=self.url,
                verify=trusting(certificate) if self.url.scheme == "https" else False,
                trust_env=not loopback,  # a proxy is on the way to others, never to this computer itself
                timeout=httpx.Timeout(timeout, connect=min(CONNECT_SECONDS, timeout)),
                headers={"Accept-Encoding": "identity", "User-Agent": "RefSeg"},  # what is large is compressed already
            )
        except (ValueError, ImportError, httpx.HTTPError) as error:
            raise BadInput(f"The proxy of the environment (HTTPS_PROXY, ALL_PROXY) cannot be used: {error}.") from error
        self._hello: dict[str, Any] | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def hello(self) -> dict[str, Any]:
        """What the server says of itself: service, api, version. Asked for once; no token is sent."""
        with self._lock:
            if self._hello is None:
                answer = self._exchange("GET", "/hello", {})
                agreed(answer, self.url)
                self._hello = answer
            return self._hello

    def ask(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        content: bytes | None = None,
        params: Mapping[str, Any] | None = None,
        again: bool | None = None,
        timeout: float | None = None,
        progress: Progress = SILENT,
        take: Callable[[httpx.Response], Any] | None = None,
    ) -> Any:
        """The answer to a request, {} if it is empty. path: from behind the version on. body: sent as JSON.

        take: reads an answer that is no JSON; what it returns is returned, and it is called again for another try.

        again: whether it may be sent again if no answer came and it may have been carried out; None: all but POST.
        timeout: seconds for this answer. Cancelled between tries.
        """
        options: dict[str, Any] = {"params": params, "headers": {"Authorization": f"Bearer {self._token}"}}
        if body is not None:
            options["json"] = body
        if content is not None:
            options["content"] = content
            options["headers"]["Content-Type"] = "application/octet-stream"
        if timeout is not None:
            options["timeout"] = httpx.Timeout(timeout, connect=CONNECT_SECONDS)
        again = method != "POST" if again is None else again
        until, pause = time.monotonic() + self.patience, FIRST_PAUSE
        while True:
            try:
                version = agreed(self.hello(), self.url)
                return self._exchange(method, f"/v{version}{path}", options, take)
            except Busy as error:
                failure, wait = error, max(error.wait, pause)
            except Unreachable as error:
                if self._hello is None or (error.sent and not again):
                    raise
                failure, wait = error, pause
            wait *= random.uniform(1, 1.3)  # not all clients at once
            if time.monotonic() + wait > until:
                raise failure
            _sleep(wait, progress)
            pause *= 2

    def _exchange(
        self,
        method: str,
        path: str,
        options: Mapping[str, Any],
        take: Callable[[httpx.Response], Any] | None = None,
    ) -> Any:
        try:
            with self._http.stream(method, path, **options) as response:
                if HEADER not in response.headers:
                    raise not_ours(response)
                if take is not None and response.is_success:
                    return take(response)
                content = response.read()
        except RuntimeError as error:
            if not self._http.is_closed:
                raise
            raise Unreachable(f"The connection to {place(self.url)} was closed here. Connect again.") from error
        except httpx.HTTPError as error:
            raise no_answer(error, self.url, met=self._hello is not None) from error
        try:
            answer = json.loads(content) if content else {}
        except ValueError:
            answer = None
        if response.is_success and isinstance(answer, dict):
            return answer
        if response.is_success:
            raise WrongServer(no_refseg(self.url))
        said = answer if isinstance(answer, dict) else {}
        raise refused(response.status_code, said, response.headers.get("Retry-After"), self.url)


def agreed(hello: Mapping[str, Any], url: httpx.URL) -> int:
    """The highest version of the API that both sides know. Raises WrongServer if there is none."""
    offered = hello.get("api")
    if hello.get("service") != "refseg" or not isinstance(offered, list) or not all(type(n) is int for n in offered):
        raise WrongServer(no_refseg(url))
    common = set(offered) & set(APIS)
    if common:
        return max(common)
    update = "update the server" if max(offered, default=0) < max(APIS) else "update this RefSeg"
    theirs, ours = (", ".join(map(str, sorted(numbers))) or "none" for numbers in (offered, APIS))
    raise WrongServer(f"The server at {place(url)} speaks API {theirs}, this RefSeg speaks {ours}: {update}.")


def checked_url(url: str) -> httpx.URL:
    """The address of a service. Raises BadInput for one that is none, or over which a token must not travel."""
    text = url.strip().rstrip("/")
    example = "Give it as https://SERVER:PORT."
    try:
        found = httpx.URL(text)
    except (httpx.InvalidURL, TypeError) as error:
        raise BadInput(f"'{text}' is no address of a server. {example}") from error
    if found.scheme not in ("http", "https") or not found.host:
        raise BadInput(f"'{text}' is no address of a server. {example}")
    if found.userinfo:
        raise BadInput(f"An address must hold neither name nor password; the token stands for them. {example}")
    if found.query or found.fragment:
        raise BadInput(f"'{text}' is the address of a page, not of a server. {example}")
    if found.scheme == "http" and not is_loopback(found.host):
        raise BadInput(
            f"{place(found)} is not encrypted: images and token could be read on the way. Give an address with "
            "https://; http:// is only for this computer itself."
        )
    return found


def is_loopback(host: str) -> bool:
    """Whether a host is this computer itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def trusting(certificate: Path | None) -> ssl.SSLContext:
    """Whom to believe: the certificates in a file, else those of the system. Raises BadInput for an unusable file."""
    if certificate is None:
        context = ssl.create_default_context()
        if not context.get_ca_certs():  # an OpenSSL that looks for them where it was built, as some Pythons have
            context.load_verify_locations(certifi.where())
        return context
    try:
        content = Path(certificate).read_bytes()
        if not content:
            raise ValueError
        given = content.decode("ascii") if b"-----BEGIN" in content else content
        context = ssl.create_default_context(cadata=given)
    except OSError as error:  # ssl.SSLError is one
        reason = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise BadInput(f"The certificate file '{certificate}' cannot be used: {reason}. Choose another one.") from error
    except ValueError as error:
        raise BadInput(f"The certificate file '{certificate}' holds no certificate. Choose another one.") from error
    # Whoever chose the file chose to trust what is in it: also a server's own certificate, and a site's authority
    # whose certificate lacks what Python 3.13 asks of public ones.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _sleep(seconds: float, progress: Progress) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if progress.cancelled():
            raise Cancelled
        time.sleep(min(left, 0.05))
