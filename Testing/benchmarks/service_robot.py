"""The engine service as a process of its own, and robots that use it as people do: what three benchmarks share."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from bench_kill import FORKED
from interaction_data import SETS
from InteractiveLearningLib.annotator import Annotator
from InteractiveLearningLib.prompts import Prompt, to_dict
from InteractiveLearningLib.service import wire
from InteractiveLearningLib.service.learners import MODULE
from RefSegLib.models.spec import Label, Network, SegmenterSpec
from RefSegLib.volume.volume import LabelMap, Volume

# Of the kind and size of bench_learning's network for hippocampi.
HIPPOCAMPUS = SegmenterSpec(
    name="hippocampus",
    channels=("MR",),
    labels=SETS["msd_hippocampus"].segments,
    spacing=(1, 1, 1),
    patch=(40, 56, 40),
    aligned=False,
    network=Network(name="unet", arguments={"filters": [16, 32, 64, 128]}),
)
START_SECONDS = 120.0
ANSWER_SECONDS = 120.0


def _serve(home: Path, local: bool, log: Path) -> None:
    """The service in a process forked from a server that has done the imports."""
    from InteractiveLearningLib.service.serve import serve

    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    serve(home, local=local)


class Service:
    """A service on the store under `home`.

    forked: begin without the imports, which take most of a start; otherwise the real command is run. local: with a
    token of its own, see refseg serve; it must be told every 10 s that somebody is there.
    seconds: from the start to the first answer.
    """

    def __init__(self, home: Path, *, forked: bool = False, local: bool = True) -> None:
        self.home, self.log, self.local = home, home.parent / f"{home.name}.log", local
        started = time.monotonic()
        told = home / "service" / "local.json"
        said = self.log.stat().st_size if self.log.exists() else 0
        if forked:
            process = FORKED.Process(target=_serve, args=(home, local, self.log))
            process.start()
            self.pid, self._wait, self._over = process.pid, process.join, lambda: process.exitcode is not None
        else:
            command = [sys.executable, "-m", "InteractiveLearningLib.cli", "serve", "--store", str(home)]
            with self.log.open("ab") as log:
                running = subprocess.Popen(
                    [*command, "--local"] if local else command, stdout=log, stderr=log, stdin=subprocess.DEVNULL
                )
            self.pid, self._wait, self._over = running.pid, running.wait, lambda: running.poll() is not None
        self.url = self.token = ""
        while not self._answers(told, said):
            if self._over() or time.monotonic() - started > START_SECONDS:
                raise RuntimeError(f"The service did not start: {self.log.read_text()[said:]}")
            time.sleep(0.01)
        self.seconds = time.monotonic() - started

    def _answers(self, told: Path, said: int) -> bool:
        with suppress(OSError, ValueError, KeyError, httpx.HTTPError):
            if self.local:
                about = json.loads(told.read_bytes())
                if about["pid"] != self.pid:
                    return False
                self.url, self.token = about["url"], about["token"]
            else:
                text = self.log.read_text()[said:]
                self.url = text[text.index("http") :].split()[0]
            return httpx.get(f"{self.url}/hello", timeout=5).status_code == 200
        return False

    def kill(self) -> None:
        """kill -9."""
        os.kill(self.pid, signal.SIGKILL)
        self._wait()

    def end(self) -> None:
        """As an administrator ends it."""
        os.kill(self.pid, signal.SIGTERM)
        self._wait()

    def running(self) -> bool:
        """Whether it still is."""
        return not self._over()


def learners(home: Path) -> list[psutil.Process]:
    """The learners' processes of a store, whoever started them."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and {MODULE, str(home)} <= set(process.cmdline()):
                found.append(process)
    return found


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__(f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text[:300]}")
        self.status = answer.status_code


class Robot:
    """A client. answers: how often each status came; what raises is Refused, or httpx.HTTPError if nothing came."""

    def __init__(self, url: str, token: str, answers: Counter[int] | None = None) -> None:
        self.answers: Counter[int] = Counter() if answers is None else answers
        self.http = httpx.Client(
            base_url=f"{url}/v1", headers={"Authorization": f"Bearer {token}"}, timeout=ANSWER_SECONDS
        )

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """The answer's JSON."""
        answer = self.http.request(method, path, **options)
        self.answers[answer.status_code] += 1
        if not answer.is_success:
            raise Refused(answer)
        return answer.json() if answer.content else None

    def upload(self, volume: Volume, piece: int = wire.CHUNK) -> str:
        """Send what the service does not have of a volume; returns its id."""
        body, identifier = wire.pack_volume(volume), wire.volume_id(volume)
        head = wire.volume_head(volume) | {"id": identifier, "packed": len(body)}
        said = self.ask("POST", "/volumes", json=head)
        while not said["complete"]:
            at = said["received"]
            path = f"/volumes/{identifier}"
            said = self.ask("PUT", path, params={"offset": at}, content=body[at : at + piece])
        return identifier

    def begin(self, volume: str, labels: Sequence[Label], mask: LabelMap | None = None) -> str:
        """Begin a session; returns its id. mask: to begin from."""
        given = None if mask is None else wire.pack_where(mask.array).model_dump()
        about = {"volume": volume, "labels": [label.model_dump(mode="json") for label in labels], "mask": given}
        return self.ask("POST", "/sessions", json=about)["id"]

    def say(self, session: str, *prompts: Prompt) -> dict[str, Any]:
        """Prompts at once; returns Changed."""
        body = {"prompts": [to_dict(prompt) for prompt in prompts]}
        return self.ask("POST", f"/sessions/{session}/prompts", json=body)

    def segment(self, volume: str, model: str, **options: Any) -> dict[str, Any]:
        """A segmentation from its start to its end; returns the Job."""
        about = {"kind": "segment", "volume": volume, "model": model, **options}
        job = self.ask("POST", "/jobs", json=about)
        while job["state"] in ("queued", "running"):
            job = self.ask("GET", f"/jobs/{job['id']}", params={"wait": 5, "seen": job["revision"]})
        return job

    def state(self, session: str) -> dict[str, Any]:
        """Everything of a session."""
        return self.ask("GET", f"/sessions/{session}")


def shown_of(state: dict[str, Any], shape: tuple[int, int, int]) -> np.ndarray:
    """The label map (k, j, i) that a session's state tells."""
    return wire.unpack_box(wire.ArrayBox(**state["labels"]), shape)


def take(shown: np.ndarray, changed: dict[str, Any]) -> None:
    """Put an answer's box into a label map."""
    if changed["box"] is not None:
        box = wire.ArrayBox(**changed["box"])
        shown[tuple(map(slice, box.lower, box.upper))] = wire.unpack_values(box)


def hands(truth: LabelMap, seed: int) -> Annotator:
    """Somebody who knows the truth."""
    return Annotator(truth, imprecise=True, seed=seed)


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Milliseconds: median, 95th percentile, largest; and how many."""
    at = np.percentile(seconds, [50, 95, 100]) * 1000
    return {"median": round(at[0], 1), "p95": round(at[1], 1), "largest": round(at[2], 1), "count": len(seconds)}
