"""Who still needs a local service: it ends when the last program that uses it has left or died."""

from __future__ import annotations

import threading
import time

from RefSegLib.errors import RefSegError

SILENCE = 45.0
BEGINNING = 60.0
MOST = 1000


class Ending(RefSegError):
    """Nobody is taken in any more."""


class Clients:
    """Programs that renew their presence every ten seconds or so."""

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}
        self._begun, self._lock, self._last = time.monotonic(), threading.Lock(), False
        self._ending = False

    def renew(self, client: str) -> None:
        """This one is there. Raises Ending if it has come too late: whoever were taken in now would lose what it asks
        for next."""
        with self._lock:
            if self._ending:
                raise Ending("This service is just ending.")
            if len(self._seen) >= MOST and client not in self._seen:
                del self._seen[next(iter(self._seen))]
            self._seen[client] = time.monotonic()

    def leave(self, client: str) -> None:
        """This one is gone."""
        with self._lock:
            if self._seen.pop(client, None) is not None:
                self._last = not self._seen

    def needed(self) -> bool:
        """Whether anybody may still come: one is there, or it has only just begun and nobody has left yet. Once the
        answer was no, nobody is taken in any more."""
        with self._lock:
            now = time.monotonic()
            self._seen = {client: seen for client, seen in self._seen.items() if now - seen < SILENCE}
            self._ending |= not self._seen and (self._last or now - self._begun >= BEGINNING)
            return not self._ending

    def end(self) -> None:
        """Nobody is taken in any more."""
        self._ending = True
