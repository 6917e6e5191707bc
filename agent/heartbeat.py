"""When to beat, what a beat says, and which answered beat renewed the leases."""

import asyncio
import random
import time

from agent.board import Board
from generated.agent.v1 import agent_pb2
from generated.stream.v1 import stream_pb2

_JITTER = 0.1
_SILENT_INTERVALS = 3
_SHORTEST_SILENCE = 5.0


class Heartbeat:
    """The rhythm of one session's heartbeats."""

    def __init__(self) -> None:
        self.interval = 10.0
        self._sent: dict[str, float] = {}
        self._hurried = asyncio.Event()

    @property
    def silence(self) -> float:
        """Seconds without a word from the server after which its stream counts as broken."""
        return max(self.interval * _SILENT_INTERVALS, _SHORTEST_SILENCE)

    def set_interval(self, seconds: int) -> None:
        """Takes the server's interval; 0 leaves it."""
        if seconds > 0:
            self.interval = float(seconds)

    async def due(self) -> None:
        """Waits until it is time for a beat, at a jittered pace: agents must not beat in step."""
        pause = self.interval * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret
        try:
            async with asyncio.timeout(pause):
                await self._hurried.wait()
        except TimeoutError:
            pass
        self._hurried.clear()

    def hurry(self) -> None:
        """Makes the next beat due at once."""
        self._hurried.set()

    def sent(self, request_id: str) -> None:
        """Notes that a renewal leaves now."""
        self._sent[request_id] = time.monotonic()

    def answered(self, response_id: str) -> float | None:
        """Returns when (monotonic) the answered renewal left, or None when it is unknown."""
        moment = self._sent.pop(response_id, None)
        if moment is None:
            return None
        self._sent = {name: sent for name, sent in self._sent.items() if sent > moment}
        return moment

    def forget(self) -> None:
        """Drops unanswered beats of an ended stream."""
        self._sent.clear()


def beat(board: Board) -> stream_pb2.HeartbeatData:
    """Returns a heartbeat that tells everything the agent holds."""
    status = agent_pb2.AGENT_STATUS_ONLINE
    if board.running == 0:
        status = agent_pb2.AGENT_STATUS_IDLE
    elif board.running >= board.slots:
        status = agent_pb2.AGENT_STATUS_BUSY
    return stream_pb2.HeartbeatData(
        timestamp=time.time_ns() // 1_000_000,
        status=status,
        running_jobs_count=board.running,
        max_concurrent_jobs=board.slots,
        held=board.held(),
        draining=not board.takes_work,
    )
