"""What the benchmarks build themselves: databases with a past, a crowd of agents, a PostgreSQL."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bench.client import Client
from bench.figures.idle_agents import idle_agents
from bench.lab import Lab
from bench.programs import ROOT
from bench.seeding import seed_ended, seed_foreign
from bench.workloads import NOOP, tasks_per_second
from generated.agent.v1 import agent_pb2
from generated.stream.v1 import stream_pb2
from generated.task.v1 import task_pb2

COPIES = 1000
TIMEOUT = 60


@pytest.fixture
def lab():
    folder = Path(tempfile.mkdtemp(prefix="mb-"))  # short, for Unix sockets
    yield Lab(folder)
    shutil.rmtree(folder)


async def page(client: Client, **wanted) -> task_pb2.ListTasksResponse:
    request = task_pb2.ListTasksRequest(page_size=10, **wanted)
    return await client.tasks.ListTasks(request, timeout=TIMEOUT)


async def test_copied_tasks_are_to_the_server_what_its_own_are(lab):
    folder = await seed_ended(lab, COPIES)
    async with lab.muster(slots=2, data_dir=folder) as muster:
        client = muster.client
        answer = await page(client, status=task_pb2.TASK_STATUS_SUCCESS)
        assert answer.total == COPIES + 1
        copy = answer.tasks[0]
        request = task_pb2.GetTaskRequest(task_id=copy.task_id)
        task = (await client.tasks.GetTask(request, timeout=TIMEOUT)).task
        assert [each.status for each in task.attempts] == [task_pb2.ATTEMPT_STATUS_SUCCESS]
        history = client.streams.StreamTaskStatus(
            stream_pb2.StreamTaskStatusRequest(task_ids=[copy.task_id], after="0"), timeout=TIMEOUT
        )
        assert [change.status async for change in history] == [2, 3, 4]
        # What is new takes ids and positions that no copy has.
        await tasks_per_second(client, NOOP, 20)
        assert (await page(client)).total == COPIES + 21


async def test_foreign_tasks_stay_queued_while_others_run(lab):
    folder = await seed_foreign(lab, COPIES)
    async with lab.muster(slots=2, data_dir=folder) as muster:
        await tasks_per_second(muster.client, NOOP, 20)
        queued = await page(muster.client, status=task_pb2.TASK_STATUS_QUEUED)
        assert queued.total == COPIES + 1


def test_a_figure_is_measured_on_real_processes_and_told_as_json():
    names = ["submit_to_end_ms_p50", "submit_to_end_ms_p99"]
    options = ["--scale", "0.001", "--rounds", "1"]
    bench = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "bench", *options, ",".join(names)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        said, _ = bench.communicate(timeout=80)
    finally:
        bench.terminate()  # then it ends what it has started
        bench.wait(30)
    told = [json.loads(line) for line in said.splitlines()]
    assert [figure["name"] for figure in told] == names
    assert all(figure["value"] > 0 and figure["unit"] == "ms" for figure in told)


async def test_a_crowd_of_idle_agents_is_connected_as_real_ones_are(lab):
    async with (
        lab.server() as server,
        Client(server.grpc, server.http) as client,
        idle_agents(lab, server, 20),
    ):
        assert await client.metric("muster_agents_connected") == 20
        agents = await client.agents.ListAgents(agent_pb2.ListAgentsRequest(), timeout=TIMEOUT)
        assert [agent.status for agent in agents.agents] == [agent_pb2.AGENT_STATUS_IDLE] * 20
