"""The replay store keeps what it promises with its index in SQLite and in a real PostgreSQL server."""

import multiprocessing
import os
import shutil
import time
from pathlib import Path

import pytest
from InteractiveLearningLib.replay import ReplayStore
from InteractiveLearningLib.replay_room import retire, set_capacity
from InteractiveLearningLib.replay_transfer import export_cases, import_cases
from InteractiveLearningLib.verdicts import Verdict, VerdictLog
from postgresql_server import Server, programs
from RefSegLib.errors import BadInput, RefSegError
from replay_samples import SMALL, a_case, all_bytes
from sqlalchemy import text

# Started anew, not forked: a process that was forked in the middle of a test shares its connections.
ANEW = multiprocessing.get_context("forkserver")
ANEW.set_forkserver_preload(["InteractiveLearningLib.replay", "replay_samples"])


@pytest.fixture(scope="module")
def server():
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt install postgresql)")
    server = Server(found)
    yield server
    server.close()


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def database(request) -> str | None:
    """What ReplayStore is given: None means SQLite."""
    return request.getfixturevalue("server").database() if request.param == "PostgreSQL" else None


@pytest.fixture
def replay(tmp_path, database):
    store = ReplayStore(tmp_path / "home", database=database)
    yield store
    store.close()


def test_what_was_accepted_comes_back_in_order_in_every_process(replay, database):
    made = [replay.accept(a_case(f"p{n}", seed=n, site="Essen")) for n in range(4)]
    again = ReplayStore(replay.home, database=database)
    assert [c.id for c in again.cases("tiny")] == made
    assert [c.role for c in again.cases("tiny")] == ["train", "validation"] * 2
    assert (again.load(made[2]).image.array == a_case("p2", seed=2).image.array).all()
    assert again.load(made[3]).patient == replay.patient_key("p3") and not again.damaged()
    again.close()


def test_the_index_is_where_the_setting_says(tmp_path, server, monkeypatch):
    monkeypatch.setenv("REFSEG_DATABASE", server.database())
    store = ReplayStore(tmp_path)
    store.accept(a_case("p1"))
    with store.reading() as db:
        assert "PostgreSQL" in db.execute(text("SELECT version()")).scalar_one()
    store.close()
    assert not (tmp_path / "replay" / "index.sqlite").exists()


def test_a_failed_write_leaves_neither_row_nor_array(replay, monkeypatch):
    replay.accept(a_case("p1"))
    before = all_bytes(replay.arrays)
    with pytest.raises(RefSegError), replay.adding() as db:
        replay.contents.keep(b"never named")
        db.execute(text("INSERT INTO cases (id) VALUES ('x')"))
    assert all_bytes(replay.arrays) == before and len(replay.cases("tiny")) == 1


def test_forgetting_consent_capacity_and_age(replay):
    stays, goes = replay.accept(a_case("stays", SMALL, 1)), replay.accept(a_case("goes", SMALL, 2))
    assert replay.about("goes") == ([goes], []) and replay.forget("goes") == [] and replay.about("goes") == ([], [])
    assert [c.id for c in replay.cases("tiny")] == [stays] and len(list(replay.arrays.glob("*/*"))) == 2
    with replay.reading() as db:
        assert db.execute(text("SELECT count(*) FROM patients")).scalar_one() == 1
    replay.set_consent(stays, False)
    assert not replay.cases("tiny")[0].consent
    replay.set_consent(stays, True)
    more = [replay.accept(a_case("stays", SMALL, n)) for n in range(3, 8)]
    for case in (stays, *more):
        VerdictLog(replay.home, "tiny").add(Verdict("skipped", "", "tiny", case=case))
    assert set_capacity(replay, 4) == 2 and len(replay.cases("tiny")) == 4
    assert retire(replay, 1).cases == ()
    with replay.writing() as db:
        db.execute(text("UPDATE cases SET accepted_at = '2020-01-01T00:00:00+00:00'"))
    assert len(retire(replay, 1).cases) == 4 and not list(replay.arrays.glob("*/*"))
    assert set(replay.about("stays")[0]) == {stays, *more}  # for the versions that had learnt from them


def test_a_store_moves_to_the_other_database_and_back(replay, database, server, tmp_path):
    made = [replay.accept(a_case(f"p{n}", SMALL, n, site=f"s{n % 2}")) for n in range(5)]
    replay.set_consent(made[1], False)
    before = replay.cases("tiny")
    export_cases(replay, tmp_path / "moved")
    replay.close()
    shutil.move(replay.folder, tmp_path / "aside")
    other = ReplayStore(replay.home, database=None if database else server.database())
    assert import_cases(other, tmp_path / "moved").added == 5
    assert other.cases("tiny") == before and not other.damaged()
    assert other.accept(a_case("p1", SMALL, 77)) and other.cases("tiny")[-1].role == before[1].role
    other.close()


