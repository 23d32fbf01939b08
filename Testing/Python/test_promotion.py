"""Only what is better on the frozen validation patients goes live, and the verdict says why."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from InteractiveLearningLib.lines import LineLog
from InteractiveLearningLib.promotion import _judge, promote, score_case
from InteractiveLearningLib.replay import ReplayStore
from InteractiveLearningLib.reviews import settle
from InteractiveLearningLib.service.audit import Action, AuditLog
from InteractiveLearningLib.verdicts import CaseScore, Verdict, VerdictLog
from RefSegLib.models.store import ModelStore
from RefSegLib.progress import Progress

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from tiny_learning import SPEC, a_ball_case, an_untrained_version

ABOUT = {"model": "m", "case": None, "candidate": "2", "champion": "1"}


def scores(before: list[float], after: list[float], label: str = "a") -> list[CaseScore]:
    return [
        CaseScore(f"case{n}", f"patient{n}", {label: b}, {label: a})
        for n, (b, a) in enumerate(zip(before, after, strict=True))
    ]


def test_a_better_mean_of_few_patients_is_published_and_says_that_nothing_was_tested():
    verdict = _judge(scores([0.8, 0.7], [0.82, 0.71]), 0.01, 0, ABOUT)
    assert verdict.published and verdict.p is None and "without a test" in verdict.reason
    assert (verdict.before, verdict.after) == (pytest.approx(0.75), pytest.approx(0.765))


@pytest.mark.parametrize("after", [[0.8, 0.7], [0.7, 0.7]])
def test_what_is_not_better_is_refused(after):
    assert _judge(scores([0.8, 0.7], after), 0.01, 0, ABOUT).outcome == "refused"


def test_a_label_that_loses_more_than_the_margin_refuses_a_better_mean():
    two = [CaseScore("c", "p", {"a": 0.5, "b": 0.8}, {"a": 0.7, "b": 0.78})]
    verdict = _judge(two, 0.01, 0, ABOUT)
    assert verdict.outcome == "refused" and "b loses 0.0200" in verdict.reason
    assert _judge(two, 0.05, 0, ABOUT).published


def test_a_site_that_loses_more_than_the_margin_refuses_a_better_mean_and_one_patient_is_no_site():
    def of(site: str, before: float, after: list[float]) -> list[CaseScore]:
        return [CaseScore(f"{site}{n}", f"{site}{n}", {"a": before}, {"a": a}, site) for n, a in enumerate(after)]

    north = of("north", 0.7, [0.8, 0.8, 0.8])
    verdict = _judge([*north, *of("south", 0.8, [0.77, 0.79])], 0.01, 0, ABOUT)
    assert verdict.outcome == "refused" and "site 'south' loses 0.0200, more than 0.01" in verdict.reason
    assert "north" not in verdict.reason
    assert verdict.sites["south"] == pytest.approx((0.8, 0.78)) and verdict.structures["a"] == pytest.approx(
        (0.74, 0.792)
    )
    lone = _judge([*north, *of("south", 0.8, [0.7])], 0.01, 0, ABOUT)
    assert lone.published and "1 validation patient is too few: site 'south'" in lone.reason
    assert set(lone.sites) == {"north"}
    nowhere = [replace(s, site="") for s in of("south", 0.8, [0.77, 0.79])]
    assert "what has no site loses 0.0200" in _judge([*north, *nowhere], 0.01, 0, ABOUT).reason


def test_a_refusal_names_all_that_lose():
    three = [CaseScore("c", "p", {"a": 0.5, "b": 0.8, "c": 0.8}, {"a": 0.9, "b": 0.78, "c": 0.75})]
    assert "b loses 0.0200 and c loses 0.0500, more than 0.01" in _judge(three, 0.01, 0, ABOUT).reason


@st.composite
def random_scores(draw) -> list[CaseScore]:
    """Up to 12 cases of up to 8 patients from up to 3 sites, each with some of 3 labels, most of them a bit better."""
    found = []
    for n in range(draw(st.integers(1, 12))):
        labels = draw(st.sets(st.sampled_from("abc"), min_size=1))
        champion = {label: draw(st.floats(0.2, 0.8)) for label in labels}
        candidate = {label: value + draw(st.floats(-0.03, 0.12)) for label, value in champion.items()}
        patient, site = draw(st.integers(0, 7)), draw(st.sampled_from(["", "north", "south"]))
        found.append(CaseScore(f"c{n}", f"p{patient}", champion, candidate, site))
    return found


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def by_hand(scores: list[CaseScore]) -> dict[str, float]:
    """How much each label gains: mean over patients of their means over cases."""
    gains = {}
    for label in {label for s in scores for label in s.champion}:
        own = [s for s in scores if label in s.champion]
        patients = {s.patient for s in own}
        gains[label] = mean(
            mean(s.candidate[label] - s.champion[label] for s in own if s.patient == p) for p in patients
        )
    return gains


@settings(max_examples=300, deadline=None, derandomize=True)
@given(random_scores(), st.sampled_from([0.0, 0.01, 0.03]))
def test_what_is_published_has_gained_and_no_label_and_no_site_has_lost_more_than_the_margin(found, margin):
    verdict = _judge(found, margin, 0, ABOUT)
    gains = by_hand(found)
    sites = {site: [s for s in found if s.site == site] for site in {s.site for s in found}}
    judged = {site: own for site, own in sites.items() if len({s.patient for s in own}) >= 2}
    least = min([*gains.values(), *(mean(by_hand(own).values()) for own in judged.values())])
    assert set(verdict.structures) == set(gains) and set(verdict.sites) == set(judged)
    assert all(
        verdict.structures[label][1] - verdict.structures[label][0] == pytest.approx(g) for label, g in gains.items()
    )
    if verdict.published:
        assert mean(gains.values()) > -1e-9 and least >= -margin - 1e-9
        assert verdict.p is None or verdict.p < 0.05
    else:
        assert mean(gains.values()) < 1e-9 or least < -margin + 1e-9 or verdict.p >= 0.05
    assert Verdict.from_dict(json.loads(json.dumps(verdict.to_dict()))) == verdict


def test_from_six_patients_on_a_gain_that_may_be_chance_is_refused():
    rng = np.random.default_rng(0)
    before = rng.uniform(0.6, 0.9, 8)
    noisy = before + np.array([0.2, -0.05, -0.02, -0.03, 0.01, -0.01, 0.02, -0.04])
    chance = _judge(scores(list(before), list(noisy)), 0.01, 0, ABOUT)
    assert chance.after > chance.before and chance.outcome == "refused" and "chance" in chance.reason
    steady = _judge(scores(list(before), list(before + rng.uniform(0.01, 0.03, 8))), 0.01, 0, ABOUT)
    assert steady.published and steady.p < 0.05


def test_a_patient_with_many_cases_counts_once():
    many = [CaseScore(f"c{n}", "p1", {"a": 0.5}, {"a": 0.6}) for n in range(9)]
    verdict = _judge([*many, CaseScore("c9", "p2", {"a": 0.9}, {"a": 0.5})], 1.0, 0, ABOUT)
    assert verdict.before == pytest.approx(0.7) and verdict.after == pytest.approx(0.55)


@pytest.fixture
def home(tmp_path):
    replay = ReplayStore(tmp_path)
    for n in range(3):  # train, validation, train
        replay.accept(a_ball_case(f"p{n}", n))
    return tmp_path, replay


def test_nothing_is_published_while_validation_patients_are_missing(home):
    path, replay = home
    champion = an_untrained_version(path)
    store = ModelStore(path)
    candidate = store.add(SPEC, champion.segmenter(), None, parent=f"balls@{champion.version}")
    verdict = promote(store, replay, candidate, case="x")
    assert (verdict.outcome, verdict.missing) == ("waiting", 1) and "one more patient" in verdict.reason
    assert store.active("balls") == champion.version
    assert VerdictLog(path, "balls").verdicts() == [verdict]


def test_the_same_weights_are_refused_and_measured_only_once(home):
    path, replay = home
    replay.accept(a_ball_case("p3", 3))
    champion = an_untrained_version(path)
    store = ModelStore(path)
    first = promote(store, replay, store.add(SPEC, champion.segmenter(), None, parent=f"balls@{champion.version}"))
    assert first.outcome == "refused" and first.before == first.after
    assert {s.case for s in first.scores} == {c.id for c in replay.cases("balls", "validation")}
    known = VerdictLog(path, "balls").scores()
    assert len(known) == 4 and all(0 <= d <= 1 for s in known.values() for d in s.values())


def test_what_was_compared_with_a_version_that_is_no_longer_active_is_refused_and_learnt_again(home):
    path, replay = home
    replay.accept(a_ball_case("p3", 3))
    first = an_untrained_version(path)
    store = ModelStore(path)
    second = store.add(SPEC, first.segmenter(), None, parent=f"balls@{first.version}")
    store.activate("balls", second.version)
    third = store.add(SPEC, an_untrained_version(path, seed=5).segmenter(), None, parent=f"balls@{second.version}")
    store.activate("balls", second.version)

    def somebody_goes_back(fraction: float, message: str) -> None:
        store.rollback("balls", only=second.version)

    before = store.previous("balls")
    verdict = promote(store, replay, third, case="x", margin=1.0, progress=Progress(somebody_goes_back))
    assert verdict.outcome == "refused" and verdict.case is None and "learnt again" in verdict.reason
    assert store.active("balls") == before and verdict.before is not None


def test_a_proxy_mask_judges_only_where_a_person_drew():
    class Asked:
        """A segmenter whose answer is right in slice 8 alone."""

        spec = SPEC

        def logits(self, patches):
            answer = case.labels.array.copy()
            answer[:8], answer[9:] = 0, 0
            hot = np.moveaxis(np.eye(3, dtype=np.float32)[answer], -1, 0)
            return 20 * np.repeat(hot[None], len(patches), axis=0)

    case = a_ball_case("p", 1, confidence=np.full((16, 16, 16), 0.5, np.float32), annotated=((0, 8),), region=True)
    assert score_case(case, Asked()) == {"bright": 1.0, "dim": 1.0}
    full = replace(case, confidence=None)
    assert max(score_case(full, Asked()).values()) < 0.7
    assert score_case(replace(case, annotated=()), Asked()) == score_case(full, Asked())


def test_a_damaged_validation_case_is_left_out_and_told(home):
    path, replay = home
    replay.accept(a_ball_case("p3", 3))
    champion = an_untrained_version(path)
    store = ModelStore(path)
    last = replay.cases("balls", "validation")[-1].id
    kept = {f for c in replay.cases("balls") if c.id != last for f in replay.files(c.id)}
    for file in set(replay.files(last)) - kept:
        file.write_bytes(b"damaged")
    verdict = promote(store, replay, store.add(SPEC, champion.segmenter(), None, parent=f"balls@{champion.version}"))
    assert len(verdict.scores) == 1 and "1 damaged" in verdict.reason


def test_a_publication_that_was_cut_short_is_finished_but_a_rollback_is_left_alone(tmp_path):
    champion = an_untrained_version(tmp_path)
    store, log = ModelStore(tmp_path), VerdictLog(tmp_path, "balls")
    candidate = store.add(SPEC, champion.segmenter(), None, parent=f"balls@{champion.version}")
    log.add(Verdict("published", "better", "balls", candidate=candidate.version, champion=champion.version))
    settle(store, tmp_path, "balls")
    assert store.active("balls") == candidate.version
    (entry,) = AuditLog(tmp_path).entries()
    assert (entry.who, entry.action, entry.about.version) == ("gate", Action.PUBLISH, f"balls@{candidate.version}")
    store.activate("balls", champion.version)
    settle(store, tmp_path, "balls")
    assert store.active("balls") == champion.version


def test_half_a_line_of_a_killed_writer_is_passed_over(tmp_path):
    log = VerdictLog(tmp_path, "m")
    one = Verdict("refused", "no", "m", candidate="2", champion="1", scores=tuple(scores([0.5], [0.4])))
    log.add(one)
    with log.path.open("ab") as file:
        file.write(b'{"verdict": {"outc')
    assert log.verdicts() == [one]
    log.add(one)
    assert log.verdicts() == [one, one]


def test_verdicts_of_earlier_versions_of_the_program_are_still_read(tmp_path):
    old = {"outcome": "refused", "reason": "no", "model": "m", "case": "c", "candidate": "2", "champion": "1"}
    old |= {"before": 0.5, "after": 0.4, "p": None, "missing": 0, "at": "2026-01-01T00:00:00+00:00"}
    old |= {"scores": [{"case": "v", "patient": "p", "champion": {"a": 0.5}, "candidate": {"a": 0.4}}]}
    LineLog(VerdictLog(tmp_path, "m").path).append({"verdict": old})
    (verdict,) = VerdictLog(tmp_path, "m").verdicts()
    assert verdict.scores[0].site == "" and verdict.structures == {} and verdict.reason == "no"
