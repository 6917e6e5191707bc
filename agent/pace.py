"""How long tasks take lately, and so how many to take ahead of free slots."""

from math import ceil

_SHORT = 0.1
"""Seconds: agents whose tasks take longer gain nothing by working ahead."""

_ROUND_TRIP = 0.02
"""Seconds from an end to the next task, about: work for so long is taken ahead."""

_SHORTEST = 0.001
_MOST_A_SLOT = 4
_WEIGHT = 0.1
"""How much the last task counts in the average."""


class Pace:
    """An average over the last tasks."""

    def __init__(self) -> None:
        self._average: float | None = None

    def took(self, seconds: float) -> None:
        """Takes in how long a task ran."""
        if self._average is None:
            self._average = seconds
        self._average += _WEIGHT * (seconds - self._average)

    def forget(self) -> None:
        """Starts anew: what was taken ahead had to wait."""
        self._average = None

    def ahead(self, slots: int) -> int:
        """Returns how many tasks to hold beyond the slots."""
        if self._average is None or self._average > _SHORT:
            return 0
        tasks_a_slot = _ROUND_TRIP / max(self._average, _SHORTEST)
        return ceil(slots * min(tasks_a_slot, _MOST_A_SLOT))
