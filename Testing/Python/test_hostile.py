"""A real service under attack: uploads made wrong in every way, the whole API fuzzed, every route with every token.

The same at full length: make bench-hostile.
"""

import pytest
from hostile import Victim, attacked
from hostile_access import guessing, intruding, unauthorised
from hostile_fuzz import Fuzz


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    victim = Victim(tmp_path_factory.mktemp("root"))
    victim.before = victim.what_a_session_gives()
    yield victim
    if victim.service.process.poll() is None:
        victim.service.end()


def test_no_route_opens_without_the_right_token_and_role(victim):
    answers, faults = unauthorised(victim.service.url, victim.site, victim.home, victim.own)
    assert not faults
    assert answers[401] > 200 and answers[403] >= 6


def test_what_is_anothers_is_not_there(victim):
    answers, faults = intruding(victim.service.url, victim.service.token, victim.own, victim.home)
    assert not faults
    assert answers[404] > 15


def test_who_guesses_tokens_has_to_wait_and_nobody_else(victim):
    assert guessing(victim.service.url, victim.token) == []


def test_mutated_uploads_are_refused_with_a_sentence_and_leave_nothing(victim):
    beside = victim.beside()
    made, answers, faults = attacked(victim.service.url, victim.service.token, 500, seed=5, workers=4)
    assert not faults
    assert made.total() == 500 and answers[400] > 200 and answers[200] > 100
    assert victim.beside() == beside
    assert victim.left_over() == []


def test_nothing_that_the_description_allows_or_forbids_makes_the_service_fail(victim):
    description = victim.client.get("/v1/openapi.json").json()
    fuzz = Fuzz(victim.service.url, victim.token, victim.own, description)
    fuzz.run(300)
    assert not fuzz.faults
    assert fuzz.answers.total() > 200 and fuzz.answers[400] > 50


def test_after_all_of_it_a_session_is_the_same_bit_for_bit_and_the_log_tells_nothing(victim):
    assert victim.what_a_session_gives() == victim.before
    assert victim.told(victim.service.end()) == []
