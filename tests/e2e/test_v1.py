"""The released API: an agent and a client generated from the contract's table alone."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

import grpc
import pytest

from generated.task.v1 import task_pb2
from tests.e2e.api import Api, refusal, soon, told
from tests.e2e.v1_client import POOL, V1
from tools.contract.table_to_image import read

AGENTS = "agent.v1.AgentService"
PIPELINES = "pipeline.v1.PipelineService"
STREAMS = "stream.v1.StreamService"
TASKS = "task.v1.TaskService"

LEASE = 7.5
RUNNING, SUCCESS, LOST = "TASK_STATUS_RUNNING", "TASK_STATUS_SUCCESS", 7


@pytest.fixture(scope="module")
def server(shared):
    flags = ("--heartbeat-interval", "1", "--kill-grace", "0.5")
    return shared.start_server(*flags, "--lease", f"{LEASE:g}")


@pytest.fixture
async def v1(server) -> AsyncIterator[V1]:
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        yield V1(channel)


class OldAgent:
    """An agent that knows v1 only. Its label gives it the tasks that are meant for it."""

    def __init__(self, v1: V1, name: str) -> None:
        self.v1, self.name = v1, name

    async def register(self) -> dict:
        labels = {"only": self.name.split("-", 1)[0]}
        return await self.say("Register", hostname="old", max_concurrent_jobs=2, labels=labels)

    async def say(self, method: str, **fields) -> dict:
        answer = await self.v1.call(AGENTS, method, {"agent_id": self.name, **fields})
        assert answer["success"]
        assert answer["message"]
        return answer

    async def beat(self) -> None:
        answer = await self.say("Heartbeat", status="AGENT_STATUS_IDLE")
        assert abs(answer["timestamp"] / 1000 - time.time()) < 5

    async def fetch(self) -> list[dict]:
        return (await self.say("FetchTask", max_jobs=1))["tasks"]

    async def status(self, task_id: str, status: str, **fields) -> dict:
        return await self.say("ReportTaskStatus", task_id=task_id, status=status, **fields)

    async def log(self, task_id: str, *lines: str, first: int = 0) -> dict:
        numbers = range(first, first + len(lines)) if first else [0] * len(lines)
        logs = [
            {"content": line, "line_number": number}
            for line, number in zip(lines, numbers, strict=True)
        ]
        return await self.say("ReportTaskLog", task_id=task_id, logs=logs)

    async def beat_for_ever(self) -> None:
        while True:
            await self.beat()
            await asyncio.sleep(LEASE / 6)


@pytest.fixture
async def old(v1, request):
    """An old agent that has registered, alone with its label."""
    agent = OldAgent(v1, request.node.name.replace("test_", "")[:40])
    answer = await agent.register()
    assert (answer["agent_id"], answer["heartbeat_interval"]) == (agent.name, 1)
    return agent


async def create(v1: V1, agent: OldAgent, **fields) -> str:
    selector = {"match_labels": {"only": agent.name.split("-", 1)[0]}}
    request = {"name": "old", "commands": ["run"], "label_selector": selector, **fields}
    return (await v1.call(TASKS, "CreateTask", request))["task_id"]


async def get(v1: V1, task_id: str) -> dict:
    return (await v1.call(TASKS, "GetTask", {"task_id": task_id}))["task"]


async def test_an_old_agent_runs_a_task_from_fetch_to_end(v1: V1, old, api: Api):
    task_id = await create(v1, old, env={"A": "1"}, timeout=77)
    await old.beat()
    [task] = await old.fetch()
    assert (task["job_id"], task["name"], task["commands"]) == (task_id, "old", ["run"])
    assert (task["env"], task["timeout"]) == ({"A": "1"}, 77)
    assert (await get(v1, task_id))["status"] == "TASK_STATUS_QUEUED"
    assert await old.fetch() == []
    await old.status(task_id, RUNNING, start_time=1_700_000_000)
    running = await get(v1, task_id)
    assert (running["status"], running["agent_id"]) == (RUNNING, old.name)
    assert running["started_at"] == 1_700_000_000
    await old.log(task_id, "appended one", "appended two")
    await old.log(task_id, "numbered", first=3)
    await old.log(task_id, "numbered", "appended", first=3)
    await old.status(task_id, SUCCESS, end_time=1_700_000_009)
    ended = await get(v1, task_id)
    assert (ended["status"], ended["duration"]) == (SUCCESS, 9000)
    answers = [
        answer
        async for answer in v1.stream(STREAMS, "StreamTaskLog", {"job_id": task_id, "follow": True})
    ]
    assert [answer["is_complete"] for answer in answers] == [False] * 4 + [True]
    chunks = [answer["log_chunk"] for answer in answers[:-1]]
    assert [chunk["line_number"] for chunk in chunks] == [1, 2, 3, 4]
    expected = ["appended one", "appended two", "numbered", "appended"]
    assert [chunk["content"] for chunk in chunks] == expected
    assert (await api.task(task_id)).attempts[0].log_state == task_pb2.LOG_STATE_COMPLETE


async def test_the_same_end_twice_is_fine_and_another_is_refused(v1: V1, old):
    task_id = await create(v1, old)
    await old.fetch()
    await old.status(task_id, RUNNING)
    for _ in range(2):
        await old.status(task_id, "TASK_STATUS_FAILED", exit_code=3, error_message="broken")
    refused = await refusal(old.status(task_id, SUCCESS))
    assert (refused.code.name, refused.reason) == ("ABORTED", "NOT_LEASE_HOLDER")
    ended = await get(v1, task_id)
    assert (ended["status"], ended["exit_code"]) == ("TASK_STATUS_FAILED", 3)
    assert ended["error_message"] == "broken"


async def test_a_stranger_may_not_speak_about_a_task(v1: V1, old):
    task_id = await create(v1, old)
    await old.fetch()
    stranger = OldAgent(v1, "stranger")
    await stranger.register()
    for words in (
        stranger.status(task_id, SUCCESS),
        stranger.log(task_id, "a lie"),
        stranger.status(task_id, RUNNING),
    ):
        assert (await refusal(words)).code is grpc.StatusCode.ABORTED
    assert (await get(v1, task_id))["status"] == "TASK_STATUS_QUEUED"


async def test_a_restarted_agent_keeps_the_task_it_reports_as_running(v1: V1, old, api: Api):
    task_id = await create(v1, old)
    await old.fetch()
    await old.status(task_id, RUNNING)
    await old.register()
    beating = asyncio.ensure_future(old.beat_for_ever())
    await old.status(task_id, RUNNING)
    registered = time.monotonic()

    async def three_intervals_later():
        return time.monotonic() - registered > LEASE + 1

    await soon(three_intervals_later)
    task = await api.task(task_id)
    assert (task.status, task.attempt, task.infra_retries) == (3, 1, 0)
    await old.status(task_id, SUCCESS)
    task = await api.task(task_id)
    assert (task.status, task.attempt, task.infra_retries) == (4, 1, 0)
    beating.cancel()


async def test_log_lines_keep_a_task_as_well(v1: V1, old, api: Api):
    task_id = await create(v1, old)
    await old.fetch()
    await old.status(task_id, RUNNING)
    await old.register()
    beating = asyncio.ensure_future(old.beat_for_ever())
    await old.log(task_id, "still here")
    registered = time.monotonic()

    async def three_intervals_later():
        return time.monotonic() - registered > LEASE + 1

    await soon(three_intervals_later)
    task = await api.task(task_id)
    assert (task.status, task.attempt) == (3, 1)
    beating.cancel()


async def test_a_task_the_restarted_agent_is_silent_about_runs_elsewhere(v1: V1, old, api: Api):
    task_id = await create(v1, old)
    await old.fetch()
    await old.status(task_id, RUNNING)
    await old.register()
    beating = asyncio.ensure_future(old.beat_for_ever())
    task = await api.reaches(task_id, task_pb2.TASK_STATUS_QUEUED)
    assert (task.attempts[0].status, task.infra_retries) == (LOST, 1)
    assert await old.fetch() == []  # its late report of run 1 must not end run 2
    other = OldAgent(v1, f"{old.name}-two")
    await other.register()
    [again] = await other.fetch()
    assert again["job_id"] == task_id
    await other.status(task_id, RUNNING)
    for late in (old.status(task_id, SUCCESS), old.log(task_id, "late")):
        assert (await refusal(late)).code is grpc.StatusCode.ABORTED
    await other.status(task_id, "TASK_STATUS_FAILED", exit_code=1)
    task = await api.task(task_id)
    assert (task.status, task.attempt, task.agent_id) == (5, 2, other.name)
    beating.cancel()


async def test_a_silent_agent_loses_its_task_and_adopts_it_when_it_comes_back(
    v1: V1, old, api: Api
):
    task_id = await create(v1, old)
    await old.fetch()
    await old.status(task_id, RUNNING)
    task = await api.reaches(task_id, task_pb2.TASK_STATUS_QUEUED)
    assert task.infra_retries == 1
    await old.status(task_id, RUNNING)
    task = await api.task(task_id)
    assert (task.status, task.attempt, task.infra_retries) == (3, 1, 0)
    await old.status(task_id, SUCCESS)
    assert (await api.task(task_id)).status == 4


class Channel:
    """An old agent's stream: frames go out when they are put, answers are read one by one."""

    def __init__(self, agent: OldAgent) -> None:
        self._frames: asyncio.Queue = asyncio.Queue()
        self._agent = agent
        self.answers = agent.v1.stream(STREAMS, "AgentChannel", self._requests())

    async def _requests(self):
        while frame := await self._frames.get():
            yield frame

    def say(self, request_id: str, **payload) -> None:
        frame = {"agent_id": self._agent.name, "request_id": request_id, **payload}
        self._frames.put_nowait(frame)

    def hang_up(self) -> None:
        self._frames.put_nowait(None)

    async def hear(self) -> dict:
        return await anext(self.answers)


