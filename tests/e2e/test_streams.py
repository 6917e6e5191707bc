"""Streams over events: what happens is told as it happens, and again after a break."""

import asyncio
import sys

import grpc
import pytest

from generated.agent.v1 import agent_pb2
from generated.pipeline.v1 import pipeline_pb2
from generated.stream.v1 import stream_pb2
from tests.e2e.api import RUN_ENDED, Api, soon, told
from tests.postgres import PostgresServer

NOBODY = "99999999-0000-7000-8000-000000000000"
E = stream_pb2
STATUS = stream_pb2.AgentStatus


@pytest.fixture(scope="module")
def server(shared):
    return shared.start_server()


@pytest.fixture(scope="module")
def agent(shared, server):
    shared.start_agent(server, labels={"role": "here"}, slots=2)


async def listen(call, heard, enough):
    """Note what a stream says until it is enough, and hang up."""
    async for answer in call:
        heard.append(answer)
        if enough(answer):
            break
    call.cancel()
    return heard


def events(api, namespace="default", **asked):
    metadata = [("muster-namespace", namespace)]
    request = stream_pb2.StreamEventsRequest(**asked)
    return api.streams.StreamEvents(request, timeout=60, metadata=metadata)


async def begun(call):
    """Return a batched stream's first message, which comes at once."""
    return await anext(aiter(call))


async def test_v1_readers_get_one_event_a_message_in_order(api, agent):
    listening = events(api, batched=True)
    await begun(listening)  # the server has our place in its order from here on
    listening.cancel()
    call = events(api, after=(await begun(events(api, batched=True))).cursor)
    task_id = await api.create("true", name="seen")
    heard = await listen(
        call, [], lambda e: (e.resource_id, e.event_type) == (task_id, E.EVENT_TYPE_JOB_COMPLETED)
    )
    mine = [each for each in heard if each.resource_id == task_id]
    assert [each.event_type for each in mine] == [
        E.EVENT_TYPE_JOB_CREATED,
        E.EVENT_TYPE_JOB_STARTED,
        E.EVENT_TYPE_JOB_COMPLETED,
    ]
    assert [each.title for each in mine] == [
        "Task seen was submitted",
        "Task seen runs",
        "Task seen succeeded",
    ]
    created, started, completed = mine
    assert {each.resource_type for each in mine} == {"task"}
    assert created.user_id == "anonymous"
    assert started.metadata["previous_status"] == "QUEUED"
    assert started.metadata["attempt"] == "1"
    assert completed.metadata["exit_code"] == "0"
    assert completed.metadata["agent_id"] == started.metadata["agent_id"]
    cursors = [int(each.cursor) for each in heard]
    assert cursors == sorted(set(cursors))


async def test_who_comes_back_with_a_cursor_gets_exactly_the_rest(api, agent):
    place = (await begun(events(api, batched=True))).cursor
    task_id = await api.create("exit 3")
    await api.ended(task_id)
    everything = await listen(
        events(api, after=place, resource_ids=[task_id]), [], lambda e: "FAILED" in str(e.metadata)
    )
    assert len(everything) == 3
    for cut, last in enumerate(everything[:-1]):
        rest = await listen(
            events(api, after=last.cursor, resource_ids=[task_id], batched=True),
            [],
            lambda e: bool(e.events) and e.events[-1] == everything[-1],
        )
        assert [each for answer in rest for each in answer.events] == everything[cut + 1 :]


async def test_other_namespaces_hear_nothing(api, agent):
    place = (await begun(events(api, batched=True))).cursor
    task_id = await api.create("true")
    await api.ended(task_id)
    metadata = [("muster-namespace", "other")]
    foreign = events(api, "other", after=place)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await begun(foreign)
    foreign.cancel()
    request = stream_pb2.StreamAgentStatusRequest()
    agents = api.streams.StreamAgentStatus(request, timeout=60, metadata=metadata)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await begun(agents)
    agents.cancel()


def job(name, script, **fields):
    return pipeline_pb2.Job(name=name, commands=[script], **fields)


