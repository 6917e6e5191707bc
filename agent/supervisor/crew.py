"""Threads that are kept: to start one takes longer than most of what a short task needs it for."""

import queue
import threading
from collections.abc import Callable

_MOST_IDLE = 16
"""Threads that wait for work, at most; further ones end with theirs."""


class Crew:
    """Does each piece of work at once, in a thread of its own for as long as it takes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle = 0

    def do(self, work: Callable[[], None]) -> None:
        """Begins a piece of work.

        Raises:
            RuntimeError: There are no more threads.
        """
        with self._lock:
            waits = self._idle > 0
            if waits:
                self._idle -= 1
        if waits:
            self._work.put(work)
        else:
            threading.Thread(target=self._serve, args=(work,), daemon=True).start()

    def _serve(self, work: Callable[[], None]) -> None:
        while True:
            work()
            with self._lock:
                if self._idle >= _MOST_IDLE:
                    return
                self._idle += 1
            work = self._work.get()
