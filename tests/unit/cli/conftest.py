"""A control plane in this process that does what a test tells it to."""
# ruff: noqa: N802 - method names come from the .proto files

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from cli.__main__ import run
from generated.agent.v1 import agent_pb2, agent_pb2_grpc
from generated.hook.v1 import hook_pb2_grpc
from generated.pipeline.v1 import pipeline_pb2, pipeline_pb2_grpc
from generated.schedule.v1 import schedule_pb2_grpc
from generated.secret.v1 import secret_pb2_grpc
from generated.stream.v1 import stream_pb2, stream_pb2_grpc
from generated.task.v1 import task_pb2, task_pb2_grpc


@dataclass
class Outcome:
    """What one run of the command gave."""

    code: int
    out: str
    err: str


@dataclass
class ControlPlane:
    """What the fake has heard, and what it is told to answer."""

    address: str = ""
    heard: list = field(default_factory=list)
    metadata: list = field(default_factory=list)
    refusals: dict = field(default_factory=dict)
    answers: dict = field(default_factory=dict)
    lines: list = field(default_factory=list)
    cuts: list = field(default_factory=list)
    changes: list = field(default_factory=list)
    """What StreamTaskStatus says; a text in it cuts the connection with that."""
    end: task_pb2.TaskDetail = field(
        default_factory=lambda: task_pb2.TaskDetail(status=task_pb2.TASK_STATUS_SUCCESS)
    )
    ends_when: threading.Event | None = None
    after_line: dict = field(default_factory=dict)
    on_cancel: object = None
    log_state: int = task_pb2.LOG_STATE_COMPLETE

    def refuse(self, method, code, text, *details):
        """Answer a method with an error, `google.rpc` details and all."""
        self.refusals[method] = status_pb2.Status(
            code=code, message=text, details=[_packed(detail) for detail in details]
        )

    def prints(self, *texts, stream="stdout", attempt=1):
        """Let the task print lines."""
        for text in texts:
            number = sum(1 for a, _ in self.lines if a == attempt) + 1
            line = stream_pb2.LogChunk(line_number=number, content=text, stream=stream)
            self.lines.append((attempt, line))

    def ends(self, status, **fields):
        """Let the task end so."""
        self.end = task_pb2.TaskDetail(status=status, **fields)

    def of(self, kind):
        """Return the requests of a kind that were heard."""
        return [request for request in self.heard if isinstance(request, kind)]


def _packed(message):
    packed = Any()
    packed.Pack(message)
    return packed


class Tasks(task_pb2_grpc.TaskServiceServicer):
    def __init__(self, plane):
        self.plane = plane

    def CreateTask(self, request, context):
        self.plane.heard.append(request)
        return task_pb2.CreateTaskResponse(success=True, task_id="task-1")

    def GetTask(self, request, context):
        self.plane.heard.append(request)
        task = task_pb2.TaskDetail()
        task.CopyFrom(self.plane.end)
        task.task_id = request.task_id
        ends_when = self.plane.ends_when
        if ends_when is not None and not ends_when.is_set():
            task.status = task_pb2.TASK_STATUS_QUEUED
            task.waiting_reason = "no agent has label gpu=yes"
        return task_pb2.GetTaskResponse(success=True, task=task)

    def CancelTask(self, request, context):
        self.plane.heard.append(request)
        if self.plane.on_cancel:
            self.plane.on_cancel()
        elif self.plane.ends_when:
            self.plane.ends_when.set()
        return task_pb2.CancelTaskResponse(success=True, message="its agent is told")


