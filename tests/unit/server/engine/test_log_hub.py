import asyncio
import gc
import tracemalloc
import zlib

import pytest

from server.domain.attempt import LogState, LogSummary
from server.domain.changes import Effects
from server.domain.errors import Draining, NotFound
from server.domain.lease import LeaseRef
from server.domain.task import TaskStatus
from server.engine import log_hub, log_live
from server.engine.log_hub import LogHub
from server.engine.log_live import LOOK_AGAIN
from server.engine.writer import Committed
from tests.fakes.core import NAMESPACE, Core
from tests.fakes.memory_reader import MemoryReader
from tests.fakes.virtual_time import in_virtual_time, settle


class Library(Core):
    """A core whose logs are followed. `heard` is whether this server made the change."""

    def __init__(self):
        super().__init__()
        self.hub = LogHub(MemoryReader(self.database))
        self.heard = True
        self.read = []
        self.join("a")

    def batch(self, *commands):
        answers = super().batch(*commands)
        if self.heard:
            self.hub.committed(Committed([], [], self.effects))
        return answers

    async def follow(self, task_id, attempt=0, first_line=1, *, follow=True, tail=0):
        """Follow a log to its end; note (attempt, number, text) and the final state."""
        parts = self.hub.follow(NAMESPACE, task_id, attempt, first_line, follow=follow, tail=tail)
        async for part in parts:
            self.read += [
                (part.attempt, number, line.text)
                for number, line in enumerate(part.lines, part.first_line)
            ]
            if part.complete:
                return part.state
        return None

    def print(self, lease, first, *texts):
        self.append(lease, first, texts)

    def end(self, lease, status=TaskStatus.SUCCESS, texts=()):
        whole = "".join(text + "\n" for text in texts).encode()
        self.report(lease, status, log=LogSummary(len(texts), len(whole), zlib.crc32(whole)))


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    """News is read at once, so that tests need not wait for it."""
    monkeypatch.setattr(log_live, "TOGETHER", 0)


@in_virtual_time
async def test_news_in_quick_succession_is_read_together(monkeypatch):
    monkeypatch.setattr(log_live, "TOGETHER", 0.04)
    library = Library()
    reader = CountingReader(library.database)
    library.hub = LogHub(reader)
    task_id, lease = library.running()
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(library.follow(task_id))
        await asyncio.sleep(1)
        reader.reads = 0
        for number in range(1, 101):
            library.print(lease, number, f"line {number}")
            await asyncio.sleep(0.004)
        await asyncio.sleep(0.1)
        assert reader.reads <= 13
        assert len(library.read) == 100
        library.end(lease, texts=[f"line {n}" for n in range(1, 101)])
        assert await following is LogState.COMPLETE


@in_virtual_time
async def test_what_is_stored_comes_first_and_then_what_is_printed():
    library = Library()
    task_id, lease = library.running()
    library.print(lease, 1, "one", "two")
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(library.follow(task_id))
        await settle()
        assert library.read == [(1, 1, "one"), (1, 2, "two")]
        library.print(lease, 3, "three")
        await settle()
        assert library.read[2:] == [(1, 3, "three")]
        library.end(lease, texts=("one", "two", "three"))
        assert await following is LogState.COMPLETE


@in_virtual_time
async def test_the_end_is_told_only_when_every_line_has_been_sent():
    library = Library()
    task_id, lease = library.running()
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(library.follow(task_id))
        library.end(lease, texts=("late",))
        await settle()
        assert not following.done()
        library.print(lease, 1, "late")
        assert await following is LogState.COMPLETE
    assert library.read == [(1, 1, "late")]


@in_virtual_time
async def test_a_log_that_stays_short_ends_incomplete():
    library = Library()
    task_id, lease = library.running()
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(library.follow(task_id))
        library.end(lease, texts=("lost",))
        await settle()
        library.pass_time(library.policy.log_incomplete_after)
        assert await following is LogState.INCOMPLETE


@in_virtual_time
async def test_a_reader_may_begin_anywhere():
    library = Library()
    task_id, lease = library.running()
    library.print(lease, 1, "one", "two", "three")
    library.end(lease, texts=("one", "two", "three"))
    assert await library.follow(task_id, first_line=3) is LogState.COMPLETE
    assert library.read == [(1, 3, "three")]


