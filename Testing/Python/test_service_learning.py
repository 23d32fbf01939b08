"""What a service tells of learning: versions with their scores, what is kept, what went wrong, who may change it."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from benchmarks.tiny_learning import a_ball_case, an_untrained_version
from InteractiveLearningLib import learner as learner_module
from InteractiveLearningLib import replay_overview
from InteractiveLearningLib.learner import Learner, read_status
from InteractiveLearningLib.learning import MOST_LOSSES, LearningSettings, Learnt
from InteractiveLearningLib.replay import ReplayStore
from InteractiveLearningLib.replay_room import set_capacity
from InteractiveLearningLib.reviews import review
from InteractiveLearningLib.service.accounts import Accounts, Role
from InteractiveLearningLib.service.audit import Action, AuditLog
from InteractiveLearningLib.service.client import Client
from InteractiveLearningLib.service.failures import Denied
from InteractiveLearningLib.service.guard import Caller
from InteractiveLearningLib.service.learning_routes import learning
from InteractiveLearningLib.service.service import LocalExecutor, Service
from InteractiveLearningLib.verdicts import VerdictLog
from RefSegLib.errors import BadInput, Cancelled
from RefSegLib.models.store import ModelStore
from RefSegLib.progress import Progress
from running_service import RunningService

FAST = LearningSettings(iterations=40, rate=0.02, patience=200)
SITES = ("north", "north", "", "south")


@pytest.fixture(scope="module")
def a_site(tmp_path_factory):
    """A store in which four cases were accepted and learnt, its service, and a client for every role."""
    home = tmp_path_factory.mktemp("home")
    an_untrained_version(home)
    replay = ReplayStore(home)
    for n, site in enumerate(SITES):
        replay.accept(a_ball_case(f"Doe^{n}", n, site=site))
    replay.close()
    learner = Learner(home, "balls", FAST)
    learner.work()
    learner.close()
    accounts = Accounts(home)
    running = RunningService(home).start()
    clients = {}
    for role in Role:
        accounts.add(f"an-{role.value}", role)
        clients[role] = Client(running.url, accounts.give_token(f"an-{role.value}"))
    yield home, clients
    for client in clients.values():
        client.close()
    running.end()


def soon(true, seconds=120):
    """Wait until something is true."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_every_version_comes_with_its_scores_and_losses_and_why_it_was_published_or_refused(a_site):
    home, clients = a_site
    store, verdicts = ModelStore(home), VerdictLog(home, "balls").verdicts()
    table = clients[Role.ANNOTATOR].versions("balls")
    assert [entry["version"] for entry in table] == store.versions("balls")[::-1]
    assert [entry["version"] for entry in table if entry["active"]] == [store.active("balls")]
    judged = {verdict.candidate: verdict for verdict in verdicts}
    for entry in table[:-1]:
        verdict = judged[entry["version"]]
        assert (entry["outcome"], entry["reason"], entry["judged"]) == (verdict.outcome, verdict.reason, verdict.at)
        manifest = store.manifest("balls", entry["version"])
        assert entry["created"] == manifest.created and entry["parent"] == manifest.parent
        assert entry["cases"] == len(manifest.data["cases"])
        assert [n for n, _ in entry["losses"]] == list(range(1, FAST.iterations + 1))
        assert entry["losses"] == [list(point) for point in manifest.settings["losses"]]
        assert entry["measured"] == "judged" and entry["compared"] == verdict.champion
        assert (entry["dice"], entry["before"]) == (verdict.after, verdict.before)
        for name, (before, after) in entry["structures"].items():
            assert (before, after) == verdict.structures[name]
    curve = [loss for _, loss in table[-2]["losses"]]  # of what began with random weights
    assert np.mean(curve[-5:]) < np.mean(curve[:5])
    first = table[-1]
    assert first["outcome"] is None and first["measured"] == "in use" and first["losses"] == []
    assert first["dice"] == next(v.before for v in verdicts[::-1] if v.champion == "1")
    assert all(before is None for before, _ in first["structures"].values()) and set(first["structures"]) <= {
        "bright",
        "dim",
    }
    assert len(clients[Role.ANNOTATOR].versions("balls", last=1)) == 1
    with pytest.raises(BadInput):
        clients[Role.ANNOTATOR].versions("balls", last=1000)
    with pytest.raises(BadInput, match="no model"):
        clients[Role.ANNOTATOR].versions("nobody")