async def test_an_old_agents_channel_answers_each_frame_by_its_id(v1: V1, old, api: Api):
    task_id = await create(v1, old)
    channel = Channel(old)
    async with aclosing(channel.answers):
        channel.say("h-1", heartbeat={"status": "AGENT_STATUS_IDLE"})
        answer = await channel.hear()
        assert (answer["agent_id"], answer["response_id"]) == (old.name, "h-1")
        assert answer["heartbeat_ack"]["success"]
        channel.say("f-1", task_fetch={"max_tasks": 5})
        answer = await channel.hear()
        assert answer["response_id"] == "f-1"
        [task] = answer["task_assignment"]["tasks"]
        assert (task["task_id"], task["commands"]) == (task_id, ["run"])
        channel.say("f-2", task_fetch={})
        answer = await channel.hear()
        assert (answer["response_id"], answer["task_assignment"]["tasks"]) == ("f-2", [])
        channel.say("s-1", task_status={"task_id": task_id, "status": RUNNING})
        channel.say("l-1", log_data={"job_id": task_id, "logs": [{"content": "over the stream"}]})
        channel.say("m-1", metrics={"cpu_usage": 12.5})
        assert await api.runs(task_id)
        await v1.call(TASKS, "CancelTask", {"task_id": task_id, "reason": "enough"})
        answer = await channel.hear()
        command = answer["task_cancel_command"]
        assert (command["task_id"], command["reason"]) == (task_id, "enough")
        channel.say("s-2", task_status={"task_id": task_id, "status": "TASK_STATUS_CANCELLED"})
        await api.ended(task_id)
        assert await api.text(task_id) == ["over the stream"]
        channel.hang_up()
        with pytest.raises(StopAsyncIteration):
            await channel.hear()
    assert (await get(v1, task_id))["status"] == "TASK_STATUS_CANCELLED"


