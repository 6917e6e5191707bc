import asyncio
from dataclasses import dataclass

import pytest

from server.domain.errors import Draining, NotFound, Overloaded, StoreUnavailable
from server.domain.ledger import Command
from server.domain.policy import Policy
from server.engine.clock import Clock
from server.engine.writer import BrokenRuleError, Writer
from server.stores.interfaces import PoisonError
from server.stores.sql.database import SqliteDatabase
from tests.fakes.clock import LoopClock
from tests.fakes.shop import COMMIT_SECONDS, NoClaims, SlowDatabase
from tests.fakes.virtual_time import in_virtual_time, settle
from tests.records import task


@dataclass
class Note(Command):
    """Adds a task under a name; answers its key."""

    name: str
    timeout: int = 1

    def task_ids(self):
        return ()

    def decide(self, ledger):
        key = ledger.source.new_key()
        ledger.add_task(task(key, public_id=self.name, timeout=self.timeout))
        return key


@dataclass
class Refuse(Note):
    """Refuses, before or after a change."""

    error: Exception = None
    change: bool = False

    def decide(self, ledger):
        if self.change:
            super().decide(ledger)
        raise self.error or NotFound("task", self.name)


class Heavy(Note):
    """A note that is worth several."""

    def __init__(self, name, weight):
        super().__init__(name)
        self.weight = weight


POISON = 2**63


class Desk:
    """A writer over a slow memory database."""

    def __init__(self, database=None, clock=None, **limits):
        self.database = database or SlowDatabase()
        limits = {"batch_limit": 100, "queue_limit": 1000, **limits}
        self.writer = Writer(self.database, clock or LoopClock(), Policy(), NoClaims(), **limits)
        self.sizes = []
        self.writer.listen(lambda committed: self.sizes.append(len(committed.answers)))

    async def __aenter__(self):
        self._tasks = asyncio.TaskGroup()
        await self._tasks.__aenter__()
        self.running = self._tasks.create_task(self.writer.run())
        return self

    async def __aexit__(self, *exception):
        self.writer.stop()
        return await self._tasks.__aexit__(*exception)

    def put(self, *commands, **options):
        # Not in the group: a refused caller is no reason to cancel the writer.
        return [asyncio.ensure_future(self.writer.submit(c, **options)) for c in commands]

    def names(self):
        return {row.public_id for row in self.database.tables.tasks.values()}


async def outcomes(tasks):
    return await asyncio.gather(*tasks, return_exceptions=True)


@in_virtual_time
async def test_what_arrives_during_a_commit_shares_the_next_one():
    async with Desk() as desk:
        first = desk.put(Note("first"))
        await settle()
        rest = desk.put(*(Note(str(n)) for n in range(50)))
        await outcomes(first + rest)
    assert desk.sizes == [1, 50]
    assert desk.database.commits == 2


@in_virtual_time
async def test_a_batch_is_bounded_and_the_queue_is_served_in_order():
    async with Desk(batch_limit=3) as desk:
        keys = await outcomes(desk.put(*(Note(str(n)) for n in range(8))))
    assert keys == sorted(keys)
    assert desk.sizes == [3, 3, 2]


@in_virtual_time
async def test_the_answer_comes_only_after_the_commit():
    async with Desk() as desk:
        (answer,) = desk.put(Note("one"))
        await asyncio.sleep(COMMIT_SECONDS * 0.9)
        assert not answer.done()
        assert desk.names() == set()
        await answer
        assert desk.names() == {"one"}


@in_virtual_time
async def test_listeners_hear_of_a_commit_before_its_callers_do():
    order = []
    async with Desk() as desk:
        desk.writer.listen(lambda _committed: order.append("listener"))
        (answer,) = desk.put(Note("one"))
        answer.add_done_callback(lambda _: order.append("caller"))
        await answer
        await settle()
    assert order == ["listener", "caller"]


@in_virtual_time
async def test_a_refusal_does_not_touch_its_neighbours():
    async with Desk() as desk:
        answers = await outcomes(desk.put(Note("one"), Refuse("two"), Note("three")))
    assert isinstance(answers[1], NotFound)
    assert desk.names() == {"one", "three"}
    assert desk.database.commits == 1


BAD = {
    "a rejected statement": (Note("bad", timeout=POISON), PoisonError),
    "a refusal after a change": (Refuse("bad", change=True), BrokenRuleError),
    "a rule with a bug": (Refuse("bad", error=KeyError("x")), BrokenRuleError),
    "an error nobody foresaw": (Refuse("bad", error=RecursionError()), RecursionError),
}


@pytest.mark.parametrize(("command", "error"), BAD.values(), ids=BAD)
@in_virtual_time
async def test_a_poison_command_in_a_batch_fails_alone(command, error):
    async with Desk() as desk:
        answers = await outcomes(desk.put(Note("one"), command, Note("three")))
        assert isinstance(answers[1], error)
        assert desk.names() == {"one", "three"}
        await asyncio.gather(*desk.put(Note("four")))
    assert desk.names() == {"one", "three", "four"}


