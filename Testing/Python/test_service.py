"""The engine service as a real process: what it answers, who may ask, and what survives."""

import json
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from benchmarks.tiny_learning import SPEC, an_image, an_untrained_version
from InteractiveLearningLib.prompts import Click, Limits, Outline, to_dict
from InteractiveLearningLib.replay import ReplayStore
from InteractiveLearningLib.service import sessions as service_sessions
from InteractiveLearningLib.service import wire
from InteractiveLearningLib.service.accounts import Accounts, Role
from InteractiveLearningLib.service.audit import AuditLog
from InteractiveLearningLib.service.jobs import Full, Missing
from InteractiveLearningLib.service.learners import LearnerProcess
from InteractiveLearningLib.service.patients import patient_key
from InteractiveLearningLib.service.sessions import Sessions
from InteractiveLearningLib.service.turns import Turns
from InteractiveLearningLib.service.wire import SessionMessage
from InteractiveLearningLib.session import Session
from RefSegLib.engine import Engine
from RefSegLib.errors import BadInput
from RefSegLib.models.store import ModelStore
from RefSegLib.progress import Progress
from RefSegLib.volume.grid import Grid
from running_service import RunningService, finished, send

LABELS = [label.model_dump(mode="json") for label in SPEC.labels]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    an_untrained_version(home)
    running = RunningService(home).start()
    yield running
    running.end()


@pytest.fixture
def another(tmp_path):
    """A service of this test alone, on a store of its own; what a failed test leaves is ended."""
    an_untrained_version(tmp_path)
    running = RunningService(tmp_path)
    yield running
    if running.process is not None and running.process.poll() is None:
        running.end()


@pytest.fixture
def client(service):
    with service.client() as found:
        yield found


def begin(client, volume, **more) -> dict:
    answer = client.post("/v1/sessions", json={"volume": send(client, volume), "labels": LABELS} | more)
    assert answer.status_code == 201, answer.text
    return answer.json()


