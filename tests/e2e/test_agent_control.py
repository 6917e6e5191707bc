"""Operators pause, drain and resume agents; what was running is neither lost nor blamed."""

import contextlib
import json
import resource
import signal

import pytest

from generated.agent.v1 import agent_pb2
from tests.e2e.api import Api, refusal, soon
from tests.e2e.kit import eventually

QUEUED, RUNNING, SUCCESS, FAILED = 2, 3, 4, 5
RELEASED = 8
ACTIVE, PAUSED, DRAINING, DRAINED = 1, 2, 3, 4
PAUSE, RESUME, DRAIN = 1, 2, 3


@pytest.fixture
def server(kit):
    # No task may be lost even once: what a drain does must not count as a loss.
    return kit.start_server("--infra-retry-limit", "0", "--kill-grace", "0.5")


async def set_state(api: Api, agent_id: str, action: int, **fields):
    request = agent_pb2.SetAgentStateRequest(agent_id=agent_id, action=action, **fields)
    return (await api.agents.SetAgentState(request)).agent


async def test_a_pause_holds_over_every_restart_until_it_is_ended(kit, server, api: Api):
    agent = kit.start_agent(server, "--name", "a")
    said = kit.cli("agent", "pause", "a", "--note", "disk swap", server=server)
    assert (said.returncode, said.stdout) == (0, "The agent is paused; it holds 0 tasks.\n")
    listed = kit.cli("agent", "list", server=server).stdout
    assert "IDLE,PAUSED" in listed
    task_id = await api.create("echo late")
    server.kill9()
    server.start()
    agent.restart()

    async def connected():
        return (await api.agent("a")).status == agent_pb2.AGENT_STATUS_IDLE

    await soon(connected)
    assert (await api.task(task_id)).status == QUEUED
    shown = kit.cli("agent", "get", "a", server=server).stdout
    assert "PAUSED since" in shown
    assert "disk swap" in shown
    assert kit.cli("agent", "resume", "a", server=server).stdout == "The agent is given work.\n"
    assert (await api.ended(task_id)).status == SUCCESS
    assert (await api.agent("a")).scheduling == ACTIVE


async def test_a_drain_lets_tasks_end_and_says_when_it_is_over(kit, server, api: Api, gate):
    kit.start_agent(server, "--name", "a")
    task_id = await api.create(gate.wait)
    await api.runs(task_id)
    waiting = kit.start_cli("agent", "drain", "a", "--wait", server=server)

    async def draining():
        return (await api.agent("a")).scheduling == DRAINING

    await soon(draining)
    assert waiting.exit_code is None
    gate.open()
    assert (await api.ended(task_id)).status == SUCCESS
    assert waiting.wait() == 0
    assert waiting.said() == "The agent is drained.\n"
    assert (await api.agent("a")).scheduling == DRAINED


async def test_after_the_deadline_a_task_runs_elsewhere_and_nothing_is_charged(
    kit, server, api: Api, gate, mark
):
    kit.start_agent(server, "--name", "a")
    task_id = await api.create("trap '' TERM", gate.wait, env=mark.env)
    assert (await api.runs(task_id)).agent_id == "a"
    words = ["agent", "drain", "a", "--deadline", "1", "--note", "upgrade", "--wait"]
    said = kit.cli(*words, server=server)
    assert (said.returncode, said.stdout) == (0, "The agent is drained.\n")
    assert mark.gone()
    task = await api.task(task_id)
    assert (task.status, task.infra_retries, task.retried_times) == (QUEUED, 0, 0)
    gate.open()
    kit.start_agent(server, "--name", "b")
    task = await api.ended(task_id)
    assert (task.status, task.agent_id, task.attempt, task.infra_retries) == (SUCCESS, "b", 2, 0)
    assert task.attempts[0].status == RELEASED
    assert task.attempts[0].cause == "its agent is drained"


async def test_stopping_the_agent_is_not_charged_to_its_tasks_either(kit, server, api: Api, gate):
    agent = kit.start_agent(server, "--drain-limit", "0.2")
    task_id = await api.create(gate.wait)
    for number in (1, 2, 3):
        assert (await api.runs(task_id)).attempt == number
        agent.program.signal(signal.SIGTERM)
        assert agent.program.wait() == 0
        task = await api.task(task_id)
        assert (task.status, task.infra_retries) == (QUEUED, 0)
        agent.start()
    gate.open()
    assert (await api.ended(task_id)).status == SUCCESS