async def test_a_run_is_told_with_counts_and_again_after_a_cursor(api, agent):
    stages = [
        pipeline_pb2.Stage(name="one", parallel=True, jobs=[job("a", "true"), job("b", "true")]),
        pipeline_pb2.Stage(name="two", jobs=[job("c", "exit 1", allow_failure=True)]),
    ]
    pipeline_id = await api.define("told", stages)
    following = api.streams.StreamPipelineStatus(
        E.StreamPipelineStatusRequest(pipeline_ids=[pipeline_id], after=await place_of(api)),
        timeout=60,
    )
    run_id = await api.trigger(pipeline_id)
    heard = await listen(following, [], lambda each: each.status in RUN_ENDED)
    first, last = heard[0], heard[-1]
    assert {(each.pipeline_name, each.run_id, each.total_jobs) for each in heard} == {
        ("told", run_id, 3)
    }
    assert (first.status, first.previous_status) == (pipeline_pb2.PIPELINE_STATUS_PENDING, 0)
    assert last.status == pipeline_pb2.PIPELINE_STATUS_PARTIAL
    assert last.previous_status == pipeline_pb2.PIPELINE_STATUS_RUNNING
    assert (last.completed_jobs, last.failed_jobs, last.running_jobs) == (3, 1, 0)
    assert (last.current_stage, last.total_stages) == (2, 2)
    assert last.duration > 0
    assert [each.completed_jobs for each in heard] == sorted(each.completed_jobs for each in heard)
    assert max(each.running_jobs for each in heard) in (1, 2)
    # The same again, from the middle, by the run's id: the stream ends with the run.
    middle = len(heard) // 2
    request = E.StreamPipelineStatusRequest(run_ids=[run_id], after=heard[middle].cursor)
    again = [each async for each in api.streams.StreamPipelineStatus(request, timeout=60)]
    assert again == heard[middle + 1 :]
    standing = E.StreamPipelineStatusRequest(run_ids=[run_id])
    (only,) = [each async for each in api.streams.StreamPipelineStatus(standing, timeout=60)]
    assert (only.status, only.completed_jobs, only.previous_status) == (last.status, 3, 0)


async def place_of(api):
    call = events(api, batched=True)
    cursor = (await begun(call)).cursor
    call.cancel()
    return cursor


async def test_an_agent_is_told_as_it_comes_works_and_goes(shared, server, api, gate):
    place = await place_of(api)
    worker = shared.start_agent(server, "--name", "told-1", labels={"only": "told"}, slots=1)
    call = api.streams.StreamAgentStatus(
        E.StreamAgentStatusRequest(agent_ids=["told-1"]), timeout=60
    )
    answers = aiter(call)
    first = await anext(answers)
    assert (first.status, first.previous_status) == (STATUS.AGENT_STATUS_IDLE, 0)
    assert (first.labels["only"], first.max_concurrent_jobs) == ("told", 1)
    selector = {"match_labels": {"only": "told"}}
    await api.create(gate.wait, label_selector=selector)
    busy = await anext(answers)
    assert (busy.status, busy.running_jobs_count) == (STATUS.AGENT_STATUS_BUSY, 1)
    gate.open()
    idle = await anext(answers)
    assert (idle.status, idle.previous_status) == (first.status, busy.status)
    worker.terminate()
    gone = await anext(answers)
    while gone.status != STATUS.AGENT_STATUS_OFFLINE:
        gone = await anext(answers)
    call.cancel()
    # Who comes back later hears that it came and went, then how it stands.
    later = E.StreamAgentStatusRequest(agent_ids=["told-1"], after=place)
    heard = await listen(
        api.streams.StreamAgentStatus(later, timeout=60),
        [],
        lambda each: each.status == each.previous_status == STATUS.AGENT_STATUS_OFFLINE,
    )
    assert heard[0].status == STATUS.AGENT_STATUS_IDLE
    assert gone.cursor in [each.cursor for each in heard]


async def test_measurements_that_come_with_a_report_are_told_with_the_change(api):
    agents = api.agents
    labels = {"only": "measuring"}
    register = agent_pb2.RegisterRequest(agent_id="measuring", labels=labels)
    await agents.Register(register, timeout=60)
    task_id = await api.create("true", label_selector={"match_labels": labels})
    fetch = agent_pb2.FetchTaskRequest(agent_id="measuring", max_jobs=1, wait=30)
    assert [t.job_id for t in (await agents.FetchTask(fetch, timeout=60)).tasks] == [task_id]
    report = agent_pb2.ReportTaskStatusRequest(
        agent_id="measuring", task_id=task_id, status=3, metrics={"peak_memory_bytes": "1024"}
    )
    await agents.ReportTaskStatus(report, timeout=60)
    report.status, report.metrics["peak_memory_bytes"] = 4, "2048"
    await agents.ReportTaskStatus(report, timeout=60)
    history = (await api.history([task_id]))[task_id]
    assert [dict(each.metrics) for each in history] == [
        {},
        {"peak_memory_bytes": "1024"},
        {"peak_memory_bytes": "2048"},
    ]


