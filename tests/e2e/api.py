"""Calls in today's API, with what stories ask again and again."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import error_details_pb2 as details
from grpc_status import rpc_status

from generated.agent.v1 import agent_pb2, agent_pb2_grpc
from generated.pipeline.v1 import pipeline_pb2, pipeline_pb2_grpc
from generated.stream.v1 import stream_pb2, stream_pb2_grpc
from generated.task.v1 import task_pb2, task_pb2_grpc

TIMEOUT = 60
WITHIN = 30.0

ENDED = frozenset(
    {
        task_pb2.TASK_STATUS_SUCCESS,
        task_pb2.TASK_STATUS_FAILED,
        task_pb2.TASK_STATUS_CANCELLED,
        task_pb2.TASK_STATUS_TIMEOUT,
        task_pb2.TASK_STATUS_SKIPPED,
    }
)
RUN_ENDED = frozenset(
    {
        pipeline_pb2.PIPELINE_STATUS_SUCCESS,
        pipeline_pb2.PIPELINE_STATUS_FAILED,
        pipeline_pb2.PIPELINE_STATUS_CANCELLED,
        pipeline_pb2.PIPELINE_STATUS_PARTIAL,
    }
)

Change = stream_pb2.StreamTaskStatusResponse


class Api:
    """One caller of one server."""

    def __init__(self, address: str) -> None:
        # A channel of one's own: a shared one would still wait to reach a server that was killed.
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.aio.insecure_channel(address, options=options)
        self.agents = agent_pb2_grpc.AgentServiceStub(self.channel)
        self.pipelines = pipeline_pb2_grpc.PipelineServiceStub(self.channel)
        self.streams = stream_pb2_grpc.StreamServiceStub(self.channel)
        self.tasks = task_pb2_grpc.TaskServiceStub(self.channel)

    async def __aenter__(self) -> "Api":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()

    # ---- tasks

    async def create(self, *commands: str, **fields: Any) -> str:
        """Submit a task and return its id."""
        request = task_pb2.CreateTaskRequest(commands=commands, **fields)
        return (await self.tasks.CreateTask(request, timeout=TIMEOUT)).task_id

    async def task(self, task_id: str) -> task_pb2.TaskDetail:
        """Return a task as it stands."""
        request = task_pb2.GetTaskRequest(task_id=task_id)
        return (await self.tasks.GetTask(request, timeout=TIMEOUT)).task

    async def reaches(self, task_id: str, *statuses: int) -> task_pb2.TaskDetail:
        """Follow a task until it stands in one of these, and return it then."""
        request = stream_pb2.StreamTaskStatusRequest(task_ids=[task_id])
        async for change in self.streams.StreamTaskStatus(request, timeout=TIMEOUT):
            if change.status in statuses:
                return await self.task(task_id)
            assert change.status not in ENDED, f"It ended before: {change}"
        raise AssertionError("The stream ended before the task did.")

    async def runs(self, task_id: str) -> task_pb2.TaskDetail:
        """Return a task once it runs."""
        return await self.reaches(task_id, task_pb2.TASK_STATUS_RUNNING)

    async def ended(self, task_id: str) -> task_pb2.TaskDetail:
        """Return a task once it has ended."""
        return await self.reaches(task_id, *ENDED)

    async def cancel(self, task_id: str, reason: str = "") -> str:
        """Cancel a task and return what the server says."""
        request = task_pb2.CancelTaskRequest(task_id=task_id, reason=reason)
        return (await self.tasks.CancelTask(request, timeout=TIMEOUT)).message

    async def history(self, task_ids: Iterable[str]) -> dict[str, list[Change]]:
        """Return every change of tasks from the first on, once they have all ended."""
        request = stream_pb2.StreamTaskStatusRequest(task_ids=task_ids, after="0")
        changes: dict[str, list[Change]] = {task_id: [] for task_id in request.task_ids}
        async for change in self.streams.StreamTaskStatus(request, timeout=TIMEOUT):
            changes[change.task_id].append(change)
        return changes

    # ---- logs

    async def follow(self, task_id: str, **fields: Any) -> AsyncIterator[Any]:
        """Yield what a follower of a log gets."""
        request = stream_pb2.StreamTaskLogRequest(job_id=task_id, follow=True, **fields)
        async for answer in self.streams.StreamTaskLog(request, timeout=TIMEOUT):
            yield answer

    async def log(self, task_id: str, **fields: Any) -> list[stream_pb2.LogChunk]:
        """Follow a log to its end; its lines are numbered from 1 without hole or repeat."""
        answers = [part async for part in self.follow(task_id, batched=True, **fields)]
        assert answers[-1].is_complete
        assert answers[-1].log_state == task_pb2.LOG_STATE_COMPLETE
        assert not any(answer.is_complete for answer in answers[:-1])
        chunks = [chunk for answer in answers for chunk in answer.log_chunks]
        assert [chunk.line_number for chunk in chunks] == list(range(1, len(chunks) + 1))
        return chunks

    async def text(self, task_id: str, **fields: Any) -> list[str]:
        """Follow a log to its end and return its lines."""
        return [chunk.content for chunk in await self.log(task_id, **fields)]

    # ---- pipelines

    async def define(self, name: str, stages: Sequence[Any], **fields: Any) -> str:
        """Store a pipeline and return its id."""
        request = pipeline_pb2.CreatePipelineRequest(name=name, stages=stages, **fields)
        return (await self.pipelines.CreatePipeline(request, timeout=TIMEOUT)).pipeline_id

    async def trigger(self, pipeline_id: str, **fields: Any) -> str:
        """Start a run and return its id."""
        request = pipeline_pb2.TriggerPipelineRequest(pipeline_id=pipeline_id, **fields)
        return (await self.pipelines.TriggerPipeline(request, timeout=TIMEOUT)).run_id

    async def pipeline(self, pipeline_id: str) -> pipeline_pb2.PipelineDetail:
        """Return a pipeline as it stands."""
        request = pipeline_pb2.GetPipelineRequest(pipeline_id=pipeline_id)
        return (await self.pipelines.GetPipeline(request, timeout=TIMEOUT)).pipeline

    async def run(self, run_id: str) -> pipeline_pb2.RunDetail:
        """Return a run as it stands."""
        request = pipeline_pb2.GetRunRequest(run_id=run_id)
        return (await self.pipelines.GetRun(request, timeout=TIMEOUT)).run

    async def run_ended(self, run_id: str) -> pipeline_pb2.RunDetail:
        """Follow a run's tasks to their ends and return the run then."""
        request = stream_pb2.StreamTaskStatusRequest(run_id=run_id)
        async for _ in self.streams.StreamTaskStatus(request, timeout=TIMEOUT):
            pass
        run = await self.run(run_id)
        assert run.status in RUN_ENDED
        return run

    async def stop(self, pipeline_id: str, **fields: Any) -> str:
        """Stop a run, or every active run of a pipeline, and return what the server says."""
        request = pipeline_pb2.StopPipelineRequest(pipeline_id=pipeline_id, **fields)
        return (await self.pipelines.StopPipeline(request, timeout=TIMEOUT)).message

    # ---- agents

    async def agent(self, agent_id: str) -> agent_pb2.AgentDetail:
        """Return an agent as it stands."""
        request = agent_pb2.GetAgentRequest(agent_id=agent_id)
        return (await self.agents.GetAgent(request, timeout=TIMEOUT)).agent

    async def label(self, agent_id: str, **labels: str) -> None:
        """Put labels over those that an agent reports."""
        request = agent_pb2.UpdateLabelsRequest(agent_id=agent_id, labels=labels, merge=True)
        await self.agents.UpdateLabels(request, timeout=TIMEOUT)


