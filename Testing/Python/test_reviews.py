"""What reviewers reject again and again is taken back by itself, for good, whatever is killed when."""

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from InteractiveLearningLib.cli import app
from InteractiveLearningLib.learner import Learner
from InteractiveLearningLib.learning import LearningSettings
from InteractiveLearningLib.lines import LineLog
from InteractiveLearningLib.promotion import promote
from InteractiveLearningLib.replay import ReplayStore
from InteractiveLearningLib.reviews import LAST, ReviewLog, complaint, review, settle
from InteractiveLearningLib.service.audit import Action, AuditLog
from InteractiveLearningLib.verdicts import VerdictLog
from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.models.store import ModelStore
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from tiny_learning import SPEC, a_ball_case, an_untrained_version

FAST = LearningSettings(iterations=2)


@pytest.fixture
def store(tmp_path):
    """Version 1, then version 2, which is active."""
    first = an_untrained_version(tmp_path)
    store = ModelStore(tmp_path)
    store.activate("balls", store.add(SPEC, first.segmenter(), None, parent="balls@1").version)
    return store


def reject(store, times, version="2", **more):
    return [review(store, store.home, "balls", version, False, **more) for _ in range(times)]


def outcomes(store):
    return [(v.outcome, v.candidate, v.champion) for v in VerdictLog(store.home, "balls").verdicts()]


def test_three_rejections_in_a_row_take_a_version_back_and_panels_see_why(store):
    found = reject(store, 3)
    assert [f.rolled_back for f in found] == [False, False, True]
    assert found[-1].active == store.active("balls") == "1" and "last 3 cases of version 2" in found[-1].reason
    assert outcomes(store) == [("rolled_back", "2", "1")]
    assert VerdictLog(store.home, "balls").verdicts()[0].reason == found[-1].reason


def test_acceptances_in_between_keep_a_version_until_five_of_eight_are_rejected(store):
    for accepted in (False, False, True, False, False, True, True):
        assert not review(store, store.home, "balls", "2", accepted).rolled_back
    found = review(store, store.home, "balls", "2", False)
    assert found.rolled_back and "5 of the last 8" in found.reason


def test_a_second_review_of_a_case_replaces_its_first(store):
    one, two = "a" * 32, "b" * 32
    assert not any(f.rolled_back for f in reject(store, 5, case=one))
    reject(store, 1, case=two)
    review(store, store.home, "balls", "2", True, case=two)
    assert store.active("balls") == "2" and not reject(store, 2)[-1].rolled_back
    assert reject(store, 1)[-1].rolled_back


def test_rejections_of_another_version_than_the_active_one_change_nothing(store):
    assert not any(f.rolled_back for f in reject(store, 10, version="1")) and store.active("balls") == "2"


def test_the_first_version_has_nothing_to_go_back_to_and_says_so(store):
    store.rollback("balls")
    found = reject(store, 3, version="1")
    assert found[-1].active == "1" and not found[-1].rolled_back and "go back to" in found[-1].reason
    assert outcomes(store) == []


def test_a_version_is_not_left_for_a_damaged_one(store):
    next(store.load("balls", "1").folder.glob("segmenter.*")).write_bytes(b"damaged")
    found = reject(store, 3)[-1]
    assert not found.rolled_back and store.active("balls") == "2" and "no going back" in found.reason


def test_a_version_that_a_person_activates_again_is_judged_by_new_reviews(store):
    reject(store, 3)
    store.activate("balls", "2")
    assert not any(f.rolled_back for f in reject(store, 2)) and store.active("balls") == "2"
    assert reject(store, 1)[-1].rolled_back and store.active("balls") == "1"


def test_reviewers_at_the_same_time_take_a_version_back_once(store):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: reject(ModelStore(store.home), 1)[0], range(16)))
    assert sum(f.rolled_back for f in found) == 1 and store.active("balls") == "1"
    assert len(ReviewLog(store.home, "balls").reviews()) == 16 and len(outcomes(store)) == 1


@pytest.mark.parametrize("wrong", [{"version": "9"}, {"case": "Jane_Doe.nii.gz"}, {"by": "J. Doe"}])
def test_what_is_no_id_is_refused_and_not_kept(store, wrong):
    with pytest.raises(BadInput):
        review(store, store.home, "balls", **({"version": "2", "accepted": False} | wrong))
    assert ReviewLog(store.home, "balls").reviews() == []


KILLED = """
import os, signal, sys
from InteractiveLearningLib.reviews import review
from InteractiveLearningLib.verdicts import VerdictLog
from RefSegLib.models.store import ModelStore
def dies(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
home, moment = sys.argv[1:]
owner = ModelStore if moment == "rollback" else VerdictLog
setattr(owner, moment, dies)
for _ in range(3):
    review(ModelStore(home), home, "balls", "2", False)
"""