def test_a_database_beside_arrays_of_another_store_is_refused_and_nothing_is_swept(tmp_path, server):
    url = server.database()
    here, elsewhere = ReplayStore(tmp_path / "a", database=url), ReplayStore(tmp_path / "b")
    for store in (here, elsewhere):
        store.accept(a_case("p1"))
        store.close()
    with pytest.raises(RefSegError, match="is not the one of the arrays") as said:
        ReplayStore(tmp_path / "b", database=url)
    assert "export" in str(said.value) and len(list(elsewhere.arrays.glob("*/*"))) == 2
    with pytest.raises(RefSegError, match="is not the one of the arrays"):
        ReplayStore(tmp_path / "empty", database=url)


@pytest.mark.parametrize("url", ["mysql://u:geheim@h/d", "geheim", "postgresql+asyncpg//geheim"])
def test_a_setting_that_is_no_postgresql_is_refused_without_showing_it(tmp_path, url):
    with pytest.raises(BadInput, match="must look like postgresql://") as said:
        ReplayStore(tmp_path, database=url)
    assert "geheim" not in str(said.value)


def test_a_server_that_is_not_there_is_said_plainly_without_the_password(tmp_path):
    with pytest.raises(RefSegError, match="could not be written, nothing was changed") as said:
        ReplayStore(tmp_path, database=f"postgresql://u:geheim@/d?host={tmp_path}")
    assert "geheim" not in str(said.value)


def test_two_processes_that_accept_at_the_same_time_lose_nothing(replay, database):
    pipes = [ANEW.Pipe(duplex=False) for _ in range(2)]
    writers = [
        ANEW.Process(target=write_some, args=(replay.home, database, f"w{n}", there, 10))
        for n, (_, there) in enumerate(pipes)
    ]
    for writer, (_, there) in zip(writers, pipes, strict=True):
        writer.start()
        there.close()
    accepted = [acknowledged(here) for here, _ in pipes]
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert [len(ids) for ids in accepted] == [10, 10]
    assert {c.id for c in replay.cases("tiny")} == {i for ids in accepted for i in ids} and not replay.damaged()
    roles = [c.role for c in replay.cases("tiny")]
    assert roles[:4] == ["train", "validation"] * 2  # the side was drawn by one at a time


def test_kill_9_of_the_writer_loses_no_acknowledged_case_and_leaves_no_file(replay, database):
    accepted = []
    for turn in range(3):
        here, there = ANEW.Pipe(duplex=False)
        writer = ANEW.Process(target=write_some, args=(replay.home, database, f"t{turn}-", there, 10_000))
        writer.start()
        there.close()
        assert here.poll(60)
        time.sleep(0.05 * turn + 0.03)
        writer.kill()
        writer.join()
        accepted += acknowledged(here)
    again = ReplayStore(replay.home, database=database)
    stored = {c.id for c in again.cases("tiny")}
    assert accepted and set(accepted) <= stored and not again.damaged()
    assert {f for case in stored for f in again.files(case)} == set(again.arrays.glob("*/*"))
    assert again.load(again.accept(a_case("goes on")))
    again.close()


@pytest.mark.timeout(600)  # a busy machine may take minutes to start the server again
def test_kill_9_of_the_server_loses_no_acknowledged_case(tmp_path, server):
    url = server.database()
    replay = ReplayStore(tmp_path / "home", database=url)
    here, there = ANEW.Pipe(duplex=False)
    writer = ANEW.Process(target=write_some, args=(replay.home, url, "w", there, 10_000))
    writer.start()
    there.close()
    assert here.poll(60)
    time.sleep(0.3)
    server.kill()
    with pytest.raises(RefSegError, match="could not be read"):
        replay.cases("tiny")
    with pytest.raises(RefSegError, match="could not be written"):
        replay.accept(a_case("p1"))
    writer.join(60)
    assert writer.exitcode == 3  # it was told in a sentence
    accepted = acknowledged(here)
    server.start()
    stored = {c.id for c in replay.cases("tiny")}  # the same store goes on: nobody has to open it again
    assert accepted and set(accepted) <= stored and not replay.damaged()
    assert replay.load(replay.accept(a_case("goes on", seed=5)))
    again = ReplayStore(replay.home, database=url)
    assert {f for c in again.cases("tiny") for f in again.files(c.id)} == set(again.arrays.glob("*/*"))
    replay.close()
    again.close()


def write_some(home: Path, database: str | None, name: str, pipe, count: int) -> None:
    """A process that accepts cases and says the id of each once accept has returned; exit code 3: it failed."""
    replay = ReplayStore(home, database=database)
    for n in range(count):
        try:
            identifier = replay.accept(a_case(f"{name}{n % 7}", SMALL, n))
        except RefSegError:
            os._exit(3)
        pipe.send_bytes(identifier.encode())
    replay.close()


def acknowledged(pipe) -> list[str]:
    found = []
    try:
        while True:
            found.append(pipe.recv_bytes().decode())
    except (EOFError, OSError):
        return found
