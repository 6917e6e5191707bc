"""Leases live as long as their session is heard; this loop writes it down and notices silence.

Hearing an agent costs no write. Every few seconds one command writes which sessions were heard; a
session that has been silent for a whole lease is given up. Sessions that another server serves are
watched through their rows: one whose `last_seen` has not changed for a lease is given up too. All
waiting is by the monotonic clock, so that a clock that is set loses nobody.
"""

import asyncio
from datetime import timedelta

import structlog

from server.domain.moment import SECOND, Moment
from server.domain.registering import LoseSession, RenewSessions
from server.engine.clock import Clock
from server.engine.measurements import Measurements
from server.engine.sessions import Session, Sessions
from server.engine.surviving import survives
from server.engine.writer import Writer
from server.stores.interfaces import LiveSession, Reader

WRITE_EVERY = 3.0
LOOK_EVERY = 0.5

log = structlog.get_logger(__name__)


class Watched:
    """A session that has not spoken to this server."""

    __slots__ = ("give_up_at", "live")

    def __init__(self, live: LiveSession, give_up_at: float) -> None:
        self.live = live
        self.give_up_at = give_up_at


class LeaseKeeper:
    """See the module."""

    def __init__(
        self,
        writer: Writer,
        reader: Reader,
        sessions: Sessions,
        clock: Clock,
        lease: timedelta,
        start_grace: timedelta,
        measurements: Measurements | None = None,
    ) -> None:
        self._measurements = measurements or Measurements()
        self._writer = writer
        self._reader = reader
        self._sessions = sessions
        self._clock = clock
        self._lease = lease.total_seconds()
        self._start_grace = max(start_grace, lease).total_seconds()
        self._watched: dict[str, Watched] = {}
        self._written = 0.0
        self._looked = 0.0

    async def start(self) -> None:
        """Learn whom to expect; after a start agents get longer, for all come back at once."""
        self._looked = self._clock.monotonic()
        self._watch(await self._reader.live_sessions(), self._start_grace)

    async def run(self) -> None:
        """Keep leases until cancelled."""
        while True:
            await asyncio.sleep(min(LOOK_EVERY, self._lease / 6))
            await survives("leases", self._round)

    async def _round(self) -> None:
        await self._renew()
        await self._give_up_silent()
        await self._give_up_watched()
        await self._look()

    async def _renew(self) -> None:
        now = self._clock.monotonic()
        if now - self._written < self._write_every:
            return
        self._written = now
        news = [(s, s.heard) for s in self._sessions if s.heard > s.written and not s.lost]
        if not news:
            return
        heard = tuple((session.agent_key, session.session_id) for session, _ in news)
        fresh = {s.agent_key: s.measured for s, _ in news if s.measured_anew}
        last_seen = await self._writer.submit(RenewSessions(heard, fresh))
        for session, at in news:
            session.written, session.last_seen = at, last_seen
            if session.measured is fresh.get(session.agent_key):
                session.measured_anew = False

    @property
    def _write_every(self) -> float:
        return min(WRITE_EVERY, self._lease / 6)

    async def _give_up_silent(self) -> None:
        now = self._clock.monotonic()
        for session in [s for s in self._sessions if not s.lost]:
            patience = session.lease / SECOND
            if now - session.heard <= patience:
                continue
            if await self._give_up(session.agent_id, session.session_id, session.last_seen):
                session.lost = True
                if session.mailbox is None:
                    self._forget(session)  # its agent's next word makes it known again
            elif self._clock.monotonic() - session.heard > patience:
                self._forget(session)

    def _forget(self, session: Session) -> None:
        """Leave a session to whoever hears it next: another server, a newer session, or we."""
        self._sessions.remove(session)

    async def _give_up_watched(self) -> None:
        now = self._clock.monotonic()
        for session_id, watched in list(self._watched.items()):
            if self._sessions.get(session_id) is not None:
                del self._watched[session_id]
            elif now >= watched.give_up_at:
                live = watched.live
                await self._give_up(live.agent_id, live.session_id, live.last_seen)
                self._watched.pop(session_id, None)

    async def _look(self) -> None:
        """Look how the sessions fare that do not speak to this server."""
        now = self._clock.monotonic()
        if now - self._looked < self._lease / 3:
            return
        self._looked = now
        self._watch(await self._reader.live_sessions(), 0.0)
        if self._measurements.watched and self._watched:
            for agent_id, measured in (await self._reader.measured()).items():
                self._measurements.tell(agent_id, measured)

    def _watch(self, live_sessions: list[LiveSession], grace: float) -> None:
        now = self._clock.monotonic()
        earlier, self._watched = self._watched, {}
        for live in live_sessions:
            if self._sessions.get(live.session_id) is not None:
                continue
            known = earlier.get(live.session_id)
            if known is None or known.live.last_seen != live.last_seen:
                # Its server may write up to one write interval late.
                patience = max(grace, live.lease / SECOND + self._write_every)
                known = Watched(live, now + patience)
            self._watched[live.session_id] = known

    async def _give_up(self, agent_id: str, session_id: str, last_seen: Moment) -> bool:
        lost = await self._writer.submit(LoseSession(agent_id, session_id, last_seen))
        if lost:
            log.warning("agent_lost", agent_id=agent_id, session_id=session_id)
        return lost
