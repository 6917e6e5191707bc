"""Agents with short tasks work ahead of free slots, and give back what has to wait."""

import pytest

from agent.pace import Pace
from tests.unit.agent.kit import until

LONG = "while :; do sleep 0.1; done"


def pace_of(*seconds):
    pace = Pace()
    for each in seconds:
        pace.took(each)
    return pace


@pytest.mark.parametrize(
    ("seconds", "ahead"), [(0.0, 16), (0.002, 16), (0.02, 4), (0.05, 2), (0.2, 0), (60.0, 0)]
)
def test_the_shorter_tasks_are_the_more_are_taken_ahead(seconds, ahead):
    assert pace_of(seconds).ahead(4) == ahead


def test_nothing_is_taken_ahead_before_a_task_has_ended():
    assert Pace().ahead(4) == 0


def test_one_long_task_among_short_ones_does_not_count_for_ever():
    pace = pace_of(*[0.001] * 20, 10.0)
    assert pace.ahead(4) == 0
    for _ in range(60):
        pace.took(0.001)
    assert pace.ahead(4) > 0


async def test_an_agent_with_short_tasks_asks_for_more_than_its_slots(plane, start_agent):
    start_agent("--slots", "4")
    await until(lambda: plane.connected)
    leases = [plane.assign("true", executor="noop") for _ in range(3)]
    await until(lambda: all(lease.whole for lease in leases))
    assert plane.ahead == 16


async def test_what_waits_for_a_slot_too_long_is_handed_back(plane, start_agent):
    start_agent("--slots", "1")
    await until(lambda: plane.connected)
    quick = plane.assign("true", executor="noop")
    await until(lambda: quick.whole and plane.ahead == 4)
    running = plane.assign(LONG)
    waiting = plane.assign("true")
    await until(lambda: waiting.handed_back)
    assert plane.ahead == 0
    assert (running.end, waiting.statuses) == (None, [])
