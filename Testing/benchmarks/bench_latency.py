"""How long clicks take while the service learns, beside how long they take while it does not.

    REFSEG_DATA=FOLDER python Testing/benchmarks/bench_latency.py [--rounds 4] [--seconds 60] [--cases 2] [--out FILE]

One service process, as `refseg serve --local` starts it, and hippocampi of msd_hippocampus (training patients). The
model is of the kind and size of bench_learning's, untrained: what counts is the load. In every round, so that drift
of the machine meets all alike:

    quiet     clicks and outlines at a human pace (1 to 2 a second) for --seconds; nothing is learnt
    learning  the same until --cases accepted cases have their verdict
    alone     --cases cases are learnt while nobody clicks

In the first two a second client has a larger image segmented every 20 seconds. While a click is on its way the state of
the learner's process is read every half millisecond: how soon is it held?
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from interaction_data import cases, load
from InteractiveLearningLib.replay import ReplayStore
from InteractiveLearningLib.verdicts import VerdictLog
from RefSegLib.models.spec import SegmenterSpec
from RefSegLib.models.store import ModelStore
from RefSegLib.volume.volume import Volume
from service_robot import HIPPOCAMPUS, Robot, Service, hands, learners, percentiles, shown_of, take
from tiny_learning import an_untrained_version

PACE = (0.5, 1.0)  # seconds between clicks
STEPS = 24  # of a session, before the next case
SEGMENT_EVERY = 20.0
LOOK_EVERY = 0.0005
PATIENCE = 600.0


@dataclass
class Measured:
    """Seconds of the clicks of one kind of block, with and without a segmentation under way; of accepted cases until
    their verdict; from a click's sending to the learner being held; of the blocks; and iterations of the learner."""

    clicks: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    verdicts: list[float] = field(default_factory=list)
    held: list[float] = field(default_factory=list)
    seconds: float = 0.0
    cases: int = 0


class Watch:
    """Reads the state of the learner's process, as Linux tells it."""

    def __init__(self, home: Path) -> None:
        self._home, self._file, self._looked = home, None, 0.0

    def there(self) -> bool:
        """Whether there is a learner; looks for it once a second."""
        if self._file is None and time.monotonic() - self._looked > 1:
            self._looked = time.monotonic()
            self._file = next((Path(f"/proc/{process.pid}/stat") for process in learners(self._home)), None)
        return self._file is not None

    def held(self) -> bool:
        """Whether it is held now."""
        if self._file is not None:
            try:
                return self._file.read_bytes().rsplit(b")", 1)[1].split()[0] == b"T"
            except (OSError, IndexError):
                self._file = None
        return False

    @contextmanager
    def until_held(self, found: list[float]) -> Iterator[None]:
        """While the block runs: the seconds from its start until the learner was held, if it was running before."""
        over, start = threading.Event(), time.perf_counter()
        if not self.there() or self.held():
            yield
            return

        def look() -> None:
            while not over.is_set():
                if self.held():
                    found.append(time.perf_counter() - start)
                    return
                time.sleep(LOOK_EVERY)

        thread = threading.Thread(target=look)
        thread.start()
        yield
        over.set()
        thread.join()


