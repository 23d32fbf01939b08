"""Kill -9 and full disks, over and over: the service, its learner, the writers of cases and of accounts.

    python Testing/benchmarks/bench_service_kill.py [--kills 1000] [--disks 40] [--out FOLDER] [--seed 0]

Goes on where it was stopped, a batch being done or not. In every batch of the service two clients upload, annotate,
segment and accept, in every tenth batch while it learns. At random moments the learner, an administrator who gives
tokens and the service are killed, and the service is started again, every tenth time by its command, otherwise forked
with the imports done.
Then everything that was ever acknowledged is looked for: cases once and only once (an acceptance whose answer was lost
is repeated), sessions voxel for voxel, uploads to the byte, tokens, the chain of the audit log, versions, verdicts.
Full disks: the same clients, in every other batch with learning, on a small file system (loopback; needs root) that is
filled at random moments.
Exits with 1 if anything does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path

from bench_kill import FORKED, kill_learners, kill_writers, look
from InteractiveLearningLib.replay import ReplayStore
from InteractiveLearningLib.service.accounts import Accounts, Role
from InteractiveLearningLib.service.audit import Action, AuditLog
from InteractiveLearningLib.verdicts import VerdictLog
from service_clients import Client
from service_robot import Service, learners, percentiles
from tiny_learning import SPEC, an_untrained_version

OUT = Path(os.environ.get("REFSEG_OUT", Path(__file__).parents[2] / "out")) / "bench-kill"
# Kills of a batch: small enough to be lost without regret when the benchmark itself is stopped.
WRITERS, LEARNERS, SERVICES, DISKS = 25, 20, 20, 5
COLD = 10  # every tenth start is a real one
PACE = 0.4  # without a pause between clicks nothing would ever be learnt
LEARNS = 10  # every tenth batch
LEARNER_GONE = 15.0
DISK_MB = 40


def give_tokens(home: Path, pipe: Connection) -> None:
    """The process to be killed: an administrator who gives tokens for ever and sends each once it was given."""
    accounts = Accounts(home)
    while True:
        pipe.send_bytes(accounts.give_token("guest").encode())
        time.sleep(0.02)


class Ward:
    """A store with its clients, whatever happens to its service. faults: what was wrong; kills, starts: by kind."""

    def __init__(self, home: Path, seed: int, learning: bool) -> None:
        self.home, self.random = home, random.Random(seed)
        self.faults: list[str] = []
        self.kills: Counter[str] = Counter()
        self.starts: dict[str, list[float]] = {"forked": [], "command": []}
        self._tokens: list[str] = []
        self._left_over: dict[int, float] = {}
        an_untrained_version(home)
        accounts = Accounts(home)
        accounts.add("guest", Role.ANNOTATOR)
        self.clients = []
        for name in ("ada", "ben"):
            accounts.add(name, Role.REVIEWER)
            self.clients.append(Client(name, accounts.give_token(name), seed, learning, PACE if learning else 0.0))

    def start(self, cold: bool) -> None:
        """Start the service, and look for everything."""
        self.service = Service(self.home, forked=not cold, local=False)
        self.starts["command" if cold else "forked"].append(self.service.seconds)
        for client in self.clients:
            client.connect(self.service.url)
        self.look()

    def look(self) -> None:
        """Everything that was acknowledged, and everything on the disk."""
        for client in self.clients:
            try:
                client.look(self.home)
            except Exception as error:
                self.faults.append(f"{client.name}: {error}")
        self.faults += look(self.home, self.accepted)
        audited = Counter(e.about.case for e in AuditLog(self.home).entries() if e.action is Action.ACCEPT)
        self.faults += [f"no audit entry tells of case {case}" for case in self.accepted if not audited[case]]
        accounts = Accounts(self.home)
        for token in self._tokens[-5:]:
            accounts.user_of(token)
        judged = Counter(v.case for v in VerdictLog(self.home, SPEC.name).verdicts() if v.case is not None)
        self.faults += [f"case {case} has {n} verdicts" for case, n in judged.items() if n > 1]
        for process in learners(self.home):
            begun = self._left_over.get(process.pid)
            if begun is not None and time.monotonic() - begun > LEARNER_GONE:
                self.faults.append(f"the learner {process.pid} of a killed service is still there")
                process.kill()

    @property
    def accepted(self) -> list[str]:
        """Cases whose acceptance was answered."""
        return [case for client in self.clients for case in client.accepted]

    @contextmanager
    def working(self) -> Iterator[None]:
        """Meanwhile the clients work."""
        over = threading.Event()
        threads = [threading.Thread(target=client.work, args=(over,)) for client in self.clients]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def killed(self, patient: bool) -> None:
        """Let everybody work, and kill at a random moment. patient: not before the learner is at work."""
        here, there = FORKED.Pipe(duplex=False)
        administrator = FORKED.Process(target=give_tokens, args=(self.home, there))
        administrator.start()
        there.close()
        with self.working():
            time.sleep(self.random.uniform(0.05, 1.2))
            if patient:
                self._kill_learner()
            if self.random.random() < 0.3:
                administrator.kill()
                self.kills["administrator"] += 1
                time.sleep(self.random.uniform(0, 0.1))
            self.service.kill()
            self.kills["service"] += 1
        administrator.kill()
        administrator.join()
        with suppress(EOFError, OSError):
            while here.poll(0):
                self._tokens.append(here.recv_bytes().decode())
        here.close()
        for process in learners(self.home):
            self._left_over.setdefault(process.pid, time.monotonic())

    def _kill_learner(self) -> None:
        until, wanted = time.monotonic() + 60, self.random.choice(("learning", "validating"))
        status = self.home / "learner" / f"{SPEC.name}.json"
        while time.monotonic() < until:
            with suppress(OSError, ValueError):
                if json.loads(status.read_bytes())["state"] == wanted and learners(self.home):
                    break
            time.sleep(0.005)
        time.sleep(self.random.uniform(0, 0.4))
        for process in learners(self.home):
            process.kill()
            self.kills["learner"] += 1
        time.sleep(self.random.uniform(0, 0.3))

    def end(self) -> dict:
        """Look for the last time, end the service as one does, and tell."""
        self.service.end()
        deadline = time.monotonic() + 10
        while (left := learners(self.home)) and time.monotonic() < deadline:
            time.sleep(0.1)
        for process in left:
            self.faults.append(f"the learner {process.pid} outlived its service")
            process.kill()
        replay = ReplayStore(self.home)
        kept = Counter(case.id for case in replay.cases(SPEC.name))
        replay.close()
        self.faults += [f"case {case} is there {n} times" for case, n in kept.items() if n > 1]
        self.faults += [f"case {case} was accepted by nobody" for case in kept if case not in self.accepted]
        command = [sys.executable, "-m", "InteractiveLearningLib.cli", "audit", "verify", "--store", str(self.home)]
        verified = subprocess.run(command, capture_output=True, text=True, check=False)
        if verified.returncode:
            self.faults.append(f"audit verify: {verified.stdout}{verified.stderr}")
        for client in self.clients:
            self.faults += client.faults
        verdicts = Counter(v.outcome for v in VerdictLog(self.home, SPEC.name).verdicts())
        return {
            "kills": dict(self.kills),
            "starts": self.starts,
            "cases": len(self.accepted),
            "answers": {str(k): v for k, v in sum((c.answers for c in self.clients), Counter()).items()},
            "answers lost to": {str(k): v for k, v in sum((c.lost for c in self.clients), Counter()).items()},
            "tokens": len(self._tokens),
            "versions and verdicts": dict(verdicts),
            "left behind": sorted({p.name.split(".")[-1] for p in self.home.rglob("*.tmp")}),
            "faults": self.faults,
        }


def kill_services(seed: int, kills: int) -> dict:
    """One batch: a new store, its service killed until there were so many kills of any kind."""
    learning = seed % LEARNS == 0
    with tempfile.TemporaryDirectory() as place:
        ward = Ward(Path(place) / "home", seed, learning)
        turn = 0
        ward.start(cold=True)
        while sum(ward.kills.values()) < kills:
            turn += 1
            ward.killed(patient=learning)
            ward.start(cold=turn % COLD == 0)
        return ward.end()


@contextmanager
def small_disk() -> Iterator[Path]:
    """A file system of its own with little room."""
    with tempfile.TemporaryDirectory() as place:
        image, mounted = Path(place) / "image", Path(place) / "mounted"
        mounted.mkdir()
        with image.open("wb") as file:
            file.truncate(DISK_MB * 2**20)
        for command in (["mkfs.ext4", "-q", "-m", "0", str(image)], ["mount", "-o", "loop", str(image), str(mounted)]):
            subprocess.run(command, check=True)
        try:
            yield mounted
        finally:
            subprocess.run(["umount", "-l", str(mounted)], check=True)


def fill(disk: Path) -> None:
    """Leave no byte free, in the filler's file."""
    with (disk / "filler").open("ab", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))