@dataclass(frozen=True)
class Refusal:
    """How a call was refused."""

    code: grpc.StatusCode
    message: str
    reason: str
    fields: dict[str, str]
    """The path of each bad field, with what is wrong."""
    retry_after: float | None
    metadata: dict[str, str] = field(default_factory=dict)
    """Of its ErrorInfo."""


async def refusal(call: Awaitable[Any]) -> Refusal:
    """Return how this call was refused.

    Raises:
        AssertionError: it was not.
    """
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return told(error)
    raise AssertionError(f"It was not refused but answered: {answer}")


def told(error: grpc.aio.AioRpcError) -> Refusal:
    """Return what an error tells."""
    reason, fields, retry_after, metadata = "", {}, None, {}
    status = rpc_status.from_call(error)
    for packed in status.details if status else ():
        if packed.Is(details.ErrorInfo.DESCRIPTOR):
            info = details.ErrorInfo()
            packed.Unpack(info)
            reason = info.reason.removeprefix("ERROR_REASON_")
            metadata = dict(info.metadata)
        elif packed.Is(details.BadRequest.DESCRIPTOR):
            bad = details.BadRequest()
            packed.Unpack(bad)
            fields = {each.field: each.description for each in bad.field_violations}
        elif packed.Is(details.RetryInfo.DESCRIPTOR):
            retry = details.RetryInfo()
            packed.Unpack(retry)
            retry_after = retry.retry_delay.ToTimedelta().total_seconds()
    return Refusal(error.code(), error.details() or "", reason, fields, retry_after, metadata)


async def soon(
    question: Callable[[], Awaitable[Any]], within: float = WITHIN, every: float = 0.02
) -> Any:
    """Return the question's first true answer.

    Raises:
        TimeoutError: there was none in time.
    """
    deadline = time.monotonic() + within
    while not (answer := await question()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"Still false after {within:g} seconds.")
        await asyncio.sleep(every)
    return answer