@in_virtual_time
async def test_long_logs_come_in_pages(monkeypatch):
    monkeypatch.setattr(log_hub, "PAGE", 2)
    monkeypatch.setattr(log_live, "PAGE", 2)
    library = Library()
    task_id, lease = library.running()
    texts = tuple(map(str, range(7)))
    library.print(lease, 1, *texts)
    library.end(lease, texts=texts)
    assert await library.follow(task_id) is LogState.COMPLETE
    assert [text for _, _, text in library.read] == list(texts)


@in_virtual_time
async def test_without_following_it_ends_with_what_is_there():
    library = Library()
    task_id, lease = library.running()
    library.print(lease, 1, "one")
    assert await library.follow(task_id, follow=False) is None
    assert library.read == [(1, 1, "one")]


@in_virtual_time
async def test_the_current_attempt_goes_on_into_the_next():
    library = Library()
    task_id, lease = library.running(retry_count=1)
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(library.follow(task_id))
        library.print(lease, 1, "first")
        await settle()
        library.end(lease, TaskStatus.FAILED, texts=("first",))
        await settle()
        assert not following.done()
        library.pass_time(library.policy.retry_backoff)
        (given,) = library.claim()
        again = type(lease)(task_id, given.lease_id)
        library.print(again, 1, "second")
        library.end(again, texts=("second",))
        assert await following is LogState.COMPLETE
    assert library.read == [(1, 1, "first"), (2, 1, "second")]


@in_virtual_time
async def test_an_attempt_that_is_asked_for_ends_with_its_own_log():
    library = Library()
    task_id, lease = library.running(retry_count=1)
    library.print(lease, 1, "first")
    library.end(lease, TaskStatus.FAILED, texts=("first",))
    assert await library.follow(task_id, attempt=1) is LogState.COMPLETE
    assert library.read == [(1, 1, "first")]


@in_virtual_time
async def test_a_task_that_never_ran_has_a_complete_log_at_its_end():
    library = Library()
    task_id = library.create()
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(library.follow(task_id))
        await settle()
        library.cancel(task_id)
        assert await following is LogState.COMPLETE
    assert library.read == []


@in_virtual_time
async def test_what_another_server_writes_is_found_within_one_look():
    library = Library()
    task_id, lease = library.running()
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(library.follow(task_id))
        await settle()
        library.heard = False
        library.print(lease, 1, "elsewhere")
        await asyncio.sleep(LOOK_AGAIN + 1)
        assert library.read == [(1, 1, "elsewhere")]
        library.print(lease, 2, "hinted")
        library.hub.hint([task_id])
        await settle()
        assert library.read[1:] == [(1, 2, "hinted")]
        following.cancel()


@in_virtual_time
async def test_how_a_log_stands_is_not_asked_while_it_only_grows():
    library = Library()
    reader = CountingReader(library.database)
    library.hub = LogHub(reader)
    task_id, lease = library.running()
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(library.follow(task_id))
        await settle()
        reader.reads, library.heard = 0, False
        for number in (1, 2):
            library.print(lease, number, f"line {number}")
            library.hub.grew(task_id, 1)
            await settle()
        assert (len(library.read), reader.reads) == (2, 0)
        library.hub.grew(task_id, 2)  # another attempt has begun, then
        await settle()
        assert reader.reads == 1
        library.heard = True
        library.end(lease, texts=["line 1", "line 2"])
        assert await following is LogState.COMPLETE


@in_virtual_time
async def test_an_unknown_task_or_attempt_is_not_found():
    library = Library()
    task_id = library.create()
    for wanted in (("nobody", 0), (task_id, 1)):
        with pytest.raises(NotFound):
            await library.follow(*wanted)


class CountingReader(MemoryReader):
    """Counts how often a log is read from the store."""

    reads = 0

    async def log(self, *args):
        self.reads += 1
        return await super().log(*args)


@in_virtual_time
async def test_many_followers_cost_the_store_one_read():
    library = Library()
    reader = CountingReader(library.database, seconds=0.001)
    library.hub = LogHub(reader)
    task_id, lease = library.running()
    async with asyncio.TaskGroup() as tasks:
        following = [tasks.create_task(library.follow(task_id)) for _ in range(1000)]
        await asyncio.sleep(1)
        first, reader.reads = reader.reads, 0
        for number in range(1, 11):
            library.print(lease, number, f"line {number}")
            await asyncio.sleep(0.1)
        assert reader.reads == 10
        library.end(lease, texts=[f"line {n}" for n in range(1, 11)])
    assert all(each.result() is LogState.COMPLETE for each in following)
    assert first <= 1001
    assert len(library.read) == 10_000
    assert not library.hub._live


