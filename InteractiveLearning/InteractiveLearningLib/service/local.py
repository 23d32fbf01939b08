"""The engine service of this computer: started by whoever needs it first, shared, ended when nobody needs it.

home/service/local.json      where it is, written by the service itself once it answers, for this user alone
home/service/served.json     where a service for users with accounts is, which does not end by itself
home/service/starting.lock   held by a program that is starting it; the operating system frees it
home/service/serve.log       what it wrote; the one before: serve.log.1
"""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout
from RefSegLib.engine_process import python_environment, start_process, why_it_ended
from RefSegLib.errors import Cancelled, RefSegError
from RefSegLib.models.store import ModelStore
from RefSegLib.progress import SILENT, Progress

from InteractiveLearningLib.service.client import Client
from InteractiveLearningLib.service.remote import RemoteRunner
from InteractiveLearningLib.service.site import SiteService

COMMAND = "InteractiveLearningLib.cli"
RENEW_SECONDS = 10.0
# A cold start reads some hundred MB of packages; two of them on a slow disk.
START_SECONDS = 300.0
LOOK_SECONDS = 0.05
# It is on this computer, but that may have its hands full.
HELLO_SECONDS = 10.0
LEAVE_SECONDS = 2.0
PATIENCE_SECONDS = 2.0
_MOST_SAID = 4096


