"""The same work on a Ray cluster: networks on several machines at once, and a learner per model wherever there is room.

    refseg serve --executor ray://HOST:PORT     the cluster whose head listens there; this machine is a node of it
    refseg serve --executor ray                 the cluster of RAY_ADDRESS, else one started on this machine

What has to hold: home lies on a file system that all nodes share under the same path; RefSeg is installed on all of
them in the same version; with more than one machine the index of accepted cases is in PostgreSQL, and REFSEG_DATABASE
names it where `ray start` is called (SQLite's log does not work across machines). Ray itself lets everybody in who
reaches its ports: they belong in a network of their own.

A node that dies takes nothing along. Ray runs what it was at again on another node; a learner goes on there from its
checkpoint, because that is on the shared home. The locks of a dead process fall with it: on one machine at once, on NFS
4 when the lease of a dead client ends (90 s by default on Linux; LOCK_SECONDS is longer). A machine that is alive but
cut off for longer than that may write on while its successor works: versions and verdicts stay whole then, since every
version is a new folder and every line is appended, but one case may be learnt twice.
"""

from __future__ import annotations

import os
import queue
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from RefSegLib.errors import BadInput, Cancelled, RefSegError
from RefSegLib.jobs import Segmented
from RefSegLib.progress import Progress

from InteractiveLearningLib.service.device import Engines, OutOfMemory
from InteractiveLearningLib.service.executor import SegmentTask

# How often a node asks whether to go on: learning has to yield within 200 ms.
ASK_SECONDS = 0.05
LOOK_SECONDS = 0.1
LOCK_SECONDS = 120.0
LEAVE_SECONDS = 5.0
NICENESS = 15
# An image is tried again for so long after a node was lost under it; Ray takes a node for dead after half a minute.
FAILING_SECONDS = 90.0
RETRY_SECONDS = 1.0
# Three nodes may die under one learner. A case that kills every process it comes to must not go round for ever.
TRIES = 3


class RayExecutor:
    """An Executor. address: "ray" or "ray://HOST:PORT"; replicas: how many images are segmented at once.

    Replicas are spread over the nodes, those with a GPU first, and ask for no CPU of Ray's, so that they find a place
    while learners (one CPU each) have taken all. Raises RefSegError if Ray is missing or the cluster not reached.
    """

    def __init__(self, address: str, home: str | Path, device: str = "auto", replicas: int = 2) -> None:
        self._ray, self._home, self._open = _connected(address), Path(home).absolute(), True
        nodes = sorted(self._nodes(), key=lambda node: -node["Resources"].get("GPU", 0))
        if device != "cpu" and nodes[0]["Resources"].get("GPU", 0):
            nodes = [node for node in nodes if node["Resources"].get("GPU", 0)]
        # Ray would give every worker one thread; nodes are taken to be alike, so the smallest says how many.
        said = os.environ.get("OMP_NUM_THREADS", "")
        self._threads = int(said) if said.isdigit() else int(min(n["Resources"].get("CPU", 1) for n in nodes))
        self._board = self._remote(Board, resources={"node:__internal_head__": 0.001}).remote()
        self._replicas = [
            self._remote(Replica, scheduling_strategy=self._near(node), max_restarts=-1).remote(
                self._home, device, max(1, self._threads)
            )
            for node in (nodes[number % len(nodes)] for number in range(replicas))
        ]
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for replica in self._replicas:
            self._idle.put(replica)

    def prepare(self) -> None:
        """See Executor."""
        self._ray.wait([r.prepare.remote() for r in self._replicas], num_returns=len(self._replicas), timeout=60)

    def segment(self, task: SegmentTask, progress: Progress) -> Segmented:
        """See Executor. Any number of threads may call it; each waits until a replica is free."""
        until = None
        while True:
            try:
                result = self._tried(task, progress)
                break
            except (self._ray.exceptions.RayError, ConnectionError) as error:
                # Until a node is known to be dead its replica is only unavailable, again and again within a second:
                # tries would be used up before another one is there, so seconds are counted.
                until = until or time.monotonic() + FAILING_SECONDS
                if time.monotonic() > until:
                    raise RefSegError(
                        f"The cluster could not finish this image ({type(error).__name__}). Try again; if that does "
                        "not help, look at the cluster: ray status."
                    ) from error
                progress(0.0, "A node was lost; another one begins again")
                time.sleep(RETRY_SECONDS)
        if isinstance(result, Failure):
            raise result.error()
        return result

    def _tried(self, task: SegmentTask, progress: Progress) -> Segmented | Failure:
        key, replica = uuid.uuid4().hex, self._free(progress)
        try:
            self._ray.get(self._board.open.remote(key))
            found = replica.segment.remote(task, key, self._board)
            while not self._ray.wait([found], timeout=LOOK_SECONDS)[0]:
                progress(*self._ray.get(self._board.look.remote(key)))
            return self._ray.get(found)
        finally:
            self._idle.put(replica)
            with suppress(Exception):  # of a cluster that is gone
                self._board.drop.remote(key)  # who was cancelled stops at its next tile

    def learner(self, model: str) -> RayLearner:
        """See Executor. Waits in the cluster until a CPU is free."""
        key = uuid.uuid4().hex
        self._ray.get(self._board.open.remote(key))
        # max_calls: the process ends with the learner, for it cannot take back that it is nice.
        work = self._ray.remote(num_cpus=1, max_retries=TRIES, max_calls=1, scheduling_strategy="SPREAD")(learn)
        return RayLearner(
            self._ray, self._board, key, work.remote(self._home, model, key, self._board, max(1, self._threads))
        )

    def close(self) -> None:
        """See Executor."""
        if self._open:
            self._open = False
            with suppress(Exception):  # of a cluster that is gone
                for actor in (*self._replicas, self._board):
                    self._ray.kill(actor)
            self._ray.shutdown()

    def _free(self, progress: Progress) -> Any:
        while True:
            progress(0.0, "Waiting for a free replica")
            with suppress(queue.Empty):
                return self._idle.get(timeout=LOOK_SECONDS)

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _near(self, node: dict[str, Any]) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)  # soft: elsewhere when it is dead

    def _remote(self, kind: type, **options: Any) -> Any:
        return self._ray.remote(num_cpus=0, **options)(kind)


