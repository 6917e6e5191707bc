"""What becomes of a task whose files cannot be kept; this control plane takes none."""

import pytest

from generated.agent.v1 import agent_pb2
from generated.task.v1 import task_pb2
from tests.unit.agent.kit import until

WHY = "artifact report: report: "


@pytest.mark.parametrize("code", [0, 3])
async def test_a_failure_of_its_own_is_not_hidden_by_what_cannot_be_kept(plane, start_agent, code):
    start_agent()
    report = agent_pb2.Artifact(name="report", path="report", on_failure=True)
    lease = plane.assign("echo why > report", f"exit {code}", artifacts=[report])
    await until(lambda: lease.whole)
    assert lease.end.status == task_pb2.TASK_STATUS_FAILED
    assert lease.end.failure == agent_pb2.FAILURE_CLASS_TASK
    if code:
        assert lease.end.error_message == "exit code 3"
        (said,) = lease.text
        assert said.startswith(f"muster: {WHY}")
    else:
        assert lease.end.error_message.startswith(WHY)
