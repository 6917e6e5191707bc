"""How fast a caller may call, how many streams it may have open, and how much it may queue."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from server.domain.errors import TooManyCalls, TooManyStreams, TooManyTasks
from server.stores.interfaces import Reader

CALLERS_KNOWN = 10_000
"""Callers whose pace is remembered; the one unheard for longest begins anew."""

COUNT_SECONDS = 1.0
"""How old the count of a namespace's waiting tasks may be."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class CallLimits:
    """Token buckets and counts of streams, by caller. 0 is no limit."""

    def __init__(
        self,
        rate: float,
        burst: int,
        streams: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = rate
        self._burst = float(burst or max(1.0, rate))
        self._streams = streams
        self._monotonic = monotonic
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._open: dict[str, int] = {}

    def call(self, caller: str) -> None:
        """Count a call.

        Raises:
            TooManyCalls: it comes too soon.
        """
        if not self._rate:
            return
        now = self._monotonic()
        bucket = self._buckets.pop(caller, None) or _Bucket(self._burst, now)
        self._buckets[caller] = bucket  # the last heard comes last
        if len(self._buckets) > CALLERS_KNOWN:
            self._buckets.popitem(last=False)
        filled = bucket.tokens + (now - bucket.filled_at) * self._rate
        bucket.tokens, bucket.filled_at = min(self._burst, filled), now
        if bucket.tokens < 1:
            wait = (1 - bucket.tokens) / self._rate
            raise TooManyCalls(self._rate, timedelta(seconds=max(0.001, round(wait, 3))))
        bucket.tokens -= 1

    def open_stream(self, caller: str) -> None:
        """Count a stream that opens.

        Raises:
            TooManyStreams: it has too many.
        """
        count = self._open.get(caller, 0)
        if self._streams and count >= self._streams:
            raise TooManyStreams(self._streams)
        self._open[caller] = count + 1

    def close_stream(self, caller: str) -> None:
        """Note that a stream has ended."""
        count = self._open.get(caller, 0) - 1
        if count > 0:
            self._open[caller] = count
        else:
            self._open.pop(caller, None)


class QueueLimit:
    """How many tasks may wait in a namespace, by a count that is a second old at most.

    What this server has taken since is added to it. Several servers may together take a second's
    work too much.
    """

    def __init__(
        self, reader: Reader, limit: int, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._reader = reader
        self._limit = limit
        self._monotonic = monotonic
        self._counts: dict[str, tuple[float, int]] = {}

    async def check(self, namespace: str, tasks: int = 1) -> None:
        """See that so many more may wait.

        Raises:
            TooManyTasks: they may not.
        """
        if not self._limit:
            return
        now = self._monotonic()
        counted_at, count = self._counts.get(namespace, (float("-inf"), 0))
        if now - counted_at > COUNT_SECONDS:
            count = await self._reader.waiting_tasks(namespace, self._limit + 1)
            counted_at = now
        if count + tasks > self._limit:
            self._counts[namespace] = counted_at, count
            raise TooManyTasks(namespace, count, self._limit)
        self._counts[namespace] = counted_at, count + tasks
