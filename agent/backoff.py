"""How long to wait before the next try."""

import tenacity

_LONGEST = 5.0
"""Seconds between tries at most."""

_FIRST = 0.1
"""Seconds that the first wait lasts at most; each further one doubles it."""


class Backoff:
    """Exponential waits with full jitter, so that agents do not come back all at once."""

    def __init__(self, first: float = _FIRST, longest: float = _LONGEST) -> None:
        self._limits = first, longest
        self._state: tenacity.RetryCallState | None = None

    def reset(self) -> None:
        """Starts again with short waits, after a success."""
        self._state = None

    def next(self) -> float:
        """Returns the seconds to wait before the next try."""
        if self._state is None:  # made late: nearly none is ever needed
            self._state = tenacity.RetryCallState(tenacity.AsyncRetrying(), None, (), {})
            self._state.attempt_number = 0
        self._state.attempt_number += 1
        first, longest = self._limits
        return tenacity.wait_random_exponential(multiplier=first, max=longest)(self._state)
