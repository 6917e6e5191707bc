"""What becomes of a task with the files that it leaves, kept or not."""

import signal

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


@pytest.mark.parametrize("keep", [True, False])
async def test_a_session_killed_before_its_word_is_taken_collects_nothing_twice(
    plane, start_agent, data_dir, keep
):
    plane.keeps_files = True
    plane.answer_reports = False
    agent = start_agent()
    files = [agent_pb2.Artifact(name="report", path=path) for path in ("report", "nothing")]
    lease = plane.assign("echo why > report", artifacts=files, keep_workspace=keep)
    await until(lambda: lease.whole)
    told, text = lease.end, lease.text
    agent.process.send_signal(signal.SIGKILL)
    await agent.exit_code()
    lease.statuses.clear()
    plane.answer_reports = True
    agent = start_agent()
    await until(lambda: lease.whole)
    assert lease.end.status == task_pb2.TASK_STATUS_SUCCESS
    assert (lease.end.log, lease.text) == (told.log, text)
    assert [each.path for each in plane.uploads] == ["report"]
    assert text[0] == "muster: artifact report: nothing in the workspace fits nothing"
    assert len(text) == 1 + keep
    await until(lambda: not agent.left())