CALLS = {
    "unknown type": ("StreamEvents", {"event_types": [99]}, {"event_types[0]"}),
    "unknown kind": ("StreamEvents", {"resource_types": ["host"]}, {"resource_types[0]"}),
    "bad cursor": ("StreamEvents", {"after": "x"}, {"after"}),
    "both ends": ("StreamEvents", {"after": "1", "from_oldest": True}, {"from_oldest"}),
    "many ids": ("StreamEvents", {"resource_ids": ["x"] * 1001}, {"resource_ids"}),
    "far cursor": ("StreamEvents", {"after": "99999999"}, {"after"}),
    "many runs": ("StreamPipelineStatus", {"run_ids": ["x"] * 1001}, {"run_ids"}),
    "bad run cursor": ("StreamPipelineStatus", {"after": "-1"}, {"after"}),
    "many agents": ("StreamAgentStatus", {"agent_ids": ["x"] * 1001}, {"agent_ids"}),
    "bad agent cursor": ("StreamAgentStatus", {"after": "1" * 19}, {"after"}),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_malformed_request_is_refused_with_the_fields_path(api, name):
    method, asked, fields = CALLS[name]
    request = getattr(E, f"{method}Request")(**asked)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await begun(getattr(api.streams, method)(request, timeout=60))
    refusal = told(caught.value)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields.keys() == fields


@pytest.mark.parametrize(
    ("method", "asked"),
    [
        ("StreamPipelineStatus", {"pipeline_ids": [NOBODY]}),
        ("StreamPipelineStatus", {"run_ids": [NOBODY]}),
        ("StreamAgentStatus", {"agent_ids": [NOBODY]}),
    ],
)
async def test_what_does_not_exist_is_not_found(api, method, asked):
    request = getattr(E, f"{method}Request")(**asked)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await begun(getattr(api.streams, method)(request, timeout=60))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_what_is_not_kept_any_more_is_out_of_range_with_the_oldest_cursor(kit):
    server = kit.start_server("--event-retention-count", "5")
    async with Api(server.grpc) as api:
        for _ in range(20):
            await api.create("true")
    server.restart()
    await soon(lambda: logged(server, '"pruned"'))
    server.restart()  # else it would still remember
    async with Api(server.grpc) as api:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await begun(events(api, after="3"))
        refusal = told(caught.value)
        assert (refusal.code, refusal.reason) == (
            grpc.StatusCode.OUT_OF_RANGE,
            "CURSOR_EXPIRED",
        )
        oldest = refusal.metadata["oldest_cursor"]
        assert refusal.message.endswith(f"the oldest cursor that works is {oldest}.")
        call = events(api, after=oldest)
        assert (await begun(call)).cursor == str(int(oldest) + 1)
        call.cancel()
        request = E.StreamTaskStatusRequest(task_ids=[await api.create("true")], after="3")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await begun(api.streams.StreamTaskStatus(request, timeout=60))
        assert caught.value.code() is grpc.StatusCode.OUT_OF_RANGE


async def logged(server, text):
    return text in server.stderr.read_text()


@pytest.fixture(scope="module")
def postgres():
    server = PostgresServer()
    yield server
    server.stop()


async def test_a_folder_of_blobs_serves_one_database(postgres, kit):
    urls = [
        postgres.url(await postgres.create()).render_as_string(hide_password=False) for _ in "ab"
    ]
    flags = ["--log-blobs", str(kit.folder / "blobs"), "--database-url"]
    for name in ("s1", "s2"):
        kit.start_server(*flags, urls[0], data_dir=kit.folder / name)
    words = ["--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
    outcome = kit.launcher.run([sys.executable, "-m", "server", *flags, urls[1], *words])
    assert outcome.returncode == 1
    assert f"{kit.folder / 'blobs'} belongs to another database" in outcome.stderr


async def test_two_servers_on_one_database_tell_the_same(postgres, kit):
    url = postgres.url(await postgres.create()).render_as_string(hide_password=False)
    flags = ["--database-url", url]
    one, two = (kit.start_server(*flags, data_dir=kit.folder / name) for name in ("s1", "s2"))
    kit.start_agent(two, "--name", "shared-1")
    async with Api(one.grpc) as here, Api(two.grpc) as there:
        calls = [events(api, after="0") for api in (here, there)]
        watching = here.streams.StreamAgentStatus(E.StreamAgentStatusRequest(), timeout=60)
        seen = aiter(watching)
        assert (await anext(seen)).agent_id == "shared-1"
        task_id = await here.create("true")
        stories = [
            await listen(call, [], lambda e: e.event_type == E.EVENT_TYPE_JOB_COMPLETED)
            for call in calls
        ]
        assert stories[0] == stories[1]
        assert task_id in {each.resource_id for each in stories[0]}
        assert (await anext(seen)).running_jobs_count == 1
        assert (await anext(seen)).running_jobs_count == 0
        watching.cancel()