def fill_disks(seed: int, times: int) -> dict:
    """One batch: the same clients on a small disk that is full now and then; every third time killed while it is."""
    with small_disk() as disk:
        ward = Ward(disk / "home", seed, learning=seed % 2 == 0)
        ward.start(cold=False)
        for turn in range(times):
            killed = turn % 3 == 2
            with ward.working():
                time.sleep(ward.random.uniform(0.2, 4.0))
                fill(disk)
                time.sleep(ward.random.uniform(0.5, 2.0))
                if killed:
                    ward.service.kill()
                    ward.kills["service"] += 1
            if not ward.service.running() and not killed:
                ward.faults.append("the service ended on a full disk")
            (disk / "filler").unlink()
            ward.kills["full disk"] += 1
            if ward.service.running():
                ward.look()
            else:
                ward.start(cold=False)
            before = len(ward.accepted)
            with ward.working():
                until = time.monotonic() + 20
                while len(ward.accepted) == before and time.monotonic() < until:
                    time.sleep(0.05)
            if len(ward.accepted) == before:
                ward.faults.append("nothing could be accepted after room was made")
        ward.look()
        return ward.end()


def writers(seed: int, kills: int) -> dict:
    """One batch of bench_kill."""
    with tempfile.TemporaryDirectory() as place:
        acknowledged, faults = kill_writers(Path(place), kills, random.Random(seed))
    return {"kills": {"case writer": kills}, "cases": acknowledged, "faults": faults}


