"""Gathers what there is to report, so that one frame carries all that is pending."""

import asyncio

from agent.executor import TaskRun
from generated.agent.v1 import agent_pb2
from generated.stream.v1 import stream_pb2

_FRAME_LOG_BYTES = 2 * 1024 * 1024
"""Log bytes in a frame, unpacked, after which the rest waits for the next: servers take 4 MiB."""

_FRAME_STATUSES = 5000

_GATHER_SECONDS = 0.02
"""How long a patient frame waits: start and end of a short task then travel in one."""


class Outbox:
    """Runs that have something to say, and leases to hand back."""

    def __init__(self) -> None:
        self._ready: dict[str, TaskRun] = {}
        self._handed_back: list[agent_pb2.HeldLease] = []
        self.ahead = 0
        """How many tasks to ask for beyond the slots; told with the next frame."""
        self._ahead_told = 0
        self.patient = False
        """Whether work is at hand anyway: then a frame may wait a little for more to say."""
        self._wake = asyncio.Event()

    def mark(self, run: TaskRun) -> None:
        """Notes that a run may have something to say."""
        self._ready[run.identity.lease] = run
        self._wake.set()

    def hand_back(self, run: TaskRun, reason: str = "") -> None:
        """Gives back the lease of a run that has not started, with why this host cannot."""
        identity = run.identity
        self._handed_back.append(
            agent_pb2.HeldLease(task_id=identity.task, lease_id=identity.lease, reason=reason)
        )
        self._wake.set()

    def reconnect(self) -> None:
        """Prepares for a new stream: what `Held` does not name is released, and nothing is told."""
        self._handed_back.clear()
        self._ahead_told = 0

    async def next_frame(self) -> stream_pb2.Reports:
        """Waits until there is something to say and returns all of it."""
        while True:
            await self._wake.wait()
            if self.patient:
                await asyncio.sleep(_GATHER_SECONDS)
            self._wake.clear()
            frame = self._frame()
            if frame.ByteSize() > 0:
                return frame

    def _frame(self) -> stream_pb2.Reports:
        frame = stream_pb2.Reports(handed_back=self._handed_back)
        self._handed_back.clear()
        if self.ahead != self._ahead_told:
            frame.ahead = self._ahead_told = self.ahead
        ready, self._ready = list(self._ready.values()), {}
        size = 0
        for index, run in enumerate(ready):
            if size >= _FRAME_LOG_BYTES or len(frame.statuses) >= _FRAME_STATUSES:
                for later in ready[index:]:
                    self.mark(later)
                break
            reports = run.take_reports()
            frame.statuses.extend(reports)
            size += sum(report.ByteSize() for report in reports if report.outputs)
            while size < _FRAME_LOG_BYTES and (batch := run.log.next_batch()) is not None:
                frame.logs.append(batch)
                size += batch.block.unpacked_bytes
            if size >= _FRAME_LOG_BYTES:
                self.mark(run)
        return frame