@pytest.mark.parametrize("moment", ["add", "rollback", "went_live"])
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is a thing of POSIX")
def test_what_a_kill_cut_short_is_finished_by_whoever_is_next(store, moment):
    done = subprocess.run([sys.executable, "-c", KILLED, str(store.home), moment], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL and len(ReviewLog(store.home, "balls").reviews()) == 3
    assert store.active("balls") == ("1" if moment == "went_live" else "2")
    Learner(store.home, "balls", FAST).close()
    assert store.active("balls") == "1" and outcomes(store) == [("rolled_back", "2", "1")]
    again = settle(store, store.home, "balls")
    assert (again.active, again.rolled_back) == ("1", False) and outcomes(store) == [("rolled_back", "2", "1")]


def test_learning_goes_on_from_the_version_gone_back_to_and_never_from_the_rejected_one(store):
    replay = ReplayStore(store.home)
    for n in range(3):  # train, validation, train: too few to judge, which takes time and is not the point here
        replay.accept(a_ball_case(f"p{n}", n))
    first, second = replay.cases("balls", "train")
    begun = {"data": {"case": first.id, "cases": [first.id]}, "parent": "balls@2"}
    store.add(SPEC, store.load("balls", "2").segmenter(), None, **begun)  # version 3, learnt but not judged
    reject(store, 3)
    learner = Learner(store.home, "balls", FAST)
    verdicts = learner.work()
    learner.close()
    assert (verdicts[0].outcome, verdicts[0].candidate, verdicts[0].case) == ("refused", "3", None)
    assert "grew out of version 2, which was rejected" in verdicts[0].reason
    assert [v.case for v in verdicts[1:]] == [first.id, second.id]
    made = {v.candidate for v in verdicts[1:]}
    parents = {store.load("balls", v).manifest.parent for v in made}
    assert parents <= {"balls@1", *(f"balls@{v}" for v in made)} and store.active("balls") == "1"


def test_a_rejected_version_is_not_published_again_even_while_patients_are_missing(store):
    reject(store, 3)
    replay = ReplayStore(store.home)
    verdict = promote(store, replay, store.load("balls", "2"), case="x")
    assert verdict.outcome == "refused" and "version 2 was rejected by reviewers" in verdict.reason
    assert store.active("balls") == "1"
    store.activate("balls", "2")  # a person may
    third = store.add(SPEC, store.load("balls", "2").segmenter(), None, parent="balls@2")
    assert promote(store, replay, third).outcome == "waiting"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.booleans(), max_size=30))
def test_the_rule_looks_at_the_last_eight_cases_and_at_nothing_else(rejections):
    tail = "".join("x" if r else "." for r in rejections[-LAST:])
    assert (complaint(rejections) is not None) == (tail.endswith("xxx") or tail.count("x") >= 5)


def probability(rejected: float, cases: int) -> float:
    """That a version is taken back within so many cases: exact, over what the last eight may have been."""
    living, taken_back = {(): 1.0}, 0.0
    for _ in range(cases):
        after: dict[tuple[bool, ...], float] = {}
        for before, weight in living.items():
            for one, share in ((True, rejected), (False, 1 - rejected)):
                now = (*before, one)[-LAST:]
                if complaint(now):
                    taken_back += weight * share
                else:
                    after[now] = after.get(now, 0.0) + weight * share
        living = after
    return taken_back


def test_the_documented_probabilities_of_a_false_alarm_are_right():
    rows = re.findall(r"(\d+) % +([\d.]+) % +([\d.]+) % +([\d.]+) %", complaint.__doc__)
    assert [row[0] for row in rows] == ["10", "50"]
    for rejected, *said in rows:
        exact = [100 * probability(int(rejected) / 100, cases) for cases in (8, 20, 100)]
        assert [float(value) for value in said] == pytest.approx(exact, abs=0.05)


def test_the_command_notes_a_review_in_the_audit_log_and_tells_of_a_rollback(store):
    said = [
        CliRunner().invoke(app, ["models", "review", "balls@2", "--reject", "--store", str(store.home)]) for _ in "123"
    ]
    assert [s.exit_code for s in said] == [0, 0, 0] and "Taken back" in said[-1].output
    entries = [(e.who, e.action) for e in AuditLog(store.home).entries()]
    assert entries == [("console", Action.REJECT)] * 3 + [("gate", Action.ROLL_BACK)]
    assert isinstance(CliRunner().invoke(app, ["models", "review", "balls", "--accept"]).exception, BadInput)


FULL = """
import resource, sys
from pathlib import Path
from InteractiveLearningLib.lines import LineLog
log = LineLog(Path(sys.argv[1]))
log.append({"n": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (log.path.stat().st_size + 5,) * 2)
try:
    log.append({"n": 2})
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(os.name != "posix", reason="limits of file sizes are a thing of POSIX")
def test_a_line_for_which_there_is_no_room_leaves_no_trace(tmp_path):
    log = LineLog(tmp_path / "log.jsonl")
    said = subprocess.run(
        [sys.executable, "-c", FULL, str(log.path)], check=False, capture_output=True, text=True, timeout=60
    ).stdout
    assert said.startswith(RefSegError.__name__) and "free some room" in said
    assert log.path.read_bytes() == b'{"n": 1}\n'
    log.append({"n": 3})
    assert log.lines() == [{"n": 1}, {"n": 3}]
