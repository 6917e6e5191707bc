"""Waits for descriptors, moments and signals, all in one thread."""

import contextlib
import os
import select
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable

Callback = Callable[[], None]

_LONGEST_WAIT = 3600.0
_SIGNALS_AT_ONCE = 4096


class Loop:
    """Calls back, one at a time, what waits for something.

    A callback that raises is told about and changes nothing for the others.

    Attributes:
        busy_since: Moment (monotonic) since which it has not waited, or None while it waits.
    """

    def __init__(self) -> None:
        self.busy_since: float | None = None
        self._epoll = select.epoll()
        self._watched: dict[int, Callback] = {}
        self._moments: dict[object, tuple[float, Callback]] = {}
        self._earliest = 0.0
        """No moment comes before; it may be that none comes then either."""
        self._soon: deque[Callback] = deque()
        self._before_waiting: deque[Callback] = deque()
        self._handlers: dict[int, Callback] = {}
        self._ended = False
        self._signalled, self._signals = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.watch(self._signalled, self._take_signals)
        signal.set_wakeup_fd(self._signals, warn_on_full_buffer=False)

    def watch(self, descriptor: int, ready: Callback) -> None:
        """Calls `ready` whenever there is something to read, or the end."""
        self._epoll.register(descriptor, select.EPOLLIN)
        self._watched[descriptor] = ready

    def also_for_writing(self, descriptor: int, wanted: bool) -> None:
        """Says whether what is watched is called for also when it takes bytes."""
        self._epoll.modify(descriptor, select.EPOLLIN | (select.EPOLLOUT if wanted else 0))

    def unwatch(self, descriptor: int) -> None:
        """Calls no more for a descriptor, which must still be open."""
        if self._watched.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def at(self, owner: object, moment: float, due: Callback) -> None:
        """Calls `due` once, at a moment (monotonic); an owner has one moment at a time."""
        self._moments[owner] = (moment, due)
        self._earliest = min(self._earliest, moment)

    def forget(self, owner: object) -> None:
        """Lets an owner's moment pass."""
        self._moments.pop(owner, None)

    def soon(self, callback: Callback) -> None:
        """Calls after what is called now."""
        self._soon.append(callback)

    def before_waiting(self, callback: Callback) -> None:
        """Calls once there is nothing else to do."""
        self._before_waiting.append(callback)

    def on_signal(self, number: signal.Signals, handler: Callback) -> None:
        """Calls in turn, never in the middle of something, when a signal has come."""
        self._handlers[number] = handler
        signal.signal(number, lambda *_: None)

    def end(self) -> None:
        """Lets `run` return."""
        self._ended = True

    def run(self) -> None:
        """Waits and calls until the end."""
        while not self._ended:
            self.busy_since = None
            ready = self._epoll.poll(self._seconds())
            self.busy_since = time.monotonic()
            for descriptor, _ in ready:
                if (callback := self._watched.get(descriptor)) is not None:
                    _call(callback)
            self._call_due()
            self._call_all()
        signal.set_wakeup_fd(-1)

    def _seconds(self) -> float:
        if self._soon or self._before_waiting:
            return 0.0
        return min(max(self._earliest - time.monotonic(), 0.0), _LONGEST_WAIT)

    def _call_due(self) -> None:
        now = time.monotonic()
        if now < self._earliest:
            return
        for owner, (moment, due) in list(self._moments.items()):
            # One that was called before may have changed the moments of others.
            if moment <= now and self._moments.get(owner) == (moment, due):
                del self._moments[owner]
                _call(due)
        moments = [moment for moment, _ in self._moments.values()]
        self._earliest = min(moments, default=now + _LONGEST_WAIT)

    def _call_all(self) -> None:
        while self._soon or self._before_waiting:
            _call((self._soon or self._before_waiting).popleft())

    def _take_signals(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in set(os.read(self._signalled, _SIGNALS_AT_ONCE)):
                if number in self._handlers:
                    self._handlers[number]()


def _call(callback: Callback) -> None:
    try:
        callback()
    except Exception:
        with contextlib.suppress(OSError):  # the log may lie on a full disk
            traceback.print_exc()
