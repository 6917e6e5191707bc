"""A small control plane over real gRPC, for the agent's tests: it assigns, records and answers."""

import asyncio
import uuid
import zlib
from dataclasses import dataclass, field

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from generated.agent.v1 import agent_pb2, agent_pb2_grpc
from generated.artifact.v1 import artifact_pb2, artifact_pb2_grpc
from generated.stream.v1 import stream_pb2, stream_pb2_grpc
from generated.task.v1 import error_reason_pb2, task_pb2
from tests.blocks import chunks_in

ENDS = {
    task_pb2.TASK_STATUS_SUCCESS,
    task_pb2.TASK_STATUS_FAILED,
    task_pb2.TASK_STATUS_CANCELLED,
    task_pb2.TASK_STATUS_TIMEOUT,
}

_CODES = {code.value[0]: code for code in grpc.StatusCode}


@dataclass
class Lease:
    """One lease the control plane gave out, and all it was told about it."""

    task: agent_pb2.Task
    statuses: list[stream_pb2.TaskStatusUpdate] = field(default_factory=list)
    batches: int = 0
    lines: list[stream_pb2.LogChunk] = field(default_factory=list)
    verdict: int = agent_pb2.VERDICT_ACTION_CONTINUE
    frame: int = 0
    handed_back: bool = False
    why_back: str = ""
    released: bool = False

    @property
    def delivered(self):
        return self.frame > 0

    @property
    def ends(self):
        return [update for update in self.statuses if update.status in ENDS]

    @property
    def end(self):
        return self.ends[0] if self.ends else None

    @property
    def text(self):
        return [chunk.content for chunk in self.lines]

    @property
    def whole(self):
        """Whether the end is known and the log is what its summary says."""
        if self.end is None:
            return False
        data = [(chunk.raw or chunk.content.encode()) + b"\n" for chunk in self.lines]
        summary = self.end.log
        return (summary.lines, summary.bytes, summary.crc32) == (
            len(data),
            sum(map(len, data)),
            zlib.crc32(b"".join(data)),
        )

    def answer(self):
        return agent_pb2.LeaseVerdict(
            task_id=self.task.job_id,
            lease_id=self.task.lease_id,
            action=self.verdict,
            reason="as told",
            grace_seconds=self.task.kill_grace,
        )


