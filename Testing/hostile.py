"""A service to be attacked, and thousands of attacks on it, the same for the same seed."""

import os
import random
import threading
import time
from collections import Counter
from pathlib import Path

import hostile_http
import hostile_uploads
import httpx
import psutil
from benchmarks.tiny_learning import an_image, an_untrained_version
from hostile_access import LABELS, PATIENT, Site, tree
from hostile_target import NAME, Target
from InteractiveLearningLib.prompts import Outline, to_dict
from InteractiveLearningLib.service.accounts import Role
from InteractiveLearningLib.service.service import SWEEP_SECONDS
from InteractiveLearningLib.service.uploads import PART_SECONDS
from running_service import RunningService, finished, send

ATTACKS = [
    hostile_uploads.wrong_text,
    hostile_uploads.wrong_field,
    hostile_uploads.wrong_shape,
    hostile_uploads.wrong_type,
    hostile_uploads.wrong_grid,
    hostile_uploads.wrong_keys,
    hostile_uploads.truncated,
    hostile_uploads.flipped,
    hostile_uploads.bomb,
    hostile_uploads.wrong_hash,
    hostile_uploads.wrong_head,
    hostile_uploads.wrong_size,
    hostile_uploads.wrong_offset,
    hostile_uploads.trailing,
    hostile_uploads.other_stream,
    hostile_uploads.no_numbers,
    hostile_uploads.encoded,
    hostile_http.elsewhere,
    hostile_http.stranger,
    hostile_http.chunked,
    hostile_http.smuggled,
    hostile_http.odd_headers,
    hostile_http.odd_tokens,
    hostile_http.odd_methods,
    hostile_http.no_http,
    hostile_http.pipelined,
    hostile_http.broken_off,
]
RARE = [hostile_uploads.many_wrong, hostile_uploads.too_large]  # every fiftieth: they are large


def attacked(url: str, token: str, count: int, seed: int, workers: int) -> tuple[Counter, Counter, list[str]]:
    """Attack a service `count` times, each attack the same for the same seed and number.

    Returns (how often each attack was made, answers by status, faults).
    """
    targets, made = [Target(url, token) for _ in range(workers)], Counter()

    def work(worker: int) -> None:
        for number in range(worker, count, workers):
            rng = random.Random(f"{seed} {number}")
            attack = rng.choice(RARE) if rng.random() < 0.02 else ATTACKS[number % len(ATTACKS)]
            try:
                attack(targets[worker], rng)
            except OSError as error:
                targets[worker].faults.append(f"{attack.__name__} {seed} {number}: {error}")
            made[attack.__name__] += 1
        targets[worker].close()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers = sum((target.answers for target in targets), Counter())
    return made, answers, [fault for target in targets for fault in target.faults]


class Victim:
    """A service with a model, accounts of every kind, and something of the administrator's to be had.

    root: an empty folder; everything is below root/home, what lies beside it must stay as it is.
    own: ids of the administrator's volume, session and job, by what they are.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.home = root, root / "home"
        (root / NAME).write_text("not to be touched")
        an_untrained_version(self.home)
        self.service = RunningService(self.home)
        self.site = Site(self.home)
        self.service.start()
        self.process = psutil.Process(self.service.process.pid)
        self.token = self.site.tokens[Role.ADMINISTRATOR]
        self.client = self.service.client(self.token)
        _until_it_listens(self.client)
        self.volume, self._truth = an_image(3)
        self.own = {"volume": send(self.client, self.volume)}
        self.own["session"] = self._session()
        job = {"volume": self.own["volume"], "model": "balls", "reflect": False}
        self.own["job"] = finished(self.client, self.client.post("/v1/jobs", json=job).json())["id"]

    def what_a_session_gives(self) -> dict:
        """All that a normal session answers, from the upload to its state, its own id aside."""
        session = self._session()
        said = []
        for index in (4, 8, 11):
            drawn = Outline.on(self.volume.grid, 0, index, self._truth.array[index] == 1, 1)
            prompts = {"prompts": [to_dict(drawn)]}
            said.append(self.client.post(f"/v1/sessions/{session}/prompts", json=prompts).raise_for_status().json())
        said.append(self.client.post(f"/v1/sessions/{session}/undo").raise_for_status().json())
        said.append(self.client.post(f"/v1/sessions/{session}/next", json={}).raise_for_status().json())
        state = self.client.get(f"/v1/sessions/{session}").raise_for_status().json()
        self.client.delete(f"/v1/sessions/{session}").raise_for_status()
        return {"said": said, "state": state}

    def beside(self) -> dict[str, str]:
        """Everything under root that uploads have no business with."""
        return {name: content for name, content in tree(self.root).items() if not name.startswith("home/service/")}

    def left_over(self) -> list[str]:
        """Halves of uploads that the service's own sweep does not remove once they are old."""
        ago = time.time() - 2 * PART_SECONDS
        for file in (self.home / "service" / "volumes").glob("*/*"):
            if ".part" in file.name:
                os.utime(file, (ago, ago))
        end = time.monotonic() + 20 * SWEEP_SECONDS
        while (found := self._parts()) and time.monotonic() < end:
            time.sleep(0.2)
        return found

    def told(self, log: str) -> list[str]:
        """What the log or a file of the service tells and must not. log: all that the service has printed."""
        secrets = [*self.site.tokens.values(), *self.site.refused.values(), self.service.token, PATIENT, NAME]
        kept = {str(f): f.read_bytes() for f in (self.home / "service").rglob("*") if f.is_file()}
        faults = [f"{file} holds '{s[:12]}'" for file, text in kept.items() for s in secrets if s.encode() in text]
        faults += [f"The log holds '{secret[:12]}'" for secret in secrets if secret in log]
        return faults + ([f"The log holds a traceback: {log[-3000:]}"] if "Traceback" in log else [])

    def _session(self) -> str:
        begun = self.client.post("/v1/sessions", json={"volume": self.own["volume"], "labels": LABELS})
        return begun.raise_for_status().json()["id"]

    def _parts(self) -> list[str]:
        return [str(f) for f in (self.home / "service" / "volumes").glob("*/*") if ".part" in f.name]


def _until_it_listens(client: httpx.Client) -> None:
    while True:
        try:
            client.get("/hello").raise_for_status()
            return
        except httpx.ConnectError:
            time.sleep(0.05)
