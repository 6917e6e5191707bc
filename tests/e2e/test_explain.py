"""What is told of a task that waits is the truth, on every server."""

import json

import pytest

from generated.agent.v1 import agent_pb2
from generated.task.v1 import task_pb2
from tests.e2e.api import Api, refusal, soon
from tests.podman import without_engine
from tests.postgres import PostgresServer

ELIGIBLE, FULL, BUSY, PAUSED, DRAINING, QUARANTINED, BARRED, UNFIT = range(1, 9)
NOTHING, END, STOP, START, DEPENDENCIES, RETRY, IMAGE, AGENT, OPEN_AGENT, SLOT = range(1, 11)
PAUSE, RESUME = 1, 2


@pytest.fixture
def server(kit):
    return kit.start_server("--retry-backoff", "60", "--retry-backoff-max", "60")


async def explained(api: Api, task_id: str) -> task_pb2.ExplainTaskResponse:
    return await api.tasks.ExplainTask(task_pb2.ExplainTaskRequest(task_id=task_id))


async def waits_for(api: Api, task_id: str) -> int:
    return (await explained(api, task_id)).waiting_for


async def pause(api: Api, agent_id: str, action: int = PAUSE, note: str = "") -> None:
    request = agent_pb2.SetAgentStateRequest(agent_id=agent_id, action=action, note=note)
    await api.agents.SetAgentState(request)


async def test_one_task_after_the_other_says_what_it_lacks(kit, server, api: Api, gate):
    selector = task_pb2.LabelSelector(match_labels={"role": "build"})
    first = await api.create(gate.wait, name="first", label_selector=selector)
    assert await waits_for(api, first) == AGENT
    kit.start_agent(server, "--name", "plain")
    found = await explained(api, first)
    assert found.waiting_for == AGENT
    assert [(a.agent_id, a.fit) for a in found.agents] == [("plain", UNFIT)]
    assert found.agents[0].reason == "It needs role=build, and there is no label role."
    kit.start_agent(server, "--name", "builder", labels={"role": "build"})
    await api.runs(first)
    assert (await explained(api, first)).message == "It runs on agent builder."
    second = await api.create("true", name="second", label_selector=selector)
    third = await api.create("true", name="third", label_selector=selector)
    found = await explained(api, third)
    assert (found.waiting_for, found.tasks_before) == (SLOT, 1)
    assert [(a.agent_id, a.fit) for a in found.agents] == [("builder", FULL), ("plain", UNFIT)]
    await pause(api, "builder", note="disk swap")
    gate.open()
    await api.ended(first)
    found = await explained(api, second)
    assert found.waiting_for == OPEN_AGENT
    assert found.message == (
        "The one fitting agent is given no work now: builder is paused: disk swap."
    )
    assert (await api.task(second)).waiting_reason == found.message
    await pause(api, "builder", RESUME)
    await api.ended(third)
    assert (await explained(api, second)).message == "It ended in SUCCESS."


async def test_what_is_no_matter_of_agents_is_told_too(kit, server, api: Api, gate, mark):
    kit.start_agent(server, "--name", "a")
    failed = await api.create("exit 2", retry_count=1)

    async def pending():
        return (await api.task(failed)).status == 1

    await soon(pending)
    found = await explained(api, failed)
    assert found.waiting_for == RETRY
    assert found.not_before > 0
    stubborn = await api.create("trap '' TERM", "echo up", gate.wait, name="up", env=mark.env)
    await api.runs(stubborn)
    dependent = await api.create("true", depends_on=[stubborn])
    found = await explained(api, dependent)
    assert found.waiting_for == DEPENDENCIES
    assert [(d.task_id, d.name, d.status) for d in found.dependencies] == [(stubborn, "up", 3)]

    async def listening():
        return (await api.task(stubborn)).attempts[0].log_lines

    await soon(listening)
    await api.cancel(stubborn, "enough")
    assert await waits_for(api, stubborn) == STOP
    gate.open()


@without_engine
async def test_an_image_waits_for_an_agent_that_runs_images(kit, server, api: Api):
    kit.start_agent(server, "--name", "a")
    assert await waits_for(api, await api.create("true", image="debian:13")) == IMAGE


async def test_the_command_says_it_for_people_and_for_programs(kit, server, api: Api):
    kit.start_agent(server, "--name", "a")
    selector = task_pb2.LabelSelector(match_labels={"role": "build"})
    task_id = await api.create("true", label_selector=selector)
    said = kit.cli("task", "explain", task_id, server=server).stdout
    assert said.startswith("The one connected agent does not fit role=build.")
    assert "Waits for: AGENT" in said
    assert "a      UNFIT  It needs role=build, and there is no label role." in said
    data = json.loads(kit.cli("task", "explain", task_id, "-o", "json", server=server).stdout)
    assert data["waiting_for"] == "WAITING_FOR_AGENT"
    assert (await refusal(explained(api, "nobody"))).reason == "UNKNOWN_RESOURCE"
    assert kit.cli("task", "explain", "nobody", server=server).returncode == 4


@pytest.fixture
async def two_servers(kit):
    """Two servers on one database."""
    postgres = PostgresServer()
    url = postgres.url(await postgres.create()).render_as_string()
    yield [
        kit.start_server("--database-url", url, data_dir=kit.folder / name) for name in ("s1", "s2")
    ]
    kit.launcher.end_all()
    postgres.stop()


async def test_a_server_tells_of_agents_that_talk_to_another_and_pauses_them(kit, two_servers):
    here, there = two_servers
    kit.start_agent(there, "--name", "a")
    async with Api(here.grpc) as api, Api(there.grpc) as other:
        await pause(api, "a", note="from afar")
        task_id = await api.create("true")
        for each in (api, other):
            found = await explained(each, task_id)
            assert found.waiting_for == OPEN_AGENT
            assert [(a.agent_id, a.fit, a.reason) for a in found.agents] == [
                ("a", PAUSED, "is paused: from afar")
            ]
        await pause(api, "a", RESUME)
        assert (await api.ended(task_id)).agent_id == "a"