class ControlPlane(
    agent_pb2_grpc.AgentServiceServicer,
    stream_pb2_grpc.StreamServiceServicer,
    artifact_pb2_grpc.ArtifactServiceServicer,
):
    """The fake; its attributes are what tests look at and turn."""

    def __init__(self):
        # Ids are nobody else's: a new supervisor kills what bears the marks of its attempts, and
        # other tests may run on this host at the same time.
        self.name = uuid.uuid4().hex[:12]
        self.leases: dict[str, Lease] = {}
        self.registrations: list[agent_pb2.RegisterRequest] = []
        self.hellos: list[stream_pb2.Hello] = []
        self.beats: list[stream_pb2.HeartbeatData] = []
        self.unary_beats: list[agent_pb2.HeartbeatRequest] = []
        self.unregistered: list[agent_pb2.UnregisterRequest] = []
        self.namespaces: set[str] = set()
        self.sessions = 0
        self.interval = 1
        self.lease_seconds = 30
        self.refuse_stream: tuple[grpc.StatusCode, str] | None = None
        self.no_streams: grpc.StatusCode | None = None
        self.swallow_streams = False
        self.serve_streams = True
        self.status_errors: list[int] = []
        self.log_errors: list[int] = []
        self.swallow_acks = 0
        self.answer_beats = True
        self.answer_reports = True
        self.hand_back = False
        self.repeated_lines = 0
        self.fetches: list[agent_pb2.FetchTaskRequest] = []
        self.streams_before_fetch: list[int] = []
        self.unary_errors: list[grpc.StatusCode] = []
        self.lose_fetches = 0
        self.superseded = False
        self.streams = 0
        self.ahead: int | None = None
        self.keeps_files = False
        self.uploads: list[artifact_pb2.BeginUploadRequest] = []
        self._unanswered: list[tuple[str, stream_pb2.Acks]] = []
        self._fetched: dict[str, list[Lease]] = {}
        self._news = asyncio.Condition()
        self._frames = 0
        self._outgoing: asyncio.Queue | None = None
        self._server: grpc.aio.Server | None = None
        self.port = 0

    async def start(self):
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        agent_pb2_grpc.add_AgentServiceServicer_to_server(self, self._server)
        artifact_pb2_grpc.add_ArtifactServiceServicer_to_server(self, self._server)
        if self.serve_streams:
            stream_pb2_grpc.add_StreamServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self):
        self.cut()
        if self._server is not None:
            await self._server.stop(0.2)

    @property
    def session_id(self):
        return f"session-{self.sessions}"

    def assign(self, *commands, **fields):
        """Gives out one task a call; returns its lease."""
        number = len(self.leases) + 1
        fields = {"attempt": 1, "timeout": 60, "kill_grace": 5} | fields
        task = agent_pb2.Task(
            job_id=f"{self.name}-{number}",
            lease_id=f"lease-{self.name}-{number}",
            commands=commands,
            **fields,
        )
        lease = self.leases[task.lease_id] = Lease(task)
        self.deliver(lease)
        return lease

    def deliver(self, *leases):
        if self._outgoing is not None:
            self._frames += 1
            frame = stream_pb2.Assignments(
                frame_number=self._frames, tasks=[lease.task for lease in leases]
            )
            self._say(assignments=frame)
            for lease in leases:
                lease.frame = self._frames

    def cancel(self, lease):
        command = stream_pb2.TaskCancelCommand(
            task_id=lease.task.job_id,
            lease_id=lease.task.lease_id,
            reason="cancelled by a test",
            grace_seconds=lease.task.kill_grace,
        )
        self._say(task_cancel_command=command)

    def push_hand_back(self):
        """Says without being asked that there is no work for the agent now."""
        self._say(heartbeat_ack=stream_pb2.HeartbeatAck(success=True, hand_back=True))

    def configure(self, **config):
        """Sends settings to the agent that is connected."""
        words = {name: str(value) for name, value in config.items()}
        self._say(config_update=stream_pb2.ConfigUpdate(config=words))

    def cut(self):
        """Breaks the stream that is open."""
        if self._outgoing is not None:
            self._outgoing.put_nowait(None)

    @property
    def connected(self):
        return self._outgoing is not None

    async def Register(self, request, context):  # noqa: N802 - the .proto's name
        self._note(context)
        self.registrations.append(request)
        self.sessions += 1
        self._hold(request.held, complete=True)
        self._frames = 0
        return agent_pb2.RegisterResponse(
            success=True,
            agent_id=request.agent_id,
            heartbeat_interval=self.interval,
            session_id=self.session_id,
            verdicts=self._verdicts(request.held),
            lease_seconds=self.lease_seconds,
        )

    async def Heartbeat(self, request, context):  # noqa: N802 - the .proto's name
        await self._fail(context)
        self.unary_beats.append(request)
        if request.HasField("held"):
            self._hold(request.held)
        verdicts = self._verdicts(request.held)
        return agent_pb2.HeartbeatResponse(
            success=True, verdicts=verdicts, hand_back=self.hand_back
        )

    async def FetchTask(self, request, context):  # noqa: N802 - the .proto's name
        await self._fail(context)
        self.fetches.append(request)
        self.streams_before_fetch.append(self.streams)
        leases = self._fetched.get(request.request_id) or await self._next(request)
        if leases:
            self._fetched[request.request_id] = leases
        if leases and self.lose_fetches:
            self.lose_fetches -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "lost by a test")
        return agent_pb2.FetchTaskResponse(
            success=True, tasks=[lease.task for lease in leases], frame_number=self._frames
        )

    async def _next(self, request):
        """Waits for leases that nobody has been given yet, and gives them out."""

        def waiting():
            return [lease for lease in self.leases.values() if not lease.delivered]

        try:
            async with asyncio.timeout(request.wait), self._news:
                await self._news.wait_for(waiting)
        except TimeoutError:
            return []
        leases = waiting()[: request.max_jobs]
        self._frames += 1
        for lease in leases:
            lease.frame = self._frames
        return leases

    async def offer(self, *commands, **fields):
        """Gives out one task to whoever fetches; returns its lease."""
        async with self._news:
            lease = self.assign(*commands, **fields)
            self._news.notify_all()
        return lease

    async def ReportTaskStatus(self, request, context):  # noqa: N802 - the .proto's name
        await self._fail(context)
        update = stream_pb2.TaskStatusUpdate(
            task_id=request.task_id,
            lease_id=request.lease_id,
            status=request.status,
            exit_code=request.exit_code,
            error_message=request.error_message,
            started_at=request.start_time * 1000,
            timestamp=request.end_time * 1000,
            failure=request.failure,
        )
        if request.HasField("log"):
            update.log.CopyFrom(request.log)
        (ack,) = self._take(stream_pb2.Reports(statuses=[update])).statuses
        return agent_pb2.ReportTaskStatusResponse(success=True, verdict=ack.verdict)

    async def ReportTaskLog(self, request, context):  # noqa: N802 - the .proto's name
        await self._fail(context)
        data = stream_pb2.LogData(job_id=request.task_id, lease_id=request.lease_id)
        data.block.CopyFrom(request.block)
        ack = self._take_log(data)
        if ack.error_code:
            await context.abort(_CODES[ack.error_code], "refused by a test")
        return agent_pb2.ReportTaskLogResponse(
            success=True, acked_through=ack.acked_through, verdict=ack.verdict
        )

    async def BeginUpload(self, request, context):  # noqa: N802 - the .proto's name
        """Says of every file that it has it already."""
        if not self.keeps_files:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "refused by a test")
        self.uploads.append(request)
        return artifact_pb2.BeginUploadResponse(artifact_id="1", part_size=1, stored=True)

    async def _fail(self, context):
        self._note(context)
        if self.superseded:
            code = grpc.StatusCode.ABORTED
            await refuse(context, code, "ERROR_REASON_SESSION_SUPERSEDED")
        if self.unary_errors:
            await context.abort(self.unary_errors.pop(0), "failed by a test")

    async def Unregister(self, request, context):  # noqa: N802 - the .proto's name
        self.unregistered.append(request)
        return agent_pb2.UnregisterResponse(success=True)

    async def AgentChannel(self, requests, context):  # noqa: N802 - the .proto's name
        self._note(context)
        self.streams += 1
        if self.no_streams is not None:
            await context.abort(self.no_streams, "no streams here")
        swallowed = self.swallow_streams  # as it is now: a test may turn it while we read
        first = await anext(aiter(requests))
        if swallowed:
            await asyncio.Event().wait()
        if self.refuse_stream is not None:
            code, reason = self.refuse_stream
            self.refuse_stream = None
            await refuse(context, code, reason)
        if first.hello.session_id != self.session_id:
            await refuse(context, grpc.StatusCode.NOT_FOUND, "ERROR_REASON_UNKNOWN_RESOURCE")
        self.hellos.append(first.hello)
        self._hold(first.hello.held, complete=True)
        outgoing = self._outgoing = asyncio.Queue()
        welcome = stream_pb2.Welcome(
            verdicts=self._verdicts(first.hello.held),
            heartbeat_interval=self.interval,
            lease_seconds=self.lease_seconds,
            hand_back=self.hand_back,
        )
        yield stream_pb2.AgentChannelResponse(response_id=first.request_id, welcome=welcome)
        waiting = [lease for lease in self.leases.values() if not lease.delivered]
        if waiting:
            self.deliver(*waiting)
        listening = asyncio.ensure_future(self._listen(requests))
        try:
            while (answer := await outgoing.get()) is not None:
                yield answer
        finally:
            listening.cancel()
            if self._outgoing is outgoing:
                self._outgoing = None
        await context.abort(grpc.StatusCode.UNAVAILABLE, "cut by a test")

    async def _listen(self, requests):
        async for request in requests:
            kind = request.WhichOneof("payload")
            if kind == "heartbeat":
                self.beats.append(request.heartbeat)
                self._hold(request.heartbeat.held)
                if self.answer_beats:
                    ack = stream_pb2.HeartbeatAck(
                        success=True,
                        verdicts=self._verdicts(request.heartbeat.held),
                        hand_back=self.hand_back,
                    )
                    self._say(request.request_id, heartbeat_ack=ack)
            elif kind == "reports":
                acks = self._take(request.reports)
                if self.swallow_acks:
                    self.swallow_acks -= 1
                    self.cut()
                    return
                self._unanswered.append((request.request_id, acks))
                if self.answer_reports:
                    self.answer()

    def answer(self):
        """Answers all reports that have no answer yet."""
        unanswered, self._unanswered = self._unanswered, []
        for request_id, acks in unanswered:
            self._say(request_id, acks=acks)

    def _hold(self, held, *, complete=False):
        """Releases what the agent should hold and does not."""
        named = {one.lease_id for one in held.leases}
        for lease in self.leases.values():
            arrived = lease.delivered and (complete or lease.frame <= held.seen_through)
            if arrived and not lease.ends and lease.task.lease_id not in named:
                lease.released = True

    def _take(self, reports):
        acks = stream_pb2.Acks()
        for update in reports.statuses:
            lease = self.leases[update.lease_id]
            code = self.status_errors.pop(0) if self.status_errors else 0
            if code == 0 and update.status not in {old.status for old in lease.statuses}:
                lease.statuses.append(update)
            acks.statuses.add(
                task_id=update.task_id,
                lease_id=update.lease_id,
                status=update.status,
                verdict=lease.answer(),
                error_code=code,
            )
        for data in reports.logs:
            acks.logs.append(self._take_log(data))
        if reports.HasField("ahead"):
            self.ahead = reports.ahead
        for held in reports.handed_back:
            self.leases[held.lease_id].handed_back = True
            self.leases[held.lease_id].why_back = held.reason
        return acks

    def _take_log(self, data):
        lease = self.leases[data.lease_id]
        code = self.log_errors.pop(0) if self.log_errors else 0
        lease.batches += 1
        if code == 0:
            if data.block.first_line > len(lease.lines) + 1:
                code = grpc.StatusCode.FAILED_PRECONDITION.value[0]
            for chunk in chunks_in(data.block):
                if chunk.line_number == len(lease.lines) + 1:
                    lease.lines.append(chunk)
                else:
                    self.repeated_lines += 1
        return stream_pb2.LogAck(
            task_id=data.job_id,
            lease_id=data.lease_id,
            acked_through=len(lease.lines),
            verdict=lease.answer(),
            error_code=code,
        )

    def _verdicts(self, held):
        return [self.leases[one.lease_id].answer() for one in held.leases]

    def _say(self, response_id="", **payload):
        if self._outgoing is not None:
            answer = stream_pb2.AgentChannelResponse(response_id=response_id, **payload)
            self._outgoing.put_nowait(answer)

    def _note(self, context):
        metadata = dict(context.invocation_metadata())
        self.namespaces.add(metadata.get("muster-namespace", ""))


async def refuse(context, code, reason):
    """Ends a call the way the real server does: with a reason in the details."""
    error_reason_pb2.ErrorReason.Value(reason)  # raises for a name that the API does not have
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="muster"))
    status = status_pb2.Status(code=code.value[0], message=reason, details=[detail])
    await context.abort_with_status(rpc_status.to_status(status))
