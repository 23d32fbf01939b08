"""A real service in a process of its own, for tests: started, talked to, really killed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
from InteractiveLearningLib.service import wire
from InteractiveLearningLib.service.accounts import Accounts, Role


class RunningService:
    """`refseg serve` on the store under `home`; token: of an administrator "tester", or, if local, of this machine."""

    def __init__(self, home: Path, *options: str, local: bool = False) -> None:
        self.home, self._options, self._local = home, options, local
        self.process = self.url = self.token = None
        if not local:
            accounts = Accounts(home)
            accounts.add("tester", Role.ADMINISTRATOR)
            self.token = accounts.give_token("tester")

    def start(self) -> "RunningService":
        command = [sys.executable, "-m", "InteractiveLearningLib.cli", "serve", "--store", str(self.home)]
        told = self.home / "service" / "local.json"
        told.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [*command, *(["--local"] if self._local else []), *self._options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "500"},
        )
        line = self.process.stdout.readline().decode()
        assert " at http" in line, line + self.process.stdout.read().decode()
        self.url = line.split()[-1]
        while self._local and not told.exists():
            time.sleep(0.01)
        if self._local:
            self.token = json.loads(told.read_bytes())["token"]
        return self

    def client(self, token: str | None = None, **options) -> httpx.Client:
        """A plain HTTP client with the service's own token, or another."""
        given = self.token if token is None else token
        return httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {given}"}, timeout=60, trust_env=False, **options
        )

    def kill(self) -> None:
        """As a crash would."""
        self.process.kill()
        self.process.wait()

    def end(self) -> str:
        """As a person would; returns what it printed. Nothing of it is left."""
        family = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        self.process.terminate()
        said = self.process.communicate(timeout=60)[0].decode()
        for process in family:
            assert not process.is_running(), f"{process.cmdline()} was left behind"
        return said


def send(client: httpx.Client, volume) -> str:
    """Send a volume in two chunks; returns its id."""
    content, identifier = wire.pack_volume(volume), wire.volume_id(volume)
    about = wire.volume_head(volume) | {"id": identifier, "packed": len(content)}
    answer = client.post("/v1/volumes", json=about).raise_for_status().json()
    half = len(content) // 2
    for start, end in ((0, half), (half, len(content))):
        if not answer["complete"]:
            where = {"offset": start}
            answer = client.put(f"/v1/volumes/{identifier}", params=where, content=content[start:end]).json()
    assert answer["complete"], answer
    return identifier


def finished(client: httpx.Client, job: dict) -> dict:
    """The job once it is over."""
    while job["state"] in ("queued", "running"):
        job = client.get(f"/v1/jobs/{job['id']}", params={"wait": 5, "seen": job["revision"]}).json()
    return job
