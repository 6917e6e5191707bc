"""Which of two waiting tasks goes first, without anything that ages by itself.

A task's place in line is one number that never changes: the moment it was submitted, put forward
by ten minutes for each step of priority. So a task is overtaken only by more urgent ones that came
less than that later, nothing waits for ever, and one index keeps the order.
"""

from server.domain.moment import SECOND, Millis, Moment

PRIORITY_DEFAULT = 5
PRIORITY_HIGHEST = 9
STEP: Millis = 600 * SECOND

PRIORITY_LABEL = "priority"
"""The task label that may say it in a word."""

PRIORITIES = {"high": 8, "normal": PRIORITY_DEFAULT, "low": 2}
"""What the words mean."""


def sort_key(submitted_at: Moment, priority: int) -> int:
    """Return a task's place in line; the smallest goes first."""
    return submitted_at - priority * STEP
