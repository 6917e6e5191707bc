"""Whoever asks too much is told so, and others go on."""

import socket
import time

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from generated.stream.v1 import stream_pb2, stream_pb2_grpc
from generated.task.v1 import task_pb2, task_pb2_grpc
from tests.e2e.kit import eventually


@pytest.fixture(scope="module")
def server(shared):
    limits = ("--rate-limit", "20", "--rate-burst", "10", "--stream-limit", "2")
    return shared.start_server(*limits, "--queue-limit", "3")


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


def refused(call):
    """Return the first refusal of a call that is made again and again."""
    for _ in range(100):
        try:
            call()
        except grpc.RpcError as error:
            return error
    raise AssertionError("nothing was refused")


def details(error):
    found = {}
    for packed in rpc_status.from_call(error).details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo):
            if packed.Is(kind.DESCRIPTOR):
                found[kind] = kind()
                packed.Unpack(found[kind])
    return found


def patient(call):
    """Return the answer to a call that waits as long as it is told to."""
    for _ in range(50):
        try:
            return call()
        except grpc.RpcError as error:
            told = details(error)
            if "You may call" not in error.details():
                raise
            time.sleep(told[error_details_pb2.RetryInfo].retry_delay.ToTimedelta().total_seconds())
    raise AssertionError("it never passed")


def test_a_caller_that_is_too_fast_is_told_how_long_to_wait(channel):
    stub = task_pb2_grpc.TaskServiceStub(channel)
    error = refused(lambda: stub.Ping(task_pb2.PingRequest(), timeout=10))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    told = details(error)
    assert told[error_details_pb2.ErrorInfo].reason == "ERROR_REASON_LIMIT"
    assert patient(lambda: stub.Ping(task_pb2.PingRequest(message="now"), timeout=10))


def test_compressed_messages_are_refused_before_they_are_unpacked(channel):
    error = refused(lambda: compressed_ping(channel))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "'gzip' is disabled" in error.details()


def test_compressed_messages_are_taken_where_the_operator_says_so(shared):
    server = shared.start_server("--accept-compressed", data_dir=shared.folder / "compressed")
    with grpc.insecure_channel(server.grpc) as channel:
        assert compressed_ping(channel).message == "x" * 1000


def compressed_ping(channel):
    request = task_pb2.PingRequest(message="x" * 1000)
    stub = task_pb2_grpc.TaskServiceStub(channel)
    return stub.Ping(request, timeout=10, compression=grpc.Compression.Gzip)


def test_a_full_queue_takes_no_more(channel):
    stub = task_pb2_grpc.TaskServiceStub(channel)
    request = task_pb2.CreateTaskRequest(commands=["true"])
    for _ in range(3):
        patient(lambda: stub.CreateTask(request, timeout=10))
    with pytest.raises(grpc.RpcError) as full:
        patient(lambda: stub.CreateTask(request, timeout=10))
    assert full.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "3 tasks wait in namespace 'default'" in full.value.details()


def test_only_so_many_streams_are_open(shared):
    server = shared.start_server("--stream-limit", "2", data_dir=shared.folder / "streams")
    with grpc.insecure_channel(server.grpc) as channel:
        stub = stream_pb2_grpc.StreamServiceStub(channel)
        calls = [stub.StreamEvents(stream_pb2.StreamEventsRequest()) for _ in range(3)]
        eventually(lambda: any(call.done() for call in calls))
        (third,) = [call for call in calls if call.done()]
        assert third.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "2 streams open" in third.details()
        for call in calls:
            call.cancel()


def test_a_connection_that_sends_no_request_is_closed(server):
    host, port = server.http.rsplit(":", 1)
    began = time.monotonic()
    with socket.create_connection((host, int(port)), timeout=20) as slow:
        slow.sendall(b"GET /livez HTTP/1.1\r\nx: ")
        assert slow.recv(100) == b""
    assert 5 < time.monotonic() - began < 15


def test_a_head_without_an_end_is_refused(server):
    host, port = server.http.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=20) as large:
        large.sendall(b"GET /livez HTTP/1.1\r\nx: " + b"a" * 100_000)
        assert large.recv(100).startswith(b"HTTP/1.1 4")
