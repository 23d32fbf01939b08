"""Patients: the site's keyed hash, stores of before, and forgetting that leaves no byte."""

import json
import multiprocessing
import shutil
import sys
from pathlib import Path

import pytest
from InteractiveLearningLib.learner import Learner, LearnerStatus, read_status
from InteractiveLearningLib.learning import LearningSettings
from InteractiveLearningLib.promotion import promote
from InteractiveLearningLib.replay import ReplayStore
from InteractiveLearningLib.replay_room import retire
from InteractiveLearningLib.replay_traces import begin_learning, end_learning
from InteractiveLearningLib.service.patients import patient_key
from InteractiveLearningLib.verdicts import CaseScore, Verdict, VerdictLog
from RefSegLib.errors import Cancelled, RefSegError
from RefSegLib.models.store import ModelStore
from RefSegLib.progress import Progress
from replay_samples import SMALL, a_case, all_bytes, an_old_store, old_key
from sqlalchemy import text

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from tiny_learning import SPEC, a_ball_case, an_untrained_version

NAME = "Mustermann^Erika"


@pytest.fixture
def replay(tmp_path):
    store = ReplayStore(tmp_path)
    yield store
    store.close()


def a_verdict(replay: ReplayStore, *cases: str) -> None:
    patients = {c.id: c.patient for c in replay.cases()}
    scores = tuple(CaseScore(case, patients[case], {"front": 0.5}, {"front": 0.75}) for case in cases)
    VerdictLog(replay.home, "tiny").add(Verdict("refused", "Refused: no gain.", "tiny", candidate="2", scores=scores))


def a_status(replay: ReplayStore) -> None:
    """What a learner of an earlier version said of its last verdict: with the scores."""
    verdict = VerdictLog(replay.home, "tiny").verdicts()[-1].to_dict()
    status = vars(LearnerStatus(verdict=verdict, message="idle"))
    (replay.home / "learner" / "tiny.json").write_text(json.dumps(status))


def a_checkpoint(home: Path, model: str = "tiny") -> Path:
    begin_learning(home, model)
    path = home / "learner" / f"{model}.checkpoint"
    path.write_bytes(b"weights in the middle")
    return path


def test_forgetting_leaves_no_byte_anywhere_below_home(replay):
    stays = replay.accept(a_case("stays", SMALL, 1))
    goes = [replay.accept(a_case(NAME, SMALL, n)) for n in (2, 3)]
    old = replay.accept(a_case(NAME, SMALL, 4))
    with replay.writing() as db:
        db.execute(text("UPDATE cases SET accepted_at = '2020-01-01T00:00:00+00:00' WHERE id = :id"), {"id": old})
    a_verdict(replay, stays, *goes)
    a_status(replay)
    checkpoint = a_checkpoint(replay.home)
    key, arrays = replay.patient_key(NAME), [f.read_bytes() for case in goes for f in replay.files(case)]
    before = all_bytes(replay.home)
    assert key.encode() in before and all(content in before for content in arrays)
    assert replay.about(f" {NAME.lower()} ")[0] == [*goes, old]
    assert replay.forget(NAME) == []
    written = all_bytes(replay.home)
    traces = [key, *goes, old, NAME, NAME.lower(), "mustermann"]
    assert not [trace for trace in traces if trace.encode() in written]
    assert not [content for content in arrays if content in written]
    assert not checkpoint.exists() and replay.load(stays)
    (verdict,) = VerdictLog(replay.home, "tiny").verdicts()
    assert (verdict.reason, [s.case for s in verdict.scores]) == ("Refused: no gain.", [stays])
    assert read_status(replay.home, "tiny").message == "idle"


def test_the_bytes_are_gone_while_the_store_is_open_in_another_process(replay):
    replay.accept(a_case("goes"))
    replay.accept(a_case("stays", seed=1))
    other = ReplayStore(replay.home)
    assert len(other.cases()) == 2
    replay.forget("goes")
    assert replay.patient_key("goes").encode() not in all_bytes(replay.home)
    assert len(other.cases()) == 1
    other.close()


