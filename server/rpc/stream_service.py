"""stream.v1.StreamService."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import aclosing

from generated.stream.v1 import stream_pb2, stream_pb2_grpc
from server.auth import check_acts_for, current_caller
from server.domain.checks import Checks
from server.domain.errors import Invalid, NotFound, Violation
from server.domain.event import Event, EventKind
from server.domain.lease import LeaseRef
from server.domain.policy import Policy
from server.domain.task import Task, TaskStatus
from server.engine.attendance import Attendance
from server.engine.clock import Clock
from server.engine.dispatcher import Dispatcher
from server.engine.event_feed import EventFeed
from server.engine.log_hub import LogHub, LogPart
from server.engine.log_intake import LogIntake
from server.engine.measurements import Measurements
from server.engine.writer import Writer
from server.issuer import Issuer
from server.rpc.agent_channel import AgentChannel
from server.rpc.agent_stream import AgentStream
from server.rpc.context import Context
from server.rpc.convert import MOMENT_LIMIT, batch_of, chunk, enum, seconds
from server.rpc.convert_agent import verdict_message
from server.rpc.convert_event import status_change
from server.rpc.cursor import check_reached, cursor_of
from server.rpc.event_stream import stream_events
from server.rpc.handover import Handover
from server.rpc.pipeline_stream import PipelineStream
from server.stores.interfaces import Reader, TaskFilter

FOLLOWED_TASKS = 1000
SNAPSHOT_LIMIT = 100_000


class StreamService(stream_pb2_grpc.StreamServiceServicer):
    """Live logs, states and events, and the agents' own channel."""

    def __init__(
        self,
        writer: Writer,
        intake: LogIntake,
        reader: Reader,
        attendance: Attendance,
        dispatcher: Dispatcher,
        feed: EventFeed,
        logs: LogHub,
        clock: Clock,
        policy: Policy,
        measurements: Measurements,
        issuer: Issuer | None,
        handover: Handover,
    ) -> None:
        self._issuer = issuer
        self._handover = handover
        self._measurements = measurements
        self._writer = writer
        self._intake = intake
        self._reader = reader
        self._attendance = attendance
        self._dispatcher = dispatcher
        self._feed = feed
        self._logs = logs
        self._clock = clock
        self._policy = policy

    async def Ping(
        self, request: stream_pb2.PingRequest, context: Context
    ) -> stream_pb2.PingResponse:
        """See the proto."""
        return stream_pb2.PingResponse(
            message=request.message or "pong", timestamp=seconds(self._clock.now())
        )

    async def StreamTaskLog(
        self, request: stream_pb2.StreamTaskLogRequest, context: Context
    ) -> AsyncIterator[stream_pb2.StreamTaskLogResponse]:
        """See the proto."""
        checks = Checks()
        checks.number("from_line", request.from_line, 0, 2**31 - 1)
        checks.number("attempt", request.attempt, 0, 2**31 - 1)
        checks.number("tail", request.tail, 0, 2**31 - 1)
        checks.number("since", request.since, 0, MOMENT_LIMIT)
        if request.from_line and (request.tail or request.since):
            checks.fail("from_line", "must be 0 beside tail and since")
        checks.done()
        parts = self._logs.follow(
            current_caller().namespace,
            request.job_id,
            request.attempt,
            request.from_line or 1,
            follow=request.follow,
            tail=request.tail,
            since=request.since,
        )
        async with aclosing(parts):
            async for part in parts:
                responses = _log_responses(request, part)
                del part  # what has been sent is let go, also while nothing comes
                while responses:
                    yield responses.popleft()

    async def UploadTaskLog(
        self, request_iterator: AsyncIterator[stream_pb2.UploadTaskLogRequest], context: Context
    ) -> stream_pb2.UploadTaskLogResponse:
        """See the proto."""
        response = stream_pb2.UploadTaskLogResponse(success=True)
        task_id, agent_id = None, ""
        async for request in request_iterator:
            if task_id is None:
                task_id = request.task_id
                check_acts_for(request.agent_id)
                await self._attendance.session(request.agent_id, "")
                agent_id = request.agent_id
            elif (request.task_id, request.agent_id) != (task_id, agent_id):
                text = f"every message of a call names one task and agent, here {task_id}"
                raise Invalid([Violation("task_id", text)])
            await self._append(request, response)
        if task_id is None:
            raise Invalid([Violation("task_id", "the call had no message")])
        response.message = f"Lines up to {response.acked_through} are stored."
        return response

    async def _append(
        self,
        request: stream_pb2.UploadTaskLogRequest,
        response: stream_pb2.UploadTaskLogResponse,
    ) -> None:
        ref = LeaseRef(request.task_id, request.lease_id)
        answer = await self._intake.append(request.agent_id, ref, batch_of(request))
        response.received_lines += len(request.logs)
        response.acked_through = answer.acked_through
        response.verdict.CopyFrom(verdict_message(answer.verdict, self._policy))

    async def StreamTaskStatus(
        self, request: stream_pb2.StreamTaskStatusRequest, context: Context
    ) -> AsyncIterator[stream_pb2.StreamTaskStatusResponse]:
        """See the proto."""
        after = _check_status_request(request)
        namespace = current_caller().namespace
        wanted = TaskFilter(
            namespace,
            pipeline_id=request.pipeline_id,
            run_id=request.run_id,
            task_ids=tuple(request.task_ids),
        )
        await self._check_exist(wanted)
        tasks, position = await self._reader.tasks_with_position(wanted, SNAPSHOT_LIMIT)
        _check_found(request, tasks)
        open_tasks = {task.public_id for task in tasks if not task.status.ended}
        if after is None:
            for task in tasks:
                yield _standing(task, position)
        start = position if after is None else after
        await check_reached(start, self._feed, self._reader)
        endless = bool(request.pipeline_id)
        wants = _StatusFilter(wanted)
        if not endless and not open_tasks:
            events = self._feed.replay(start, position, wants)
        else:
            events = self._feed.follow(start, wants)
        async with aclosing(events):
            async for event in events:
                gone = event.kind is EventKind.TASK_DELETED
                if not gone:
                    yield status_change(event)
                if gone or TaskStatus(event.data["status"]).ended:
                    open_tasks.discard(event.resource_id)
                    if not endless and not open_tasks and event.position > position:
                        return

    async def _check_exist(self, wanted: TaskFilter) -> None:
        if wanted.pipeline_id:
            await self._reader.pipeline(wanted.namespace, wanted.pipeline_id)
        if wanted.run_id:
            await self._reader.run(wanted.namespace, wanted.run_id)

    async def AgentChannel(
        self, request_iterator: AsyncIterator[stream_pb2.AgentChannelRequest], context: Context
    ) -> AsyncIterator[stream_pb2.AgentChannelResponse]:
        """See the proto."""
        channel = AgentChannel(
            self._writer,
            self._intake,
            self._attendance,
            self._dispatcher,
            self._clock,
            self._policy,
            self._issuer,
            self._handover,
        )
        async with aclosing(channel.responses(request_iterator)) as responses:
            async for response in responses:
                yield response

    async def StreamPipelineStatus(
        self, request: stream_pb2.StreamPipelineStatusRequest, context: Context
    ) -> AsyncIterator[stream_pb2.StreamPipelineStatusResponse]:
        """See the proto."""
        namespace = current_caller().namespace
        stream = PipelineStream(self._feed, self._reader, self._clock, namespace)
        async with aclosing(stream.responses(request)) as responses:
            async for response in responses:
                yield response

    async def StreamAgentStatus(
        self, request: stream_pb2.StreamAgentStatusRequest, context: Context
    ) -> AsyncIterator[stream_pb2.StreamAgentStatusResponse]:
        """See the proto."""
        namespace = current_caller().namespace
        stream = AgentStream(self._feed, self._reader, self._measurements, namespace)
        async with aclosing(stream.responses(request)) as responses:
            async for response in responses:
                yield response

    async def StreamEvents(
        self, request: stream_pb2.StreamEventsRequest, context: Context
    ) -> AsyncIterator[stream_pb2.StreamEventsResponse]:
        """See the proto."""
        namespace = current_caller().namespace
        events = stream_events(request, namespace, self._feed, self._reader)
        async with aclosing(events) as responses:
            async for response in responses:
                yield response


