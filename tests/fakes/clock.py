"""Clocks for tests: one moved by hand, one that follows a loop in virtual time."""

import asyncio

from server.engine.clock import Clock

START = 1_700_000_000_000
"""The moment at which tests begin, in Unix milliseconds."""


class HandClock(Clock):
    """Stands still until it is moved."""

    def __init__(self, now=START):
        self._now = now
        self._seconds = 0.0

    def now(self):
        return self._now

    def monotonic(self):
        return self._seconds

    def advance(self, milliseconds):
        """Let time pass."""
        self._now += milliseconds
        self._seconds += milliseconds / 1000

    def jump(self, milliseconds):
        """Set the wall clock, forwards or back; no time passes."""
        self._now += milliseconds


class LoopClock(Clock):
    """Goes with the time of the running loop."""

    def __init__(self):
        self._offset = START

    def now(self):
        return self._offset + round(self.monotonic() * 1000)

    def monotonic(self):
        return asyncio.get_running_loop().time()

    def jump(self, milliseconds):
        """Set the wall clock, forwards or back; no time passes."""
        self._offset += milliseconds
