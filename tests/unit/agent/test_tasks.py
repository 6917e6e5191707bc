"""A task's way through the agent: start, output, end."""

import os
import signal

import grpc

from generated.agent.v1 import agent_pb2
from generated.task.v1 import task_pb2
from tests.podman import without_engine
from tests.unit.agent.kit import alive, marked_processes, until, waits

IGNORE_TERM = "trap '' TERM; echo pid $$; while :; do sleep 0.1; done"


async def pids_of(lease, count=1):
    """Waits for the pids a script prints."""
    await until(lambda: len(lease.lines) >= count)
    return [int(line.split()[-1]) for line in lease.text[:count]]


async def test_a_task_runs_and_its_log_arrives_in_order(plane, start_agent, gate):
    agent = start_agent("--namespace", "team-a")
    assert (await agent.ready()).startswith(b"ready agent=")
    lease = plane.assign("for i in $(seq 1 3000); do echo line $i; done", waits(gate))
    await until(lambda: lease.statuses)
    gate.touch()
    await until(lambda: lease.whole)
    assert lease.text == [f"line {i}" for i in range(1, 3001)]
    assert [chunk.line_number for chunk in lease.lines] == list(range(1, 3001))
    assert lease.end.status == task_pb2.TASK_STATUS_SUCCESS
    running = lease.statuses[0]
    assert running.status == task_pb2.TASK_STATUS_RUNNING
    assert running.started_at > 0
    await until(lambda: agent.spooled() == [])
    assert plane.namespaces == {"team-a"}
    assert plane.registrations[0].HasField("held")


async def test_commands_are_one_script_in_a_clean_environment(plane, start_agent):
    start_agent()
    lease = plane.assign(
        "X=kept",
        'echo "$X ${SECRET_OF_THE_HOST:-clean} $MINE $MUSTER_ATTEMPT $MUSTER_RUN_ID"',
        'test "$PWD" = "$HOME/sub/dir" && test -d "$TMPDIR" && cat',
        "echo to stderr >&2",
        "false",
        "echo never",
        env={"MINE": "yes"},
        run_id="run-9",
        workspace="sub/dir",
    )
    said = f"kept clean yes {lease.task.job_id}/1 run-9"
    await until(lambda: lease.whole)
    assert sorted(lease.text) == [said, "to stderr"]
    levels = {chunk.content: (chunk.stream, chunk.level) for chunk in lease.lines}
    assert levels["to stderr"] == ("stderr", "error")
    assert levels[said] == ("stdout", "info")


async def test_a_nonzero_exit_is_the_tasks_failure(plane, start_agent):
    start_agent()
    lease = plane.assign("exit 7")
    killed = plane.assign("kill -KILL $$")
    await until(lambda: lease.whole and killed.whole)
    assert lease.end.status == task_pb2.TASK_STATUS_FAILED
    assert lease.end.failure == agent_pb2.FAILURE_CLASS_TASK
    assert lease.end.exit_code == 7
    assert killed.end.exit_code == 128 + signal.SIGKILL


@without_engine
async def test_an_image_that_nobody_here_can_run_is_named(plane, start_agent):
    start_agent()
    lease = plane.assign("true", image="alpine")
    await until(lambda: lease.whole)
    assert lease.end.status == task_pb2.TASK_STATUS_FAILED
    assert "alpine" in lease.end.error_message


async def test_a_task_that_cannot_start_fails_with_the_reason(plane, start_agent):
    start_agent()
    outside = plane.assign("true", workspace="../../..")
    unknown = plane.assign("true", executor="quantum")
    crowded = plane.assign("true", env={f"V{n}": "x" * 100_000 for n in range(30)})
    endless = plane.assign("true", workspace="a" * 300)
    words = {
        "outside": outside,
        "quantum": unknown,
        "environment (variables and secrets) is too large": crowded,
        "workspace's name is too long": endless,
    }
    await until(lambda: all(lease.whole for lease in words.values()))
    for word, lease in words.items():
        assert lease.end.status == task_pb2.TASK_STATUS_FAILED
        assert lease.end.failure == agent_pb2.FAILURE_CLASS_TASK
        assert word in lease.end.error_message


