"""Hostile input against the real service: the API fuzzed, uploads mutated, every route with every kind of token.

    python Testing/benchmarks/bench_hostile.py [--uploads 20000] [--seconds 240] [--workers 8] [--seed 0] [--report F]

Exits with 1 if an answer is 5xx, anything opens to who may not, a lie is taken for a volume, memory grows beyond its
bound, a file outside the service's own folder changes, halves of uploads stay, secrets or names are in a log, or a
normal session afterwards is not bit for bit the one before.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from hostile import Victim, attacked
from hostile_access import LABELS, guessing, intruding, unauthorised
from hostile_fuzz import Fuzz
from InteractiveLearningLib.service import wire
from InteractiveLearningLib.service.wire import pack_volume, volume_head, volume_id
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import Volume

GIB = 2**30
# What is held: 4 sessions of a user at 128 MB; what is being made: two volumes unpacked and written; half a gigabyte
# of bodies. The rest is what the allocator keeps.
BOUND = 3 * GIB
LARGE = (512, 512, 512)


class Memory:
    """Samples how much memory a process takes. peak, first: bytes."""

    def __init__(self, process) -> None:
        self._process, self._over = process, threading.Event()
        self.first = self.peak = process.memory_info().rss
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            self.peak = max(self.peak, self._process.memory_info().rss)

    def end(self) -> None:
        self._over.set()
        self._thread.join()


def large_sessions(victim: Victim, count: int) -> tuple[Counter, list[str]]:
    """Volumes of 128 MB that travel as a few hundred kilobytes, and as many sessions with them at once."""
    array = np.zeros((1, *LARGE), np.uint8)
    array[0, 0, 0, 0] = 1
    volume = Volume(array, Grid(LARGE))
    content, identifier = pack_volume(volume), volume_id(volume)
    client = victim.service.client()
    client.post("/v1/volumes", json=volume_head(volume) | {"id": identifier, "packed": len(content)}).raise_for_status()
    for start in range(0, len(content), wire.CHUNK):
        part = content[start : start + wire.CHUNK]
        client.put(f"/v1/volumes/{identifier}", params={"offset": start}, content=part).raise_for_status()

    def begin(_number: int):
        answer = client.post("/v1/sessions", json={"volume": identifier, "labels": LABELS}, timeout=600)
        return answer.status_code, answer.json().get("id"), answer.text[:200]

    with ThreadPoolExecutor(count) as pool:
        found = list(pool.map(begin, range(count)))
    for _, session, _ in found:
        if session:
            client.delete(f"/v1/sessions/{session}")
    answers = Counter(status for status, _, _ in found)
    return answers, [
        f"A large session was answered {status} {text}" for status, _, text in found if status >= 500 and status != 503
    ]


def large_outlines(victim: Victim) -> tuple[Counter, list[str]]:
    """Outlines of 67 million pixels each that travel as 90 kB."""
    side = 8192
    bits = wire.base64.b64encode(zlib.compress(bytes(side * side // 8), 9)).decode()
    drawn = {"kind": "outline", "label": 1, "shape": [side, side], "axis": 0, "index": 1, "bits": bits, "plane": None}
    session, answers = victim.own["session"], Counter()
    for count in (1, 4, 5, 300):
        prompts = {"prompts": [drawn] * count}
        answers[victim.client.post(f"/v1/sessions/{session}/prompts", json=prompts).status_code] += 1
    return answers, [] if set(answers) == {400} else [f"Outlines of {side} x {side} pixels were answered {answers}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--uploads", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=240, help="for the fuzzing of the API")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        victim = Victim(Path(root))
        try:
            report = measured(victim, given)
        finally:
            if victim.service.process.poll() is None:
                victim.service.end()
    text = json.dumps(report, indent=1)
    print(text)
    if given.report:
        given.report.parent.mkdir(parents=True, exist_ok=True)
        given.report.write_text(text)
    return 1 if report["faults"] else 0


def measured(victim: Victim, given: argparse.Namespace) -> dict:
    """Everything, in turn; the numbers of the table."""
    url, report, faults = victim.service.url, {}, []
    before, memory = victim.what_a_session_gives(), Memory(victim.process)

    def step(name: str, answers: Counter, found: list[str], **more) -> None:
        faults.extend(found)
        by_status = {str(status): answers[status] for status in sorted(answers)}
        report[name] = {"answers": by_status, "faults": len(found), "peak MB": memory.peak // 2**20} | more
        print(name, report[name], flush=True)

    step("unauthorised", *unauthorised(url, victim.site, victim.home, victim.own))
    step("another's", *intruding(url, victim.service.token, victim.own, victim.home))
    step("guessing", Counter(), guessing(url, victim.token))
    beside, begun = victim.beside(), time.monotonic()
    made, answers, found = attacked(url, victim.service.token, given.uploads, given.seed, given.workers)
    if victim.beside() != beside:
        found.append("Files outside the service's own folder have changed")
    if halves := victim.left_over():
        found.append(f"Halves of uploads were left: {halves[:3]}")
    spent = round(time.monotonic() - begun)
    step("uploads", answers, found, attacks=made.total(), kinds=len(made), seconds=spent)
    step("large outlines", *large_outlines(victim))
    step("large sessions", *large_sessions(victim, 16))
    fuzz = Fuzz(url, victim.token, victim.own, victim.client.get("/v1/openapi.json").json())
    end, rounds = time.monotonic() + given.seconds, 0
    while rounds == 0 or time.monotonic() < end:
        fuzz.run(3000, seconds=max(end - time.monotonic(), 1), seed=given.seed + 1000 * rounds)
        rounds += 1
    step("schemathesis", fuzz.answers, fuzz.faults, examples=fuzz.answers.total())
    same = victim.what_a_session_gives() == before
    memory.end()
    last = [] if same else ["A session afterwards is not the one before"]
    if memory.peak - memory.first > BOUND:
        last.append(f"The memory grew by {(memory.peak - memory.first) / GIB:.1f} GB")
    last += victim.told(victim.service.end())
    step("afterwards", Counter(), last, first=memory.first // 2**20)
    return report | {"faults": faults}


if __name__ == "__main__":
    sys.exit(main())
