"""The server's clocks."""

import time

from server.domain.moment import Moment


class Clock:
    """Tells the time; tests put another in its place."""

    def now(self) -> Moment:
        """Return Unix milliseconds, by the wall clock."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()
