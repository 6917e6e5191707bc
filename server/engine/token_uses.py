"""Notes when tokens were shown last: once a minute, not with each call."""

import asyncio

from server.domain.moment import Moment
from server.domain.tokens import NoteUse
from server.engine.clock import Clock
from server.engine.surviving import survives
from server.engine.writer import Writer

ROUND_SECONDS = 60.0


class TokenUses:
    """See the module."""

    def __init__(self, writer: Writer, clock: Clock) -> None:
        self._writer = writer
        self._clock = clock
        self._used: dict[str, Moment] = {}

    def note(self, public_id: str) -> None:
        """Note that a token is shown now."""
        self._used[public_id] = self._clock.now()

    async def run(self) -> None:
        """Write down what was noted, until cancelled."""
        while True:
            await asyncio.sleep(ROUND_SECONDS)
            await survives("noting when tokens were used", self.write)

    async def write(self) -> None:
        """Write down what was noted; after a failure it is kept for the next round."""
        if used := self._used:
            self._used = {}
            try:
                await self._writer.submit(NoteUse(used))
            except BaseException:
                self._used = used | self._used
                raise
