"""Eight clients for half an hour: uploading, clicking, segmenting, cancelling, accepting, vanishing. What leaks?

    REFSEG_DATA=FOLDER python Testing/benchmarks/bench_soak.py [--minutes 30] [--clients 8] [--out FILE] [--seed 0]

One service as a site runs it (`refseg serve` on loopback, an account each), hippocampi of msd_hippocampus, and an
untrained model of the size of bench_learning's that learns what is accepted. Clients work at a human pace; now and then
one cuts its connection in the middle of a request, leaves a session open for ever, or cancels a segmentation.
Memory, open files, threads and child processes of the service are read every five seconds. At the end the clients
discard what they left, what the service keeps for a day or a week is made that old on the disk, and the sweeps must
leave nothing. Exits with 1 for any answer 5xx, memory that grew by 5 % after the first sixth, or anything left.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil
from interaction_data import cases, load
from InteractiveLearningLib.prompts import Limits
from InteractiveLearningLib.replay import ReplayStore
from InteractiveLearningLib.service import wire
from InteractiveLearningLib.service.accounts import Accounts, Role
from InteractiveLearningLib.service.sessions import KEPT_SECONDS, LEASE
from InteractiveLearningLib.service.uploads import KEPT_SECONDS as VOLUMES_KEPT
from InteractiveLearningLib.verdicts import VerdictLog
from RefSegLib.models.store import ModelStore
from service_robot import HIPPOCAMPUS, Refused, Robot, Service, hands, learners, shown_of, take
from tiny_learning import an_untrained_version

PACE = (0.3, 1.2)
WARM = 1 / 6  # of the time: five minutes of thirty
GROWTH = 0.05
SAMPLE_SECONDS = 5.0
SWEEP_SECONDS = 40.0  # the service sweeps every 15
NAME = HIPPOCAMPUS.name


class Person:
    """A client and all it does. did: how often what; abandoned: sessions it left open; broken: what went wrong."""

    def __init__(self, url: str, token: str, name: str, seed: int) -> None:
        self.robot, self.name, self.url, self.token = Robot(url, token), name, url, token
        self.random = random.Random(f"{name} {seed}")
        self.images = self.random.sample(cases("msd_hippocampus", "train"), 12)
        self.did: Counter[str] = Counter()
        self.abandoned: list[str] = []
        self.broken: list[str] = []

    def live(self, over: threading.Event, versions: ModelStore) -> None:
        """Case after case."""
        while not over.is_set():
            try:
                self._case(over, versions)
            except (Refused, httpx.HTTPError) as error:
                if not over.is_set():
                    self.broken.append(f"{self.name}: {type(error).__name__} {error}")

    def _case(self, over: threading.Event, versions: ModelStore) -> None:
        image, truth = load("msd_hippocampus", self.random.choice(self.images))
        if self.random.random() < 0.15:
            self._cut_upload(wire.pack_volume(image), wire.volume_head(image) | {"id": wire.volume_id(image)})
        volume = self.robot.upload(image, self.random.choice((8_000, wire.CHUNK)))
        self.did["upload"] += 1
        if self.random.random() < 0.7:
            self._segment(volume, versions)
        session = self.robot.begin(volume, HIPPOCAMPUS.labels)
        shown, hand = shown_of(self.robot.state(session), truth.array.shape), hands(truth, self.random.randrange(99))
        names: dict = {}
        at = np.flatnonzero(truth.array.any(axis=(0, 2)))
        for step in range(self.random.randint(6, 20)):
            if over.wait(self.random.uniform(*PACE)):
                break
            what = "outline" if step < 2 else self.random.choice(("click", "outline", "undo", "redo", "ask"))
            if what in ("undo", "redo") and names.get(what):
                changed = self.robot.ask("POST", f"/sessions/{session}/{what}")
            elif what == "ask":
                self._ask(session)
                continue
            else:
                prompt = hand.click(shown, (1, 2)) if what == "click" else None
                index = self.random.choice(at.tolist())
                label = next(label for label in (1, 2) if (truth.array[:, index] == label).any())
                changed = self.robot.say(session, prompt or hand.outline(label, 1, index))
            take(shown, changed)
            names = {name: changed[name] for name in ("undo", "redo")}
            self.did[what] += 1
        end = self.random.random()
        if end < 0.4 and shown.any():
            about = {"model": NAME, "patient": f"{self.name} {self.random.randrange(20)}"}
            self.robot.ask("POST", f"/sessions/{session}/accept", json=about)
            self.did["accept"] += 1
        elif end < 0.75:
            self.robot.ask("DELETE", f"/sessions/{session}")
            self.did["discard"] += 1
        else:
            self.abandoned.append(session)
            self._vanish(f"/v1/sessions/{session}/next")

    def _ask(self, session: str) -> None:
        path = f"/sessions/{session}"
        self.did["ask"] += 1
        match self.random.randrange(5):
            case 0:
                self.robot.ask("POST", f"{path}/next", json={})
            case 1:
                found = self.robot.ask("GET", f"{path}/limits", params={"label": 1})["limits"]
                if found is not None:
                    Limits(**{k: v for k, v in found.items() if k != "kind"})
            case 2:
                self.robot.ask("GET", f"{path}/estimate", params={"label": 1})
            case 3:
                self.robot.ask("GET", f"/models/{NAME}/learning")
            case _:
                self.robot.ask("POST", f"{path}/alive")

    def _segment(self, volume: str, versions: ModelStore) -> None:
        draw, model = self.random.random(), NAME
        if draw < 0.15:  # somebody still wants an older version
            model = f"{NAME}@{self.random.choice(versions.versions(NAME))}"
        about = {"kind": "segment", "volume": volume, "model": model, "suspect": draw > 0.5}
        if draw > 0.8:
            job = self.robot.ask("POST", "/jobs", json=about)["id"]
            time.sleep(self.random.uniform(0, 0.5))
            self.robot.ask("DELETE", f"/jobs/{job}")
            self.did["cancel"] += 1
            return
        if draw > 0.65:
            self.robot.ask("POST", "/jobs", json=about)  # nobody will ask for it
            self.did["forgotten segmentation"] += 1
            return
        job = self.robot.segment(volume, model, suspect=about["suspect"])
        if job["state"] != "done":
            self.broken.append(f"{self.name}: a segmentation {job['state']}: {job['error']}")
        self.did["segment"] += 1

    def _cut_upload(self, body: bytes, head: dict) -> None:
        said = self.robot.ask("POST", "/volumes", json=head | {"packed": len(body)})
        if not said["complete"]:
            rest = body[said["received"] :]
            path = f"/v1/volumes/{head['id']}?offset={said['received']}"
            self._cut("PUT", path, rest, self.random.randrange(len(rest)))

    def _vanish(self, path: str) -> None:
        body = b"{}"
        self._cut("POST", path, body, self.random.choice((0, 1, 2)))

    def _cut(self, method: str, path: str, body: bytes, sent: int) -> None:
        """Send the beginning of a request, or all of it, and be gone."""
        host, port = urlsplit(self.url).netloc.split(":")
        head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {self.token}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection((host, int(port)), timeout=10) as connection, suppress(OSError):
            connection.sendall(head.encode() + body[:sent])
        self.did["vanish"] += 1

    def leave(self) -> None:
        """Discard every session that is kept; more than were left open must not be there."""
        kept = [session["id"] for session in self.robot.ask("GET", "/sessions")["sessions"]]
        self.broken += [f"{self.name}: session {i} is there, and was accepted" for i in set(kept) - set(self.abandoned)]
        for session in kept:
            self.robot.ask("DELETE", f"/sessions/{session}")


def sample(process: psutil.Process, home: Path) -> dict[str, float]:
    """What the service holds now. memory in MB: of the process alone; learners have their own."""
    return {
        "at": time.monotonic(),
        "memory": process.memory_info().rss / 2**20,
        "files": process.num_fds(),
        "threads": process.num_threads(),
        "children": len(process.children()),
        "learners": len(learners(home)),
    }


def make_old(home: Path) -> None:
    """As if a week had passed since the files were used last."""
    for path in (home / "service").glob("*/*/*"):
        then = time.time() - max(VOLUMES_KEPT, KEPT_SECONDS) - 60
        os.utime(path, (then, then))


def measure(minutes: float, count: int, seed: int) -> dict:
    """The whole run."""
    with tempfile.TemporaryDirectory() as place:
        home = Path(place) / "home"
        an_untrained_version(home, spec=HIPPOCAMPUS)
        ReplayStore(home, validation_patients=3).close()
        accounts = Accounts(home)
        names = [f"client{number}" for number in range(count)]
        for name in names:
            accounts.add(name, Role.REVIEWER)
        service = Service(home, local=False)
        people = [Person(service.url, accounts.give_token(name), name, seed) for name in names]
        process, over, versions = psutil.Process(service.pid), threading.Event(), ModelStore(home)
        before = sample(process, home)
        threads = [threading.Thread(target=person.live, args=(over, versions)) for person in people]
        for thread in threads:
            thread.start()
        samples, until = [], time.monotonic() + 60 * minutes
        while time.monotonic() < until:
            samples.append(sample(process, home))
            time.sleep(SAMPLE_SECONDS)
        over.set()
        for thread in threads:
            thread.join()
        told = _summary(samples, before, people, minutes)
        told["versions published or refused"] = dict(Counter(v.outcome for v in VerdictLog(home, NAME).verdicts()))
        told["versions"] = len(versions.versions(NAME))
        for person in people:
            person.leave()
            person.robot.http.close()
        make_old(home)
        time.sleep(LEASE if minutes > 2 else SWEEP_SECONDS)
        after = sample(process, home)
        told["after the sweeps"] = {name: round(value) for name, value in after.items() if name != "at"}
        left = [str(p.relative_to(home / "service")) for p in (home / "service").rglob("*") if p.is_file()]
        told["files left"] = sorted(name for name in left if name.startswith(("volumes", "sessions")) or ".tmp" in name)
        service.end()
        time.sleep(1)
        told["processes left"] = len(learners(home))
        told["log of the service"] = service.log.read_text()[-3000:]
        return told


def _summary(samples: list[dict], before: dict, people: list[Person], minutes: float) -> dict:
    memory = np.array([s["memory"] for s in samples])
    first, sixth = int(len(samples) * WARM), max(1, int(len(samples) * WARM / 2))
    warm, end = np.median(memory[first : first + sixth]), np.median(memory[-sixth:])
    answers = sum((person.robot.answers for person in people), Counter())
    return {
        "minutes": minutes,
        "clients": len(people),
        "did": dict(sum((person.did for person in people), Counter())),
        "answers": {str(status): number for status, number in sorted(answers.items())},
        "broken": [sentence for person in people for sentence in person.broken][:50],
        "memory (MB)": {"start": round(before["memory"]), "warm": round(warm), "end": round(end)},
        "growth": round(float(end / warm) - 1, 4),
        "memory over time (MB)": memory[:: max(1, len(memory) // 30)].round().astype(int).tolist(),
        "most": {name: max(s[name] for s in samples) for name in ("files", "threads", "children", "learners")},
        "at the end": {name: samples[-1][name] for name in ("files", "threads", "children", "learners")},
    }


def faults(told: dict) -> list[str]:
    """What must not be."""
    found = [f"{n} answers {status}" for status, n in told["answers"].items() if status >= "500"]
    found += told["broken"]
    if told["growth"] > GROWTH:
        found.append(f"the memory grew by {told['growth']:.1%}")
    found += [f"{name} is left" for name in told["files left"]]
    if told["processes left"] or told["most"]["learners"] > 1:
        found.append("there were more learners than one, or one was left")
    return found


def main() -> None:
    """Measure, print, exit with 1 for faults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    told = measure(given.minutes, given.clients, given.seed)
    told["faults"] = faults(told)
    print(json.dumps(told, indent=1))
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(told, indent=1))
    sys.exit(1 if told["faults"] else 0)


if __name__ == "__main__":
    main()
