"""The processes that do the work, one for each user, as the launcher sees them."""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from RefSegLib.engine_process import python_environment, start_process, why_it_ended
from RefSegLib.errors import RefSegError

COMMAND = "BrowserWorkspaceLib.child"
HEADER = "X-RefSeg-Launcher"
# One that has nothing to save ends in a second.
END_SECONDS = 20.0
START_SECONDS = 300.0
_MOST_SAID = 4096


class Child:
    """The workspace of one user: started when it is needed, started again when it has ended.

    home: the store; folder: what belongs to this user alone; volume: what is opened in an empty workspace; images:
    the only folder of this machine whose images can be opened, None for any; token: of the user's account, None for
    whoever started this. secret: without it in the header HEADER, it answers nobody.
    """

    def __init__(
        self, home: Path, folder: Path, *, volume: Path | None, images: Path | None, token: str | None
    ) -> None:
        self.home, self.folder, self.volume, self.images, self.token = home, folder, volume, images, token
        self.secret, self.run = "", ""
        self._process: subprocess.Popen[bytes] | None = None
        self._port: int | None = None
        self._begun = 0.0

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None and self._process.poll() is None

    def port(self) -> int | None:
        """Where it listens; None while it starts, for which this call may be the reason. Never waits.

        Raises RefSegError, once, if it ended before it listened; the next call starts another one.
        """
        process = self._process
        if process is None or (process.poll() is not None and self._port is not None):
            self._start()
            return None
        if process.poll() is not None:
            self._process = None
            raise RefSegError(why_it_ended(process.returncode, self._said(), sys.executable))
        if self._port is None:
            self._port = self._told(process.pid)
            if self._port is None and time.monotonic() - self._begun > START_SECONDS:
                process.kill()
                self._process = None
                raise RefSegError(f"The workspace did not start within {START_SECONDS:.0f} seconds; see {self._log}.")
        return self._port

    async def end(self) -> None:
        """Let it save, and end it."""
        process, self._process, self._port = self._process, None, None
        if process is None:
            return
        with suppress(OSError):
            process.stdin.close()  # what it waits for
        until = time.monotonic() + END_SECONDS
        while process.poll() is None and time.monotonic() < until:
            await asyncio.sleep(0.05)
        if process.poll() is None:
            process.kill()
        process.wait()

    @property
    def _log(self) -> Path:
        return self.folder / "workspace.log"

    def _start(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            (self.folder / "child.json").unlink(missing_ok=True)
            with suppress(OSError):
                self._log.replace(self._log.with_name("workspace.log.1"))
            self.secret, self.run = secrets.token_urlsafe(32), secrets.token_hex(8)
            order = {
                "home": str(self.home),
                "folder": str(self.folder),
                "volume": None if self.volume is None else str(self.volume),
                "images": None if self.images is None else str(self.images),
                "token": self.token,
                "secret": self.secret,
            }
            command = [sys.executable, "-m", COMMAND]
            with self._log.open("ab") as output:
                process = start_process(command, python_environment(), output, stdin=subprocess.PIPE)
            # Not as arguments or in the environment, which other users and later processes could read.
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
        except OSError as error:
            raise RefSegError(f"The workspace in {self.folder} could not be started: {error}.") from error
        self._process, self._port, self._begun = process, None, time.monotonic()

    def _told(self, pid: int) -> int | None:
        try:
            said = json.loads((self.folder / "child.json").read_bytes())
        except (OSError, ValueError):
            return None
        return said["port"] if said["pid"] == pid else None

    def _said(self) -> str:
        with suppress(OSError), self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - _MOST_SAID))
            return file.read().decode(errors="replace")
        return ""
