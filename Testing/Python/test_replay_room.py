"""Which accepted cases are learnt from and kept: balance over sites and structures, capacity, age."""

from collections import Counter
from datetime import datetime, timedelta, timezone

import pytest
from InteractiveLearningLib.accepted import CaseInfo
from InteractiveLearningLib.replay import ReplayStore
from InteractiveLearningLib.replay_index import CaseRow
from InteractiveLearningLib.replay_room import capacity, retire, set_capacity
from InteractiveLearningLib.reservoir import balanced_reservoir
from InteractiveLearningLib.verdicts import Verdict, VerdictLog
from RefSegLib.errors import BadInput
from replay_samples import SMALL, a_case
from sqlalchemy import select


@pytest.fixture
def replay(tmp_path):
    store = ReplayStore(tmp_path, validation_patients=1)
    yield store
    store.close()


def infos(site: str, structures: tuple[str, ...], count: int) -> list[CaseInfo]:
    name = f"{site}-{'+'.join(structures)}"
    return [
        CaseInfo(f"{name}-{n}", "m", "p", "train", "", structures, (), None, True, site, structures)
        for n in range(count)
    ]


def accept_training_cases(replay: ReplayStore, count: int, first: int = 0, learnt: bool = True, **changes) -> list[str]:
    """Cases of the one patient who trains; the second patient validates."""
    made = [replay.accept(a_case("trains", SMALL, n, **changes)) for n in range(first, first + count)]
    for case in made if learnt else ():
        VerdictLog(replay.home, "tiny").add(Verdict("skipped", "", "tiny", case=case))
    return made


def age(replay: ReplayStore, case: str, days: float) -> None:
    with replay.writing() as db:
        row = db.scalars(select(CaseRow).where(CaseRow.id == case)).one()
        row.accepted_at = (datetime.now(timezone.utc) - timedelta(days=days)).isoformat(timespec="seconds")


def test_a_rare_site_is_not_crowded_out():
    cases = infos("large", ("a",), 900) + infos("middle", ("a",), 90) + infos("small", ("a",), 6)
    drawn = Counter(c.site for c in balanced_reservoir(cases, 30))
    assert drawn == {"large": 12, "middle": 12, "small": 6}
    drawn = Counter(c.site for c in balanced_reservoir(cases, 100))
    assert drawn == {"large": 47, "middle": 47, "small": 6}


def test_a_rare_structure_is_drawn_about_as_often_as_a_common_one():
    cases = infos("s", ("common",), 950) + infos("s", ("common", "rare"), 50)
    shares = [
        sum("rare" in c.structures for c in balanced_reservoir(cases, 40, seed)) / 40 for seed in range(50)
    ]  # uniform: 0.05; weighed by the rarest structure: one in two at first, a bit less as the rare ones are used up
    assert 0.35 < sum(shares) / 50 < 0.5
    same = [sum(int(c.id.rpartition("-")[2]) < 475 for c in balanced_reservoir(cases[:950], 40, s)) for s in range(50)]
    assert 0.4 < sum(same) / 2000 < 0.6  # and where all show the same, all are drawn alike


def test_the_reservoir_does_not_depend_on_the_order_and_takes_all_there_is_room_for():
    cases = infos("x", ("a",), 7) + infos("y", ("b",), 3) + infos("", (), 2)
    chosen = balanced_reservoir(cases, 6, seed=3)
    assert len(chosen) == 6 and chosen == balanced_reservoir(cases[::-1], 6, seed=3)
    assert {c.id for c in balanced_reservoir(cases, 100)} == {c.id for c in cases}
    assert balanced_reservoir(cases, 0) == balanced_reservoir([], 5) == []


def test_a_sample_of_the_store_is_balanced_over_its_sites(replay):
    accept_training_cases(replay, 12, site="large")
    accept_training_cases(replay, 3, first=20, site="small")
    assert Counter(c.site for c in replay.sample("tiny", 6)) == {"large": 3, "small": 3}


def test_without_a_capacity_everything_is_kept(replay):
    assert capacity(replay) is None
    accept_training_cases(replay, 9)
    assert len(replay.cases("tiny")) == 9


