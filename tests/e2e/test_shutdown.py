"""Starting and stopping: what waits is answered, and what cannot be is said in one line."""

import asyncio
import json
import signal
import sys
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from generated.agent.v1 import agent_pb2
from generated.stream.v1 import stream_pb2
from tests.e2e.api import Api, soon

SIGNALS = {"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
SERVER = [sys.executable, "-m", "server"]
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture
def server(kit):
    return kit.start_server()


async def watch(channel, service, seen: list[int]) -> None:
    """Note what a watcher of the health is told until the server serves no more."""
    stub = health_pb2_grpc.HealthStub(channel)
    call = stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=30)
    async for answer in call:
        seen.append(answer.status)
        if answer.status == NOT_SERVING:
            break
    call.cancel()  # else it would keep the server for its whole grace


async def follow(api: Api, task_id: str) -> grpc.StatusCode:
    try:
        async for _ in api.follow(task_id):
            pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def status_follow(api: Api, task_id: str) -> grpc.StatusCode:
    request = stream_pb2.StreamTaskStatusRequest(task_ids=[task_id])
    try:
        async for _ in api.streams.StreamTaskStatus(request):
            pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def channel(api: Api, agent_id: str, session_id: str) -> grpc.StatusCode:
    """Hold an agent's stream open until the server ends it."""
    call = api.streams.AgentChannel()
    await call.write(
        stream_pb2.AgentChannelRequest(
            agent_id=agent_id, hello=stream_pb2.Hello(session_id=session_id)
        )
    )
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def fetched(api: Api, request) -> agent_pb2.FetchTaskResponse:
    return await api.agents.FetchTask(request)


@pytest.mark.parametrize("number", SIGNALS.values(), ids=SIGNALS)
async def test_what_waits_is_answered_and_the_exit_code_is_0(kit, server, api: Api, number):
    task_id = await api.create("true")
    register = agent_pb2.RegisterRequest(agent_id="a", held=agent_pb2.Held())
    session = await api.agents.Register(register)
    await api.label("a", one="1")
    fetcher = await api.agents.Register(
        agent_pb2.RegisterRequest(agent_id="b", held=agent_pb2.Held(), max_concurrent_jobs=1)
    )
    taken = await api.agents.FetchTask(
        agent_pb2.FetchTaskRequest(agent_id="b", session_id=fetcher.session_id)
    )
    assert [task.job_id for task in taken.tasks] == [task_id]
    fetch = agent_pb2.FetchTaskRequest(agent_id="b", session_id=fetcher.session_id, wait=60)
    async with asyncio.TaskGroup() as held:
        waiting = held.create_task(fetched(api, fetch))
        reading = held.create_task(follow(api, task_id))
        hearing = held.create_task(status_follow(api, task_id))
        talking = held.create_task(channel(api, "a", session.session_id))
        overall, watched = [], []
        held.create_task(watch(api.channel, "", overall))
        held.create_task(watch(api.channel, "task.v1.TaskService", watched))

        async def all_in():
            _, metrics = await asyncio.to_thread(kit.get, server, "/metrics")
            return overall and watched and open_streams(metrics) == 3

        await soon(all_in)
        began = time.monotonic()
        server.program.signal(number)
    assert list(waiting.result().tasks) == []
    assert reading.result() is grpc.StatusCode.UNAVAILABLE
    assert hearing.result() is grpc.StatusCode.UNAVAILABLE
    assert talking.result() is grpc.StatusCode.UNAVAILABLE
    assert overall == watched == [SERVING, NOT_SERVING]
    assert await asyncio.to_thread(server.program.wait) == 0
    assert time.monotonic() - began < 5
    assert "Traceback" not in server.program.complained()


def open_streams(metrics: str) -> int:
    return sum(
        int(float(line.rpartition(" ")[2]))
        for line in metrics.splitlines()
        if line.startswith("muster_streams_open{")
    )


def test_an_idle_server_with_agents_stops_at_once(kit, server):
    kit.start_agent(server)
    began = time.monotonic()
    assert server.terminate() == 0
    assert time.monotonic() - began < 3


def lines_of(outcome):
    """Return what a program said, but for the word that it asks nobody who they are."""
    return [line for line in outcome.stderr.strip().splitlines() if "auth is off" not in line]


def test_a_second_server_on_the_same_data_is_refused_by_name(kit, server):
    listen = ["--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
    outcome = kit.launcher.run([*SERVER, "--data-dir", str(server.data_dir), *listen])
    assert (outcome.returncode, outcome.stdout) == (1, "")
    [line] = lines_of(outcome)
    told = json.loads(line)
    assert str(server.data_dir / "muster.db") in told["reason"]
    assert "in use by another muster-server" in told["reason"]
    assert kit.cli("ping", server=server).returncode == 0


@pytest.mark.parametrize("flag", ["--grpc-listen", "--http-listen"])
def test_a_port_that_is_taken_is_told_in_one_line(kit, server, flag):
    taken = server.grpc if flag == "--grpc-listen" else server.http
    listen = {"--grpc-listen": "127.0.0.1:0", "--http-listen": "127.0.0.1:0", flag: taken}
    words = [word for pair in listen.items() for word in pair]
    outcome = kit.launcher.run([*SERVER, "--data-dir", str(kit.folder / "second"), *words])
    assert (outcome.returncode, outcome.stdout) == (1, "")
    [line] = lines_of(outcome)
    assert taken in json.loads(line)["reason"]
    assert "Traceback" not in line


def test_a_folder_that_cannot_be_written_is_told_in_one_line_before_anything_is_served(kit):
    (kit.folder / "file").touch()
    place = str(kit.folder / "file" / "archive")
    words = ["--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
    data = str(kit.folder / "third")
    outcome = kit.launcher.run([*SERVER, "--data-dir", data, "--log-archive", place, *words])
    assert (outcome.returncode, outcome.stdout) == (1, "")
    [line] = lines_of(outcome)
    assert json.loads(line)["reason"] == f"cannot write to --log-archive {place}: Not a directory"


def test_beyond_this_machine_it_listens_only_when_that_is_said_and_then_loudly(kit):
    words = ["--grpc-listen", "0.0.0.0:0", "--http-listen", "127.0.0.1:0"]
    outcome = kit.launcher.run([*SERVER, "--data-dir", str(kit.folder / "open"), *words])
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert "--insecure" in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert not (kit.folder / "open").exists()
    program = kit.launcher.start(
        "insecure", [*SERVER, "--data-dir", str(kit.folder / "open"), *words, "--insecure"]
    )
    assert program.ready_line().startswith("ready grpc=0.0.0.0:")
    warning = json.loads(program.complained().splitlines()[0])
    assert warning["level"] == "warning"
    assert "EVERYBODY" in warning["message"]
    assert program.terminate() == 0


async def test_the_same_data_serves_again_after_a_graceful_stop(kit, server):
    agent = kit.start_agent(server)
    async with Api(server.grpc) as api:
        task_id = await api.create("echo kept")
        await api.ended(task_id)
    server.restart()
    async with Api(server.grpc) as api:
        assert await api.text(task_id) == ["kept"]
        assert (await api.ended(await api.create("true"))).attempt == 1
    assert agent.terminate() == 0


def test_health_pages_tell_how_it_is(kit, server):
    assert kit.get(server, "/livez")[0] == 200
    assert kit.get(server, "/readyz")[0] == 200
    status, metrics = kit.get(server, "/metrics")
    assert status == 200
    assert "muster_" in metrics
    assert kit.get(server, "/nowhere")[0] == 404
