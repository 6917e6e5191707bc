"""Unary calls: what the stream carries, one call at a time, for networks that refuse streams."""

import asyncio
import random
import time
import uuid
from collections.abc import Callable

import grpc
import grpc.aio

from agent.backoff import Backoff
from agent.board import Board
from agent.control_plane import ControlPlane
from agent.heartbeat import Heartbeat, beat
from agent.measuring import Measuring
from agent.outbox import Outbox
from agent.rpc import is_superseded, is_transient
from generated.agent.v1 import agent_pb2
from generated.stream.v1 import stream_pb2
from generated.task.v1 import task_pb2

_STREAM_AGAIN_BEATS = 6
"""How many heartbeats' time, more or less, until the stream is tried again: about a minute."""

_FETCH_WAIT_SECONDS = 30
_CALLS_AT_ONCE = 16


class UnaryLine:
    """A line by unary calls; see agent.line.Line. Leases it hands back go by not being held."""

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
        # Kept until it is answered, however often the line changes: a repeat brings the tasks of
        # an answer that was lost.
        self._request_id = str(uuid.uuid4())

    async def hold(self) -> None:
        """See Line. Returns when it is time to try the stream."""
        beats = _STREAM_AGAIN_BEATS * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
        last = time.monotonic() + beats * self._heartbeat.interval
        await self.beat()
        self._board.reconnect()
        self._welcomed()
        try:
            async with asyncio.TaskGroup() as group:
                others = [
                    group.create_task(self._send_reports()),
                    group.create_task(self._send_beats()),
                ]
                await self._fetch_until(last)
                for task in others:
                    task.cancel()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        await self.beat()  # the stream may take its time to open, or to be refused

    async def beat(self) -> None:
        """Sends one heartbeat and does what its answer says."""
        data = beat(self._board)
        request = agent_pb2.HeartbeatRequest(
            status=data.status,
            running_jobs_count=data.running_jobs_count,
            max_concurrent_jobs=data.max_concurrent_jobs,
            metrics=await self._metrics(),
            held=data.held,
        )
        sent_at = time.monotonic()
        answer = await self._plane.heartbeat(request)
        self._board.renewed(sent_at)
        self._board.judge(answer.verdicts)
        self._heartbeat.set_interval(answer.config.heartbeat_interval)
        self._board.resize(answer.config.max_concurrent_jobs)
        self._board.set_log_delay(answer.config.log_delay_ms)
        if answer.hand_back:
            self._board.hand_back()

    async def _metrics(self) -> dict[str, str]:
        measured = await self._measuring.if_due(self._board.running)
        if measured is None:
            return {}
        numbers = ("cpu_usage", "memory_usage", "disk_usage", "running_tasks")
        own = {name: f"{getattr(measured, name):g}" for name in numbers}
        return {**measured.custom_metrics, **own}

    async def _send_beats(self) -> None:
        backoff = Backoff()
        while True:
            await self._heartbeat.due()
            try:
                await self.beat()
                backoff.reset()
            except grpc.aio.AioRpcError as error:
                await _bear(error, backoff)
                self._heartbeat.hurry()

    async def _fetch_until(self, last: float) -> None:
        """Fetches tasks while there are free slots; no fetch is open when it returns."""
        backoff = Backoff()
        while (left := last - time.monotonic()) >= 1:
            try:
                async with asyncio.timeout(left):
                    await self._board.vacant.wait()
                request = agent_pb2.FetchTaskRequest(
                    max_jobs=self._board.vacancies,
                    wait=min(_FETCH_WAIT_SECONDS, int(left)),
                    request_id=self._request_id,
                )
                answer = await self._plane.fetch(request)
            except TimeoutError:
                return
            except grpc.aio.AioRpcError as error:
                await _bear(error, backoff)
                continue
            backoff.reset()
            self._request_id = str(uuid.uuid4())
            self._board.assign(answer.frame_number, answer.tasks)

    async def _send_reports(self) -> None:
        places = asyncio.Semaphore(_CALLS_AT_ONCE)
        while True:
            frame = await self._outbox.next_frame()
            if frame.handed_back:
                self._heartbeat.hurry()  # tells what is held, and so what is not
            leases = {status.lease_id for status in frame.statuses}
            leases |= {log.lease_id for log in frame.logs}
            said = await asyncio.gather(
                *(self._speak_for(lease_id, frame, places) for lease_id in leases)
            )
            for acks in said:
                self._board.acknowledge(acks)

    async def _speak_for(
        self, lease_id: str, frame: stream_pb2.Reports, places: asyncio.Semaphore
    ) -> stream_pb2.Acks:
        """Sends a frame's reports of one lease, in order, and returns their answers."""
        acks = stream_pb2.Acks()
        async with places:
            for update in frame.statuses:
                if update.lease_id == lease_id:
                    acks.statuses.append(await self._send_status(update))
            refused = 0
            for data in frame.logs:
                if data.lease_id == lease_id:
                    # After a batch that was not taken, the next one would be a hole.
                    ack = _refused(data, refused) if refused else await self._send_log(data)
                    refused = ack.error_code
                    acks.logs.append(ack)
        return acks

    async def _send_status(self, update: stream_pb2.TaskStatusUpdate) -> stream_pb2.StatusAck:
        ack = stream_pb2.StatusAck(
            task_id=update.task_id, lease_id=update.lease_id, status=update.status
        )
        try:
            answer = await self._plane.report_status(_status_request(update))
            ack.verdict.CopyFrom(answer.verdict)
        except grpc.aio.AioRpcError as error:
            ack.error_code = _code_of(error)
        return ack

    async def _send_log(self, data: stream_pb2.LogData) -> stream_pb2.LogAck:
        request = agent_pb2.ReportTaskLogRequest(
            task_id=data.job_id, lease_id=data.lease_id, block=data.block
        )
        try:
            answer = await self._plane.report_log(request)
        except grpc.aio.AioRpcError as error:
            # It names no position, but all before this batch was acknowledged: batches of a lease
            # go one after another.
            return _refused(data, _code_of(error), data.block.first_line - 1)
        return stream_pb2.LogAck(
            task_id=data.job_id,
            lease_id=data.lease_id,
            acked_through=answer.acked_through,
            verdict=answer.verdict,
        )


async def _bear(error: grpc.aio.AioRpcError, backoff: Backoff) -> None:
    """Waits out an error that may pass; raises any other."""
    if not is_transient(error.code()):
        raise error
    await asyncio.sleep(backoff.next())


def _code_of(error: grpc.aio.AioRpcError) -> int:
    """Returns the number of an error that concerns one report; raises one that concerns all."""
    if is_superseded(error):
        raise error
    number: int = error.code().value[0]
    return number


def _refused(data: stream_pb2.LogData, code: int, acked_through: int = 0) -> stream_pb2.LogAck:
    return stream_pb2.LogAck(
        task_id=data.job_id,
        lease_id=data.lease_id,
        acked_through=acked_through,
        error_code=code,
    )


def _status_request(update: stream_pb2.TaskStatusUpdate) -> agent_pb2.ReportTaskStatusRequest:
    request = agent_pb2.ReportTaskStatusRequest(
        task_id=update.task_id,
        status=update.status,
        exit_code=update.exit_code,
        error_message=update.error_message,
        start_time=update.started_at // 1000,
        lease_id=update.lease_id,
        failure=update.failure,
        outputs=update.outputs,
    )
    if update.status != task_pb2.TASK_STATUS_RUNNING:
        request.end_time = update.timestamp // 1000
    if update.HasField("log"):
        request.log.CopyFrom(update.log)
    return request
