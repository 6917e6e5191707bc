"""Ends the agent in order: finish or hand back, stop the rest, report, unregister."""

import asyncio
from datetime import timedelta

import structlog

from agent.board import Board
from agent.heartbeat import Heartbeat
from agent.session import Session

_STOPPED = "the agent was stopped"
_STOP_SECONDS = 60.0
"""How long stopped tasks may take to be gone: their grace, and then some."""

_REPORT_SECONDS = 20.0
"""How long the last reports may take; the spool keeps what is not acknowledged."""

_HURRIED_REPORT_SECONDS = 3.0

_log = structlog.get_logger("agent.drain")


class Drain:
    """What SIGTERM starts, and a second one hurries."""

    def __init__(
        self, board: Board, session: Session, heartbeat: Heartbeat, limit: timedelta
    ) -> None:
        self.requested = asyncio.Event()
        self._hurried = asyncio.Event()
        self._board = board
        self._session = session
        self._heartbeat = heartbeat
        self._limit = limit

    def request(self) -> None:
        """Starts the drain; the second time stops all tasks at once."""
        if self.requested.is_set():
            self._hurried.set()
            self._board.stop_all("stopped", _STOPPED, 0.0)
        self.requested.set()

    async def run(self) -> int:
        """Drains and returns the exit code."""
        _log.info("draining", running=self._board.running)
        self._board.drain()
        self._heartbeat.hurry()
        if not await _within(self._limit.total_seconds(), self._board.quiet):
            self._board.stop_all("stopped", _STOPPED)
            await _within(_STOP_SECONDS, self._board.quiet)
        if not await self._reported():
            _log.warning("not everything was acknowledged; the next start goes on with it")
        await self._session.unregister(_STOPPED)
        return 0

    async def _reported(self) -> bool:
        """Waits for the last acknowledgement; a second signal leaves little time for it."""
        async with asyncio.TaskGroup() as group:
            empty = group.create_task(self._board.empty.wait())
            hurried = group.create_task(self._hurried.wait())
            either = [empty, hurried]
            await asyncio.wait(either, timeout=_REPORT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if hurried.done():
                await asyncio.wait([empty], timeout=_HURRIED_REPORT_SECONDS)
            for task in either:
                task.cancel()
        return self._board.empty.is_set()


async def _within(seconds: float, event: asyncio.Event) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
