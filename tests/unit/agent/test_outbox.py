"""What is pending travels in one frame; with work at hand a frame waits for what follows soon."""

import asyncio

import pytest

from agent.executor import Identity, TaskRun
from agent.outbox import Outbox
from agent.spool import Spool
from generated.agent.v1 import agent_pb2


@pytest.fixture
def started(tmp_path):
    """Returns runs that have a start to report."""

    def make(lease):
        task = agent_pb2.Task(job_id="task", lease_id=lease, attempt=1)
        run = TaskRun(Identity.of_task(task), Spool(tmp_path), task)
        run.started(1)
        return run

    return make


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