async def test_a_task_that_must_not_run_twice_ends_with_the_drain(kit, server, api: Api, gate):
    kit.start_agent(server, "--name", "a")
    task_id = await api.create(gate.wait, retry_on_lost=False)
    await api.runs(task_id)
    await set_state(api, "a", DRAIN, deadline_seconds=0)
    task = await api.ended(task_id)
    assert (task.status, task.error_message) == (FAILED, "its agent is drained")


async def test_changes_are_watched(kit, server, api: Api, gate):
    kit.start_agent(server, "--name", "a")
    watching = kit.start_cli("agent", "watch", server=server)
    eventually(lambda: "a  IDLE  0/1" in watching.said(), within=30)
    task_id = await api.create(gate.wait)
    await api.runs(task_id)
    eventually(lambda: "a  BUSY  1/1" in watching.said(), within=30)
    await set_state(api, "a", PAUSE, note="lunch")
    eventually(lambda: "a  BUSY,PAUSED  1/1  lunch\n" in watching.said(), within=30)
    gate.open()
    watching.signal(signal.SIGINT)
    assert watching.wait() == 130
    programs = kit.start_cli("agent", "watch", "-o", "json", server=server)
    eventually(lambda: programs.said().endswith("\n"), within=30)
    line = json.loads(programs.said().splitlines()[0])
    assert (line["agent_id"], line["scheduling"]) == ("a", "SCHEDULING_STATE_PAUSED")


async def test_what_makes_no_sense_is_refused_by_its_field(api: Api):
    async def refused(**fields):
        return await refusal(api.agents.SetAgentState(agent_pb2.SetAgentStateRequest(**fields)))

    assert (await refused(agent_id="nobody", action=PAUSE)).reason == "UNKNOWN_RESOURCE"
    assert list((await refused(agent_id="a")).fields) == ["action"]
    assert list((await refused(agent_id="a", action=9)).fields) == ["action"]
    bad = await refused(agent_id="a", action=DRAIN, deadline_seconds=-1)
    assert list(bad.fields) == ["deadline_seconds"]
    bad = await refused(agent_id="a", action=RESUME, note="x", deadline_seconds=1)
    assert list(bad.fields) == ["note", "deadline_seconds"]


# ---- quarantine


@contextlib.contextmanager
def no_task_can_start(agent):
    """Take away what the agent's supervisor needs to start anything."""
    pid = agent.supervisor.pid
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, usual[1]))
    yield
    resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)


async def test_an_agent_that_cannot_start_tasks_is_quarantined_and_says_so(kit):
    server = kit.start_server("--quarantine", "600")
    agent = kit.start_agent(server, "--name", "a")
    async with Api(server.grpc) as api:

        async def quarantined():
            return (await api.agent("a")).quarantined_until

        with no_task_can_start(agent):
            task_id = await api.create("true")
            await soon(quarantined)
        task = await api.task(task_id)
        assert (task.status, task.infra_retries) == (QUEUED, 0)
        assert [attempt.status for attempt in task.attempts] == [RELEASED] * 3
        assert task.waiting_reason.startswith(
            "The one fitting agent is given no work now: a is quarantined for "
        )
        assert "could not start" in task.waiting_reason
        assert "IDLE,QUARANTINED" in kit.cli("agent", "list", server=server).stdout
        server.restart()
        shown = kit.cli("agent", "get", "a", server=server).stdout
        assert "QUARANTINED: work again in " in shown
        assert "3 failures in a row by its own fault, the last: could not start" in shown
        assert (await api.task(task_id)).status == QUEUED
        assert kit.cli("agent", "resume", "a", server=server).returncode == 0
        assert (await api.ended(task_id)).status == SUCCESS
        assert (await api.agent("a")).faults == 0


async def test_a_quarantine_ends_by_itself_and_a_success_forgets_it(kit):
    server = kit.start_server("--quarantine", "1")
    agent = kit.start_agent(server, "--name", "a")
    async with Api(server.grpc) as api:

        async def blamed():
            return (await api.agent("a")).faults >= 3

        with no_task_can_start(agent):
            task_id = await api.create("true")
            await soon(blamed)
        assert (await api.ended(task_id)).status == SUCCESS
        detail = await api.agent("a")
        assert (detail.faults, detail.fault, detail.quarantined_until) == (0, "", 0)
