import time

import pytest

from cli.agent_words import status_of, work_of
from generated.agent.v1 import agent_pb2

PAUSED, DRAINING, DRAINED = 2, 3, 4


def detail(scheduling, **fields):
    return agent_pb2.AgentDetail(
        agent_id="builder-1",
        status=agent_pb2.AGENT_STATUS_IDLE,
        scheduling=scheduling,
        scheduling_since=int(time.time() * 1000),
        **fields,
    )


@pytest.fixture
def answers(control_plane):
    def scheduled(*states):
        agents = [detail(state) for state in states]
        control_plane.answers["SetAgentState"] = agent_pb2.SetAgentStateResponse(
            success=True, message="Done.", agent=agents[0]
        )
        control_plane.answers["GetAgent"] = [
            agent_pb2.GetAgentResponse(success=True, agent=agent) for agent in agents[1:]
        ]

    return scheduled


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        (("pause", "--note", "x"), {"action": 1, "note": "x"}),
        (("resume",), {"action": 2}),
        (("drain",), {"action": 3}),
        (("drain", "--deadline", "0"), {"action": 3, "deadline_seconds": 0}),
        (
            ("drain", "--note", "x", "--deadline", "9"),
            {"action": 3, "note": "x", "deadline_seconds": 9},
        ),
    ],
)
def test_the_wish_goes_out_as_it_was_said(muster, control_plane, answers, words, fields):
    answers(PAUSED)
    done = muster("agent", words[0], "builder-1", *words[1:])
    assert (done.code, done.out) == (0, "Done.\n")
    (request,) = control_plane.of(agent_pb2.SetAgentStateRequest)
    assert request == agent_pb2.SetAgentStateRequest(agent_id="builder-1", **fields)


def test_a_drain_is_waited_for(muster, answers):
    answers(DRAINING, DRAINING, DRAINED)
    assert muster("agent", "drain", "builder-1", "--wait").out == "The agent is drained.\n"


def test_a_drain_that_is_ended_by_somebody_is_not_waited_for(muster, answers):
    answers(DRAINING, PAUSED)
    done = muster("agent", "drain", "builder-1", "--wait")
    assert (done.code, done.out) == (1, "")
    assert "ended by somebody" in done.err


def test_a_negative_deadline_is_wrong_usage(muster):
    assert muster("agent", "drain", "builder-1", "--deadline", "-1").code == 2


def test_an_active_agent_has_nothing_to_tell():
    assert (status_of(detail(1)), work_of(detail(1))) == ("IDLE", "")
    assert (status_of(detail(0)), work_of(detail(0))) == ("IDLE", "")


def test_a_drain_tells_its_deadline_and_why():
    soon = int(time.time() * 1000) + 119_000
    words = work_of(detail(DRAINING, note="upgrade", drain_deadline=soon)).splitlines()
    assert words[0].startswith("DRAINING since ")
    assert words[1].startswith("tasks are stopped in 1m ")
    assert words[2] == "upgrade"
    past = work_of(detail(DRAINING, drain_deadline=1)).splitlines()
    assert past[1] == "tasks are stopped now"
    assert status_of(detail(DRAINING)) == "IDLE,DRAINING"


def test_a_quarantine_tells_how_long_it_lasts_and_what_failed():
    soon = int(time.time() * 1000) + 119_000
    agent = detail(1, quarantined_until=soon, faults=4, fault="no disk")
    assert status_of(agent) == "IDLE,QUARANTINED"
    words = work_of(agent).splitlines()
    assert words[0].startswith("QUARANTINED: work again in 1m ")
    assert words[1] == "4 failures in a row by its own fault, the last: no disk"
    assert work_of(detail(1, faults=1, fault="x")) == "1 failure by its own fault, the last: x"
    both = detail(PAUSED, quarantined_until=soon, faults=3, fault="x", note="y")
    assert status_of(both) == "IDLE,PAUSED,QUARANTINED"
