"""Moments and durations as people say them."""

import time
from datetime import timedelta

ABSURD = "-"
"""What stands for a moment or duration that no calendar holds."""


def age(unix_seconds: float) -> str:
    """Return how long ago a moment was, or nothing for 0."""
    return lasted(max(0.0, time.time() - unix_seconds) * 1000) if unix_seconds else ""


def until(unix_seconds: float) -> str:
    """Return how far away a moment is: `in 5m 00s`, or `now`."""
    left = unix_seconds - time.time()
    return f"in {lasted(left * 1000)}" if left > 0 else "now"


def deadline(unix_seconds: float) -> str:
    """Return a moment to come in local time and how far away it is, or nothing for 0."""
    return f"{stamp(unix_seconds)} ({until(unix_seconds)})" if unix_seconds else ""


def lasted(milliseconds: float) -> str:
    """Return a number of milliseconds as a duration."""
    try:
        return human(timedelta(milliseconds=milliseconds))
    except OverflowError:
        return ABSURD


def human(duration: timedelta) -> str:
    """Return a duration in its two largest units."""
    seconds = duration.total_seconds()
    if seconds < 10:
        return f"{seconds:.1f}s"
    minutes, seconds_left = divmod(int(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    days, hours_left = divmod(hours, 24)
    if days:
        return f"{days}d {hours_left}h"
    if hours:
        return f"{hours}h {minutes_left:02}m"
    if minutes:
        return f"{minutes}m {seconds_left:02}s"
    return f"{seconds_left}s"


def between(start_ms: float, end_ms: float) -> str:
    """Return the time from a start to an end, or to now when it has not ended; nothing for 0."""
    if not start_ms:
        return ""
    end = end_ms or time.time() * 1000
    return lasted(max(0.0, end - start_ms))


def clock() -> str:
    """Return the time of day."""
    return time.strftime("%H:%M:%S")


def stamp(unix_seconds: float) -> str:
    """Return a moment in local time, for the beginning of a line."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_seconds))
    except (OverflowError, ValueError, OSError):
        return ABSURD


def moment(unix_seconds: float) -> str:
    """Return a moment in local time with its age, or nothing for 0."""
    if not unix_seconds:
        return ""
    try:
        local = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_seconds))
    except (OverflowError, ValueError, OSError):
        return ABSURD
    return f"{local} ({age(unix_seconds)} ago)"