class RayLearner:
    """A LearnerHandle on a learner somewhere in the cluster."""

    def __init__(self, ray: Any, board: Any, key: str, ended: Any) -> None:
        self._ray, self._board, self._key, self._ended = ray, board, key, ended

    def running(self) -> bool:
        """See LearnerHandle."""
        return not self._over(0)

    def why(self) -> str | None:
        """See LearnerHandle."""
        if self.running():
            return None
        try:
            self._ray.get(self._ended)
        except Exception as error:  # of the learner or of its node; the first lines are where in the code
            said = str(getattr(error, "cause", None) or error).strip()
            return said.splitlines()[-1] if said else type(error).__name__
        return None

    def pause(self) -> None:
        """See LearnerHandle. It computes its iteration to the end and then waits."""
        self._board.hold.remote(self._key, True)

    def resume(self) -> None:
        """See LearnerHandle."""
        self._board.hold.remote(self._key, False)

    def stop(self) -> None:
        """See LearnerHandle."""
        self._board.drop.remote(self._key)
        if not self._over(LEAVE_SECONDS):
            self._ray.cancel(self._ended, force=True)
            self._over(LEAVE_SECONDS)

    def _over(self, seconds: float) -> bool:
        over = bool(self._ray.wait([self._ended], timeout=seconds)[0])
        if over:
            self._board.drop.remote(self._key)
        return over


class Board:
    """What is wanted, what is held and how far it is. One, on the head of the cluster, whose end is the end of all."""

    def __init__(self) -> None:
        self._held: dict[str, bool] = {}
        self._news: dict[str, tuple[float, str]] = {}

    def open(self, key: str) -> None:
        """From now on this is wanted."""
        self._held[key] = False

    def hold(self, key: str, held: bool) -> None:
        """Let it wait, or go on."""
        if key in self._held:
            self._held[key] = held

    def drop(self, key: str) -> None:
        """It is over, or not wanted any more."""
        self._held.pop(key, None)
        self._news.pop(key, None)

    def look(self, key: str) -> tuple[float, str]:
        """Fraction and message it told last."""
        return self._news.get(key, (0.0, "Waiting for the cluster"))

    def ask(self, key: str, news: tuple[float, str] | None) -> bool | None:
        """Whether to wait; None: to stop."""
        if key in self._held and news is not None:
            self._news[key] = news
        return self._held.get(key)