class LocalService:
    """The service on the store under `home`, as one program uses it.

    home: None for REFSEG_HOME or ~/.refseg. python: an interpreter that has the engine; environment: what it starts
    with (None: this process's own). Both count only if the service is not running yet. token: of the user in whose name
    all is done; None for whoever sits at this computer, who may do everything. Safe with many threads.
    about: equal for services that were asked for alike; place: where it is, for people.
    """

    place = "this computer"

    def __init__(
        self,
        home: str | Path | None = None,
        python: str | Path = sys.executable,
        environment: Mapping[str, str] | None = None,
        token: str | None = None,
    ) -> None:
        self.home, self.python, self._token = ModelStore(home).home, str(python), token
        self._environment = environment
        self.about = ("local", str(self.home), self.python)
        self._folder, self._id = self.home / "service", uuid.uuid4().hex
        self._lock, self._left = threading.Lock(), threading.Event()
        self._about: dict[str, Any] | None = None
        self._client: Client | None = None
        self._renewing: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def client(self, progress: Progress = SILENT) -> Client:
        """A client of the service, which is started if it does not run (any more); it then lives until all `leave`.

        Takes milliseconds if it runs and seconds if not. Raises RefSegError with the sentence that it ended with, or
        Cancelled.
        """
        with self._lock:
            found = self._running()
            if found is None:
                progress(0.0, "Starting the engine")
                found = self._start(progress)
            return found

    def found(self) -> Client | None:
        """A client of the service if it runs; None if not, or if it is being started. Starts nothing, waits a second
        at most for another thread."""
        if not self._lock.acquire(timeout=1.0):
            return None
        try:
            return self._running()
        finally:
            self._lock.release()

    def leave(self) -> None:
        """This program needs the service no more. It ends if nobody else needs it; `client` starts it again."""
        if not self._lock.acquire(timeout=LEAVE_SECONDS):  # it is being started; silence ends it, too
            return
        try:
            self._left.set()
            atexit.unregister(self.leave)
            client, self._client, self._about, self._renewing = self._client, None, None, None
        finally:
            self._lock.release()
        if client is not None:
            with suppress(RefSegError):
                client.ask("DELETE", f"/clients/{self._id}", timeout=LEAVE_SECONDS)
            client.close()

    def _running(self) -> Client | None:
        """Register with the service that local.json speaks of; None if it does not answer or does not know us."""
        about = self._told()
        if about is None or not _alive(about.get("pid")):
            return None
        client = self._client
        if client is None or about != self._about:
            try:
                token = str(about["token"]) if self._token is None else self._token
                client = Client(
                    str(about["url"]),
                    token,
                    certificate=Path(about["certificate"]) if about.get("certificate") else None,
                    timeout=HELLO_SECONDS,
                    patience=PATIENCE_SECONDS,
                )
            except (RefSegError, KeyError):
                return None
        try:
            client.ask("PUT", f"/clients/{self._id}", timeout=HELLO_SECONDS)
        except RefSegError:
            if client is not self._client:
                client.close()
            return None
        if client is not self._client:
            if self._client is not None:
                self._client.close()
            self._client, self._about = client, about
        self._renew()
        return client

    def _told(self) -> dict[str, Any] | None:
        # Only a user of theirs can do anything at a service for users.
        for name in ("local.json",) if self._token is None else ("local.json", "served.json"):
            with suppress(OSError, ValueError):
                about = json.loads((self._folder / name).read_bytes())
                if isinstance(about, dict):
                    return about
        return None

    def _start(self, progress: Progress) -> Client:
        """Start it, unless somebody else is doing so just now; then wait for theirs."""
        until = time.monotonic() + START_SECONDS
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            while True:
                try:
                    with FileLock(self._folder / "starting.lock", timeout=0):
                        return self._running() or self._started(until, progress)
                except Timeout:
                    self._pause(until, progress)
        except OSError as error:
            raise RefSegError(f"The store {self.home} cannot be used: {error}. Choose another folder.") from error

    def _started(self, until: float, progress: Progress) -> Client:
        log = self._folder / "serve.log"
        with suppress(OSError):  # Windows moves no file that an earlier service still writes to
            log.replace(log.with_name("serve.log.1"))
        command = [self.python, "-m", COMMAND, "serve", "--local", "--store", str(self.home)]
        with log.open("ab") as output:
            process = start_process(command, python_environment(self._environment), output)
        self._process = process  # asked now and then, so that no zombie stays
        try:
            while (client := self._running()) is None:
                code = process.poll()
                # One that somebody else started is there, but has not answered in time: it will.
                if code is not None and not _alive((self._told() or {}).get("pid")):
                    raise RefSegError(why_it_ended(code, _last_of(log), self.python))
                self._pause(until, progress)
        except RefSegError:
            if process.poll() is None:  # canceled, or too slow: nobody would use it
                process.terminate()
            raise
        return client

    def _pause(self, until: float, progress: Progress) -> None:
        if progress.cancelled():
            raise Cancelled
        if time.monotonic() > until:
            raise RefSegError(
                f"The engine did not start within {START_SECONDS:.0f} seconds. What it said is in "
                f"{self._folder / 'serve.log'}."
            )
        time.sleep(LOOK_SECONDS)

    def _renew(self) -> None:
        """Keep telling that this program is here, until it leaves."""
        if self._renewing is None or not self._renewing.is_alive():
            self._left = threading.Event()
            self._renewing = threading.Thread(target=self._keep, args=(self._left,), name="presence", daemon=True)
            self._renewing.start()
            atexit.register(self.leave)

    def _keep(self, left: threading.Event) -> None:
        while not left.wait(RENEW_SECONDS):
            client = self._client
            if client is not None:
                with suppress(RefSegError):  # one that ended is started again when it is needed
                    client.ask("PUT", f"/clients/{self._id}", timeout=HELLO_SECONDS)
            if self._process is not None:
                self._process.poll()


class ServiceRunner(RemoteRunner):
    """Segments by the service of this computer or of a site: reaches it in the job's thread; the one of this computer
    is started, and started again if it was killed."""

    def __init__(self, service: LocalService | SiteService) -> None:
        self._service = service

    def close(self) -> None:
        """See Runner."""
        self._service.leave()

    def _connected(self, progress: Progress) -> Client:
        return self._service.client(progress)


def _alive(pid: Any) -> bool:
    """Whether there is such a process; one that ended and was not asked for yet is none."""
    try:
        return isinstance(pid, int) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError):
        return False


def _last_of(log: Path) -> str:
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _MOST_SAID))
        return file.read().decode(errors="replace")
    return ""
