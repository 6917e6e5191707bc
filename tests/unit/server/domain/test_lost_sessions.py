"""A session that another server gives up while it comes back to this one."""

import pytest

from server.domain.registering import LoseSession
from tests.fakes.core import Core


@pytest.fixture
def core():
    core = Core()
    core.join("a")
    return core


def test_a_claim_for_a_lost_session_is_no_word_of_a_newer_one(core):
    core.create()
    offer = core.offer("a")
    core.lose()
    claimed = core.do(core.claim_of(offer))
    assert (claimed.lost, claimed.refused) == ({offer.session_id}, set())
    assert not claimed.assignments


def test_a_claim_for_an_older_session_is(core):
    core.create()
    offer = core.offer("a")
    core.join("a", session="newer")
    assert core.do(core.claim_of(offer)).refused == {offer.session_id}


def test_a_session_that_comes_back_is_not_given_up_for_its_earlier_silence(core):
    agent = core.agent("a")
    silent_since = agent.last_seen
    core.pass_time(1000)
    core.hold(complete=True)
    assert not core.do(LoseSession("a", agent.session_id, silent_since))