def lone_learners(seed: int, kills: int) -> dict:
    """One batch of bench_kill."""
    with tempfile.TemporaryDirectory() as place:
        told, faults = kill_learners(Path(place), kills, random.Random(seed))
    return {"kills": {"learner": kills}, "cases": told["cases"], "faults": faults, "learners": told}


PARTS = {"writers": (writers, WRITERS), "learners": (lone_learners, LEARNERS), "services": (kill_services, SERVICES)}


def done(out: Path) -> list[dict]:
    """The batches that are done."""
    return [json.loads(path.read_text()) for path in sorted(out.glob("*.json")) if path.name != "summary.json"]


def summary(batches: list[dict]) -> dict:
    """All batches together."""
    told: dict = {"kills": Counter(), "answers": Counter(), "answers lost to": Counter()}
    starts: dict[str, list[float]] = {}
    for batch in batches:
        for name, counted in told.items():
            counted.update(batch.get(name, {}))
        for kind, seconds in batch.get("starts", {}).items():
            starts.setdefault(kind, []).extend(seconds)
    full = told["kills"].pop("full disk", 0)
    return {name: dict(counted) for name, counted in told.items()} | {
        "killed": sum(told["kills"].values()),
        "disks filled": full,
        "cases acknowledged": sum(batch["cases"] for batch in batches),
        "starts (ms)": {kind: percentiles(seconds) for kind, seconds in starts.items() if seconds},
        "left behind": sum(len(batch.get("left behind", [])) for batch in batches),
        "minutes": round(sum(batch["seconds"] for batch in batches) / 60, 1),
        "faults": [fault for batch in batches for fault in batch["faults"]],
    }


def main() -> None:
    """Do what is left to do, write summary.json, exit with 1 if there was any fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000, help="in all: 40 %% case writers, 10 %% lone learners")
    parser.add_argument("--disks", type=int, default=40, help="how often a disk is filled")
    parser.add_argument("--part", choices=[*PARTS, "disks"], help="only this one")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    wanted = {"writers": given.kills * 2 // 5, "learners": given.kills // 10}
    wanted["services"] = given.kills - sum(wanted.values())
    plan = [(name, make, size, wanted[name]) for name, (make, size) in PARTS.items()]
    plan.append(("disks", fill_disks, DISKS, given.disks))
    for name, make, size, count in plan:
        if given.part not in (None, name):
            continue
        for number in range(-(-count // size)):
            path = given.out / f"{name}-{number}.json"
            if path.exists():
                continue
            started = time.monotonic()
            told = make(given.seed + number, min(size, count - number * size))
            path.write_text(json.dumps(told | {"seconds": round(time.monotonic() - started, 1)}, indent=1))
            print(f"{path.stem}: {sum(told['kills'].values())} in {time.monotonic() - started:.0f} s", told["faults"])
            sys.stdout.flush()
    found = summary(done(given.out))
    (given.out / "summary.json").write_text(json.dumps(found, indent=1))
    print(json.dumps(found, indent=1))
    sys.exit(1 if found["faults"] else 0)


if __name__ == "__main__":
    main()
