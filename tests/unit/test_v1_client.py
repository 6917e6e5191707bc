"""The v1 client against today's generated services: each kind of call, and what it cannot say."""

import grpc
import pytest
from google.protobuf.json_format import ParseError

from generated.stream.v1 import stream_pb2, stream_pb2_grpc
from generated.task.v1 import task_pb2, task_pb2_grpc
from tests.e2e.v1_client import V1

TASKS = "task.v1.TaskService"
STREAMS = "stream.v1.StreamService"


class Tasks(task_pb2_grpc.TaskServiceServicer):
    async def GetTask(self, request, context):  # noqa: N802 (the API's name)
        detail = task_pb2.TaskDetail(
            task_id=request.task_id,
            status=task_pb2.TASK_STATUS_RUNNING,
            env={"A": "1"},
            created_at=2**53 + 1,
            attempt=7,
        )
        return task_pb2.GetTaskResponse(success=True, task=detail)


class Streams(stream_pb2_grpc.StreamServiceServicer):
    async def StreamTaskLog(self, request, context):  # noqa: N802 (the API's name)
        for number in range(request.from_line, request.from_line + 3):
            yield stream_pb2.StreamTaskLogResponse(
                task_id=request.job_id, log_chunk=stream_pb2.LogChunk(line_number=number)
            )

    async def UploadTaskLog(self, request_iterator, context):  # noqa: N802 (the API's name)
        chunks = [chunk async for request in request_iterator for chunk in request.logs]
        return stream_pb2.UploadTaskLogResponse(success=True, received_lines=len(chunks))

    async def AgentChannel(self, request_iterator, context):  # noqa: N802 (the API's name)
        async for request in request_iterator:
            yield stream_pb2.AgentChannelResponse(response_id=request.request_id)


@pytest.fixture
async def v1():
    server = grpc.aio.server()
    task_pb2_grpc.add_TaskServiceServicer_to_server(Tasks(), server)
    stream_pb2_grpc.add_StreamServiceServicer_to_server(Streams(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield V1(channel)
    await server.stop(None)


async def test_a_unary_call_answers_with_the_tables_fields_and_no_others(v1):
    task = (await v1.call(TASKS, "GetTask", {"task_id": "t-1"}))["task"]
    assert task["task_id"] == "t-1"
    assert task["status"] == "TASK_STATUS_RUNNING"
    assert task["env"] == {"A": "1"}
    assert task["created_at"] == 2**53 + 1
    assert task["agent_id"] == ""
    assert "attempt" not in task


async def test_a_server_stream_is_read_as_it_comes(v1):
    request = {"job_id": "t-1", "from_line": 5}
    chunks = [answer["log_chunk"] async for answer in v1.stream(STREAMS, "StreamTaskLog", request)]
    assert [chunk["line_number"] for chunk in chunks] == [5, 6, 7]


async def test_a_client_stream_has_one_answer(v1):
    requests = [{"logs": [{"content": "a"}, {"content": "b"}]}, {"logs": [{"content": "c"}]}]
    assert (await v1.send(STREAMS, "UploadTaskLog", requests))["received_lines"] == 3


async def test_a_channel_goes_both_ways(v1):
    async def requests():
        for name in ("r-1", "r-2"):
            yield {"request_id": name, "heartbeat": {}}

    answers = v1.stream(STREAMS, "AgentChannel", requests())
    assert [answer["response_id"] async for answer in answers] == ["r-1", "r-2"]


async def test_it_cannot_say_what_v1_did_not_know(v1):
    with pytest.raises(ParseError, match="request_id"):
        await v1.call(TASKS, "CreateTask", {"request_id": "ours"})


async def test_a_refusal_keeps_its_code(v1):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await v1.call(TASKS, "DeleteTask", {"task_id": "t-1"})
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
