"""A task's way through the agent: start, output, end."""

from generated.task.v1 import task_pb2
from tests.unit.agent.kit import until


async def test_a_task_runs_and_its_log_arrives_in_order(plane, start_agent):
    agent = start_agent()
    assert (await agent.ready()).startswith(b"ready agent=")
    lease = plane.assign("for i in $(seq 1 3000); do echo line $i; done")
    await until(lambda: lease.whole)
    assert lease.text == [f"line {i}" for i in range(1, 3001)]
    assert [chunk.line_number for chunk in lease.lines] == list(range(1, 3001))
    assert lease.end.status == task_pb2.TASK_STATUS_SUCCESS
    running = lease.statuses[0]
    assert running.status == task_pb2.TASK_STATUS_RUNNING
    assert running.started_at > 0
    await until(lambda: agent.spooled() == [])
