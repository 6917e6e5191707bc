"""Goes on with what transactions leave undone in concurrency groups.

Every transaction leaves its groups settled, but for many older members that a newcomer cancels:
those go in steps, one after another. Now and then it also looks whether somebody waits though
there is a place: a server may have died over it, on a database that others use too.
"""

import asyncio
import random

from server.domain.admission import SettleGroups, SettleSome
from server.domain.group import GroupId
from server.engine.surviving import survives
from server.engine.writer import Committed, Writer

LOOK_AGAIN = 15.0
RETRY_SECONDS = 1.0


class GroupSweep:
    """See the module."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._left: set[GroupId] = set()
        self._news = asyncio.Event()

    def committed(self, committed: Committed) -> None:
        """Take in a commit: what it has left undone."""
        if committed.effects.unsettled:
            self._left |= committed.effects.unsettled
            self._news.set()

    async def run(self, *, shared: bool) -> None:
        """Sweep at the start, and where servers share a database again and again."""
        while True:
            done = await survives("concurrency groups", self.sweep)
            jitter = random.uniform(0.7, 1.3)  # noqa: S311 (spreads load, hides nothing)
            again = LOOK_AGAIN * jitter if shared else None
            await self._go_on(again if done else RETRY_SECONDS)

    async def sweep(self) -> None:
        """Settle every group in which somebody waits."""
        after: GroupId | None = ("", "")
        while after is not None:
            after = await self._writer.submit(SettleGroups(after))

    async def _go_on(self, seconds: float | None) -> None:
        """Work off what transactions leave, for so long."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    await self._news.wait()
                    if not await survives("concurrency groups", self._step):
                        await asyncio.sleep(RETRY_SECONDS)
        except TimeoutError:
            return

    async def _step(self) -> None:
        groups, self._left = self._left, set()
        self._news.clear()
        try:
            await self._writer.submit(SettleSome(sorted(groups)))
        except BaseException:
            self._left |= groups
            self._news.set()
            raise