async def test_lines_are_uploaded_in_one_call_of_many_messages(v1: V1, old):
    task_id = await create(v1, old)
    await old.fetch()
    await old.status(task_id, RUNNING)

    def message(*numbers):
        logs = [{"content": f"line {n}", "line_number": n, "stream": "stderr"} for n in numbers]
        return {"task_id": task_id, "agent_id": old.name, "logs": logs}

    answer = await v1.send(STREAMS, "UploadTaskLog", [message(1, 2), message(3), message(2, 3, 4)])
    assert (answer["success"], answer["received_lines"]) == (True, 6)
    log = await v1.call(TASKS, "GetTaskLog", {"task_id": task_id, "offset": 1, "limit": 2})
    assert [line["content"] for line in log["logs"]] == ["line 2", "line 3"]
    assert (log["total_lines"], log["has_more"]) == (4, True)
    assert {line["level"] for line in log["logs"]} == {"error"}
    refused = await refusal(v1.send(STREAMS, "UploadTaskLog", [message(9)]))
    assert (refused.code.name, refused.reason) == ("FAILED_PRECONDITION", "LOG_GAP")


# ---- every RPC of the table, at least once


class World:
    """What there is for the calls below to be about: each kind of thing, in each useful state."""

    def __init__(self, v1: V1) -> None:
        self.v1 = v1
        self.agent = OldAgent(v1, "world")

    async def make(self) -> None:
        await self.agent.register()
        self.running = await create(self.v1, self.agent)
        [_] = await self.agent.fetch()
        await self.agent.status(self.running, RUNNING)
        self.waiting = [await create(self.v1, OldAgent(self.v1, "nobody")) for _ in range(3)]
        self.ended = self.waiting.pop()
        await self.v1.call(TASKS, "CancelTask", {"task_id": self.ended})
        stages = [{"name": "s", "jobs": [{"name": "j", "commands": ["true"]}]}]
        definition = {"name": "world", "stages": stages}
        answer = await self.v1.call(PIPELINES, "CreatePipeline", definition)
        self.pipeline = answer["pipeline_id"]