def test_what_is_kept_is_told_in_numbers_without_anything_of_a_patient(a_site, monkeypatch):
    home, clients = a_site
    replay = ReplayStore(home)
    told = clients[Role.ANNOTATOR].replay("balls")
    cases = replay.cases("balls")
    for role in ("train", "validation"):
        own = [case for case in cases if case.role == role]
        assert told[role] == {"cases": len(own), "patients": len(own)}
    assert [(s["name"], s["train"] + s["validation"]) for s in told["structures"]] == [("bright", 4), ("dim", 4)]
    assert [(s["name"], s["train"] + s["validation"]) for s in told["sites"]] == [("north", 2), ("south", 1), ("", 1)]
    files = {path for case in cases for path in replay.files(case.id)}
    assert told["bytes"] == sum(path.stat().st_size for path in files) > 0
    assert (told["oldest"], told["newest"]) == (cases[0].accepted_at, cases[-1].accepted_at)
    assert told["lost"] == [] and told["without_consent"] == 0 and told["capacity"] is None
    assert told["validation_patients"] == 2
    everything = json.dumps([told, clients[Role.ANNOTATOR].versions("balls"), clients[Role.ANNOTATOR].me()])
    assert "Doe" not in everything and not any(case.patient in everything for case in cases)
    set_capacity(replay, 50)
    replay.set_consent(cases[0].id, False)
    told = clients[Role.ANNOTATOR].replay("balls")
    assert told["capacity"] == 50 and told["without_consent"] == 1
    set_capacity(replay, None)
    replay.set_consent(cases[0].id, True)
    monkeypatch.setattr(replay_overview, "MOST_NAMES", 1)
    assert [site["name"] for site in replay_overview.kept(replay, "balls")["sites"]] == ["north"]
    replay.close()


def test_what_is_damaged_is_found_piece_by_piece(a_site, monkeypatch):
    home, clients = a_site
    replay = ReplayStore(home)
    cases = replay.cases("balls")
    whole = [path.read_bytes() for path in (replay.files(cases[1].id)[0], replay.files(cases[2].id)[0])]
    replay.files(cases[1].id)[0].unlink()
    replay.files(cases[2].id)[0].write_bytes(b"x")
    try:
        reviewer = clients[Role.REVIEWER]
        assert [lost["case"] for lost in reviewer.replay("balls")["lost"]] == [cases[1].id]
        told = []
        found = reviewer.damaged("balls", Progress(lambda fraction, _: told.append(fraction)))
        assert [one["case"] for one in found] == [cases[1].id, cases[2].id]
        assert "Restore that file" in found[0]["reason"] and told[-1] == 1
        monkeypatch.setattr(replay_overview, "CHECK_SECONDS", -1.0)  # one at a time
        after, pieces = 0, []
        while after is not None:
            pieces.append(replay_overview.check(replay, "balls", after))
            after = pieces[-1]["after"]
        assert [piece["left"] for piece in pieces] == [3, 2, 1, 0]
        assert [one["case"] for piece in pieces for one in piece["damaged"]] == [cases[1].id, cases[2].id]
        with pytest.raises(Cancelled):
            reviewer.damaged("balls", Progress(cancelled=lambda: True))
        with pytest.raises(Denied, match="As annotator you may not"):
            clients[Role.ANNOTATOR].damaged("balls")
    finally:
        replay.files(cases[1].id)[0].write_bytes(whole[0])
        replay.files(cases[2].id)[0].write_bytes(whole[1])
        replay.close()


def test_everybody_is_told_who_they_are_and_what_they_may(a_site):
    _, clients = a_site
    told = {role: client.me() for role, client in clients.items()}
    for role, me in told.items():
        assert (me["name"], me["role"]) == (f"an-{role.value}", role.value)
    may = {role: {"accept", "roll back", "publish", "forget"} & set(me["may"]) for role, me in told.items()}
    assert may[Role.ANNOTATOR] == set() and may[Role.REVIEWER] == {"accept", "roll back"}
    assert may[Role.ADMINISTRATOR] == {"accept", "roll back", "publish", "forget"}


