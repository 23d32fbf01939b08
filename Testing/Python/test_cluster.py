"""On a real Ray cluster of two nodes one of them dies: every answer comes and is right, every case is learnt once."""

import os
import sys
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
import pytest
from InteractiveLearningLib.learner import read_status
from InteractiveLearningLib.learning import LearningSettings
from InteractiveLearningLib.replay import ReplayStore
from InteractiveLearningLib.service.cluster import Board, RayExecutor
from InteractiveLearningLib.service.device import Engines
from InteractiveLearningLib.service.executor import SegmentTask
from InteractiveLearningLib.verdicts import VerdictLog
from RefSegLib.errors import BadInput, Cancelled, RefSegError
from RefSegLib.models.store import ModelStore
from RefSegLib.progress import SILENT, Progress
from RefSegLib.volume.grid import Grid

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from tiny_learning import a_ball_case, an_image, an_untrained_version

ROOM = 80 * 2**20
SOON = 120.0
# A dead node is noticed within eight seconds; with two, nodes of a busy machine were taken for dead.
QUICK = {"health_check_initial_delay_ms": 5000, "health_check_period_ms": 1000, "health_check_failure_threshold": 8}


def within(seconds: float, true: Callable[[], object]) -> object:
    """What `true` says once it says something; fails if it does not in time."""
    until = time.monotonic() + seconds
    while not (said := true()):
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)
    return said