def test_a_reader_that_stays_in_the_way_is_said_and_forgetting_again_finishes(replay, monkeypatch):
    replay.accept(a_case("goes"))
    monkeypatch.setattr("InteractiveLearningLib.replay_index.BUSY_SECONDS", 0.2)
    writer, reader = ReplayStore(replay.home), ReplayStore(replay.home)
    replay.close()
    with reader.reading() as db:
        assert db.execute(text("SELECT count(*) FROM cases")).scalar_one() == 1
        with pytest.raises(RefSegError, match=r"not yet overwritten on the disk.*Do it again"):
            writer.forget("goes")
    key = writer.patient_key("goes").encode()
    assert writer.cases() == [] and key in all_bytes(writer.home)
    writer.forget("goes")
    assert key not in all_bytes(writer.home)
    writer.close()
    reader.close()


def test_a_file_that_no_case_names_goes_too(replay):
    replay.accept(a_case("goes"))
    orphan = replay.contents.keep(b"written by a killed writer")
    replay.forget("goes")
    assert not replay.contents.path(orphan).exists()


def test_versions_that_learnt_from_a_case_long_retired_are_named_with_what_grew_out_of_them(replay):
    case = replay.accept(a_case("goes", SMALL))
    store, spec = ModelStore(replay.home), SPEC.model_copy(update={"name": "tiny"})
    weights = {"w": a_case("x", SMALL).image.array}
    first = store.add(spec, weights, data={"cases": [case]})
    store.add(spec, weights)
    store.add(spec, weights, parent=f"tiny@{first.version}")
    with replay.writing() as db:
        db.execute(text("UPDATE cases SET accepted_at = '2020-01-01T00:00:00+00:00'"))
    assert retire(replay, 1).cases == (case,)
    assert replay.about("goes") == ([case], ["tiny@1", "tiny@3"])
    assert replay.forget("goes") == ["tiny@1", "tiny@3"] and replay.about("goes") == ([], [])


def test_a_patient_forgotten_during_validation_does_not_come_back_by_the_scores(replay):
    model = an_untrained_version(replay.home)
    for n in range(4):
        replay.accept(a_ball_case(f"p{n}", n))
    key, gone = replay.patient_key("p3"), []
    listening = Progress(lambda fraction, message: gone or gone.append(replay.forget("p3")))
    verdict = promote(ModelStore(replay.home), replay, model, progress=listening)
    assert gone == [[]] and [s.patient for s in verdict.scores] == [replay.patient_key("p1")]
    assert key.encode() not in all_bytes(replay.home)


def test_a_learner_stopped_after_its_patient_was_forgotten_leaves_no_checkpoint_and_no_score(replay):
    an_untrained_version(replay.home)
    replay.accept(a_ball_case("p0", 0))
    learner = Learner(replay.home, "balls", LearningSettings(iterations=40, checkpoint=2))
    heard: list[float] = []

    def forget_and_stop(fraction: float, message: str) -> None:
        heard.append(fraction)
        if len(heard) == 5:
            assert learner.checkpoint.exists()
            replay.forget("p0")
        if len(heard) == 9:
            raise Cancelled

    with pytest.raises(Cancelled):
        learner.work(Progress(forget_and_stop))
    assert not list((replay.home / "learner").glob("balls.checkpoint*")) and len(heard) == 9
    assert learner.work() == [] and ModelStore(replay.home).versions("balls") == ["1"]
    learner.close()


def test_withdrawing_consent_removes_checkpoints_too(replay):
    case, checkpoint = replay.accept(a_case("p1")), a_checkpoint(replay.home)
    replay.set_consent(case, True)
    assert checkpoint.exists()
    replay.set_consent(case, False)
    assert not checkpoint.exists()


def test_a_checkpoint_that_a_learner_at_work_writes_once_more_is_removed_by_whoever_opens_the_store(replay):
    replay.accept(a_case("goes"))
    checkpoint = a_checkpoint(replay.home)
    ReplayStore(replay.home).close()
    assert checkpoint.exists()  # nobody was forgotten
    replay.forget("goes")
    checkpoint.write_bytes(b"the next iterations of a learner that has not noticed")
    ReplayStore(replay.home).close()
    assert not checkpoint.exists()
    end_learning(replay.home, "tiny")
    assert not list((replay.home / "learner").glob("tiny.*"))