def _log_responses(
    request: stream_pb2.StreamTaskLogRequest, part: LogPart
) -> deque[stream_pb2.StreamTaskLogResponse]:
    return deque(_said_of(request, part))


def _said_of(
    request: stream_pb2.StreamTaskLogRequest, part: LogPart
) -> list[stream_pb2.StreamTaskLogResponse]:
    chunks = [chunk(line, part.first_line + place) for place, line in enumerate(part.lines)]
    task_id, attempt = request.job_id, part.attempt
    if part.complete:
        return [
            stream_pb2.StreamTaskLogResponse(
                task_id=task_id, is_complete=True, attempt=attempt, log_state=enum(part.state)
            )
        ]
    if request.batched:
        return [
            stream_pb2.StreamTaskLogResponse(task_id=task_id, log_chunks=chunks, attempt=attempt)
        ]
    return [
        stream_pb2.StreamTaskLogResponse(task_id=task_id, log_chunk=one, attempt=attempt)
        for one in chunks
    ]


def _check_status_request(request: stream_pb2.StreamTaskStatusRequest) -> int | None:
    """Return the cursor, or None without one.

    Raises:
        Invalid: no filter, too many tasks, or a malformed cursor.
    """
    checks = Checks()
    if not (request.task_ids or request.pipeline_id or request.run_id):
        checks.fail("task_ids", "name tasks, a pipeline or a run")
    if len(request.task_ids) > FOLLOWED_TASKS:
        checks.fail("task_ids", f"must name at most {FOLLOWED_TASKS} tasks")
    after = cursor_of(checks, request.after)
    checks.done()
    return after