@pytest.mark.parametrize(("command", "error"), BAD.values(), ids=BAD)
@in_virtual_time
async def test_a_poison_command_alone_fails_and_the_writer_goes_on(command, error):
    async with Desk() as desk:
        (answer,) = await outcomes(desk.put(command))
        assert isinstance(answer, error)
        await asyncio.gather(*desk.put(Note("next")))
    assert desk.names() == {"next"}


async def test_a_poison_command_fails_alone_on_a_real_database(tmp_path):
    database = SqliteDatabase(tmp_path / "muster.db")
    await database.open()
    try:
        async with Desk(database, Clock()) as desk:
            poison = Note("bad", timeout=POISON)
            answers = await outcomes(desk.put(Note("one"), poison, Note("three")))
        assert isinstance(answers[1], PoisonError)
        found = await database.transact(lambda source: source.tasks(["one", "bad", "three"]))
        assert [row.public_id for row in found] == ["one", "three"]
    finally:
        await database.close()


@in_virtual_time
async def test_a_store_that_does_not_answer_is_told_to_everybody_and_the_writer_goes_on():
    async with Desk() as desk:
        desk.database.failures = [StoreUnavailable("locked")]
        answers = await outcomes(desk.put(Note("one"), Note("two")))
        assert all(isinstance(answer, StoreUnavailable) for answer in answers)
        assert desk.names() == set()
        await asyncio.gather(*desk.put(Note("three")))
    assert desk.names() == {"three"}


@in_virtual_time
async def test_a_store_that_fails_in_the_middle_of_a_replay_fails_only_what_was_left():
    async with Desk() as desk:
        desk.database.failures = [None, None, StoreUnavailable("locked")]
        poison = Note("bad", timeout=POISON)
        answers = await outcomes(desk.put(Note("one"), poison, Note("three")))
    failed = [isinstance(answer, Exception) for answer in answers]
    assert failed.count(True) >= 1
    assert desk.names() == {
        n for n, bad in zip(["one", "bad", "three"], failed, strict=True) if not bad
    }


@in_virtual_time
async def test_a_full_queue_refuses_new_work_only():
    async with Desk(queue_limit=2) as desk:
        desk.put(Note("running"))
        await settle()
        desk.put(Note("one"), Note("two"), new_work=True)
        await settle()
        with pytest.raises(Overloaded) as caught:
            await desk.writer.submit(Note("three"), new_work=True)
        assert caught.value.retry_after.total_seconds() > 0
        await desk.writer.submit(Note("report"))
    assert desk.names() == {"running", "one", "two", "report"}


@in_virtual_time
async def test_a_batch_of_tasks_counts_for_as_many():
    async with Desk(queue_limit=10, batch_limit=5) as desk:
        desk.put(Note("running"))
        await settle()
        desk.put(Heavy("many", 10), Note("after"))
        await settle()
        with pytest.raises(Overloaded):
            await desk.writer.submit(Note("refused"), new_work=True)
        await desk.writer.submit(Note("report"))
        assert desk.sizes == [1, 1, 2]
        await desk.writer.submit(Note("new"), new_work=True)
    assert desk.names() == {"running", "many", "after", "report", "new"}


@in_virtual_time
async def test_callers_that_went_away_are_skipped():
    async with Desk() as desk:
        desk.put(Note("running"))
        await settle()
        gone, stays = desk.put(Note("gone"), Note("stays"))
        await settle()
        gone.cancel()
        await stays
    assert desk.names() == {"running", "stays"}


@in_virtual_time
async def test_a_caller_that_goes_away_during_the_commit_harms_nobody():
    async with Desk() as desk:
        gone, stays = desk.put(Note("gone"), Note("stays"))
        await asyncio.sleep(COMMIT_SECONDS / 2)
        gone.cancel()
        await stays
    assert desk.names() == {"gone", "stays"}


@in_virtual_time
async def test_stopping_answers_all_that_wait_and_refuses_more():
    async with Desk(batch_limit=2) as desk:
        answers = desk.put(*(Note(str(n)) for n in range(5)))
        await settle()
        desk.writer.stop()
        with pytest.raises(Draining):
            await desk.writer.submit(Note("late"))
        await desk.running
        assert all(answer.done() for answer in answers)
    assert len(desk.names()) == 5


@in_virtual_time
async def test_an_idle_writer_stops_at_once():
    async with Desk() as desk:
        await settle()
        desk.writer.stop()
        await desk.running


@in_virtual_time
async def test_commands_of_a_batch_see_each_others_changes():
    @dataclass
    class Rename(Note):
        def decide(self, ledger):
            row = ledger.task("default", "one")
            row.name += "!"
            ledger.touch(row)
            return row.name

    async with Desk() as desk:
        answers = await outcomes(desk.put(Note("one"), Rename("a"), Rename("b")))
    assert answers[1:] == [f"task {answers[0]}!", f"task {answers[0]}!!"]


@in_virtual_time
async def test_many_callers_each_get_their_own_answer():
    async with Desk(batch_limit=7) as desk:
        keys = await outcomes(desk.put(*(Note(str(n)) for n in range(100))))
        rows = {row.public_id: row.key for row in desk.database.tables.tasks.values()}
    assert keys == [rows[str(n)] for n in range(100)]