async def test_an_end_that_is_refused_is_told_without_what_may_be_the_reason(
    plane, start_agent, gate
):
    start_agent()
    lease = plane.assign("echo a=1 > $MUSTER_OUTPUT", waits(gate))
    await until(lambda: lease.statuses)
    plane.status_errors = [grpc.StatusCode.INVALID_ARGUMENT.value[0]]
    gate.touch()
    await until(lambda: lease.end)
    assert lease.end.status == task_pb2.TASK_STATUS_SUCCESS
    assert not lease.end.outputs


async def test_what_is_wrong_with_outputs_is_in_the_log(plane, start_agent):
    start_agent()
    lease = plane.assign("echo nonsense > $MUSTER_OUTPUT; echo done")
    await until(lambda: lease.whole)
    assert lease.text[0] == "done"
    assert "MUSTER_OUTPUT line 1 is neither" in lease.text[1]


async def test_the_noop_executor_succeeds_without_a_process(plane, start_agent):
    agent = start_agent()
    leases = [plane.assign("exit 1", executor="noop") for _ in range(50)]
    await until(lambda: all(lease.whole for lease in leases))
    assert {lease.end.status for lease in leases} == {task_pb2.TASK_STATUS_SUCCESS}
    assert agent.spooled() == []


async def test_a_timeout_ends_the_task(plane, start_agent):
    start_agent()
    lease = plane.assign("echo pid $$; sleep 300", timeout=1)
    (pid,) = await pids_of(lease)
    await until(lambda: lease.whole)
    assert lease.end.status == task_pb2.TASK_STATUS_TIMEOUT
    assert lease.end.exit_code == 128 + signal.SIGTERM
    assert not alive(pid)


async def test_a_cancel_kills_a_process_that_ignores_sigterm(plane, start_agent):
    start_agent()
    lease = plane.assign(IGNORE_TERM, kill_grace=1)
    (pid,) = await pids_of(lease)
    plane.cancel(lease)
    await until(lambda: lease.whole)
    assert lease.end.status == task_pb2.TASK_STATUS_CANCELLED
    assert lease.end.exit_code == 128 + signal.SIGKILL
    assert lease.end.error_message == "cancelled by a test"
    assert not alive(pid)


async def test_a_cancel_finds_processes_that_left_the_session(plane, start_agent, data_dir):
    start_agent()
    lease = plane.assign(
        "setsid sh -c 'echo pid $$; exec sleep 300' &",
        "(setsid sh -c 'cd /; echo pid $$; exec env -i sleep 300 2>/dev/null >/dev/null' &)",
        "sleep 300",
        kill_grace=1,
    )
    pids = await pids_of(lease, 2)
    plane.cancel(lease)
    await until(lambda: lease.whole)
    assert [pid for pid in pids if alive(pid)] == []
    assert marked_processes(data_dir) == []


async def test_a_verdict_in_any_answer_cancels(plane, start_agent):
    start_agent()
    lease = plane.assign("sleep 300")
    await until(lambda: lease.statuses)
    lease.verdict = agent_pb2.VERDICT_ACTION_CANCEL
    await until(lambda: lease.whole)
    assert lease.end.status == task_pb2.TASK_STATUS_CANCELLED


async def test_a_superseded_task_is_killed_and_not_reported(plane, start_agent):
    agent = start_agent()
    lease = plane.assign("echo pid $$; sleep 300")
    (pid,) = await pids_of(lease)
    lease.verdict = agent_pb2.VERDICT_ACTION_SUPERSEDED
    await until(lambda: not alive(pid))
    await until(lambda: agent.spooled() == [])
    assert lease.end is None


async def test_what_a_task_leaves_in_the_background_ends_with_it(plane, start_agent):
    start_agent()
    lease = plane.assign("(setsid sleep 300 & echo pid $!)", "echo done")
    (pid,) = await pids_of(lease)
    await until(lambda: lease.whole, seconds=8)
    assert lease.end.status == task_pb2.TASK_STATUS_SUCCESS
    assert not alive(pid)


async def test_a_repeated_assignment_runs_once(plane, start_agent):
    agent = start_agent()
    lease = plane.assign("echo once; sleep 0.3")
    await until(lambda: lease.statuses)
    plane.deliver(lease)
    await until(lambda: lease.whole)
    await until(lambda: agent.spooled() == [])
    plane.deliver(lease)
    last = plane.assign("true")
    await until(lambda: last.whole)
    assert lease.text == ["once"]
    assert len(lease.ends) == 1


