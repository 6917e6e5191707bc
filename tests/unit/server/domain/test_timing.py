import pytest

from server.domain.attempt import AttemptStatus, LogState
from server.domain.canceling import CancelTask
from server.domain.claiming import HandBack
from server.domain.lease import VerdictAction
from server.domain.task import TaskStatus
from server.domain.timing import RunTimers
from tests.fakes.core import NAMESPACE


def test_a_second_try_becomes_ready_when_its_wait_is_over(core):
    task_id, lease = core.running(retry_count=1)
    core.report(lease, TaskStatus.FAILED)
    core.pass_time(core.policy.retry_backoff - 1)
    assert core.status(task_id) is TaskStatus.PENDING
    core.pass_time(1)
    assert core.task(task_id).ready
    (given,) = core.claim()
    assert given.attempt == 2


def test_the_deadline_is_the_timeout_with_grace_and_slack_from_the_start(core):
    task_id, lease = core.leased(timeout=60)
    core.pass_time(30_000)
    core.report(lease, TaskStatus.RUNNING)
    limit = 60_000 + core.policy.kill_grace + core.policy.deadline_slack
    core.pass_time(limit - 1)
    assert core.status(task_id) is TaskStatus.RUNNING
    core.pass_time(1)
    task, attempt = core.task(task_id), core.attempt(task_id)
    assert (task.status, attempt.status) == (TaskStatus.TIMEOUT, AttemptStatus.TIMEOUT)
    assert task.error == "agent a did not end it in time"
    assert not attempt.reported


def test_a_task_that_is_not_started_in_time_is_lost(core):
    task_id, _ = core.leased()
    core.pass_time(core.policy.claim_to_start - 1)
    assert core.task(task_id).leased
    core.pass_time(1)
    task = core.task(task_id)
    assert (task.ready, task.infra_retries) == (True, 1)
    assert task.error == "agent a did not start it in time"


@pytest.mark.parametrize("started", [True, False])
def test_a_cancel_nobody_confirms_is_declared_after_the_grace(core, started):
    task_id, _ = core.running() if started else core.leased()
    core.cancel(task_id, reason="enough")
    grace = core.policy.kill_grace + core.policy.deadline_slack
    core.pass_time(grace - 1)
    assert not core.status(task_id).ended
    core.pass_time(1)
    task, attempt = core.task(task_id), core.attempt(task_id)
    assert (task.status, task.error) == (TaskStatus.CANCELLED, "enough")
    assert attempt.cause == "agent a did not confirm the cancel"


def test_a_task_that_waits_too_long_for_its_start_ends(core):
    task_id = core.create(schedule_to_start=30)
    after = core.create(depends_on=(task_id,))
    core.pass_time(29_999)
    assert core.task(task_id).ready
    core.pass_time(1)
    task = core.task(task_id)
    assert task.status is TaskStatus.TIMEOUT
    assert task.error == "it did not start within 30 s of its submission"
    assert core.status(after) is TaskStatus.SKIPPED


def test_it_ends_also_while_it_waits_for_others(core):
    first = core.create()
    second = core.create(depends_on=(first,), schedule_to_start=30)
    core.pass_time(30_000)
    assert (core.status(first), core.status(second)) == (TaskStatus.QUEUED, TaskStatus.TIMEOUT)


def test_a_task_in_its_agents_hands_may_still_start(core):
    task_id, lease = core.leased(schedule_to_start=30)
    core.pass_time(30_000)
    assert core.task(task_id).leased
    core.report(lease, TaskStatus.RUNNING)
    core.report(lease, TaskStatus.SUCCESS)
    assert core.status(task_id) is TaskStatus.SUCCESS


def test_a_task_that_comes_back_unstarted_after_its_time_ends(core):
    task_id, lease = core.leased(schedule_to_start=30)
    core.clock.advance(30_000)
    core.do(HandBack("a", (lease,)))
    assert core.effects.next_due <= core.clock.now()
    core.run_timers()
    assert core.status(task_id) is TaskStatus.TIMEOUT
    assert core.report(lease, TaskStatus.RUNNING) is VerdictAction.SUPERSEDED


@pytest.mark.parametrize("end", [TaskStatus.RUNNING, TaskStatus.FAILED])
def test_a_task_that_has_started_once_is_not_bound_any_more(core, end):
    task_id, lease = core.leased(schedule_to_start=30, retry_count=1)
    core.report(lease, end)
    core.lose()
    core.pass_time(100_000)
    assert core.task(task_id).ready


def test_a_timeout_uses_up_a_try(core):
    task_id, _ = core.running(timeout=1, retry_count=1)
    core.pass_time(100_000)
    task = core.task(task_id)
    assert (task.failed_attempts, core.attempt(task_id).status) == (1, AttemptStatus.TIMEOUT)
    assert task.status in (TaskStatus.PENDING, TaskStatus.QUEUED)


def test_a_log_that_stays_short_is_given_up(core):
    task_id, _ = core.running()
    core.lose()
    core.pass_time(core.policy.log_incomplete_after)
    assert core.attempt(task_id).log_state is LogState.INCOMPLETE
    assert core.effects.log_tasks == {task_id}


def test_a_v1_log_is_whole_after_a_short_silence(core):
    task_id, lease = core.running()
    core.report(lease, TaskStatus.SUCCESS)
    core.pass_time(core.policy.log_settle)
    assert core.attempt(task_id).log_state is LogState.COMPLETE


def test_what_was_changed_by_an_earlier_command_of_the_batch_is_left_alone(core):
    task_id, lease = core.running(retry_count=1)
    core.report(lease, TaskStatus.FAILED)
    core.clock.advance(core.policy.retry_backoff)
    core.batch(CancelTask(NAMESPACE, task_id), RunTimers())
    assert core.status(task_id) is TaskStatus.CANCELLED


def test_it_says_whether_more_may_be_due(core):
    core.join("a", slots=5)
    for _ in range(5):
        core.create()
    core.claim(slots=5)
    core.clock.advance(core.policy.claim_to_start)
    assert [core.do(RunTimers(limit=2)) for _ in range(3)] == [True, True, False]


def test_the_next_due_moment_is_told_to_the_timers(core):
    core.leased()
    assert core.effects.next_due == core.clock.now() + core.policy.claim_to_start


def test_a_clock_stepped_back_an_hour_ends_nothing_early_and_strands_nothing(core):
    """Named in the third issue. What is due then comes an hour late, and comes."""
    task_id, _ = core.running(timeout=60)
    core.clock.jump(-3_600_000)
    core.run_timers()
    assert core.status(task_id) is TaskStatus.RUNNING
    core.pass_time(3_600_000 + 100_000)
    assert core.status(task_id) is TaskStatus.TIMEOUT
