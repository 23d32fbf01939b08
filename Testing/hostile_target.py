"""A running service as one caller sees it who means no good: every answer is counted, what must not be is noted."""

import json
import re
import socket
import time
from collections import Counter
from http.client import HTTPConnection, HTTPException

NAME = "evil-traversal"  # of every file that no path may lead to; never to be seen in a log or on the disk
SHORT = 0.2  # seconds that we wait for what may never be answered


class Target:
    """A running service as one caller sees it; counts its answers and notes what must not be.

    answers: number by status. faults: sentences. Not for two threads at once.
    """

    def __init__(self, url: str, token: str) -> None:
        self.host, port = url.removeprefix("http://").split(":")
        self.port, self.token = int(port), token
        self.answers: Counter[int] = Counter()
        self.faults: list[str] = []
        self._connection: HTTPConnection | None = None

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def ask(self, method: str, path: str, body: object = None, headers: dict | None = None) -> tuple[int, dict]:
        """One request that is HTTP at least. Returns status and answer; (0, {}) if there was none."""
        sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        given = self.bearer | {"Content-Type": "application/json"} | (headers or {})
        for again in (True, False):
            try:
                if self._connection is None:
                    self._connection = HTTPConnection(self.host, self.port, timeout=120)
                self._connection.request(method, path, sent, given)
                answer = self._connection.getresponse()
                content = answer.read()
                break
            except (HTTPException, OSError) as error:
                self.close()  # the server ends connections it has refused a body of
                if not again:
                    if isinstance(error, TimeoutError | ConnectionRefusedError):
                        self.faults.append(f"{method} {path[:80]}: {type(error).__name__}")
                    self.answers[0] += 1
                    return 0, {}
        self._note(answer.status, f"{method} {path[:80]} {(sent or b'')[:200]!r}", content)
        try:
            said = json.loads(content) if content else {}
        except ValueError:
            self.faults.append(f"{method} {path[:80]}: the answer {answer.status} is no JSON")
            said = {}
        return answer.status, said if isinstance(said, dict) else {}

    def raw(self, *pieces: bytes, pause: float = 0.0, patience: float = 120.0) -> list[int]:
        """Send bytes as they are; the statuses of all answers until the server ends the connection.

        patience: seconds without a word after which we leave; short for what may be no request yet.
        """
        heard = b""
        with socket.create_connection((self.host, self.port), timeout=120) as connection:
            connection.settimeout(patience)
            try:
                for piece in pieces:
                    connection.sendall(piece)
                    time.sleep(pause)
                while piece := connection.recv(2**16):
                    heard += piece
            except TimeoutError:
                if patience > 1:
                    self.faults.append(f"{pieces[0][:80]!r}: the connection stayed open")
            except OSError:
                pass  # the server has ended it while we were talking
        found = [int(status) for status in re.findall(rb"HTTP/1\.[01] ([0-9]{3}) ", heard)]
        for status in found or [0]:
            self._note(status, repr(pieces[0][:200]), heard)
        if b"x-evil" in heard.lower():
            self.faults.append(f"{pieces[0][:200]!r} put a header into the answer")
        return found

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def announce(self, about: dict) -> tuple[int, dict]:
        return self.ask("POST", "/v1/volumes", about)

    def put(self, identifier: str, offset: object, chunk: bytes, headers: dict | None = None) -> tuple[int, dict]:
        given = {"Content-Type": "application/octet-stream"} | (headers or {})
        return self.ask("PUT", f"/v1/volumes/{identifier}?offset={offset}", chunk, given)

    def refused(self, what: str, answer: tuple[int, dict]) -> None:
        """Note a fault if an upload that is not what it says was taken for whole, or a request for a good one."""
        status, said = answer
        if 200 <= status < 300 and (said.get("complete") or "received" not in said):
            self.faults.append(f"{what} was taken: {status} {said}")

    def _note(self, status: int, what: str, content: bytes) -> None:
        self.answers[status] += 1
        if status >= 500:
            self.faults.append(f"{what} -> {status} {content[:300]!r}")