NOTHING_THERE = grpc.StatusCode.NOT_FOUND

# Each with a request that is right, and what in the answer shows that it was.
CALLS = {
    (AGENTS, "Register"): (lambda w: {"agent_id": "newcomer"}, "agent_id"),
    (AGENTS, "Heartbeat"): (lambda w: {"agent_id": "world"}, "timestamp"),
    (AGENTS, "FetchTask"): (lambda w: {"agent_id": "world"}, "message"),
    (AGENTS, "ReportTaskStatus"): (
        lambda w: {"agent_id": "world", "task_id": w.running, "status": RUNNING},
        "success",
    ),
    (AGENTS, "ReportTaskLog"): (
        lambda w: {"agent_id": "world", "task_id": w.running, "logs": [{"content": "x"}]},
        "success",
    ),
    (AGENTS, "CancelTask"): (lambda w: {"agent_id": "world", "job_id": w.running}, "success"),
    (AGENTS, "UpdateLabels"): (lambda w: {"agent_id": "world", "labels": {"a": "b"}}, "labels"),
    (AGENTS, "Unregister"): (lambda w: {"agent_id": "world", "reason": "bye"}, "success"),
    (AGENTS, "DownloadPlugin"): (lambda w: {"agent_id": "world", "plugin_id": "p"}, NOTHING_THERE),
    (AGENTS, "ListAvailablePlugins"): (lambda w: {"agent_id": "world"}, "plugins"),
    (TASKS, "Ping"): (lambda w: {}, "timestamp"),
    (TASKS, "CreateTask"): (lambda w: {"commands": ["true"]}, "task_id"),
    (TASKS, "GetTask"): (lambda w: {"task_id": w.running}, "task"),
    (TASKS, "ListTasks"): (lambda w: {"page": 1, "page_size": 2, "sort_by": "name"}, "total"),
    (TASKS, "UpdateTask"): (lambda w: {"task_id": w.waiting[0], "name": "renamed"}, "success"),
    (TASKS, "DeleteTask"): (lambda w: {"task_id": w.waiting[0]}, "success"),
    (TASKS, "CancelTask"): (lambda w: {"task_id": w.waiting[1]}, "success"),
    (TASKS, "RetryTask"): (lambda w: {"task_id": w.ended}, "new_task_id"),
    (TASKS, "GetTaskLog"): (lambda w: {"task_id": w.running}, "message"),
    (TASKS, "ListTaskArtifacts"): (lambda w: {"task_id": w.running}, "success"),
    (PIPELINES, "Ping"): (lambda w: {"message": "hello"}, "message"),
    (PIPELINES, "CreatePipeline"): (
        lambda w: {
            "name": "another",
            "stages": [{"name": "s", "jobs": [{"name": "j", "commands": ["true"]}]}],
        },
        "pipeline_id",
    ),
    (PIPELINES, "GetPipeline"): (lambda w: {"pipeline_id": w.pipeline}, "pipeline"),
    (PIPELINES, "ListPipelines"): (lambda w: {}, "total"),
    (PIPELINES, "TriggerPipeline"): (lambda w: {"pipeline_id": w.pipeline}, "job_ids"),
    (PIPELINES, "StopPipeline"): (lambda w: {"pipeline_id": w.pipeline}, "success"),
    (STREAMS, "Ping"): (lambda w: {}, "timestamp"),
    (STREAMS, "UploadTaskLog"): (
        lambda w: [{"task_id": w.running, "agent_id": "world", "logs": [{"content": "y"}]}],
        "received_lines",
    ),
    (STREAMS, "StreamTaskLog"): (lambda w: {"job_id": w.running}, "log_chunk"),
    (STREAMS, "StreamTaskStatus"): (lambda w: {"task_ids": [w.running]}, "status"),
    (STREAMS, "AgentChannel"): (
        lambda w: [{"agent_id": "world", "heartbeat": {}}],
        "heartbeat_ack",
    ),
    (STREAMS, "StreamPipelineStatus"): (lambda w: {}, "run_id"),
    (STREAMS, "StreamAgentStatus"): (lambda w: {}, "status"),
    (STREAMS, "StreamEvents"): (lambda w: {}, "title"),
}
LAST = [(AGENTS, "CancelTask"), (AGENTS, "Unregister")]