def test_a_verdict_that_is_added_while_somebody_is_forgotten_is_not_lost(replay):
    stays, goes = replay.accept(a_case("stays", SMALL, 1)), replay.accept(a_case("goes", SMALL, 2))
    a_verdict(replay, stays, goes)
    context = multiprocessing.get_context("fork")
    writer = context.Process(target=add_verdicts, args=(replay.home, 60))
    writer.start()
    while writer.is_alive():
        replay.forget("goes")
        replay.accept(a_case("goes", SMALL, 2))
    writer.join()
    assert writer.exitcode == 0 and len(VerdictLog(replay.home, "tiny").verdicts()) == 61


def add_verdicts(home: Path, count: int) -> None:
    for n in range(count):
        VerdictLog(home, "tiny").add(Verdict("skipped", "", "tiny", case=f"{n}"))


def test_patients_of_an_earlier_store_move_to_the_sites_hash_and_keep_their_side(tmp_path):
    roles = {"P1": "train", "P2": "validation", "P3": "train", "P4": "validation", "P5": "validation"}
    cases = an_old_store(tmp_path, roles)
    replay = ReplayStore(tmp_path)
    assert replay.validation_patients == 3 and not replay.damaged()
    assert [(c.id, c.site, c.structures) for c in replay.cases()] == [
        (i, "", ("front", "back")) for i in cases.values()
    ]
    assert replay.load(cases["P2"]).patient == old_key("P2")
    new = {patient: replay.accept(a_case(patient, seed=50)) for patient in ("P2", "P3")}
    found = {c.id: (c.patient, c.role) for c in replay.cases()}
    for patient, case in new.items():
        assert found[case] == found[cases[patient]] == (patient_key(tmp_path, patient), roles[patient])
    assert found[cases["P1"]] == (old_key("P1"), "train")
    assert replay.accept(a_case(" p2 ")) and replay.cases()[-1].role == "validation"
    assert (tmp_path / "replay" / "patient.key").read_bytes() == bytes(range(32))
    replay.close()


def test_a_patient_of_an_earlier_store_is_forgotten_under_both_hashes(tmp_path):
    cases = an_old_store(tmp_path, {"P1": "train", "P2": "validation"})
    replay = ReplayStore(tmp_path)
    VerdictLog(tmp_path, "tiny").add(
        Verdict("refused", "", "tiny", scores=(CaseScore(cases["P2"], old_key("P2"), {"a": 1.0}, {"a": 1.0}),))
    )
    replay.forget("P2")
    written = all_bytes(tmp_path)
    assert not [t for t in (old_key("P2"), patient_key(tmp_path, "P2"), cases["P2"]) if t.encode() in written]
    assert [c.id for c in replay.cases()] == [cases["P1"]] and not replay.damaged()
    replay.close()


def test_two_spellings_on_two_sides_become_one_patient_who_trains(tmp_path):
    an_old_store(tmp_path, {"P1": "validation", "p1": "train"})
    replay = ReplayStore(tmp_path)
    replay.accept(a_case("P1"))
    replay.accept(a_case("p1"))
    assert {(c.patient, c.role) for c in replay.cases()} == {(patient_key(tmp_path, "P1"), "train")}
    assert len(replay.cases()) == 4
    replay.close()


def test_an_earlier_store_without_its_key_is_refused_and_no_key_is_made(tmp_path):
    an_old_store(tmp_path, {"P1": "train"})
    aside = shutil.move(tmp_path / "replay" / "patient.key", tmp_path / "aside")
    with pytest.raises(RefSegError, match=r"replay/patient\.key is missing"):
        ReplayStore(tmp_path)
    assert not (tmp_path / "service").exists() and not (tmp_path / "replay" / "patient.key").exists()
    shutil.move(aside, tmp_path / "replay" / "patient.key")
    ReplayStore(tmp_path).close()
    (tmp_path / "replay" / "patient.key").write_bytes(b"another")
    with pytest.raises(RefSegError, match=r"patient\.key is not the one of this replay store"):
        ReplayStore(tmp_path)


def test_an_upgrade_that_was_killed_is_done_at_the_next_opening(tmp_path, monkeypatch):
    an_old_store(tmp_path, {"P1": "train"})
    with monkeypatch.context() as patch:
        patch.setattr(ReplayStore, "_remove_orphans", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ReplayStore(tmp_path)
    replay = ReplayStore(tmp_path)
    assert [c.role for c in replay.cases()] == ["train"] and not replay.damaged()
    replay.close()
