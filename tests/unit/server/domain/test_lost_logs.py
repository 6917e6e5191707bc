"""The log of an attempt that was lost: nobody knows what it printed until its agent says so."""

import pytest

from server.domain.attempt import LogState
from server.domain.task import TaskStatus
from tests.fakes.core import Core


@pytest.fixture
def core():
    core = Core()
    core.join("a")
    return core


def test_what_it_printed_is_taken_although_it_was_lost_before_its_start_was_heard_of(core):
    task_id, lease = core.leased()
    core.lose()
    core.append(lease, 1, ["late"])
    assert core.attempt(task_id, 1).log_lines == 1


def test_it_is_incomplete_when_its_agent_stays_away(core):
    task_id, _ = core.leased()
    core.lose()
    assert core.attempt(task_id, 1).log_state is LogState.OPEN
    core.pass_time(core.policy.log_incomplete_after)
    assert core.attempt(task_id, 1).log_state is LogState.INCOMPLETE


def test_an_attempt_that_was_handed_back_printed_nothing(core):
    task_id, _ = core.leased()
    core.hold(complete=True)
    assert core.attempt(task_id, 1).log_state is LogState.COMPLETE
    assert core.status(task_id) is TaskStatus.QUEUED
