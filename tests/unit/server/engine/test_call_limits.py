"""Callers are held to their pace, their streams and their queue, each by itself."""

import pytest

from server.domain.errors import TooManyCalls, TooManyStreams, TooManyTasks
from server.engine.call_limits import CALLERS_KNOWN, CallLimits, QueueLimit


class Time:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def time():
    return Time()


def taken(limits, caller, count):
    """Return how many of so many calls are let through."""
    through = 0
    for _ in range(count):
        try:
            limits.call(caller)
            through += 1
        except TooManyCalls:
            pass
    return through


def test_a_burst_passes_and_then_the_rate_counts(time):
    limits = CallLimits(10, 20, 0, time)
    assert taken(limits, "a", 50) == 20
    time.now += 1
    assert taken(limits, "a", 50) == 10
    time.now += 100
    assert taken(limits, "a", 50) == 20


def test_one_callers_flood_is_not_anothers(time):
    limits = CallLimits(1, 2, 0, time)
    assert taken(limits, "a", 9) == 2
    assert taken(limits, "b", 9) == 2


def test_the_refusal_says_how_long_to_wait(time):
    limits = CallLimits(4, 1, 0, time)
    limits.call("a")
    with pytest.raises(TooManyCalls) as refused:
        limits.call("a")
    assert refused.value.retry_after.total_seconds() == 0.25
    time.now += 0.25
    limits.call("a")


def test_without_a_rate_everything_passes(time):
    assert taken(CallLimits(0, 0, 0, time), "a", 1000) == 1000


def test_only_so_many_callers_are_remembered(time):
    limits = CallLimits(1, 1, 0, time)
    for number in range(CALLERS_KNOWN + 5):
        limits.call(str(number))
    assert len(limits._buckets) == CALLERS_KNOWN
    assert taken(limits, str(CALLERS_KNOWN), 1) == 0


def test_streams_are_counted_while_they_are_open():
    limits = CallLimits(0, 0, 2)
    limits.open_stream("a")
    limits.open_stream("a")
    limits.open_stream("b")
    with pytest.raises(TooManyStreams):
        limits.open_stream("a")
    limits.close_stream("a")
    limits.open_stream("a")
    for caller in ("a", "a", "b"):
        limits.close_stream(caller)
    assert limits._open == {}


class Waiting:
    def __init__(self, count):
        self.count = count
        self.asked = 0

    async def waiting_tasks(self, namespace, limit):
        self.asked += 1
        return min(self.count, limit)


async def test_a_queue_is_counted_once_a_second_and_what_came_since_is_added(time):
    reader = Waiting(7)
    limit = QueueLimit(reader, 10, time)
    for _ in range(3):
        await limit.check("a")
    with pytest.raises(TooManyTasks) as refused:
        await limit.check("a")
    assert reader.asked == 1
    assert str(refused.value).startswith("10 tasks wait in namespace 'a'")
    reader.count, time.now = 2, 2.0
    await limit.check("a", 8)
    assert reader.asked == 2
    with pytest.raises(TooManyTasks):
        await limit.check("a")
    await limit.check("b", 1)


async def test_without_a_limit_nobody_is_asked(time):
    reader = Waiting(7)
    await QueueLimit(reader, 0, time).check("a", 1000)
    assert reader.asked == 0
