"""What breaks, and what the agent makes of it."""

import os
import signal

import grpc
import pytest

from generated.agent.v1 import agent_pb2
from generated.task.v1 import task_pb2
from tests.unit.agent.kit import alive, marked_processes, until, waits

COUNT = "for i in $(seq 1 200); do echo line $i; sleep 0.01; done"


async def pid_of(lease):
    """Waits for the pid a script prints first."""
    await until(lambda: lease.lines)
    return int(lease.text[0].split()[-1])


async def test_a_killed_session_leaves_its_task_running_and_the_next_reports_it(plane, start_agent):
    agent = start_agent()
    lease = plane.assign(f"echo pid $$; {COUNT}")
    pid = await pid_of(lease)
    agent.process.kill()
    await agent.exit_code()
    assert alive(pid)
    start_agent()
    await until(lambda: lease.whole)
    assert [held.lease_id for held in plane.registrations[1].held.leases] == [lease.task.lease_id]
    assert lease.text == [f"pid {pid}"] + [f"line {i}" for i in range(1, 201)]
    assert lease.end.status == task_pb2.TASK_STATUS_SUCCESS


async def test_a_task_that_ended_without_a_session_is_reported_by_the_next(plane, start_agent):
    agent = start_agent()
    lease = plane.assign("echo pid $$; sleep 0.5; exit 4")
    pid = await pid_of(lease)
    agent.process.kill()
    await until(lambda: not alive(pid))
    start_agent()
    await until(lambda: lease.whole)
    assert lease.end.exit_code == 4


async def test_a_killed_supervisor_takes_its_tasks_along_as_lost(plane, start_agent, data_dir):
    agent = start_agent()
    lease = plane.assign(
        "echo pid $$", "setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' &", "sleep 300"
    )
    pid = await pid_of(lease)
    first = agent.supervisor_pid()
    os.kill(first, signal.SIGKILL)
    await until(lambda: lease.whole)
    assert lease.end.status == task_pb2.TASK_STATUS_FAILED
    assert lease.end.failure == agent_pb2.FAILURE_CLASS_INFRASTRUCTURE
    assert lease.end.error_message == "the agent's supervisor died while the task ran"
    assert not alive(pid)
    assert marked_processes(data_dir) == []
    after = plane.assign("echo alive again")
    await until(lambda: after.whole)
    assert agent.supervisor_pid() not in (None, first)


async def test_when_both_are_killed_the_next_agent_cleans_up_and_reports(
    plane, start_agent, data_dir
):
    agent = start_agent()
    lease = plane.assign("echo pid $$; echo second; sleep 300")
    pid = await pid_of(lease)
    agent.process.kill()
    os.kill(agent.supervisor_pid(), signal.SIGKILL)
    await agent.exit_code()
    start_agent()
    await until(lambda: len(plane.registrations) == 2)
    assert not alive(pid)
    await until(lambda: lease.whole)
    assert lease.end.failure == agent_pb2.FAILURE_CLASS_INFRASTRUCTURE
    assert lease.text == [f"pid {pid}", "second"]
    assert marked_processes(data_dir) == []


async def test_a_cut_stream_resumes_without_repeats_or_holes(plane, start_agent):
    agent = start_agent()
    lease = plane.assign(COUNT)
    for cuts in range(1, 4):
        reached = len(lease.lines)
        await until(lambda reached=reached: len(lease.lines) > reached + 10)
        plane.swallow_acks = 1
        await until(lambda cuts=cuts: len(plane.hellos) > cuts)
    await until(lambda: lease.whole)
    assert lease.text == [f"line {i}" for i in range(1, 201)]
    assert len(plane.registrations) == 1
    await until(lambda: agent.spooled() == [])


@pytest.mark.parametrize("code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION])
async def test_an_unknown_session_registers_again_and_keeps_its_tasks(plane, start_agent, code):
    start_agent()
    lease = plane.assign("echo pid $$; sleep 1; echo end")
    pid = await pid_of(lease)
    plane.refuse_stream = (code, "ERROR_REASON_WRONG_STATE")
    plane.cut()
    await until(lambda: len(plane.registrations) == 2)
    assert len(plane.registrations[1].held.leases) == 1
    await until(lambda: lease.whole)
    assert lease.text == [f"pid {pid}", "end"]


async def test_a_superseded_session_stops_its_tasks_and_never_comes_back(plane, start_agent):
    agent = start_agent()
    lease = plane.assign("echo pid $$; sleep 300")
    pid = await pid_of(lease)
    plane.refuse_stream = (grpc.StatusCode.ABORTED, "ERROR_REASON_SESSION_SUPERSEDED")
    plane.cut()
    assert await agent.exit_code() == 3
    assert "newer instance" in agent.log.read_text()
    assert not alive(pid)
    assert len(plane.registrations) == 1


async def test_a_silent_control_plane_is_left_and_found_again(plane, start_agent):
    agent = start_agent()
    await agent.ready()
    plane.answer_beats = False
    await until(lambda: len(plane.hellos) == 2)
    plane.answer_beats = True
    lease = plane.assign("true")
    await until(lambda: lease.whole)


async def test_an_agent_waits_for_a_control_plane_that_is_not_there_yet(plane, start_agent):
    await plane.stop()
    start_agent()
    lease = plane.assign("echo late")
    await plane.start()
    await until(lambda: lease.whole)


async def test_a_status_that_was_refused_for_now_is_sent_again(plane, start_agent):
    start_agent()
    plane.status_errors = [grpc.StatusCode.UNAVAILABLE.value[0]] * 2
    plane.log_errors = [grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]] * 2
    lease = plane.assign("echo once")
    await until(lambda: lease.whole)


async def test_a_status_that_is_refused_for_good_is_dropped(plane, start_agent, gate):
    agent = start_agent()
    plane.status_errors = [grpc.StatusCode.NOT_FOUND.value[0]] * 2
    plane.log_errors = [grpc.StatusCode.NOT_FOUND.value[0]]
    lease = plane.assign("echo gone", waits(gate))
    await until(lambda: len(plane.status_errors) == 1)
    gate.touch()
    await until(lambda: not plane.status_errors and not plane.log_errors)
    await until(lambda: agent.spooled() == [])
    assert lease.statuses == []


async def test_a_second_session_on_a_data_directory_is_refused_by_name(plane, start_agent):
    first = start_agent()
    await first.ready()
    second = start_agent()
    assert await second.exit_code() == 1
    assert f"pid {first.process.pid}" in second.log.read_text()


async def test_an_agent_keeps_the_id_it_made(plane, start_agent):
    first = start_agent()
    line = await first.ready()
    first.process.send_signal(signal.SIGTERM)
    assert await first.exit_code() == 0
    assert await start_agent().ready() == line