def started(mark: str) -> list[psutil.Process]:
    """Processes that have this mark in their environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get("REFSEG_TEST_CLUSTER") == mark:
                found.append(process)
    return [p for p in found if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


HERE = {"num_cpus": 1, "object_store_memory": ROOM, "node_ip_address": "127.0.0.1", "include_log_monitor": False}


@pytest.fixture(scope="module")
def cluster():
    """The head of a cluster on loopback. No process is left of it afterwards."""
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'refseg[cluster]'")
    mark = uuid.uuid4().hex
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFSEG_TEST_CLUSTER", mark)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # read when Ray is imported: loopback, on Linux too
        from ray.cluster_utils import Cluster

        about = {"include_dashboard": False, "_system_config": QUICK}
        found = Cluster(initialize_head=True, head_node_args=HERE | about)
        yield found
        found.shutdown()
    within(20, lambda: not started(mark))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    an_untrained_version(folder)
    return folder


@pytest.fixture(scope="module")
def executor(cluster, home):
    """On the head and a second node, a replica on each."""
    cluster.add_node(**HERE)
    found = RayExecutor(f"ray://{cluster.address}", home, "cpu", replicas=2)
    found.prepare()
    yield found
    found.close()
    found.close()


def raylet(node) -> psutil.Process:
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def kill(cluster, node) -> None:
    """The power of that machine fails."""
    workers = raylet(node).children(recursive=True)
    for process in workers:
        process.kill()
    cluster.remove_node(node, allow_graceful=False)


def is_replica(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return "Replica" in "".join(process.cmdline())
    return False


def a_task(seed: int, **more) -> SegmentTask:
    return SegmentTask(an_image(seed, Grid((20, 18, 22)))[0], "balls@1", **more)


def same(one, other) -> bool:
    """The same answer. An untrained network is torn between labels: rounding, which differs with what else computes,
    may turn a voxel here and there."""
    agree = np.mean(one.labels.array == other.labels.array)
    versions = [(answer.report["model"], answer.report["version"]) for answer in (one, other)]
    return (
        agree > 0.99
        and one.labels.grid.same_as(other.labels.grid)
        and one.names == other.names
        and versions[0] == versions[1]
        and (one.suspect is None) == (other.suspect is None)
    )


def test_progress_comes_back_cancelling_stops_the_work_and_errors_keep_their_sentences(executor, home):
    big = replace(a_task(0), volume=an_image(0, Grid((96, 96, 96)))[0])
    told: list[float] = []

    def tell(fraction: float, message: str) -> None:
        told.append(fraction)

    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(executor.segment, big, Progress(tell, stop.is_set))
        within(SOON, lambda: 0 < max(told, default=0) < 1)
        stop.set()
        with pytest.raises(Cancelled):
            going.result(SOON)
    assert told == sorted(told)
    assert same(executor.segment(a_task(1), SILENT), Engines(home, "cpu").segment(a_task(1), SILENT))
    with pytest.raises(BadInput, match="no version '7'"):
        executor.segment(replace(a_task(1), model="balls@7"), SILENT)


def test_a_node_that_dies_in_the_middle_costs_no_answer(cluster, executor, home):
    (node,) = cluster.worker_nodes
    nodes = [node, cluster.head_node]
    # One replica takes a task and does not come to its end; where Ray has put it is Ray's business.
    doomed = within(SOON, lambda: [p for n in nodes for p in raylet(n).children() if is_replica(p)])[0]
    doomed.suspend()
    tasks = [a_task(n, reflect=n == 5, suspect=n == 5) for n in range(6)]
    with ThreadPoolExecutor(6) as pool:
        try:
            answers = [pool.submit(executor.segment, task, SILENT) for task in tasks]
            within(SOON, lambda: sum(a.done() for a in answers) == 5)
        finally:
            kill(cluster, node)
            with suppress(psutil.Error):
                doomed.kill()
        found = [a.result(SOON) for a in answers]
    local = Engines(home, "cpu")
    assert all(same(one, local.segment(task, SILENT)) for one, task in zip(found, tasks, strict=True))


def test_a_learner_goes_on_after_it_was_stopped_held_and_lost_with_its_node_and_learns_its_case_once(
    cluster, executor, home
):
    import ray

    node = cluster.add_node(**HERE)
    replay = ReplayStore(home)
    case = replay.accept(a_ball_case("p0", 0))
    replay.close()
    # The head's only CPU is taken, so the learner goes to the other node.
    taken = ray.remote(num_cpus=1, resources={"node:__internal_head__": 0.001})(Board).remote()
    ray.get(taken.look.remote(""))

    learner = executor.learner("balls")
    within(SOON, lambda: learning(home, 5))
    learner.stop()
    begun = read_status(home, "balls")
    assert not learner.running() and begun.state == "stopped"
    assert (home / "learner" / "balls.checkpoint").exists() and ModelStore(home).versions("balls") == ["1"]

    learner = executor.learner("balls")
    first = within(SOON, lambda: learning(home, 30))
    process = psutil.Process(first.pid)
    assert process.ppid() == raylet(node).pid and process.nice() == 19
    learner.pause()
    held = within(SOON, lambda: standing(home))
    assert held.state == "learning" and learner.running()
    learner.resume()
    within(SOON, lambda: read_status(home, "balls").iteration > held.iteration)
    ray.kill(taken)
    kill(cluster, node)

    within(SOON, lambda: not learner.running())
    verdicts = VerdictLog(home, "balls").verdicts()
    assert [(v.case, v.outcome, v.candidate) for v in verdicts] == [(case, "waiting", "2")]
    assert ModelStore(home).versions("balls") == ["1", "2"] and not (home / "learner" / "balls.checkpoint").exists()
    last = read_status(home, "balls")
    assert last.pid not in (first.pid, begun.pid)
    kept = len(held.losses) // LearningSettings.checkpoint * LearningSettings.checkpoint
    assert last.losses[:kept] == held.losses[:kept] and held.losses[: len(begun.losses)] == begun.losses


def learning(home: Path, iterations: int):
    """The status, once the learner has come that far."""
    status = read_status(home, "balls")
    return status if status and status.state == "learning" and status.iteration >= iterations else None


def standing(home: Path):
    """The status, once it has not changed for half a second."""
    before = read_status(home, "balls")
    time.sleep(0.6)
    after = read_status(home, "balls")
    return after if after == before else None


def test_without_ray_it_is_said_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RefSegError, match=r"refseg\[cluster\]"):
        RayExecutor("ray", tmp_path)
