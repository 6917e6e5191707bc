"""How long to wait before the next try."""

import tenacity

_LONGEST = 5.0
"""Seconds between tries at most."""

_FIRST = 0.1
"""Seconds that the first wait lasts at most; each further one doubles it."""


class Backoff:
    """Exponential waits with full jitter, so that agents do not come back all at once."""

    def __init__(self, first: float = _FIRST, longest: float = _LONGEST) -> None:
        self._wait = tenacity.wait_random_exponential(multiplier=first, max=longest)
        self.reset()

    def reset(self) -> None:
        """Starts again with short waits, after a success."""
        self._state = tenacity.RetryCallState(tenacity.AsyncRetrying(), None, (), {})
        self._state.attempt_number = 0

    def next(self) -> float:
        """Returns the seconds to wait before the next try."""
        self._state.attempt_number += 1
        return self._wait(self._state)
