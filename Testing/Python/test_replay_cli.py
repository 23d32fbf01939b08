"""refseg replay: what it says and what it writes down in the audit log."""

import pytest
from InteractiveLearningLib.cli import app
from InteractiveLearningLib.replay import ReplayStore
from InteractiveLearningLib.service.audit import Action, AuditLog
from RefSegLib.errors import BadInput, RefSegError
from replay_samples import SMALL, a_case, all_bytes
from sqlalchemy import text
from typer.testing import CliRunner


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def replay(home):
    store = ReplayStore(home)
    yield store
    store.close()


@pytest.fixture
def refseg(home, monkeypatch):
    """Run a command on the store; returns what it printed, or raises what the user would be shown."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: object) -> str:
        result = CliRunner().invoke(app, ["replay", *map(str, words), "--store", str(home)])
        if result.exception is not None:
            raise result.exception
        return result.output

    return run


def said(home) -> list[tuple[Action, str | None]]:
    return [(entry.action, entry.about.case) for entry in AuditLog(home).entries()]


def test_the_list_counts_by_model_site_and_side(refseg, replay):
    for n, site in enumerate(("Essen", "Bonn", "Essen", "Essen")):
        replay.accept(a_case(f"p{n % 2}", SMALL, n, site=site, consent=n != 3))
    rows = [line.split() for line in refseg("list").splitlines()]
    cells = [[cell for cell in row if cell not in "│┃|"] for row in rows]
    assert ["tiny", "Essen", "train", "2", "1", "0"] in [c[:6] for c in cells]
    assert ["tiny", "Essen", "validation", "1", "1", "1"] in [c[:6] for c in cells]
    assert ["tiny", "Bonn", "validation", "1", "1", "0"] in [c[:6] for c in cells]
    lines = refseg("list", "--cases").splitlines()
    assert [line.split("\t")[0] for line in lines] == [c.id for c in replay.cases()]
    assert lines[3].split("\t")[1:4] == ["tiny", "Essen", "validation"] and "no consent\tfront, back" in lines[3]


def test_forgetting_says_what_it_did_and_the_log_keeps_the_cases_alone(refseg, replay, home):
    goes = [replay.accept(a_case("Jane Doe", SMALL, n)) for n in range(2)]
    key = replay.patient_key("Jane Doe")
    assert "Cases of the patient, with those retired before: 2" in refseg("forget", "--patient", "jane doe ")
    assert said(home) == [(Action.FORGET, case) for case in goes] and replay.cases() == []
    written = all_bytes(home)
    assert key.encode() not in written and b"jane" not in written.lower()
    assert "retired before: 0" in refseg("forget", "--patient", "nobody")
    assert said(home)[2:] == [(Action.FORGET, None)]


def test_nobody_is_forgotten_when_it_cannot_be_written_down(refseg, replay, home):
    replay.accept(a_case("Jane Doe"))
    (home / "service" / "audit.jsonl").mkdir()
    with pytest.raises(RefSegError, match="audit log"):
        refseg("forget", "--patient", "Jane Doe")
    assert len(replay.cases()) == 1


def test_consent_is_changed_and_written_down(refseg, replay, home):
    case = replay.accept(a_case("p1"))
    assert "Neither learnt" in refseg("consent", case, "--no") and not replay.cases()[0].consent
    assert "May be learnt" in refseg("consent", case, "--yes") and replay.cases()[0].consent
    assert said(home) == [(Action.WITHDRAW_CONSENT, case), (Action.CONSENT, case)]
    with pytest.raises(BadInput, match="no case 'abc'"):
        refseg("consent", "abc", "--no")
    assert len(said(home)) == 2


def test_damaged_cases_are_named(refseg, replay):
    first, second = (replay.accept(a_case("p1", SMALL, n)) for n in range(2))
    assert "All 2 cases are whole" in refseg("damaged")
    replay.files(second)[0].unlink()
    with pytest.raises(RefSegError, match="1 of 2 cases are damaged"):
        refseg("damaged")
    assert replay.damaged().keys() == {second} and first


def test_capacity_is_shown_set_and_lifted(refseg, replay):
    assert "All cases are kept" in refseg("capacity")
    assert "At most 5 training cases of a model are kept" in refseg("capacity", 5)
    assert "At most 5 training cases" in refseg("list")
    assert "All cases are kept" in refseg("capacity", "--unlimited")
    with pytest.raises(BadInput, match="either how many"):
        refseg("capacity", 5, "--unlimited")


def test_old_cases_retire(refseg, replay):
    for n in range(2):
        replay.accept(a_case(f"p{n}", SMALL, n))
    with replay.writing() as db:
        db.execute(text("UPDATE cases SET accepted_at = '2020-01-01T00:00:00+00:00'"))
    assert "removed: 1. Validation cases as old that stay: 1" in refseg("retire", "--days", "30")
    with pytest.raises(BadInput, match="above 0"):
        refseg("retire", "--days", "0")


def test_cases_go_out_and_come_back(refseg, replay, tmp_path):
    for n in range(2):
        replay.accept(a_case(f"p{n}", SMALL, n))
    assert "2 cases are in" in refseg("export", tmp_path / "cases")
    refseg("forget", "--patient", "p1")
    assert "Cases added: 1. Here already: 1." in refseg("import", tmp_path / "cases")
    assert len(replay.cases()) == 2 and not replay.damaged()
