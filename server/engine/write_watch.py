"""Whether changes can be written: the newest outcome counts."""

from collections.abc import Iterable
from dataclasses import dataclass

from server.domain.ledger import Ledger
from server.engine.clock import Clock
from server.engine.surviving import survives
from server.engine.writer import Writer

TRY_EVERY = 3.0
"""Seconds between two writes that only try whether the store takes any again."""


@dataclass(frozen=True, slots=True)
class Touch:
    """Writes, and changes nothing."""

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> None:
        """See Command."""
        ledger.try_to_write()


class WriteWatch:
    """Looks only while something is wrong: what is written anyway tells of itself."""

    def __init__(self, writer: Writer, clock: Clock) -> None:
        self._writer = writer
        self._clock = clock
        self._again_at = 0.0

    async def failure(self) -> str | None:
        """Return why nothing can be written, None when the newest write was taken."""
        now = self._clock.monotonic()
        if self._writer.failure and now >= self._again_at:
            self._again_at = now + TRY_EVERY
            await survives("changes", lambda: self._writer.submit(Touch()))
        return self._writer.failure
