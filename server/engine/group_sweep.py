"""Looks now and then whether somebody in a concurrency group waits though there is a place.

Every transaction leaves its groups settled, so there is nothing to find but what a server left
undone that died, on a database that others use too.
"""

import asyncio
import random

from server.domain.admission import SettleGroups
from server.domain.group import GroupId
from server.engine.surviving import survives
from server.engine.writer import Writer

LOOK_AGAIN = 15.0
RETRY_SECONDS = 1.0


class GroupSweep:
    """See the module."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def run(self, *, shared: bool) -> None:
        """Sweep once at the start, and where servers share a database again and again."""
        while True:
            done = await survives("concurrency groups", self.sweep)
            if done and not shared:
                return
            jitter = random.uniform(0.7, 1.3)  # noqa: S311 (spreads load, hides nothing)
            await asyncio.sleep(LOOK_AGAIN * jitter if done else RETRY_SECONDS)

    async def sweep(self) -> None:
        """Settle every group in which somebody waits."""
        after: GroupId | None = ("", "")
        while after is not None:
            after = await self._writer.submit(SettleGroups(after))