def test_a_capacity_keeps_that_many_training_cases_of_a_model_balanced_and_removes_their_arrays(replay):
    accept_training_cases(replay, 10, site="large")
    accept_training_cases(replay, 3, first=10, site="small")
    validation = [replay.accept(a_case("validates", SMALL, 100 + n)) for n in range(3)]
    replay.accept(a_case("trains", SMALL, 200, model="another"))
    assert set_capacity(replay, 6) == 7 and capacity(ReplayStore(replay.home)) == 6
    assert Counter(c.site for c in replay.cases("tiny", "train")) == {"large": 3, "small": 3}
    assert [c.id for c in replay.cases("tiny", "validation")] == validation and len(replay.cases("another")) == 1
    assert len(list(replay.arrays.glob("*/*"))) == 2 * (6 + 3 + 1) and not replay.damaged()
    accept_training_cases(replay, 4, first=300, site="third")
    waiting = replay.accept(a_case("trains", SMALL, 400))  # room is made when the next case comes
    sites = Counter(c.site for c in replay.cases("tiny", "train") if c.id != waiting)
    assert sites == {"large": 2, "small": 2, "third": 2}
    assert set_capacity(replay, None) == 0 and capacity(replay) is None


def test_a_case_that_waits_to_be_learnt_is_never_dropped(replay):
    set_capacity(replay, 2)
    waiting = accept_training_cases(replay, 5, learnt=False)
    assert [c.id for c in replay.cases("tiny", "train")] == waiting
    for case in waiting[:4]:
        VerdictLog(replay.home, "tiny").add(Verdict("skipped", "", "tiny", case=case))
    set_capacity(replay, 2)
    assert len(replay.cases("tiny", "train")) == 3 and replay.cases("tiny", "train")[-1].id == waiting[4]


def test_a_case_without_consent_gives_way_first(replay):
    learnt = accept_training_cases(replay, 3)
    refused = [replay.accept(a_case("trains", SMALL, 50 + n, consent=False)) for n in range(2)]
    assert set_capacity(replay, 4) == 1
    assert [c.id for c in replay.cases("tiny", "train")] == [*learnt, refused[1]]
    assert set_capacity(replay, 3) == 1 and [c.id for c in replay.cases("tiny", "train")] == learnt


@pytest.mark.parametrize("number", [0, -1, 2**40])
def test_a_capacity_that_is_none_is_refused(replay, number):
    with pytest.raises(BadInput, match="at least 1"):
        set_capacity(replay, number)


def test_old_training_cases_retire_and_old_validation_cases_stay(replay):
    old, recent = accept_training_cases(replay, 2)
    shared = replay.accept(a_case("trains", SMALL, 0))  # the arrays of the old one
    validation = replay.accept(a_case("validates", SMALL, 9))
    for case in (old, validation):
        age(replay, case, 40)
    age(replay, recent, 20)
    done = retire(replay, 30)
    assert (done.cases, done.arrays, done.kept) == ((old,), (), 1)
    assert [c.id for c in replay.cases("tiny")] == [recent, shared, validation] and not replay.damaged()
    done = retire(replay, 19.5)
    assert done.cases == (recent,) and len(done.arrays) == 2 and len(list(replay.arrays.glob("*/*"))) == 4
    assert retire(replay, 19.5).cases == () and retire(replay, 1e12).cases == ()


def test_a_patient_whose_cases_all_retired_stays_on_the_same_side(replay):
    (case,) = accept_training_cases(replay, 1)
    age(replay, case, 2)
    retire(replay, 1)
    accept_training_cases(replay, 1)
    assert [c.role for c in replay.cases("tiny")] == ["train"]


def test_a_case_accepted_again_after_it_retired_does_not_come_back(replay):
    case = replay.accept(a_case("trains", SMALL), "ab" * 16)
    assert replay.accept(a_case("trains", SMALL), case) == case and len(replay.cases()) == 1
    age(replay, case, 2)
    assert retire(replay, 1).cases == (case,)
    assert replay.accept(a_case("trains", SMALL), case) == case and replay.cases() == []


@pytest.mark.parametrize("days", [0, -3, float("nan"), float("inf")])
def test_an_age_that_is_none_is_refused(replay, days):
    with pytest.raises(BadInput, match="above 0"):
        retire(replay, days)
