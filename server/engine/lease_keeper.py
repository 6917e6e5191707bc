"""Leases live as long as their session is heard; this loop writes it down and notices silence.

Hearing an agent costs no write. Every few seconds one command writes when each session was last
heard; a session that has been silent for a whole lease is given up.
"""

import asyncio
from datetime import timedelta

import structlog

from server.domain.errors import MusterError, StoreUnavailable
from server.domain.moment import Moment
from server.domain.registering import LoseSession, RenewSessions
from server.engine.clock import Clock
from server.engine.sessions import Session, Sessions
from server.engine.writer import Writer
from server.stores.interfaces import LiveSession, Reader

WRITE_EVERY = 3.0
LOOK_EVERY = 0.5

log = structlog.get_logger(__name__)


class LeaseKeeper:
    """See the module."""

    def __init__(
        self,
        writer: Writer,
        sessions: Sessions,
        clock: Clock,
        lease: timedelta,
        start_grace: timedelta,
    ) -> None:
        self._writer = writer
        self._sessions = sessions
        self._clock = clock
        self._lease = lease.total_seconds()
        self._start_grace = max(start_grace, lease).total_seconds()
        self._awaited: dict[str, LiveSession] = {}
        """Sessions that were live before this server started and have not spoken to it."""
        self._started = 0.0
        self._written = 0.0

    async def start(self, reader: Reader) -> None:
        """Learn whom to expect."""
        self._started = self._clock.monotonic()
        self._awaited = {live.session_id: live for live in await reader.live_sessions()}

    async def run(self) -> None:
        """Keep leases until cancelled."""
        look_every = min(LOOK_EVERY, self._lease / 6)
        while True:
            await asyncio.sleep(look_every)
            try:
                await self._renew()
                await self._give_up_silent()
                await self._give_up_awaited()
            except StoreUnavailable as error:
                log.warning("leases_not_written", error=str(error))
            except MusterError as error:
                log.warning("leases_refused", error=str(error))

    async def _renew(self) -> None:
        now = self._clock.monotonic()
        if now - self._written < min(WRITE_EVERY, self._lease / 3):
            return
        self._written = now
        news = [s for s in self._sessions if s.heard_at > s.written_at and not s.lost]
        if not news:
            return
        heard = tuple((s.agent_key, s.session_id, s.heard_at) for s in news)
        await self._writer.submit(RenewSessions(heard))
        for session, (_, _, at) in zip(news, heard, strict=True):
            session.written_at = at

    async def _give_up_silent(self) -> None:
        now = self._clock.monotonic()
        for session in [s for s in self._sessions if not s.lost]:
            if now - session.heard > self._lease:
                await self._give_up(session.agent_id, session.session_id, session.heard_at)

    async def _give_up_awaited(self) -> None:
        """After a start agents get longer: they are busy coming back, all at once."""
        if not self._awaited:
            return
        if self._clock.monotonic() - self._started < self._start_grace:
            return
        for live in list(self._awaited.values()):
            if self._sessions.get(live.session_id) is None:
                await self._give_up(live.agent_id, live.session_id, live.last_seen)
            del self._awaited[live.session_id]

    async def _give_up(self, agent_id: str, session_id: str, silent_since: Moment) -> None:
        session: Session | None = self._sessions.get(session_id)
        if await self._writer.submit(LoseSession(agent_id, session_id, silent_since)):
            log.warning("agent_lost", agent_id=agent_id, session_id=session_id)
        if session is not None and session.heard_at <= silent_since:
            session.lost = True
