"""What is pending travels in one frame; with work at hand a frame waits for what follows soon."""

import asyncio

import pytest

from agent.executor import Identity, TaskRun
from agent.outbox import Outbox
from agent.spool import Spool
from generated.agent.v1 import agent_pb2
from generated.stream.v1 import stream_pb2
from generated.task.v1 import task_pb2


@pytest.fixture
def started(tmp_path):
    """Returns runs that have a start to report."""

    def make(lease):
        task = agent_pb2.Task(job_id="task", lease_id=lease, attempt=1)
        run = TaskRun(Identity.of_task(task), Spool(tmp_path), task)
        run.started(1)
        return run

    return make


END = {
    "cause": "exited",
    "exit_code": 0,
    "message": "",
    "failure": "task",
    "started_at": 1,
    "ended_at": 2,
}


def test_a_start_that_has_not_left_goes_with_the_end_which_says_it_too(started):
    run = started("a")
    run.end_log(silent=True)
    run.ended(END)
    (update,) = run.take_reports()
    assert update.status == task_pb2.TASK_STATUS_SUCCESS
    assert update.started_at == 1


def test_a_start_that_has_left_is_still_waited_for(started):
    run = started("a")
    (start,) = run.take_reports()
    run.end_log(silent=True)
    run.ended(END)
    assert len(run.take_reports()) == 1
    run.acknowledge(stream_pb2.StatusAck(status=task_pb2.TASK_STATUS_SUCCESS))
    assert not run.settled
    run.acknowledge(stream_pb2.StatusAck(status=start.status))
    assert run.settled


def test_a_silent_task_claims_a_log_of_nothing_without_a_look_at_the_disk(started):
    run = started("a")
    run.end_log(silent=True)
    run.ended(END)
    (update,) = run.take_reports()
    assert update.HasField("log")
    assert update.log == agent_pb2.LogSummary()
    assert "shipper" not in vars(run)


@pytest.mark.parametrize(("patient", "first_frame"), [(True, ["a", "b"]), (False, ["a"])])
async def test_a_patient_frame_waits_for_more(started, patient, first_frame):
    outbox = Outbox()
    outbox.patient = patient
    outbox.mark(started("a"))
    async with asyncio.TaskGroup() as group:
        frame = group.create_task(outbox.next_frame())
        await asyncio.sleep(0)
        outbox.mark(started("b"))
    assert [status.lease_id for status in frame.result().statuses] == first_frame
