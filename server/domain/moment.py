"""Time, as the core counts it.

A moment is an int of Unix milliseconds: rows keep it, indexes order it, and no batch of a thousand
tasks spends its time converting. Nobody in this package asks a clock; the moment comes in as an
argument. Durations leave the settings as `timedelta` and enter the `Policy` as milliseconds.
"""

from datetime import timedelta

Moment = int
Millis = int

SECOND: Millis = 1000
DAY: Millis = 86_400 * SECOND


def millis(duration: timedelta) -> Millis:
    """Return a duration in whole milliseconds."""
    return round(duration.total_seconds() * SECOND)
