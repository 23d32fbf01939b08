"""A real `refseg app` in a process of its own, with its real children, for tests."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

READY_SECONDS = 120


class RunningApp:
    """`refseg app` on the store under `home`. token: of this run; None where the store has users."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        self._out = (home / "launcher.log").open("wb")
        command = [sys.executable, "-m", "BrowserWorkspaceLib.app_cli", "app", "--store", str(home), "--port", "0"]
        root = Path(__file__).parents[1] / "BrowserWorkspace"
        path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "500", "PYTHONPATH": path}
        self.process = subprocess.Popen(
            [*command, "--no-browser", *options], stdout=self._out, stderr=subprocess.STDOUT, env=environment
        )
        until = time.monotonic() + READY_SECONDS
        while (found := re.search(r"(http\S+?)(?:\?token=(\S+))?\n", self.said())) is None:
            assert self.process.poll() is None and time.monotonic() < until, self.said()
            time.sleep(0.05)
        self.url, self.token = found[1].rstrip("/"), found[2]

    def said(self) -> str:
        """What the launcher has printed so far."""
        return (self.home / "launcher.log").read_text()

    def stranger(self) -> httpx.Client:
        """An HTTP client that knows nothing."""
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    @contextmanager
    def signed_in(self, token: str | None = None) -> Iterator[httpx.Client]:
        """An HTTP client with the cookie that a token is worth."""
        with self.stranger() as client:
            answer = client.get("/", params={"token": token or self.token})
            assert answer.status_code == 303, answer.text
            yield client

    def until_ready(self, client: httpx.Client) -> httpx.Response:
        """The page, once the process behind it has started."""
        until = time.monotonic() + READY_SECONDS
        while (answer := client.get("/index.html")).status_code == 503:
            assert "starting" in answer.text and time.monotonic() < until, answer.text
            time.sleep(0.2)
        return answer

    def child(self, user: str = "console") -> dict:
        """pid and port of the process that works for a user, once it has started."""
        told, until = self.home / "app" / user / "child.json", time.monotonic() + READY_SECONDS
        while not told.exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        return json.loads(told.read_bytes())

    def end(self) -> None:
        """As a person would; nothing of it is left."""
        family = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        workers = [process for process in family if _is_child(process)]
        self.process.terminate()
        self.process.wait(timeout=60)
        self._out.close()
        for process in workers:
            assert not process.is_running(), "a child was left behind"


def _is_child(process: psutil.Process) -> bool:
    """Whether a process works for a user; one that has just ended does not."""
    try:
        return "BrowserWorkspaceLib.child" in process.cmdline()
    except psutil.Error:
        return False