async def test_no_more_tasks_run_than_there_are_slots(plane, start_agent):
    start_agent()
    first = [plane.assign(f"sleep 300; echo {n}") for n in range(2)]
    third = plane.assign("echo third")
    await until(lambda: all(lease.statuses for lease in first))
    await until(lambda: third.handed_back)
    assert third.statuses == []
    await until(lambda: plane.beats and plane.beats[-1].running_jobs_count == 2)
    plane.cancel(first[0])
    await until(lambda: first[0].whole)
    fourth = plane.assign("echo fourth")
    await until(lambda: fourth.whole)


async def test_what_has_not_started_is_handed_back_on_demand_and_what_runs_goes_on(
    plane, start_agent, tmp_path
):
    start_agent("--slots", "1")
    gate = tmp_path / "gate"
    running = plane.assign(f"while [ ! -e {gate} ]; do sleep 0.05; done")
    waiting = plane.assign("true")
    await until(lambda: running.statuses and waiting.delivered)
    plane.push_hand_back()
    await until(lambda: waiting.handed_back)
    assert not running.handed_back
    gate.touch()
    later = plane.assign("true")
    await until(lambda: running.whole)
    await until(lambda: later.whole)
    assert running.end.status == task_pb2.TASK_STATUS_SUCCESS
    assert waiting.statuses == []


async def test_the_word_to_hand_back_comes_with_the_answer_to_a_heartbeat_too(
    plane, start_agent, tmp_path
):
    start_agent("--slots", "1")
    gate = tmp_path / "gate"
    running = plane.assign(f"while [ ! -e {gate} ]; do sleep 0.05; done")
    waiting = plane.assign("true")
    await until(lambda: running.statuses and waiting.delivered)
    plane.hand_back = True
    await until(lambda: waiting.handed_back)
    gate.touch()
    await until(lambda: running.whole)


async def test_secrets_reach_the_task_and_no_disk(plane, start_agent, data_dir):
    start_agent()
    lease = plane.assign(
        'test "$TOKEN" = hunter2secret && echo "have $TOKEN"; echo released; sleep 300',
        secrets={"TOKEN": "hunter2secret"},
    )
    await until(lambda: lease.text == ["have ***", "released"])
    found = [
        path for path in data_dir.rglob("*") if path.is_file() and b"hunter2s" in path.read_bytes()
    ]
    assert [path for path in found if path.name != "script"] == []
    plane.cancel(lease)
    await until(lambda: lease.whole)


async def test_a_task_that_must_not_outlive_its_lease_stops_without_a_session(plane, start_agent):
    plane.interval = 1
    agent = start_agent()
    await agent.ready()
    lease = plane.assign("echo pid $$; sleep 300", stop_with_lease=True, kill_grace=1)
    (pid,) = await pids_of(lease)
    plane.lease_seconds = 8
    plane.cut()
    await until(lambda: len(plane.hellos) == 2)
    beats = len(plane.beats)
    await until(lambda: len(plane.beats) > beats)  # it has the new terms before it beats again
    agent.process.kill()
    await until(lambda: not alive(pid), seconds=8)
    plane.lease_seconds = 30
    start_agent()
    await until(lambda: lease.whole)
    assert lease.end.failure == agent_pb2.FAILURE_CLASS_INFRASTRUCTURE


async def test_the_supervisor_is_no_descendant_that_a_dying_session_takes_along(plane, start_agent):
    agent = start_agent()
    await agent.ready()
    supervisor = agent.supervisor_pid()
    assert os.getsid(supervisor) == supervisor != os.getsid(agent.process.pid)


async def test_a_live_agent_gathers_output_for_as_long_as_it_is_told(plane, start_agent):
    agent = start_agent()
    await agent.ready()
    lines = "for i in $(seq 20); do echo $i; sleep 0.05; done"
    usual = plane.assign(lines)
    await until(lambda: usual.whole)
    plane.configure(log_delay_ms=60_000)
    gathered = plane.assign(lines)
    await until(lambda: gathered.whole)
    assert gathered.text == usual.text
    assert gathered.batches <= 3 < usual.batches