def test_a_roll_back_from_a_version_that_is_left_already_changes_nothing(a_site):
    home, clients = a_site
    store, reviewer = ModelStore(home), clients[Role.REVIEWER]
    before, newest = store.active("balls"), store.versions("balls")[-1]
    other = newest if before != newest else "1"
    clients[Role.ADMINISTRATOR].activate("balls", other)
    state = reviewer.learning("balls")
    assert (state["active"], state["previous"], state["newest"]) == (other, before, newest)
    entries = len(list(AuditLog(home).entries()))
    assert reviewer.roll_back("balls", leaving=before) == other
    assert len(list(AuditLog(home).entries())) == entries, "what changes nothing needs no entry"
    assert reviewer.roll_back("balls", leaving=other) == before == store.active("balls")
    assert list(AuditLog(home).entries())[-1].action is Action.ROLL_BACK


def test_reviews_are_counted_by_the_last_of_each_case(a_site):
    home, clients = a_site
    store, active = ModelStore(home), ModelStore(home).active("balls")
    for accepted, case in ((False, "a" * 32), (True, "a" * 32), (False, "b" * 32), (True, None), (True, None)):
        review(store, home, "balls", active, accepted, case)
    (entry,) = (entry for entry in clients[Role.ANNOTATOR].versions("balls") if entry["active"])
    assert entry["reviews"] == {"accepted": 3, "rejected": 1}


def test_the_scores_of_its_training_are_told_of_a_shipped_version(tmp_path):
    from InteractiveLearningLib.overview import version_table

    store = ModelStore(tmp_path)
    (entry,) = version_table(store, "hippocampus", 50)
    assert entry["measured"] == "trained" and 0.8 < entry["dice"] < 1
    assert entry["structures"].keys() == {"anterior hippocampus", "posterior hippocampus"}
    (store.root / "hippocampus" / "versions" / "1" / "model.json").write_bytes(b"{}")
    (entry,) = version_table(store, "hippocampus", 50)
    assert "changed or damaged" in entry["damaged"] and entry["created"] is None and entry["dice"] is None


def test_curves_of_losses_stay_small(tmp_path, monkeypatch):
    long = Learnt({}, list(np.linspace(1, 0, 5000)), 1.0).summary()["losses"]
    assert len(long) == MOST_LOSSES and long[0] == (1, 1.0) and long[-1] == (5000, 0.0)
    assert Learnt({}, [0.5], 1.0).summary()["losses"] == [(1, 0.5)]
    monkeypatch.setattr(learner_module, "MOST_LOSSES", 4)
    an_untrained_version(tmp_path)
    replay = ReplayStore(tmp_path)
    replay.accept(a_ball_case("p", 0))
    replay.close()
    learner = Learner(tmp_path, "balls", replace(FAST, iterations=7))
    learner.work()
    learner.close()
    status = read_status(tmp_path, "balls")
    assert (status.iteration, status.iterations, len(status.losses)) == (7, 7, 4)
    kept = ModelStore(tmp_path).load("balls", "2").manifest.settings["losses"]
    assert [loss for _, loss in kept][-4:] == status.losses


@pytest.fixture
def a_service(tmp_path):
    """A service of this process, with one case to learn; and what it tells of that."""
    an_untrained_version(tmp_path)
    replay = ReplayStore(tmp_path)
    replay.accept(a_ball_case("p", 0))
    replay.close()
    service = Service(tmp_path, LocalExecutor(tmp_path, "cpu"))
    yield service, lambda: learning("balls", service, Caller("tester", Role.ANNOTATOR))
    service.close()


def test_a_learner_that_is_held_is_told_as_held(a_service):
    service, state = a_service
    soon(lambda: state()["running"])
    assert state()["held"] is False and state()["cases"] == state()["pending"] == 1
    with service.turns.interactive():
        assert state()["held"] is True
    assert state()["held"] is False


def test_why_nothing_is_learnt_is_told(a_service, monkeypatch):
    from InteractiveLearningLib.service import keeper

    service, state = a_service
    monkeypatch.setattr(keeper, "RETRY_SECONDS", 0.5)
    weights = service.models.load("balls").folder / "segmenter.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(b"x")
    service.keeper.stop()
    soon(lambda: "segmenter.safetensors has been changed or damaged" in (state()["trouble"] or ""))
    weights.write_bytes(whole)
    soon(lambda: state()["trouble"] is None and (state()["status"] or {}).get("iteration", 0) > 0)
