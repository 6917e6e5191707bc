"""SIGTERM ends an agent in order."""

import signal

from generated.agent.v1 import agent_pb2
from generated.task.v1 import task_pb2
from tests.unit.agent.kit import until


async def test_a_drain_finishes_what_runs_and_hands_back_the_rest(plane, start_agent):
    agent = start_agent("--slots", "1")
    running = plane.assign("sleep 1; echo finished")
    waiting = plane.assign("echo never")
    await until(lambda: running.statuses)
    agent.process.send_signal(signal.SIGTERM)
    await until(lambda: plane.beats and plane.beats[-1].draining)
    await until(lambda: waiting.handed_back)
    late = plane.assign("echo too late")
    await until(lambda: late.handed_back)
    assert await agent.exit_code() == 0
    assert running.whole
    assert running.end.status == task_pb2.TASK_STATUS_SUCCESS
    assert waiting.statuses == late.statuses == []
    assert plane.unregistered[0].session_id == "session-1"
    await until(lambda: agent.supervisor_pid() is None)


async def test_after_the_drain_limit_tasks_are_stopped_to_run_elsewhere(plane, start_agent):
    agent = start_agent("--drain-limit", "0.2")
    lease = plane.assign("sleep 300")
    await until(lambda: lease.statuses)
    agent.process.send_signal(signal.SIGTERM)
    assert await agent.exit_code() == 0
    assert lease.end.status == task_pb2.TASK_STATUS_FAILED
    assert lease.end.failure == agent_pb2.FAILURE_CLASS_RELEASED
    assert lease.end.error_message == "the agent was stopped"


async def test_a_second_signal_is_quick(plane, start_agent):
    agent = start_agent()
    lease = plane.assign("trap '' TERM; echo on; while :; do sleep 0.1; done", kill_grace=60)
    await until(lambda: lease.lines)
    agent.process.send_signal(signal.SIGTERM)
    await until(lambda: plane.beats and plane.beats[-1].draining)
    agent.process.send_signal(signal.SIGINT)
    assert await agent.exit_code(10) == 0
    assert lease.end.exit_code == 128 + signal.SIGKILL


async def test_hangup_reads_the_labels_file_again(plane, start_agent, tmp_path):
    labels = tmp_path / "labels"
    labels.write_text("# where it stands\nzone=north\nrack=1\n")
    agent = start_agent("--labels-file", str(labels), "--labels", "rack=2")
    await agent.ready()
    assert dict(plane.registrations[0].labels).items() >= {"zone": "north", "rack": "2"}.items()
    labels.write_text("zone=south\n")
    agent.process.send_signal(signal.SIGHUP)
    await until(lambda: plane.unary_beats)
    assert dict(plane.unary_beats[0].labels).items() >= {"zone": "south", "rack": "2"}.items()
