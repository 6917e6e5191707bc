"""One session with the control plane: registers, keeps the channel, comes back when it breaks."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable

import grpc
import grpc.aio
import structlog

from agent import host
from agent.backoff import Backoff
from agent.board import Board
from agent.config import Settings
from agent.heartbeat import Heartbeat, beat
from agent.outbox import Outbox
from agent.rpc import CALL_SECONDS, is_superseded, open_channel
from agent.version import VERSION
from generated.agent.v1 import agent_pb2, agent_pb2_grpc
from generated.stream.v1 import stream_pb2, stream_pb2_grpc

_UNKNOWN_SESSION = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION)
_HOPELESS = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
)
_METRICS_SECONDS = 30.0

_log = structlog.get_logger("agent.session")

Channel = grpc.aio.StreamStreamCall[stream_pb2.AgentChannelRequest, stream_pb2.AgentChannelResponse]


class SupersededError(Exception):
    """A newer instance has taken over the agent's id."""


class RefusedError(Exception):
    """The control plane refuses this agent, and would refuse it again."""


class Session:
    """The agent's side of the protocol."""

    def __init__(
        self,
        settings: Settings,
        agent_id: str,
        board: Board,
        outbox: Outbox,
        welcomed: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._agent_id = agent_id
        self._board = board
        self._outbox = outbox
        self._welcomed = welcomed
        self._session_id = ""
        self._heartbeat = Heartbeat()
        self._backoff = Backoff()
        self._beat_now = asyncio.Event()
        self._numbers = itertools.count(1)
        self._measured_at = 0.0
        self._metadata = (("muster-namespace", settings.namespace),)
        self._channel = open_channel(settings.server)
        self._agents: agent_pb2_grpc.AgentServiceAsyncStub = agent_pb2_grpc.AgentServiceStub(
            self._channel
        )
        self._streams: stream_pb2_grpc.StreamServiceAsyncStub = stream_pb2_grpc.StreamServiceStub(
            self._channel
        )

    async def run(self) -> None:
        """Keeps the session, until cancelled.

        Raises:
            SupersededError: A newer instance has the agent's id.
            RefusedError: The control plane refuses the agent.
        """
        while True:
            try:
                if not self._session_id:
                    await self._register()
                await self._hold_channel()
                _log.warning("the channel ended", server=self._settings.server)
            except grpc.aio.AioRpcError as error:
                self._judge(error)
            except TimeoutError:
                _log.warning("the control plane is silent", server=self._settings.server)
            await asyncio.sleep(self._backoff.next())

    def beat_now(self) -> None:
        """Sends a heartbeat without waiting for its time."""
        self._beat_now.set()

    async def update_labels(self, labels: dict[str, str]) -> None:
        """Tells the control plane the agent's labels; errors are left to the next Register."""
        request = agent_pb2.HeartbeatRequest(
            agent_id=self._agent_id, session_id=self._session_id, labels=labels
        )
        try:
            await self._agents.Heartbeat(request, timeout=CALL_SECONDS, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            _log.warning("labels were not taken", code=error.code().name, error=error.details())

    async def unregister(self, reason: str) -> None:
        """Closes the session; without an answer the server notices by itself."""
        if not self._session_id:
            return
        request = agent_pb2.UnregisterRequest(
            agent_id=self._agent_id, reason=reason, session_id=self._session_id
        )
        try:
            await self._agents.Unregister(request, timeout=5.0, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            _log.warning("could not unregister", code=error.code().name, error=error.details())

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()

    def _judge(self, error: grpc.aio.AioRpcError) -> None:
        """Decides what a failed call means for the session."""
        if is_superseded(error):
            raise SupersededError(f"a newer instance runs as agent {self._agent_id}") from error
        registering = not self._session_id
        if registering and error.code() in _HOPELESS:
            raise RefusedError(f"{error.code().name}: {error.details()}") from error
        if error.code() in _UNKNOWN_SESSION:
            self._session_id = ""
        _log.warning(
            "the control plane did not answer", code=error.code().name, error=error.details()
        )

    async def _register(self) -> None:
        request = host.facts()
        request.agent_id = self._agent_id
        request.version = VERSION
        request.max_concurrent_jobs = self._board.slots
        request.labels.update(self._settings.all_labels())
        request.held.CopyFrom(self._board.held())
        request.held.seen_through = 0
        sent_at = time.monotonic()
        answer = await self._agents.Register(request, timeout=CALL_SECONDS, metadata=self._metadata)
        self._session_id = answer.session_id
        self._board.seen_through = 0
        self._terms(answer.heartbeat_interval, answer.lease_seconds)
        self._board.renewed(sent_at)
        self._board.judge(answer.verdicts)

    async def _hold_channel(self) -> None:
        """Opens the channel and serves it until it ends.

        Raises:
            grpc.aio.AioRpcError: It ended with an error.
            TimeoutError: The server fell silent.
        """
        call: Channel = self._streams.AgentChannel(metadata=self._metadata)
        try:
            async with asyncio.timeout(CALL_SECONDS):
                await self._open(call)
            async with asyncio.TaskGroup() as group:
                lock = asyncio.Lock()
                senders = [
                    group.create_task(self._send_reports(call, lock)),
                    group.create_task(self._send_beats(call, lock)),
                ]
                error = await self._receive(call)
                for sender in senders:
                    sender.cancel()
            if error is not None:
                raise error
        finally:
            call.cancel()

    async def _open(self, call: Channel) -> None:
        hello = stream_pb2.Hello(session_id=self._session_id, held=self._board.held())
        request = self._request(hello=hello)
        self._heartbeat.forget()
        sent_at = time.monotonic()
        with contextlib.suppress(asyncio.InvalidStateError):  # refused at once: reading tells why
            await call.write(request)
        answer = await call.read()
        if not isinstance(answer, stream_pb2.AgentChannelResponse):
            raise TimeoutError  # ended without a word
        self._backoff.reset()
        self._terms(answer.welcome.heartbeat_interval, answer.welcome.lease_seconds)
        self._board.reconnect()
        self._board.renewed(sent_at)
        self._board.judge(answer.welcome.verdicts)
        self._welcomed()

    async def _receive(self, call: Channel) -> grpc.aio.AioRpcError | TimeoutError | None:
        """Handles what arrives, and returns what ended the channel."""
        try:
            while True:
                async with asyncio.timeout(self._heartbeat.silence):
                    answer = await call.read()
                if not isinstance(answer, stream_pb2.AgentChannelResponse):
                    return None
                self._handle(answer)
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            return error

    def _handle(self, answer: stream_pb2.AgentChannelResponse) -> None:
        kind = answer.WhichOneof("payload")
        if kind == "assignments":
            self._board.assign(answer.assignments.frame_number, answer.assignments.tasks)
        elif kind == "acks":
            self._board.acknowledge(answer.acks)
        elif kind == "heartbeat_ack":
            sent_at = self._heartbeat.answered(answer.response_id)
            if sent_at is not None:
                self._board.renewed(sent_at)
            self._board.judge(answer.heartbeat_ack.verdicts)
        elif kind == "task_cancel_command":
            command = answer.task_cancel_command
            self._board.cancel(
                command.task_id, command.lease_id, command.reason, command.grace_seconds
            )
        elif kind == "config_update":
            self._heartbeat.set_interval(answer.config_update.heartbeat_interval)
            self._board.resize(answer.config_update.max_concurrent_jobs)

    async def _send_reports(self, call: Channel, lock: asyncio.Lock) -> None:
        while True:
            frame = await self._outbox.next_frame()
            if not await self._send(call, lock, self._request(reports=frame)):
                return

    async def _send_beats(self, call: Channel, lock: asyncio.Lock) -> None:
        while True:
            try:
                async with asyncio.timeout(self._heartbeat.pause()):
                    await self._beat_now.wait()
            except TimeoutError:
                pass
            self._beat_now.clear()
            board = self._board
            data = beat(board.held(), board.running, board.slots, board.draining)
            request = self._request(heartbeat=data)
            self._heartbeat.sent(request.request_id)
            if not await self._send(call, lock, request):
                return
            if time.monotonic() - self._measured_at > _METRICS_SECONDS:
                self._measured_at = time.monotonic()
                measured = host.metrics(self._settings.data_dir, board.running)
                await self._send(call, lock, self._request(metrics=measured))

    async def _send(
        self, call: Channel, lock: asyncio.Lock, request: stream_pb2.AgentChannelRequest
    ) -> bool:
        """Sends a message; returns False when the channel has ended, which the reader tells."""
        try:
            async with lock:  # a channel takes one message at a time
                await call.write(request)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return False
        return True

    def _terms(self, heartbeat_interval: int, lease_seconds: int) -> None:
        self._heartbeat.set_interval(heartbeat_interval)
        if lease_seconds > 0:
            self._board.lease_seconds = float(lease_seconds)

    def _request(
        self,
        *,
        hello: stream_pb2.Hello | None = None,
        reports: stream_pb2.Reports | None = None,
        heartbeat: stream_pb2.HeartbeatData | None = None,
        metrics: stream_pb2.AgentMetrics | None = None,
    ) -> stream_pb2.AgentChannelRequest:
        return stream_pb2.AgentChannelRequest(
            agent_id=self._agent_id,
            request_id=str(next(self._numbers)),
            hello=hello,
            reports=reports,
            heartbeat=heartbeat,
            metrics=metrics,
        )
