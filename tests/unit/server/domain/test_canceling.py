import pytest

from server.domain.canceling import CancelTask, StopPipeline, check_reason
from server.domain.errors import Invalid, NotFound, WrongState
from server.domain.event import EventKind
from server.domain.run import RunStatus
from server.domain.task import TaskStatus
from tests.fakes.core import NAMESPACE, job, parallel, serial

BUILD = serial("s", job("a"), job("b"), job("c"))


def test_a_waiting_task_is_cancelled_at_once(core):
    task_id = core.create()
    assert core.cancel(task_id, reason="enough") is True
    task = core.task(task_id)
    assert (task.status, task.error) == (TaskStatus.CANCELLED, "enough")


def test_a_task_that_waits_for_its_next_try_is_cancelled_at_once(core):
    task_id, lease = core.running(retry_count=1)
    core.report(lease, TaskStatus.FAILED)
    assert core.cancel(task_id) is True
    core.pass_time(10_000)
    assert core.status(task_id) is TaskStatus.CANCELLED


@pytest.mark.parametrize("started", [True, False])
def test_the_agent_of_a_leased_task_is_asked_once(core, started):
    task_id, lease = core.running() if started else core.leased()
    assert core.cancel(task_id, reason="enough") is False
    assert core.cancel(task_id, reason="again") is False
    (told,) = core.events(EventKind.TASK_CANCEL_REQUESTED)
    assert (told.data["lease"], told.data["reason"]) == (lease.lease_id, "enough")
    assert told.data["session"] == core.agent("a").session_id


def test_a_cancelled_task_may_be_cancelled_again(core):
    task_id = core.create()
    core.cancel(task_id)
    before = core.task(task_id)
    assert core.cancel(task_id) is True
    assert core.task(task_id) == before


def test_any_other_end_cannot_be_cancelled(core):
    task_id, lease = core.running()
    core.report(lease, TaskStatus.SUCCESS)
    with pytest.raises(WrongState, match="has ended in SUCCESS"):
        core.cancel(task_id)


def test_an_agent_cancels_only_what_it_holds(core):
    core.join("b")
    task_id, _ = core.running()
    with pytest.raises(WrongState, match="not held by agent b"):
        core.cancel(task_id, agent_id="b")
    assert core.cancel(task_id, agent_id="a") is False


def test_nobody_cancels_in_another_namespace(core):
    task_id = core.create()
    with pytest.raises(NotFound):
        core.do(CancelTask("other", task_id))
    assert core.do(CancelTask(None, task_id)) is True


def test_a_stopped_run_cancels_every_job_and_skips_none(core):
    run_id, tasks = core.trigger(pipeline := core.pipeline(BUILD))
    assert core.do(StopPipeline(NAMESPACE, pipeline, run_id)) == 1
    assert {core.status(task_id) for task_id in tasks} == {TaskStatus.CANCELLED}
    assert core.run(run_id).status is RunStatus.CANCELLED


def test_a_stopped_run_with_a_job_at_work_ends_with_that_job(core):
    run_id, tasks = core.trigger(pipeline := core.pipeline(BUILD))
    (given,) = core.claim()
    core.do(StopPipeline(NAMESPACE, pipeline))
    assert core.run(run_id).status is RunStatus.PENDING
    assert core.status(tasks[1]) is TaskStatus.CANCELLED
    core.hold(complete=True)
    assert given.task_id == tasks[0]
    assert core.status(tasks[0]) is TaskStatus.CANCELLED
    assert core.run(run_id).status is RunStatus.CANCELLED


def test_without_a_run_every_active_one_is_stopped(core):
    pipeline = core.pipeline(parallel("p", job("a")))
    runs = [core.trigger(pipeline)[0] for _ in range(3)]
    assert core.do(StopPipeline(NAMESPACE, pipeline, runs[0])) == 1
    assert core.do(StopPipeline(NAMESPACE, pipeline)) == 2
    assert core.do(StopPipeline(NAMESPACE, pipeline)) == 0


def test_a_stopped_run_may_be_stopped_again_and_an_ended_one_not(core):
    pipeline = core.pipeline(parallel("p", job("a")))
    stopped, _ = core.trigger(pipeline)
    core.do(StopPipeline(NAMESPACE, pipeline, stopped))
    assert core.do(StopPipeline(NAMESPACE, pipeline, stopped)) == 0
    ended, _ = core.trigger(pipeline)
    core.claim()
    core.lose()
    core.hold()
    (given,) = core.claim()
    core.cancel(given.task_id)
    core.lose()
    with pytest.raises(WrongState, match="CANCELLED"):
        core.do(StopPipeline(NAMESPACE, pipeline, ended))


def test_a_run_is_stopped_only_under_its_own_pipeline(core):
    run_id, _ = core.trigger(core.pipeline(parallel("p", job("a"))))
    other = core.pipeline(parallel("p", job("a")), name="other")
    with pytest.raises(Invalid, match="run_id"):
        core.do(StopPipeline(NAMESPACE, other, run_id))


@pytest.mark.parametrize(("reason", "fine"), [("", True), ("x" * 1025, False), ("a\0", False)])
def test_a_reason_is_short_text(reason, fine):
    if fine:
        check_reason(reason)
    else:
        with pytest.raises(Invalid, match="reason"):
            check_reason(reason)
