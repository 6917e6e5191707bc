"""Who follows what cannot come any more is let go."""

import grpc
import pytest

from generated.stream.v1 import stream_pb2
from generated.task.v1 import task_pb2
from tests.e2e.api import TIMEOUT, Api, refusal


@pytest.fixture(scope="module")
def server(shared):
    return shared.start_server()


async def test_who_follows_the_status_of_a_waiting_task_is_let_go_when_it_is_deleted(api: Api):
    task_id = await api.create("true", label_selector={"match_labels": {"nobody": "has-it"}})
    request = stream_pb2.StreamTaskStatusRequest(task_ids=[task_id])
    changes = api.streams.StreamTaskStatus(request, timeout=TIMEOUT)
    first = await changes.read()
    assert first.status == task_pb2.TASK_STATUS_QUEUED
    await api.tasks.DeleteTask(task_pb2.DeleteTaskRequest(task_id=task_id))
    assert await changes.read() is grpc.aio.EOF


async def test_a_cursor_beyond_the_last_event_is_refused(api: Api):
    """As after a restore: nothing would ever come after it."""
    task_id = await api.create("true", label_selector={"match_labels": {"nobody": "has-it"}})
    request = stream_pb2.StreamTaskStatusRequest(task_ids=[task_id], after="999999999")
    refused = await refusal(api.streams.StreamTaskStatus(request, timeout=TIMEOUT).read())
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refused.fields) == ["after"]
