"""Kill -9 at random moments: the writer of accepted cases, and the learner while it trains, writes and publishes.

    python Testing/benchmarks/bench_kill.py [--writers 25] [--learners 25] [--seed 0] [--report FILE]

After every kill: no acknowledged case is lost, every array matches its hash, every visible version verifies, the active
version loads. At the end the learner is let through and must finish. Exits with 1 if anything of it does not hold.
"""

import argparse
import json
import multiprocessing
import random
import signal
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from InteractiveLearningLib import learner
from InteractiveLearningLib.replay import ReplayStore
from InteractiveLearningLib.verdicts import VerdictLog
from RefSegLib.models.networks import build_segmenter
from RefSegLib.models.store import ModelStore
from tiny_learning import SPEC, a_ball_case, an_untrained_version

# Processes are forked from a server that has done the slow imports, so that 50 of them do not take 50 times as long.
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    [
        "InteractiveLearningLib.learner",
        "openvino.frontend.pytorch",
        "torch._dynamo",
        "InteractiveLearningLib.service.serve",
    ]
)


def write_cases(home: Path, start: int, pipe: Connection) -> None:
    """The process to be killed: accepts cases for ever and sends each id once accept has returned."""
    replay = ReplayStore(home)
    for n in range(start, start + 1_000_000):
        pipe.send_bytes(replay.accept(a_ball_case(f"p{n % 40}", n)).encode())


def kill_writers(home: Path, times: int, rng: random.Random) -> tuple[int, list[str]]:
    """Start a writer, kill it 0 to 400 ms after its first case, look; `times` over."""
    acknowledged, faults = [], []
    for turn in range(times):
        here, there = FORKED.Pipe(duplex=False)
        process = FORKED.Process(target=write_cases, args=(home, turn * 1000, there))
        process.start()
        there.close()
        here.poll(60)
        time.sleep(rng.uniform(0, 0.4))
        process.kill()
        process.join()
        try:
            while True:
                acknowledged.append(here.recv_bytes().decode())
        except (EOFError, OSError):
            here.close()
        replay = ReplayStore(home)
        stored = {case.id for case in replay.cases(SPEC.name)}
        faults += [f"writer {turn}: case {i} was acknowledged and is lost" for i in acknowledged if i not in stored]
        faults += [f"writer {turn}: {sentence}" for sentence in replay.damaged().values()]
        named = {file for case in stored for file in replay.files(case)}
        faults += [f"writer {turn}: {f} belongs to nobody" for f in replay.arrays.glob("*/*") if f not in named]
        sides = {}
        for case in replay.cases(SPEC.name):
            if sides.setdefault(case.patient, case.role) != case.role:
                faults.append(f"writer {turn}: a patient is on both sides")
        replay.close()
    return len(acknowledged), faults


def learn_all(home: Path) -> None:
    """The process to be killed: the learner itself, with few iterations and at normal priority, to save time."""
    learner.NICENESS = 0
    learner.run(home, SPEC.name, once=True, seconds=60.0, iterations=15)


def kill_learners(home: Path, times: int, rng: random.Random) -> tuple[dict, list[str]]:
    """Start a learner on a few cases, kill it somewhere in its work, look; `times` over."""
    replay = ReplayStore(home)
    an_untrained_version(home)
    accepted = [replay.accept(a_ball_case(f"p{n}", n)) for n in range(4)]
    faults, states, added = [], {}, 0
    status = home / "learner" / f"{SPEC.name}.json"
    while (turn := sum(states.values())) < times:
        status.unlink(missing_ok=True)
        process = FORKED.Process(target=learn_all, args=(home,))
        process.start()
        # Every other time from the beginning of the comparison on, where versions are written and go live.
        awaited = ("learning", "validating")[turn % 2]
        while process.is_alive() and _state(status) != awaited:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, (1.0, 0.3)[turn % 2]))
        process.kill()
        process.join()
        state = _state(status)
        if process.exitcode == -signal.SIGKILL:  # otherwise it was faster, and the turn does not count
            states[state] = states.get(state, 0) + 1
        elif process.exitcode != 0:
            faults.append(f"learner {turn} failed: {json.loads(status.read_bytes())['message']}")
            break
        faults += [f"learner {turn}, {state}: {fault}" for fault in look(home, accepted)]
        while not _left(home):  # there is always something to learn
            added += 1
            accepted.append(replay.accept(a_ball_case(f"q{added}", 100 + added)))
    process = FORKED.Process(target=learn_all, args=(home,))
    process.start()
    process.join()
    if process.exitcode != 0:
        faults.append("the learner did not finish after the last kill")
    faults += [f"at the end: {fault}" for fault in look(home, accepted)]
    faults += [f"case {case} has no verdict at the end" for case in _left(home)]
    faults += [f"{path} was left behind" for path in home.rglob("*.tmp")]
    verdicts = VerdictLog(home, SPEC.name).verdicts()
    outcomes = {name: [v.outcome for v in verdicts].count(name) for name in ("published", "refused", "waiting")}
    found = [v.case for v in verdicts if v.case is not None]
    faults += [f"case {case} has two verdicts" for case in set(found) if found.count(case) > 1]
    return {"killed while": states, "cases": len(accepted), "verdicts": outcomes}, faults


def _state(status: Path) -> str:
    return json.loads(status.read_bytes())["state"] if status.exists() else "starting"


def _left(home: Path) -> list[str]:
    """Training cases without a verdict."""
    done = {verdict.case for verdict in VerdictLog(home, SPEC.name).verdicts()}
    return [c.id for c in ReplayStore(home).cases(SPEC.name, "train") if c.id not in done]


def look(home: Path, accepted: list[str]) -> list[str]:
    """What is wrong with a store: lost or damaged cases, versions that do not verify, an active one that won't load."""
    replay, store, faults = ReplayStore(home), ModelStore(home), []
    stored = {case.id for case in replay.cases(SPEC.name)}
    faults += [f"case {i} is lost" for i in accepted if i not in stored]
    faults += list(replay.damaged().values())
    for version in store.versions(SPEC.name):
        try:
            store.verify(SPEC.name, version)
        except Exception as error:
            faults.append(f"version {version} does not verify: {error}")
    try:
        weights = store.load(SPEC.name, store.active(SPEC.name)).segmenter()
        build_segmenter(SPEC).load_state_dict({name: torch.from_numpy(a) for name, a in weights.items()})
    except Exception as error:
        faults.append(f"the active version does not load: {error}")
    return faults


def main() -> None:
    """Run both, print a summary, exit with 1 if there was any fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writers", type=int, default=25)
    parser.add_argument("--learners", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    rng, started = random.Random(given.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        acknowledged, faults = kill_writers(Path(first), given.writers, rng)
        learnt, more = kill_learners(Path(second), given.learners, rng)
    report = {
        "writers killed": given.writers,
        "cases acknowledged": acknowledged,
        "learners killed": given.learners,
        **learnt,
        "faults": faults + more,
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(report, indent=2))
    if given.report:
        given.report.write_text(json.dumps(report, indent=2))
    sys.exit(1 if report["faults"] else 0)


if __name__ == "__main__":
    main()
