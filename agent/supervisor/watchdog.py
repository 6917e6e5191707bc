"""Kills what should have ended when the loop hangs, as on a disk that does not answer."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from agent.supervisor.loop import Loop

_LOOK_EVERY = 1.0
_HANGS_AFTER = 5.0
"""Seconds in which a loop that does not hang has done what there was to do."""


class Leased(Protocol):
    """What has a moment by which it must have ended."""

    def kill_overdue(self, now: float) -> None:
        """Kills it if it should have ended before a moment (monotonic)."""


class Watchdog:
    """Looks after the loop, in a thread of its own."""

    def __init__(self, loop: Loop, leased: Callable[[], Iterable[Leased]]) -> None:
        self._loop = loop
        self._leased = leased

    def start(self) -> None:
        """Starts the thread."""
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def look(self, now: float) -> None:
        """Does what the loop should have done by a moment (monotonic), if that hangs."""
        since = self._loop.busy_since
        if since is not None and now - since >= _HANGS_AFTER:
            for each in self._leased():
                with contextlib.suppress(OSError):  # no descriptor is left, for this look
                    each.kill_overdue(now)

    def _run(self) -> None:
        while True:
            time.sleep(_LOOK_EVERY)  # a loop that hangs tells nobody
            self.look(time.monotonic())
