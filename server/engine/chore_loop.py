"""Takes batches of logs with a chore and does them, one after the other, while there is room.

A batch is kept while it is worked on and left to others once its claim has ended. One that failed
here is gone on with, if nobody else has taken it meanwhile; after a few failures it waits until its
claim has ended, and others have their turn.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar
from uuid import uuid4

import structlog

from server.domain.chores import Claim, EndChores, RenewClaim
from server.domain.ledger import Command
from server.engine.room import SpareRoom
from server.engine.surviving import survives
from server.engine.writer import Writer

LOOK_EVERY = 10.0
LONGEST_WAIT = 60.0
STEP_PAUSE = 0.05
"""Seconds between two batches: new work comes first."""

TRIES = 3
"""Failures after which a batch lets others pass."""

log = structlog.get_logger(__name__)


class Batch(Protocol):
    """Logs that were taken together."""

    @property
    def claim(self) -> Claim:
        """Until when they are whose."""


class ClaimLost(Exception):  # noqa: N818 (no failure: others have the batch)
    """A batch is done, or another server has it: nothing more is to be written for it here."""


BatchT = TypeVar("BatchT", bound=Batch)


class ChoreLoop(Generic[BatchT]):
    """See the module. `claim` makes the command that takes a batch, from a name for a new one."""

    def __init__(
        self,
        what: str,
        writer: Writer,
        room: SpareRoom,
        claim: Callable[[str], Command[BatchT | None]],
    ) -> None:
        self._what = what
        self._writer = writer
        self._room = room
        self._take = claim
        self._unfinished: BatchT | None = None
        self._failures = 0
        self._claim: Claim | None = None
        self._wait = LOOK_EVERY

    async def round(self, work: Callable[[BatchT], Awaitable[int]]) -> None:
        """Wait a while, then do all that is due; the wait grows while that fails."""
        await asyncio.sleep(self._wait)
        fine = await survives(self._what, lambda: self.do(work))
        self._wait = LOOK_EVERY if fine else min(2 * self._wait, LONGEST_WAIT)

    async def do(self, work: Callable[[BatchT], Awaitable[int]]) -> int:
        """Do all that is due; `work` returns how many logs it has done, and so does this.

        `work` calls `renew` before whatever it writes.
        """
        done = 0
        while await self._room.is_there():
            try:
                batch = await self._next()
                if batch is None:
                    break
                logs = await work(batch)
            except ClaimLost:
                log.info("chores_left", what=self._what)
                continue
            except Exception:
                self._put_off()
                raise
            await self._writer.submit(EndChores(batch.claim.name))
            self._unfinished = None
            done += logs
            await asyncio.sleep(STEP_PAUSE)
        return done

    async def _next(self) -> BatchT | None:
        if self._unfinished is not None:
            await self.renew()
            return self._unfinished
        batch = await self._writer.submit(self._take(uuid4().hex))
        if batch is not None:
            self._unfinished, self._claim, self._failures = batch, batch.claim, 0
        return batch

    def _put_off(self) -> None:
        """Note that a batch has failed."""
        self._failures += 1
        if self._unfinished is not None and self._failures >= TRIES:
            log.warning("chores_put_off", what=self._what, batch=self._unfinished.claim.name)
            self._unfinished = None

    async def renew(self) -> None:
        """Keep the batch for some more time.

        Raises:
            ClaimLost: it is not ours any more.
        """
        claim = None
        if self._claim is not None:
            claim = await self._writer.submit(RenewClaim(self._claim))
        self._claim = claim
        if claim is None:
            self._unfinished = None
            raise ClaimLost
