"""A site's server, as one program uses it: what LocalService is for the service of this computer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from RefSegLib.progress import SILENT, Progress

from InteractiveLearningLib.service.client import Client
from InteractiveLearningLib.service.failures import Denied
from InteractiveLearningLib.service.transport import checked_url


class SiteService:
    """The server at `url`. Safe with many threads.

    token: the token, or a function that gives it (None: nobody is signed in); it is asked each time, so that who signs
    in or out anew is heeded. certificate: as for Client. Raises BadInput for an address that is none.
    """

    home = None  # its store is its own

    def __init__(self, url: str, token: str | Callable[[], str | None], certificate: str | Path | None = None) -> None:
        self.url = checked_url(url)
        self.place = self.url.netloc.decode()
        self.certificate = None if certificate is None else Path(certificate)
        self.about = ("site", str(self.url), self.certificate)
        self._token = token if callable(token) else lambda: token
        self._lock = threading.Lock()
        self._used: str | None = None
        self._client: Client | None = None

    def client(self, progress: Progress = SILENT) -> Client:
        """A client of the server; it need not be closed. The server itself is asked by what is done with it.

        Raises Denied if nobody is signed in, and BadInput for a certificate file or a token that cannot be used.
        """
        token = self._token()
        if not token:
            raise Denied(f"Nobody is signed in at {self.place}. Sign in with a token; an administrator gives one.")
        progress(0.0, "Reaching the server")
        with self._lock:
            if self._client is None or token != self._used:
                made = Client(str(self.url), token, certificate=self.certificate)
                self._close()
                self._client, self._used = made, token
            return self._client

    def found(self) -> Client | None:
        """The client that `client` made last; None if there is none. Asks nobody."""
        return self._client

    def leave(self) -> None:
        """This program needs the server no more; `client` connects again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = self._used = None