class Link:
    """The Progress of work on a node: tells the board, waits while it is held, ends when nobody wants it any more."""

    def __init__(self, board: Any, key: str) -> None:
        self._board, self._key = board, key
        self._news: tuple[float, str] | None = None
        self._asked, self._stopped = 0.0, False
        self.progress = Progress(self._report, self.stopped)

    def stopped(self) -> bool:
        """Whether to stop; asks at most every ASK_SECONDS, and comes back only when there is no need to wait."""
        import ray

        while not self._stopped and time.monotonic() - self._asked > ASK_SECONDS:
            held = ray.get(self._board.ask.remote(self._key, self._news))
            self._stopped = held is None
            if held:
                time.sleep(ASK_SECONDS)
            else:
                self._asked = time.monotonic()
        return self._stopped

    def _report(self, fraction: float, message: str) -> None:
        self._news = fraction, message


@dataclass(frozen=True)
class Failure:
    """A RefSegError on its way back; not all of them can be pickled. kind: name of its class."""

    kind: str
    sentence: str

    def error(self) -> RefSegError:
        """The error itself; of a class the service tells apart, else a RefSegError."""
        alike: dict[str, Callable[[], RefSegError]] = {"Cancelled": Cancelled, "OutOfMemory": OutOfMemory}
        alike["BadInput"] = lambda: BadInput(self.sentence)
        return alike.get(self.kind, lambda: RefSegError(self.sentence))()


class Replica:
    """The networks of one node, in an actor of their own."""

    def __init__(self, home: Path, device: str, threads: int) -> None:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # before torch is imported
        self._engines = Engines(home, device)

    def prepare(self) -> None:
        """Import what takes seconds."""
        import RefSegLib.engine  # noqa: F401

    def segment(self, task: SegmentTask, key: str, board: Any) -> Segmented | Failure:
        """See Engines."""
        try:
            return self._engines.segment(task, Link(board, key).progress)
        except RefSegError as error:
            return Failure(type(error).__name__, str(error))


def learn(home: Path, model: str, key: str, board: Any, threads: int) -> None:
    """What a model has to learn, on one node, to the end or until nobody wants it any more."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    with suppress(OSError, AttributeError):  # no such thing on Windows
        os.nice(NICENESS)
    from InteractiveLearningLib.learner import AlreadyAtWork, Learner

    link, until = Link(board, key), time.monotonic() + LOCK_SECONDS
    while not link.stopped():
        try:
            learner = Learner(home, model)
            break
        except AlreadyAtWork:  # the lock of a node that has just died
            if time.monotonic() > until:
                raise
            time.sleep(ASK_SECONDS)
    else:
        return
    try:
        with suppress(Cancelled):
            learner.work(link.progress)
        learner.say("stopped", "The learner is not running.", now=True)
    except Exception as error:
        learner.say("failed", str(error) or type(error).__name__, now=True)
        raise
    finally:
        learner.close()


def _connected(address: str) -> Any:
    where = (os.environ.get("RAY_ADDRESS") or "local") if address == "ray" else address.removeprefix("ray://")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing of a hospital's machines is told to anybody
    own: dict[str, Any] = {}
    if where == "local":
        own["include_dashboard"] = False
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # elsewhere, too, this makes Ray listen on loopback alone
    try:
        import ray
    except ImportError as error:
        raise RefSegError("Working on a cluster needs Ray: pip install 'refseg[cluster]'.") from error
    try:
        ray.init(where, log_to_driver=False, **own)
    except Exception as error:  # Ray raises whatever its parts raise
        why = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise RefSegError(
            f"The Ray cluster at {where} cannot be used: {why[0]} Its head is started with: ray start --head "
            "--port=PORT, and this machine joins it with: ray start --address=HOST:PORT"
        ) from error
    return ray