def say(client, session: str, *prompts, **more) -> dict:
    answer = client.post(
        f"/v1/sessions/{session}/prompts", json={"prompts": [to_dict(prompt) for prompt in prompts]} | more
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def outlines(grid, labels, axis=0) -> list[Outline]:
    slices = np.moveaxis(labels.array == 1, axis, 0)
    seen = np.flatnonzero(slices.any(axis=(1, 2)))
    return [Outline.on(grid, axis, int(k), slices[k], 1) for k in (seen[0], seen[len(seen) // 2], seen[-1])]


def test_only_a_greeting_is_told_without_a_token(service):
    with service.client("nobody") as stranger:
        hello = stranger.get("/hello")
        assert hello.json()["api"] == [wire.API] and hello.headers["x-refseg-api"] == str(wire.API)
        for address in ("/v1/models", "/v1/sessions", "/v1/audit", "/v1/openapi.json"):
            assert stranger.get(address).status_code == 401
        assert stranger.get("/openapi.json").status_code == stranger.get("/docs").status_code == 404


def test_a_volume_is_sent_once_and_an_interrupted_upload_goes_on(client):
    image, _ = an_image(11)
    content, identifier = wire.pack_volume(image), wire.volume_id(image)
    about = wire.volume_head(image) | {"id": identifier, "packed": len(content)}
    address = f"/v1/volumes/{identifier}"
    assert client.get(address).status_code == 404
    assert client.post("/v1/volumes", json=about).json() == {"received": 0, "complete": False, "chunk": wire.CHUNK}
    client.put(address, params={"offset": 0}, content=content[:1000])
    wrong = client.put(address, params={"offset": 10}, content=content[10:])
    assert wrong.status_code == 409 and wrong.json()["received"] == 1000
    assert client.post("/v1/volumes", json=about).json()["received"] == 1000
    assert client.put(address, params={"offset": 1000}, content=content[1000:]).json()["complete"]
    assert client.post("/v1/volumes", json=about).json()["complete"]


def test_a_volume_that_was_changed_on_its_way_is_refused_and_gone(client):
    image, _ = an_image(12)
    content, identifier = wire.pack_volume(an_image(13)[0]), wire.volume_id(image)
    about = wire.volume_head(image) | {"id": identifier, "packed": len(content)}
    client.post("/v1/volumes", json=about)
    answer = client.put(f"/v1/volumes/{identifier}", params={"offset": 0}, content=content)
    assert answer.status_code == 400 and "does not match its hash" in answer.json()["error"]
    assert client.get(f"/v1/volumes/{identifier}").status_code == 404


def test_a_segmentation_is_voxel_for_voxel_what_the_engine_finds(client, service, a_grid):
    image, _ = an_image(5, a_grid)
    volume = send(client, image)
    started = client.post("/v1/jobs", json={"volume": volume, "model": "balls", "suspect": True})
    assert started.status_code == 202
    job = finished(client, started.json())
    assert job["state"] == "done", job
    expected = Engine(ModelStore(service.home).load("balls", "1")).segment(image)
    found = wire.label_map(wire.ArrayBox(**job["result"]["labels"]), a_grid)
    assert np.array_equal(found.array, expected.labels.array)
    assert [name["name"] for name in job["result"]["names"]] == [name.name for name in expected.names]
    assert job["result"]["report"]["images"][0]["regions"][0]["grid"] == expected.regions[0].region.grid.to_dict()


def test_a_job_goes_on_when_its_client_goes_away_and_can_be_cancelled(service):
    image, _ = an_image(6, Grid((48, 48, 48)))
    with service.client() as first:
        volume = send(first, image)
        wanted = {"volume": volume, "model": "balls"}  # the first reflects, and the others wait for it
        jobs = [first.post("/v1/jobs", json=wanted | {"reflect": n == 0}).json() for n in range(3)]
    with service.client() as second:
        assert {job["id"] for job in jobs} <= {job["id"] for job in second.get("/v1/jobs").json()["jobs"]}
        second.delete(f"/v1/jobs/{jobs[2]['id']}")
        assert finished(second, jobs[0])["state"] == "done"
        assert finished(second, jobs[2])["state"] == "cancelled"


def test_work_ends_with_the_version_it_began_with_and_the_next_has_the_new_one(another, tmp_path):
    service, store = another.start(), ModelStore(tmp_path)
    image, _ = an_image(6, Grid((48, 48, 48)))
    with service.client() as client:
        wanted = {"volume": send(client, image), "model": "balls", "reflect": False}
        first = client.post("/v1/jobs", json=wanted).json()
        an_untrained_version(tmp_path, seed=1)
        second = client.post("/v1/jobs", json=wanted).json()
        jobs = [finished(client, job) for job in (first, second)]
        assert [job["result"]["report"]["version"] for job in jobs] == ["1", "2"]
        assert client.get("/v1/models").json()["models"][0]["active"] == store.active("balls") == "2"


def test_a_session_answers_what_a_session_in_this_process_does(client, a_grid, tmp_path):
    image, labels = an_image(7, a_grid)
    here = Session.create(tmp_path / "session", image, SPEC.labels)
    begun = begin(client, image)
    shown = np.zeros(a_grid.shape, np.uint8)
    inside = a_grid.to_world(np.argwhere(labels.array == 2).mean(axis=0))
    prompts = [[outline] for outline in outlines(a_grid, labels)] + [[Click(tuple(inside), True, 2)]]
    limits = Limits.on(a_grid, 0, 1, a_grid.shape[0] - 2, 2)
    for said in [*prompts, [limits, Click(tuple(inside), True, 2)]]:
        here.apply(said)
        answer = say(client, begun["id"], *said)
        if answer["box"] is not None:
            box = wire.ArrayBox(**answer["box"])
            shown[tuple(map(slice, box.lower, box.upper))] = wire.unpack_values(box)
        assert np.array_equal(shown, here.labels().array)
        assert answer["undo"] == here.undo_name
    undone = client.post(f"/v1/sessions/{begun['id']}/undo").json()
    here.undo()
    assert undone["redo"] == here.redo_name
    state = client.get(f"/v1/sessions/{begun['id']}").json()
    assert np.array_equal(wire.label_map(wire.ArrayBox(**state["labels"]), a_grid).array, here.labels().array)
    assert state["prompts"] == json.loads(json.dumps([to_dict(prompt) for prompt in here.prompts()]))
    asked, expected = client.post(f"/v1/sessions/{begun['id']}/next", json={"label": 1}).json(), here.suggest(1)
    assert expected == asked.get("nothing") or (asked["axis"], asked["index"]) == (expected.axis, expected.index)
    assert client.get(f"/v1/sessions/{begun['id']}/axis").json()["axis"] == here.handiest_axis()
    client.delete(f"/v1/sessions/{begun['id']}")
    here.close()


def test_a_session_begins_from_a_mask_and_keeps_to_what_may_change(client):
    image, labels = an_image(8)
    begun = begin(client, image, mask=wire.pack_where(labels.array).model_dump())
    state = wire.label_map(wire.ArrayBox(**begun["state"]["labels"]), image.grid)
    assert np.array_equal(state.array, labels.array)
    center = np.argwhere(labels.array == 2).mean(axis=0).round()
    inside = Click(tuple(image.grid.to_world(center)), True, 1)
    refused = client.post(f"/v1/sessions/{begun['id']}/prompts", json={"prompts": [to_dict(inside)], "locked": [2]})
    assert refused.status_code == 400 and "locked" in refused.json()["error"]
    nowhere = wire.pack_where(np.zeros(image.grid.shape, bool)).model_dump()
    outside = client.post(
        f"/v1/sessions/{begun['id']}/prompts", json={"prompts": [to_dict(inside)], "editable": nowhere}
    )
    assert outside.status_code == 400 and "editable area" in outside.json()["error"]
    client.delete(f"/v1/sessions/{begun['id']}")


def test_a_killed_service_comes_back_with_every_session_bit_for_bit_and_accepts_once(another, tmp_path):
    service = another.start()
    image, labels = an_image(9)
    with service.client() as client:
        begun = begin(client, image)
        for outline in outlines(image.grid, labels):
            say(client, begun["id"], outline)
        before = client.get(f"/v1/sessions/{begun['id']}").json()
    service.kill()
    service.start()
    with service.client() as client:
        assert client.get(f"/v1/sessions/{begun['id']}").json() == before
        wanted = {"model": "balls", "patient": "Doe^Jane", "site": "north"}
        accepted = client.post(f"/v1/sessions/{begun['id']}/accept", json=wanted)
        assert accepted.status_code == 201
        again = client.post(f"/v1/sessions/{begun['id']}/accept", json=wanted)
        assert again.json() == accepted.json(), "whoever never got the answer may ask again"
        while not client.get("/v1/models/balls/learning").json()["running"]:
            time.sleep(0.05)
        learners = [p for p in psutil.Process(service.process.pid).children() if "learner" in " ".join(p.cmdline())]
        assert learners
    service.end()
    assert not any(process.is_running() for process in learners)
    replay = ReplayStore(tmp_path)
    (case,) = replay.cases("balls")
    assert case.id == accepted.json()["case"] and case.site == "north"
    assert [entry.about.case for entry in AuditLog(tmp_path).entries()][-1] == case.id
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"Doe" not in everything and b"Jane" not in everything


def test_roles_open_what_they_are_for_and_users_do_not_see_each_other(another, tmp_path):
    accounts, tokens = Accounts(tmp_path), {}
    for name, role in (("ann", Role.ANNOTATOR), ("rob", Role.REVIEWER), ("ada", Role.ADMINISTRATOR)):
        accounts.add(name, role)
        tokens[name] = accounts.give_token(name)
    service = another.start()
    image, labels = an_image(10)
    with service.client(tokens["ann"]) as ann, service.client(tokens["rob"]) as rob:
        begun = begin(ann, image)
        say(ann, begun["id"], *outlines(image.grid, labels))
        accepting = {"model": "balls", "patient": "p"}
        assert ann.post(f"/v1/sessions/{begun['id']}/accept", json=accepting).status_code == 403
        assert ann.post("/v1/models/balls/rollback").status_code == 403
        assert rob.get(f"/v1/sessions/{begun['id']}").status_code == 404
        assert rob.get(f"/v1/volumes/{wire.volume_id(image)}").status_code == 404
        assert rob.get("/v1/sessions").json() == {"sessions": []}
        assert rob.get("/v1/audit").status_code == 403
        assert rob.post("/v1/patients/forget", json={"patient": "p"}).status_code == 403
        own = begin(rob, image)
        say(rob, own["id"], *outlines(image.grid, labels))
        assert rob.post(f"/v1/sessions/{own['id']}/accept", json=accepting).status_code == 201
        with service.client(tokens["ada"]) as ada:
            assert ada.get("/v1/audit").json()["entries"][-1]["who"] == "rob"
            forgotten = ada.post("/v1/patients/forget", json={"patient": "p"})
            assert forgotten.json()["cases"] == 1
            key = patient_key(tmp_path, "p").encode()
            left = [path for path in tmp_path.rglob("*") if path.is_file() and key in path.read_bytes()]
            assert not left, "not even the keyed hash of a forgotten patient stays"
        accounts.revoke("ann")
        assert ann.get("/v1/sessions").status_code == 401
    with service.client("f" * 12 + ".guess") as guesser:
        answers = [guesser.get("/v1/models").status_code for _ in range(12)]
        assert answers[0] == 401 and answers[-1] == 429
    service.end()


def test_reviewers_who_reject_a_run_of_cases_take_a_version_back(service, client):
    store = ModelStore(service.home)
    version = an_untrained_version(service.home, seed=1)
    answers = [
        client.post("/v1/models/balls/reviews", json={"version": version.version, "accepted": False}).json()
        for _ in range(3)
    ]
    assert [answer["rolled_back"] for answer in answers] == [False, False, True]
    assert store.active("balls") == answers[-1]["active"] == "1"
    assert client.get("/v1/models/balls/learning").json()["verdicts"][-1]["outcome"] == "rolled_back"
    # a person may still decide otherwise
    assert client.post("/v1/models/balls/activate", json={"version": version.version}).json()["active"] == "2"
    assert client.post("/v1/models/balls/rollback").json()["active"] == "1"


def test_what_cannot_be_used_is_answered_with_a_sentence(client):
    answers = {
        "no such model": client.post("/v1/jobs", json={"volume": send(client, an_image(1)[0]), "model": "nobody"}),
        "no volume": client.post("/v1/jobs", json={"volume": "0" * 64, "model": "balls"}),
        "no session": client.post(f"/v1/sessions/{'0' * 32}/undo"),
        "no such address": client.get("/v1/../../etc/passwd"),
        "no JSON": client.post("/v1/jobs", content=b"{{{", headers={"content-type": "application/json"}),
        "too large": client.put(f"/v1/volumes/{'0' * 64}", params={"offset": 0}, content=bytes(wire.CHUNK + 1)),
    }
    assert [answer.status_code for answer in answers.values()] == [400, 404, 404, 404, 400, 413]
    for answer in answers.values():
        assert len(answer.json()["error"]) > 8


def test_an_address_that_others_can_reach_needs_tls(tmp_path):
    command = [sys.executable, "-m", "InteractiveLearningLib.cli", "serve", "--store", str(tmp_path)]
    ended = subprocess.run([*command, "--host", "0.0.0.0"], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2 and "--tls-cert" in ended.stderr and "Traceback" not in ended.stderr


def test_two_services_on_one_store_are_one_too_many(service):
    command = [sys.executable, "-m", "InteractiveLearningLib.cli", "serve", "--store", str(service.home)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2 and "Another service" in ended.stderr


def test_a_local_service_ends_when_the_last_program_leaves(tmp_path):
    service = RunningService(tmp_path, local=True).start()
    with service.client() as client:
        for program in ("1" * 32, "2" * 32):
            client.put(f"/v1/clients/{program}")
        client.delete(f"/v1/clients/{'1' * 32}")
        time.sleep(1.2)
        assert service.process.poll() is None
        client.delete(f"/v1/clients/{'2' * 32}")
    assert service.process.wait(90) == 0 and not (tmp_path / "service" / "local.json").exists()


def becomes(process: psutil.Process, *, held: bool) -> None:
    """The signal is delivered when the system comes to it."""
    until = time.monotonic() + 60
    while (process.status() == psutil.STATUS_STOPPED) != held:
        assert time.monotonic() < until
        time.sleep(0.005)


def test_a_learner_is_held_while_somebody_else_computes(tmp_path):
    an_untrained_version(tmp_path)
    turns, learner = Turns(), LearnerProcess(tmp_path, "balls")
    process = psutil.Process(learner._process.pid)
    turns.add(learner)
    with turns.inference():
        with turns.interactive():
            becomes(process, held=True)
            with turns.learning_goes_on():  # somebody waits for a lock that it may have
                becomes(process, held=False)
            becomes(process, held=True)
        becomes(process, held=True)
    becomes(process, held=False)
    learner.stop()
    assert not learner.running() and not process.is_running()


def test_inference_lets_interactions_pass_but_not_for_ever(monkeypatch):
    import threading

    from InteractiveLearningLib.service import turns as module

    monkeypatch.setattr(module, "LONGEST_WAIT", 0.3)
    turns, told = Turns(), []
    progress = turns.yielding(Progress(lambda fraction, _: told.append(fraction)))
    with turns.interactive():
        waiting = threading.Thread(target=lambda: progress(0.5))
        waiting.start()
        waiting.join(0.1)
        assert not told, "a tile waits while somebody clicks"
        waiting.join(30)
        assert told == [0.5]


@pytest.fixture
def few_sessions(tmp_path, monkeypatch):
    monkeypatch.setattr(service_sessions, "OPEN", 3)
    monkeypatch.setattr(service_sessions, "OPEN_PER_USER", 2)
    return Sessions(tmp_path, Turns())


def begun_by(sessions: Sessions, user: str) -> str:
    image, _ = an_image(2)
    return sessions.create(user, SessionMessage(volume=wire.volume_id(image), labels=LABELS), image)[0]


def test_a_user_opening_many_sessions_has_the_last_in_memory_and_all_of_them(few_sessions):
    image, labels = an_image(2)
    made = [begun_by(few_sessions, "ann") for _ in range(4)]
    assert few_sessions.open() == 2 and len(few_sessions.of("ann")) == 4
    for number, identifier in enumerate(made):
        with few_sessions.use("ann", identifier, changes=True) as (session, _):
            session.apply(outlines(image.grid, labels)[: number % 3 + 1])
    for number, identifier in enumerate(made):
        with few_sessions.use("ann", identifier) as (session, _):
            assert len(session.prompts()) == number % 3 + 1
    few_sessions.close()


def test_when_the_memory_is_full_the_next_user_is_told_to_come_back(few_sessions, monkeypatch):
    begun_by(few_sessions, "ann")
    begun_by(few_sessions, "bob")
    first = begun_by(few_sessions, "eve")
    with pytest.raises(Full) as refused:
        begun_by(few_sessions, "zoe")
    assert refused.value.wait > 0 and few_sessions.of("zoe") == []
    monkeypatch.setattr(service_sessions, "LEASE", 0.0)
    few_sessions.sweep()
    assert few_sessions.open() == 0
    begun_by(few_sessions, "zoe")
    with few_sessions.use("eve", first) as (session, _):
        assert session.prompts() == []
    few_sessions.discard("eve", first)
    with pytest.raises(Missing):
        few_sessions.alive("eve", first)


def test_an_image_too_large_for_so_many_structures_is_refused(few_sessions, monkeypatch):
    monkeypatch.setattr(service_sessions, "MOST_VALUES", 1000)
    with pytest.raises(BadInput, match="too large"):
        begun_by(few_sessions, "ann")
    assert few_sessions.of("ann") == []