def test_the_calls_below_are_those_of_the_table():
    assert CALLS.keys() == {(row.owner, row.name) for row in read() if row.kind == "rpc"}


async def first_answer(v1: V1, service: str, method: str, request) -> dict:
    found = POOL.FindServiceByName(service).methods_by_name[method]
    if found.server_streaming:
        async with aclosing(v1.stream(service, method, request)) as answers:
            return await anext(answers)
    if found.client_streaming:
        return await v1.send(service, method, request)
    return await v1.call(service, method, request)


async def answer_while_things_happen(v1: V1, world: World, answer) -> dict:
    """Return an answer that comes only when something happens."""

    async def happen():
        while True:
            await v1.call(PIPELINES, "TriggerPipeline", {"pipeline_id": world.pipeline})
            await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as group:
        happening = group.create_task(happen())
        try:
            return await answer
        finally:
            happening.cancel()


async def test_every_rpc_of_the_table_answers(v1: V1):
    world = World(v1)
    await world.make()
    for (service, method), (request, expected) in sorted(
        CALLS.items(), key=lambda call: (call[0] in LAST, list(CALLS).index(call[0]))
    ):
        what = f"{service}.{method}"
        try:
            call = first_answer(v1, service, method, request(world))
            if method in ("StreamEvents", "StreamPipelineStatus"):
                answer = await answer_while_things_happen(v1, world, call)
            else:
                answer = await call
        except grpc.aio.AioRpcError as error:
            refused = told(error)
            assert refused.code is expected, f"{what}: {refused}"
            assert refused.message == "There is no plugin 'p'."
        else:
            assert expected is not NOTHING_THERE, f"{what} answered {answer}"
            assert answer[expected], f"{what}: {answer}"