def _check_found(request: stream_pb2.StreamTaskStatusRequest, tasks: list[Task]) -> None:
    if request.run_id or request.pipeline_id:
        return
    found = {task.public_id for task in tasks}
    for task_id in request.task_ids:
        if task_id not in found:
            raise NotFound("task", task_id)


class _StatusFilter:
    """Which events are about the tasks wanted."""

    def __init__(self, wanted: TaskFilter) -> None:
        self._wanted = wanted
        self._ids = frozenset(wanted.task_ids)

    def __call__(self, event: Event) -> bool:
        wanted = self._wanted
        return (
            event.kind in (EventKind.TASK_STATUS, EventKind.TASK_DELETED)
            and event.namespace == wanted.namespace
            and (not wanted.run_id or event.run_id == wanted.run_id)
            and (not wanted.pipeline_id or event.pipeline_id == wanted.pipeline_id)
            and (not self._ids or event.resource_id in self._ids)
        )


def _standing(task: Task, position: int) -> stream_pb2.StreamTaskStatusResponse:
    changed = task.finished_at or task.started_at or task.created_at
    return stream_pb2.StreamTaskStatusResponse(
        task_id=task.public_id,
        task_name=task.name,
        status=enum(task.status),
        timestamp=changed,
        agent_id=task.last_agent_id or "",
        exit_code=task.exit_code,
        error_message=task.error,
        duration=_duration(task.started_at, task.finished_at),
        cursor=str(position),
        attempt=task.attempt,
    )


def _duration(started_at: int | None, finished_at: int | None) -> int:
    if started_at is None or finished_at is None:
        return 0
    return max(0, finished_at - started_at)