@in_virtual_time
async def test_a_reader_slower_than_what_is_kept_goes_back_to_the_store(monkeypatch):
    monkeypatch.setattr(log_live, "KEPT_BYTES", 200)
    library = Library()
    task_id, lease = library.running()
    texts = [f"line {n}" for n in range(1, 41)]
    seen = []

    async def read_slowly():
        parts = library.hub.follow(NAMESPACE, task_id, 0, 1, follow=True)
        async for part in parts:
            seen.extend((part.first_line + n, line.text) for n, line in enumerate(part.lines))
            await asyncio.sleep(1)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(read_slowly())
        tasks.create_task(library.follow(task_id))
        await settle()
        for number, text in enumerate(texts, 1):
            library.print(lease, number, text)
            await asyncio.sleep(0.1)
        library.end(lease, texts=texts)
    assert seen == list(enumerate(texts, 1))
    assert [text for _, _, text in library.read] == texts


def grown(before):
    """Return how many bytes are in use more than before."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0] - before


@in_virtual_time
async def test_many_readers_of_long_lines_hold_little_each():
    library = Library()
    task_id, lease = library.running()
    texts = [str(number) * 200_000 for number in range(1, 9)]
    for number, text in enumerate(texts, 1):
        library.print(lease, number, text)
    stuck, some, everybody, caught_up = asyncio.Event(), asyncio.Event(), asyncio.Event(), []

    async def read(number):
        line = 1
        async for part in library.hub.follow(NAMESPACE, task_id, 0, 1, follow=True):
            line += len(part.lines)
            if number >= 100 and line <= len(texts):
                await stuck.wait()
            part = None  # a reader that holds nothing
            if line > len(texts):
                caught_up.append(number)
                for count, event in ((100, some), (300, everybody)):
                    if len(caught_up) == count:
                        event.set()

    tracemalloc.start()
    try:
        before = grown(0)
        async with asyncio.TaskGroup() as tasks:
            following = [tasks.create_task(read(number)) for number in range(300)]
            await some.wait()
            await settle()
            # 200 that are stuck far behind, and 100 that wait for news.
            assert grown(before) < 150 * 2**20
            stuck.set()
            await everybody.wait()
            await settle()
            assert grown(before) < 10 * 2**20
            for each in following:
                each.cancel()
    finally:
        tracemalloc.stop()
    assert sorted(caught_up) == list(range(300))


@in_virtual_time
async def test_a_follower_from_before_the_first_attempt_gets_it_even_when_the_second_has_begun():
    library = Library()
    library.hub = LogHub(MemoryReader(library.database, seconds=0.01))
    task_id = library.create(retry_count=1)
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(library.follow(task_id))
        await asyncio.sleep(1)
        for text, end in (("first", TaskStatus.FAILED), ("second", TaskStatus.SUCCESS)):
            (given,) = library.claim()
            lease = LeaseRef(task_id, given.lease_id)
            library.print(lease, 1, text)
            library.end(lease, end, texts=(text,))
            library.pass_time(library.policy.retry_backoff)
        assert await following is LogState.COMPLETE
    assert library.read == [(1, 1, "first"), (2, 1, "second")]


@in_virtual_time
async def test_following_may_begin_with_the_last_lines():
    library = Library()
    task_id, lease = library.running()
    library.print(lease, 1, "one", "two", "three")
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(library.follow(task_id, tail=1))
        await settle()
        library.print(lease, 4, "four")
        library.end(lease, texts=("one", "two", "three", "four"))
        assert await following is LogState.COMPLETE
    assert library.read == [(1, 3, "three"), (1, 4, "four")]


@in_virtual_time
async def test_stopping_ends_followers_with_word_of_it():
    library = Library()
    task_id, _ = library.running()
    following = asyncio.ensure_future(library.follow(task_id))
    await settle()
    library.hub.stop()
    with pytest.raises(Draining):
        await following


@in_virtual_time
async def test_nothing_is_kept_of_readers_who_left():
    library = Library()
    task_id, _ = library.running()
    following = asyncio.ensure_future(library.follow(task_id))
    await settle()
    following.cancel()
    await settle()
    library.hub.committed(Committed([], [], Effects(log_tasks={task_id})))
    assert not library.hub._live