class Bench:
    """The service, who clicks, who accepts and who segments."""

    def __init__(self, home: Path, spec: SegmenterSpec, seed: int) -> None:
        self.spec, self.home, self.random = spec, home, random.Random(seed)
        an_untrained_version(home, spec=spec)
        self.service = Service(home)
        self.robots = {name: Robot(self.service.url, self.service.token) for name in ("clicks", "accepts", "segments")}
        self.names = itertools.cycle(cases("msd_hippocampus", "train", 40))
        self.log, self.busy, self._over = VerdictLog(home, spec.name), threading.Event(), threading.Event()
        self._accepted = 0
        self._threads = [threading.Thread(target=self._stay)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End all."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        self.service.end()

    def _stay(self) -> None:
        robot = Robot(self.service.url, self.service.token)
        while not self._over.wait(5):
            robot.ask("PUT", f"/clients/{'ab' * 16}")

    def prepare(self) -> None:
        """Accept patients enough for verdicts; those of them that would be trained on are not learnt."""
        robot = self.robots["accepts"]
        replay = ReplayStore(self.home)
        while robot.ask("GET", f"/models/{self.spec.name}/learning")["missing"]:
            self._accept(consent=False)
            for case in replay.cases(self.spec.name, "validation"):
                replay.set_consent(case.id, True)
        replay.close()

    def accept(self, count: int) -> dict[str, float]:
        """Accept cases until so many of them are to be learnt; returns id -> when. The others validate."""
        when: dict[str, float] = {}
        replay = ReplayStore(self.home)
        while len(when) < count:
            case = self._accept(consent=True)
            if any(known.id == case for known in replay.cases(self.spec.name, "train")):
                when[case] = time.monotonic()
        replay.close()
        return when

    def _accept(self, consent: bool) -> str:
        """Outline three slices of each structure of the next case, and accept it; returns its id."""
        robot, (image, truth) = self.robots["accepts"], load("msd_hippocampus", next(self.names))
        session, hand = robot.begin(robot.upload(image), self.spec.labels), hands(truth, self._accepted)
        for label in (1, 2):
            at = np.flatnonzero((truth.array == label).any(axis=(0, 2)))
            for index in np.quantile(at, (0.2, 0.5, 0.8)).astype(int).tolist():
                robot.say(session, hand.outline(label, 1, index))
        self._accepted += 1
        about = {"model": self.spec.name, "patient": f"p{self._accepted}", "consent": consent}
        return robot.ask("POST", f"/sessions/{session}/accept", json=about)["case"]

    def click(self, into: Measured, over: threading.Event) -> None:
        """Correct case after case at a human pace."""
        robot, watch = self.robots["clicks"], Watch(self.home)
        while not over.is_set():
            image, truth = load("msd_hippocampus", next(self.names))
            session = robot.begin(robot.upload(image), self.spec.labels)
            hand, shown = hands(truth, 0), shown_of(robot.state(session), truth.array.shape)
            places = self.random.sample(np.flatnonzero(truth.array.any(axis=(0, 2))).tolist(), STEPS // 4)
            for step in range(STEPS):
                if step % 4 == 0:
                    index = places[step // 4]
                    shows = [label for label in (1, 2) if (truth.array[:, index] == label).any()]
                    prompt = hand.outline(shows[0], 1, index)
                else:
                    prompt = hand.click(shown, (1, 2))
                if prompt is None or over.wait(self.random.uniform(*PACE)):
                    break
                beside = self.busy.is_set()
                with watch.until_held(into.held):
                    start = time.perf_counter()
                    changed = robot.say(session, prompt)
                    took = time.perf_counter() - start
                take(shown, changed)
                (into.beside if beside and self.busy.is_set() else into.clicks).append(took)
            robot.ask("DELETE", f"/sessions/{session}")

    def segment(self, over: threading.Event) -> None:
        """A larger image, every 20 s."""
        robot = self.robots["segments"]
        image, _ = load("msd_hippocampus", next(self.names))
        larger = np.pad(image.array, [(0, 0), *((0, n) for n in image.grid.shape)], mode="reflect")
        volume = Volume(larger, image.grid.crop((0, 0, 0), larger.shape[1:]))
        known = robot.upload(volume)
        while True:
            self.busy.set()
            job = robot.segment(known, self.spec.name)
            self.busy.clear()
            if job["state"] != "done":
                raise RuntimeError(job["error"])
            if over.wait(SEGMENT_EVERY):
                return

    @contextmanager
    def used(self, into: Measured) -> Iterator[None]:
        """While somebody clicks and somebody segments."""
        over, start = threading.Event(), time.monotonic()
        threads = [
            threading.Thread(target=self.click, args=(into, over)),
            threading.Thread(target=self.segment, args=(over,)),
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()
            into.seconds += time.monotonic() - start

    def judged(self, when: dict[str, float], into: Measured) -> None:
        """Wait for the verdicts of cases."""
        left, until = dict(when), time.monotonic() + PATIENCE
        while left:
            for case in {verdict.case for verdict in self.log.verdicts()} & set(left):
                into.verdicts.append(time.monotonic() - left.pop(case))
                into.cases += 1
            if time.monotonic() > until:
                raise RuntimeError(f"No verdict on {len(left)} cases; see {self.service.log}")
            time.sleep(0.1)

    def one_by_one(self, count: int, into: Measured) -> None:
        """Accept a case, wait for its verdict, accept the next."""
        for _ in range(count):
            self.judged(self.accept(1), into)


def speed(store: ModelStore, name: str, versions: list[str]) -> float:
    """Iterations of learning a second, over some versions."""
    told = [store.load(name, version).manifest.settings for version in versions]
    return round(sum(t["done"] for t in told) / sum(t["took"] for t in told), 2)


def measure(rounds: int, seconds: float, count: int, seed: int) -> dict:
    """The whole run."""
    spec = HIPPOCAMPUS
    found = {kind: Measured() for kind in ("quiet", "learning", "alone")}
    made: dict[str, list[str]] = {kind: [] for kind in found}
    with tempfile.TemporaryDirectory() as place:
        bench = Bench(Path(place) / "home", spec, seed)
        store = ModelStore(bench.home)
        try:
            bench.prepare()
            with bench.used(Measured()):  # to be warm
                time.sleep(15)
            for _ in range(rounds):
                for kind, into in found.items():
                    known = set(store.versions(spec.name))
                    if kind == "quiet":
                        with bench.used(into):
                            time.sleep(seconds)
                    elif kind == "learning":
                        with bench.used(into):
                            bench.one_by_one(count, into)
                    else:
                        bench.one_by_one(count, into)
                    made[kind] += [v for v in store.versions(spec.name) if v not in known]
        finally:
            bench.close()
        clicks = {kind: percentiles(found[kind].clicks) for kind in ("quiet", "learning")}
        beside = {kind: percentiles(found[kind].beside) for kind in ("quiet", "learning") if found[kind].beside}
        return {
            "clicks (ms)": clicks,
            "ratio of p95": round(clicks["learning"]["p95"] / clicks["quiet"]["p95"], 2),
            "ratio of medians": round(clicks["learning"]["median"] / clicks["quiet"]["median"], 2),
            "clicks beside a segmentation (ms)": beside,
            "learner held after (ms)": percentiles(found["learning"].held),
            "accepted to verdict (ms)": {kind: percentiles(found[kind].verdicts) for kind in ("learning", "alone")},
            "iterations a second": {kind: speed(store, spec.name, made[kind]) for kind in ("learning", "alone")},
            "threads": os.environ.get("OMP_NUM_THREADS", "as many as cores"),
            "load": os.getloadavg(),
        }


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--cases", type=int, default=2, help="learnt in a block")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    told = measure(given.rounds, given.seconds, given.cases, given.seed)
    print(json.dumps(told, indent=1))
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
