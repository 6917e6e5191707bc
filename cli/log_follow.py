"""A task's log as it grows, through breaks of the connection, each line once."""

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from grpc import aio

from cli.connection import Api
from cli.patience import LONGEST_PAUSE, Patience, call_patiently
from cli.states import ENDED
from generated.stream.v1 import stream_pb2
from generated.task.v1 import task_pb2

Lines = Sequence[stream_pb2.LogChunk]


@dataclass
class Place:
    """The last line read: which attempt's, and its number. All zero before the first."""

    attempt: int = 0
    line: int = 0

    def pass_over(self, attempt: int, lines: Lines) -> Lines:
        """Return the lines that come after this place, and move behind them."""
        if attempt < self.attempt:
            return []
        if attempt > self.attempt:
            self.attempt, self.line = attempt, 0
        new = [line for line in lines if line.line_number > self.line]
        if new:
            self.line = new[-1].line_number
        return new


class LogFollower:
    """Reads the log of one task from a line on.

    Without an attempt it follows the current one and goes on into the next when the task is tried
    again. After a break it asks for the rest of the attempt it was reading first: asking for the
    current attempt could skip the end of one log and the beginning of the next.
    """

    def __init__(
        self,
        api: Api,
        task_id: str,
        *,
        follow: bool,
        attempt: int = 0,
        from_line: int = 0,
        tail: int = 0,
        since: int = 0,
    ) -> None:
        self.api = api
        self.task_id = task_id
        self.follow = follow
        self.only_attempt = attempt
        self.wanted_attempt = attempt
        self.place = Place(attempt, max(0, from_line - 1))
        self.tail = tail
        self.since = since
        self.log_state = task_pb2.LOG_STATE_UNSPECIFIED
        self.patience = Patience()
        self.complete = False

    async def batches(self) -> AsyncIterator[tuple[int, Lines]]:
        """Give each attempt's new lines as they come, until the log is over.

        Raises:
            grpc.aio.AioRpcError: when the task is unknown or the connection stays broken.
        """
        while True:
            opened = time.monotonic()
            try:
                async for answer in self._open():
                    if lines := self._new_lines(answer):
                        self.patience.renew()
                        yield self.place.attempt, lines
                if await self._is_over():
                    return
            except aio.AioRpcError as error:
                if time.monotonic() - opened > LONGEST_PAUSE.total_seconds():
                    self.patience.renew()  # the connection was good, only silent
                await self.patience.bear(error)
                self._ask_for_the_rest()

    def _open(
        self,
    ) -> aio.UnaryStreamCall[stream_pb2.StreamTaskLogRequest, stream_pb2.StreamTaskLogResponse]:
        """Ask for the log from the next line on, or all of it when the attempt may be another."""
        self.complete = False
        same = self.wanted_attempt == self.place.attempt
        request = stream_pb2.StreamTaskLogRequest(
            job_id=self.task_id, follow=self.follow, attempt=self.wanted_attempt, batched=True
        )
        if self.place.line or not (self.tail or self.since):
            request.from_line = self.place.line + 1 if same else 1
        else:  # nothing was read yet
            request.tail, request.since = self.tail, self.since
        return self.api.streams.StreamTaskLog(request, metadata=self.api.metadata)

    def _new_lines(self, answer: stream_pb2.StreamTaskLogResponse) -> Lines:
        """Take in one answer; return the lines in it that were not seen yet."""
        if answer.is_complete:
            self.complete = True
            self.log_state = answer.log_state
        lines = list(answer.log_chunks)
        if answer.HasField("log_chunk"):
            lines.insert(0, answer.log_chunk)
        return self.place.pass_over(answer.attempt or self.place.attempt, lines)

    def _ask_for_the_rest(self) -> None:
        """Go on in the attempt that was read when the stream broke."""
        self.wanted_attempt = self.only_attempt or self.place.attempt

    async def _is_over(self) -> bool:
        """Decide after the end of a stream whether it was the end of the log."""
        if not self.follow or (self.complete and self.wanted_attempt == self.only_attempt):
            return True
        if not self.complete:
            self._ask_for_the_rest()
            return not await self.patience.wait()
        return await self._was_last_attempt()

    async def _was_last_attempt(self) -> bool:
        """After the rest of one attempt: turn to the next, or see that there is none."""
        task = await self._task()
        if task.attempt > self.place.attempt:
            self.place = Place(self.place.attempt + 1)
            self.wanted_attempt = self.place.attempt
            return False
        self.wanted_attempt = 0
        return task.status in ENDED

    async def _task(self) -> task_pb2.TaskDetail:
        request = task_pb2.GetTaskRequest(task_id=self.task_id)
        return (await call_patiently(self.api, self.api.tasks.GetTask, request)).task
