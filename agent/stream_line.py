"""The stream: one bidirectional call that carries everything both ways, in batches."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable

import grpc
import grpc.aio

from agent.board import Board
from agent.control_plane import ControlPlane, Stream
from agent.heartbeat import Heartbeat, beat
from agent.measuring import Measuring
from agent.outbox import Outbox
from agent.rpc import reason_of
from generated.stream.v1 import stream_pb2

_OPEN_SECONDS = 8.0
"""How long the welcome may take, at most: nothing renews the leases meanwhile."""

_PROVEN_SECONDS = 5.0
"""A stream that lasted so long was not cut because it is a stream."""


class StreamRefusedError(Exception):
    """The stream was refused, or cut right after its start, and not by the control plane's word.

    Either the control plane is away, or something in between does not let streams through.

    Attributes:
        for_good: Whether another try would be in vain.
    """

    def __init__(self, message: str, *, for_good: bool = False) -> None:
        super().__init__(message)
        self.for_good = for_good


class StreamLine:
    """A line by stream; see agent.line.Line."""

    def __init__(
        self,
        plane: ControlPlane,
        board: Board,
        outbox: Outbox,
        heartbeat: Heartbeat,
        welcomed: Callable[[], None],
        measuring: Measuring,
    ) -> None:
        self._plane = plane
        self._board = board
        self._outbox = outbox
        self._heartbeat = heartbeat
        self._welcomed = welcomed
        self._measuring = measuring
        self._numbers = itertools.count(1)
        self._proven = False

    async def hold(self) -> None:
        """See Line.

        Raises:
            StreamRefusedError: Somebody in between may not want streams.
        """
        self._proven = False
        began = time.monotonic()
        try:
            await self._hold()
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            proven = self._proven or time.monotonic() - began > _OPEN_SECONDS + _PROVEN_SECONDS
            if proven or (isinstance(error, grpc.aio.AioRpcError) and reason_of(error)):
                raise
            raise _refusal(error) from error

    async def _hold(self) -> None:
        call = self._plane.open_stream()
        try:
            async with asyncio.timeout(min(_OPEN_SECONDS, self._heartbeat.silence)):
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

    async def _open(self, call: Stream) -> None:
        hello = stream_pb2.Hello(session_id=self._plane.session_id, held=self._board.held())
        request = self._request(hello=hello)
        self._heartbeat.forget()
        sent_at = time.monotonic()
        with contextlib.suppress(asyncio.InvalidStateError):  # refused at once: reading tells why
            await call.write(request)
        answer = await call.read()
        if not isinstance(answer, stream_pb2.AgentChannelResponse):
            raise TimeoutError  # ended without a word
        self._heartbeat.set_interval(answer.welcome.heartbeat_interval)
        self._board.set_lease_seconds(answer.welcome.lease_seconds)
        self._board.reconnect()
        self._board.renewed(sent_at)
        self._board.judge(answer.welcome.verdicts)
        if answer.welcome.hand_back:
            self._board.hand_back()
        self._welcomed()

    async def _receive(self, call: Stream) -> grpc.aio.AioRpcError | TimeoutError | None:
        """Handles what arrives, and returns what ended the stream."""
        try:
            while True:
                async with asyncio.timeout(self._heartbeat.silence):
                    answer = await call.read()
                if not isinstance(answer, stream_pb2.AgentChannelResponse):
                    return None
                self._proven = True
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
            self._plane.take_key(answer.heartbeat_ack.agent_key)
            self._board.judge(answer.heartbeat_ack.verdicts)
            if answer.heartbeat_ack.hand_back:
                self._board.hand_back()
        elif kind == "task_cancel_command":
            command = answer.task_cancel_command
            self._board.cancel(
                command.task_id, command.lease_id, command.reason, command.grace_seconds
            )
        elif kind == "config_update":
            self._heartbeat.set_interval(answer.config_update.heartbeat_interval)
            self._board.resize(answer.config_update.max_concurrent_jobs)
            delay = answer.config_update.config.get("log_delay_ms", "")
            if delay.isdecimal():
                self._board.set_log_delay(int(delay))

    async def _send_reports(self, call: Stream, lock: asyncio.Lock) -> None:
        while True:
            frame = await self._outbox.next_frame()
            if not await self._send(call, lock, self._request(reports=frame)):
                return

    async def _send_beats(self, call: Stream, lock: asyncio.Lock) -> None:
        while True:
            await self._heartbeat.due()
            request = self._request(heartbeat=beat(self._board))
            self._heartbeat.sent(request.request_id)
            if not await self._send(call, lock, request):
                return
            measured = await self._measuring.if_due(self._board.running)
            if measured is not None:
                await self._send(call, lock, self._request(metrics=measured))

    async def _send(
        self, call: Stream, lock: asyncio.Lock, request: stream_pb2.AgentChannelRequest
    ) -> bool:
        """Sends a message; returns False when the stream has ended, which the reader tells."""
        try:
            async with lock:  # a stream takes one message at a time
                await call.write(request)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return False
        return True

    def _request(
        self,
        *,
        hello: stream_pb2.Hello | None = None,
        reports: stream_pb2.Reports | None = None,
        heartbeat: stream_pb2.HeartbeatData | None = None,
        metrics: stream_pb2.AgentMetrics | None = None,
    ) -> stream_pb2.AgentChannelRequest:
        return stream_pb2.AgentChannelRequest(
            agent_id=self._plane.agent_id,
            request_id=str(next(self._numbers)),
            hello=hello,
            reports=reports,
            heartbeat=heartbeat,
            metrics=metrics,
        )


def _refusal(error: grpc.aio.AioRpcError | TimeoutError) -> StreamRefusedError:
    if isinstance(error, grpc.aio.AioRpcError):
        for_good = error.code() is grpc.StatusCode.UNIMPLEMENTED
        return StreamRefusedError(f"{error.code().name}: {error.details()}", for_good=for_good)
    return StreamRefusedError("no welcome")