class Streams(stream_pb2_grpc.StreamServiceServicer):
    def __init__(self, plane):
        self.plane = plane

    def StreamTaskLog(self, request, context):
        plane = self.plane
        plane.heard.append(request)
        attempt = request.attempt or max((a for a, _ in plane.lines), default=1)
        current = [entry for entry in plane.lines if not request.attempt or entry[0] == attempt]
        for of_attempt, line in current:
            if of_attempt == request.attempt or not request.attempt:
                if line.line_number < request.from_line:
                    continue
                yield stream_pb2.StreamTaskLogResponse(log_chunks=[line], attempt=of_attempt)
                if happening := plane.after_line.pop(line.content, None):
                    happening()
                if plane.cuts and plane.cuts[0] == line.content:
                    plane.cuts.pop(0)
                    context.abort(grpc.StatusCode.UNAVAILABLE, "the connection was cut")
        if plane.ends_when and request.follow:
            plane.ends_when.wait(10)
        if plane.log_state != task_pb2.LOG_STATE_OPEN:
            yield stream_pb2.StreamTaskLogResponse(is_complete=True, log_state=plane.log_state)

    def StreamTaskStatus(self, request, context):
        self.plane.heard.append(request)
        while self.plane.changes:
            change = self.plane.changes.pop(0)
            if isinstance(change, str):
                context.abort(grpc.StatusCode.UNAVAILABLE, change)
            yield change


class Script(grpc.ServerInterceptor):
    """Refuses or answers what the test scripted, and writes down what it hears."""

    def __init__(self, plane):
        self.plane = plane

    def intercept_service(self, continuation, handler_call_details):
        method = handler_call_details.method.rpartition("/")[2]
        self.plane.metadata.append((method, dict(handler_call_details.invocation_metadata)))
        handler = continuation(handler_call_details)

        def answer(request, context):
            self.plane.heard.append(request)
            if method in self.plane.refusals:
                context.abort_with_status(rpc_status.to_status(self.plane.refusals[method]))
            answers = self.plane.answers[method]
            return answers.pop(0) if isinstance(answers, list) else answers

        def refuse(request, context):
            answer(request, context)
            yield

        if method in self.plane.refusals and handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                refuse, handler.request_deserializer, handler.response_serializer
            )
        if method in self.plane.refusals or method in self.plane.answers:
            return grpc.unary_unary_rpc_method_handler(
                answer, handler.request_deserializer, handler.response_serializer
            )
        return handler


@pytest.fixture
def control_plane():
    """A control plane on a free port."""
    plane = ControlPlane()
    server = grpc.server(ThreadPoolExecutor(8), interceptors=[Script(plane)])
    task_pb2_grpc.add_TaskServiceServicer_to_server(Tasks(plane), server)
    stream_pb2_grpc.add_StreamServiceServicer_to_server(Streams(plane), server)
    agent_pb2_grpc.add_AgentServiceServicer_to_server(agent_pb2_grpc.AgentServiceServicer(), server)
    pipeline_pb2_grpc.add_PipelineServiceServicer_to_server(
        pipeline_pb2_grpc.PipelineServiceServicer(), server
    )
    hook_pb2_grpc.add_HookServiceServicer_to_server(hook_pb2_grpc.HookServiceServicer(), server)
    schedule_pb2_grpc.add_ScheduleServiceServicer_to_server(
        schedule_pb2_grpc.ScheduleServiceServicer(), server
    )
    secret_pb2_grpc.add_SecretServiceServicer_to_server(
        secret_pb2_grpc.SecretServiceServicer(), server
    )
    plane.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield plane
    if plane.ends_when:
        plane.ends_when.set()
    server.stop(None).wait()


@pytest.fixture
def muster(control_plane, capfdbinary, monkeypatch):
    """Run the command against the control plane."""
    monkeypatch.setenv("MUSTER_SERVER", control_plane.address)

    def run_muster(*arguments):
        capfdbinary.readouterr()
        code = run(arguments)
        out, err = (text.decode(errors="surrogateescape") for text in capfdbinary.readouterr())
        return Outcome(code, out, err)

    return run_muster


@pytest.fixture
def a_pipeline():
    return pipeline_pb2.PipelineDetail(pipeline_id=str(uuid.UUID(int=7)), name="nightly")


@pytest.fixture
def an_agent():
    return agent_pb2.AgentDetail(
        agent_id="builder-1", status=agent_pb2.AGENT_STATUS_IDLE, labels={"role": "build"}
    )


@pytest.fixture
def bad_request():
    """Make the details of a refused field."""

    def make(path, why):
        violation = error_details_pb2.BadRequest.FieldViolation(field=path, description=why)
        return code_pb2.INVALID_ARGUMENT, error_details_pb2.BadRequest(field_violations=[violation])

    return make
