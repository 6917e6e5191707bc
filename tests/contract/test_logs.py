"""What logs promise, kept in rows (PostgreSQL) and in a journal (SQLite)."""

import asyncio
import random
import zlib

import pytest

from agent.log_block import BlockBuilder
from agent.log_lines import Run
from server.domain.attempt import LogState, LogSummary
from server.domain.canceling import CancelTask
from server.domain.claiming import Claim
from server.domain.errors import LogGap, NotFound, NotLeaseHolder, StoreUnavailable
from server.domain.holding import Held
from server.domain.lease import LeaseRef, VerdictAction
from server.domain.log import LogLine
from server.domain.log_keeping import FindLog, LooseLines, RecordLog
from server.domain.placement import Offer
from server.domain.policy import Policy
from server.domain.registering import LoseSession, Profile, Register
from server.domain.reporting import Report
from server.domain.submitting import CreateTask, DeleteTask, NewTask
from server.domain.task import TaskSpec, TaskStatus
from server.domain.timing import RunTimers
from server.engine.log_intake import JournalIntake, RowIntake
from server.engine.writer import Writer
from server.rpc.convert import block_of
from server.stores.log_journal import LogJournal
from server.stores.sql.database import SqliteDatabase
from server.stores.sql.reader import SqlReader
from tests.fakes.clock import HandClock
from tests.fakes.shop import NoClaims

CONTINUE, CANCEL, SUPERSEDED = VerdictAction
NAMESPACE = "default"


def packed(first, *texts):
    """Return lines as an agent of ours packs them."""
    builder = BlockBuilder(first)
    for text in texts:
        builder.add(Run(1000 + first, 1, 1, text.encode() + b"\n"))
    return block_of(builder.build())


def loose(first, *texts):
    """Return lines as a v1 agent sends them."""
    return LooseLines(first, tuple(LogLine(0, "stdout", "info", text) for text in texts))


def summary(*texts):
    whole = "".join(text + "\n" for text in texts).encode()
    return LogSummary(len(texts), len(whole), zlib.crc32(whole))


class Desk:
    """Writer, intake and reader over one database, with a task that runs."""

    def __init__(self, database, folder):
        self.database = database
        self.folder = folder
        self.clock = HandClock()
        self.policy = Policy()
        self.grown = []

    async def open(self):
        self.writer = Writer(
            self.database, self.clock, self.policy, NoClaims(), batch_limit=100, queue_limit=1000
        )
        self.running = [asyncio.ensure_future(self.writer.run())]
        self.journal = None
        self.intake = RowIntake(self.writer)
        if isinstance(self.database, SqliteDatabase):
            self.journal = LogJournal(self.folder)
            await self.journal.open()
            self.intake = JournalIntake(self.writer, self.journal, self.clock, self._grew)
            self.writer.listen(self.intake.committed)
            self.running += map(asyncio.ensure_future, (self.journal.run(), self.intake.run()))
            await self.intake.recover()
        self.reader = SqlReader(self.database, self.journal)

    def _grew(self, task_id, attempt):
        self.grown.append((task_id, attempt))

    async def close(self):
        self.writer.stop()
        await self.running[0]
        if self.journal is not None:
            self.journal.stop()
            await self.running[1]
            self.running[2].cancel()
            await self.journal.close()

    async def restart(self):
        await self.close()
        await self.open()

    async def start_task(self, task_id="t", agent_id="a", *, v1=False, **chosen):
        """Register an agent, hand it a new task, have it started; return the lease."""
        new = NewTask(task_id, TaskSpec(("true",)), **chosen)
        await self.writer.submit(CreateTask(NAMESPACE, task_id, new, ""))
        held = None if v1 else Held()
        register = Register(NAMESPACE, agent_id, f"{agent_id}-1", Profile(slots=9), held)
        await self.writer.submit(register)
        return await self.claim(task_id, agent_id, v1=v1)

    async def claim(self, task_id="t", agent_id="a", *, v1=False):
        agent, _ = await self.reader.agent(NAMESPACE, agent_id)
        task = (await self.reader.task(NAMESPACE, task_id)).task
        classes = frozenset([task.class_key])
        offer = Offer(agent.key, agent_id, agent.session_id, 1, classes, 1)
        claimed = await self.writer.submit(Claim((offer,), (task.queue,)))
        (given,) = claimed.assignments[agent.session_id]
        lease = LeaseRef(task_id, "" if v1 else given.lease_id)
        await self.writer.submit(Report(agent_id, lease, TaskStatus.RUNNING))
        return lease

    async def append(self, lease, batch, agent_id="a"):
        answer = await self.intake.append(agent_id, lease, batch)
        return answer.acked_through, answer.verdict.action

    async def end(self, lease, *texts, status=TaskStatus.SUCCESS, log=None, agent_id="a"):
        log = log or summary(*texts)
        await self.writer.submit(Report(agent_id, lease, status, log=log))

    async def texts(self, attempt=0, first=1, limit=1000, task_id="t"):
        page = await self.reader.log(NAMESPACE, task_id, attempt, first, limit)
        return [line.text for line in page.lines]

    async def page(self, attempt=0, task_id="t"):
        return await self.reader.log(NAMESPACE, task_id, attempt, 1, 0)

    async def state(self, attempt=0, *, wanted=None, task_id="t"):
        """Return a log's state, once it is `wanted` where that takes a moment."""
        async with asyncio.timeout(20):
            while True:
                state = (await self.page(attempt, task_id)).state
                if wanted in (None, state):
                    return state
                await asyncio.sleep(0.01)


@pytest.fixture
async def desk(sql_database, tmp_path):
    desk = Desk(sql_database, tmp_path / "journal")
    await desk.open()
    yield desk
    await desk.close()


async def test_lines_are_readable_once_they_are_acknowledged_and_after_a_restart(desk):
    lease = await desk.start_task()
    assert await desk.append(lease, packed(1, "one", "two")) == (2, CONTINUE)
    assert await desk.append(lease, packed(3, "three")) == (3, CONTINUE)
    for _ in range(2):
        assert await desk.texts() == ["one", "two", "three"]
        assert await desk.texts(first=2, limit=1) == ["two"]
        view = await desk.reader.task(NAMESPACE, "t")
        assert view.attempts[0].log_lines == 3
        await desk.restart()
    assert await desk.append(lease, packed(4, "four")) == (4, CONTINUE)
    assert await desk.texts() == ["one", "two", "three", "four"]


async def test_what_has_come_since_is_read_on_from_a_page(desk):
    lease = await desk.start_task()
    await desk.append(lease, packed(1, "one"))
    page = await desk.reader.log(NAMESPACE, "t", 0, 1, 10)
    await desk.append(lease, packed(2, "two", "three"))
    if desk.journal is None:  # then a row says how long it is
        page = await desk.reader.log(NAMESPACE, "t", 0, 1, 0)
    more = await desk.reader.more_of_log(page, 2, 10)
    assert ([line.text for line in more.lines], more.first_line) == (["two", "three"], 2)
    assert (more.total, more.attempt, more.state) == (3, 1, LogState.OPEN)


async def test_what_begins_earlier_brings_nothing_and_what_begins_later_is_refused(desk):
    lease = await desk.start_task()
    await desk.append(lease, packed(1, "one", "two"))
    for again in (packed(1, "one", "two"), packed(2, "two"), packed(2, "two", "three")):
        assert await desk.append(lease, again) == (2, CONTINUE)
    with pytest.raises(LogGap, match="goes on with line 3, not line 4"):
        await desk.append(lease, packed(4, "four"))
    assert await desk.texts() == ["one", "two"]


async def test_a_refusal_names_no_position_that_is_not_durable(desk):
    lease = await desk.start_task()
    await desk.append(lease, packed(1, "one"))
    first = asyncio.ensure_future(desk.append(lease, packed(2, "two")))
    later = asyncio.ensure_future(desk.append(lease, packed(9, "nine")))
    with pytest.raises(LogGap) as refused:
        await later
    assert refused.value.expected == 3
    assert first.done(), "line 2 was named before it was durable"
    assert await first == (2, CONTINUE)


async def test_loose_lines_and_blocks_make_one_log(desk):
    lease = await desk.start_task()
    await desk.append(lease, loose(1, "one", "two"))
    await desk.append(lease, packed(3, "three"))
    assert await desk.append(lease, loose(2, "two", "three", "four")) == (4, CONTINUE)
    assert await desk.append(lease, loose(0, "five")) == (5, CONTINUE)
    assert await desk.texts() == ["one", "two", "three", "four", "five"]


async def test_a_v1_agent_appends_without_a_lease(desk):
    lease = await desk.start_task(v1=True)
    assert await desk.append(lease, loose(0, "one")) == (1, CONTINUE)
    assert await desk.append(lease, loose(0, "two")) == (2, CONTINUE)
    await desk.writer.submit(Register(NAMESPACE, "b", "b-1", Profile(slots=1), None))
    with pytest.raises(NotLeaseHolder):
        await desk.append(lease, loose(0, "no"), agent_id="b")
    assert await desk.texts() == ["one", "two"]


async def test_batches_on_their_way_together_keep_their_order(desk):
    lease = await desk.start_task()
    await desk.append(lease, packed(1, "1"))
    batches = [packed(n, str(n)) for n in range(2, 60)]
    answers = await asyncio.gather(*(desk.append(lease, batch) for batch in batches))
    assert [acked for acked, _ in answers] == sorted(acked for acked, _ in answers)
    assert answers[-1] == (59, CONTINUE)
    assert await desk.texts() == [str(n) for n in range(1, 60)]


async def test_no_batch_overtakes_one_whose_right_is_asked_for(desk, monkeypatch):
    lease = await desk.start_task()
    submit, let_go, asked = desk.writer.submit, asyncio.Event(), 0

    async def slow(command, **chosen):
        nonlocal asked
        asked += isinstance(command, FindLog)
        hold = isinstance(command, FindLog) and asked == 2
        answer = await submit(command, **chosen)
        if hold:
            await let_go.wait()
        return answer

    monkeypatch.setattr(desk.writer, "submit", slow)
    early = [asyncio.ensure_future(desk.append(lease, packed(n, str(n)))) for n in (1, 2)]
    await early[0]
    late = asyncio.ensure_future(desk.append(lease, packed(3, "3")))
    await asyncio.sleep(0)
    let_go.set()
    assert await asyncio.gather(*early, late) == [(1, CONTINUE), (2, CONTINUE), (3, CONTINUE)]


async def test_what_comes_after_a_failed_write_is_not_written_over(desk, monkeypatch):
    """Lines that a full disk refused come again, at once, from an agent that does not wait."""
    if desk.journal is None:
        pytest.skip("rows are written by the database")
    lease = await desk.start_task()
    await desk.append(lease, packed(1, "1"))
    append, sent = desk.journal.append, []

    def kept(key, blocks):
        sent.append(append(key, blocks))
        return sent[-1]

    monkeypatch.setattr(desk.journal, "append", kept)
    refused = asyncio.ensure_future(desk.append(lease, packed(2, "2")))
    await asyncio.sleep(0)
    again = [asyncio.ensure_future(desk.append(lease, packed(n, str(n)))) for n in (2, 3)]
    sent[0].set_exception(StoreUnavailable("full"))  # they run before anybody hears of it
    with pytest.raises(StoreUnavailable):
        await refused
    await asyncio.gather(*again)
    assert await desk.append(lease, packed(4, "4")) == (4, CONTINUE)
    assert await desk.texts() == ["1", "2", "3", "4"]


async def test_after_a_failed_write_an_agent_that_begins_anew_is_told_where_to_go_on(
    desk, monkeypatch
):
    """It has restarted, and sends first what is durable already."""
    if desk.journal is None:
        pytest.skip("rows are written by the database")
    lease = await desk.start_task()
    await desk.append(lease, packed(1, "1"))
    append = desk.journal.append

    def refused(key, blocks):
        sent = append(key, blocks)
        sent.set_exception(StoreUnavailable("full"))
        return sent

    with monkeypatch.context() as full:
        full.setattr(desk.journal, "append", refused)
        with pytest.raises(StoreUnavailable):
            await desk.append(lease, packed(2, "2"))
    assert await desk.append(lease, packed(1, "1")) == (1, CONTINUE)


async def test_a_log_is_complete_when_the_end_agrees(desk):
    lease = await desk.start_task()
    await desk.append(lease, packed(1, "one"))
    await desk.end(lease, "one", "two")
    assert await desk.state() is LogState.OPEN
    assert await desk.append(lease, packed(2, "two")) == (2, CONTINUE)
    assert await desk.state(wanted=LogState.COMPLETE)
    view = await desk.reader.task(NAMESPACE, "t")
    assert view.attempts[0].log_lines == 2
    await desk.restart()
    assert await desk.append(lease, packed(3, "late")) == (2, CONTINUE)
    assert await desk.texts() == ["one", "two"]


@pytest.mark.parametrize("together", [True, False])
async def test_the_end_and_the_last_lines_may_come_at_once(desk, together):
    lease = await desk.start_task()
    if together:
        await asyncio.gather(
            desk.end(lease, "one", "two"), desk.append(lease, packed(1, "one", "two"))
        )
    else:
        await asyncio.gather(
            desk.append(lease, packed(1, "one", "two")), desk.end(lease, "one", "two")
        )
    assert await desk.state(wanted=LogState.COMPLETE)


async def test_a_restart_between_the_last_line_and_its_record_completes_the_log(desk):
    lease = await desk.start_task()
    await desk.end(lease, "one")
    if desk.journal is not None:
        desk.running[2].cancel()  # the server dies before it tells the database
    await desk.append(lease, packed(1, "one"))
    if desk.journal is not None:
        assert await desk.state() is LogState.OPEN
    await desk.restart()
    assert await desk.state(wanted=LogState.COMPLETE)
    assert await desk.texts() == ["one"]


async def test_a_server_that_stops_tells_the_database_of_the_last_lines_first(desk, monkeypatch):
    lease = await desk.start_task()
    await desk.end(lease, "one")
    if desk.journal is None:
        await desk.append(lease, packed(1, "one"))
    else:
        submit, refused = desk.writer.submit, []

        async def refuse_once(command, **more):
            if isinstance(command, RecordLog) and not refused:
                refused.append(command)
                desk.running[2].cancel()  # it stops while another try is to come
                raise StoreUnavailable("away")
            return await submit(command, **more)

        monkeypatch.setattr(desk.writer, "submit", refuse_once)
        await desk.append(lease, packed(1, "one"))
        await asyncio.wait([desk.running[2]])
        assert refused
        assert await desk.state() is LogState.OPEN
        await desk.intake.finish()
    assert await desk.state() is LogState.COMPLETE


@pytest.mark.parametrize(
    "wrong",
    [LogSummary(2, 4, 1), LogSummary(1, 3, zlib.crc32(b"one\n")), LogSummary(1, 4, 1)],
    ids=["lines", "bytes", "crc"],
)
async def test_a_log_that_does_not_agree_ends_incomplete(desk, wrong):
    lease = await desk.start_task()
    await desk.append(lease, packed(1, "one"))
    await desk.end(lease, log=wrong)
    assert await desk.state() is LogState.OPEN
    if desk.journal is None or isinstance(desk.database, SqliteDatabase):
        desk.clock.advance(desk.policy.log_incomplete_after)
    if isinstance(desk.database, SqliteDatabase):
        await desk.writer.submit(RunTimers())
        assert await desk.state(wanted=LogState.INCOMPLETE)
        assert await desk.append(lease, packed(2, "late")) == (1, CONTINUE)
        assert await desk.texts() == ["one"]


async def test_a_cancel_is_told_with_the_next_lines(desk):
    lease = await desk.start_task()
    await desk.append(lease, packed(1, "one"))
    await desk.writer.submit(CancelTask(NAMESPACE, "t", "enough"))
    assert await desk.append(lease, packed(2, "two")) == (2, CANCEL)
    assert await desk.append(lease, packed(3, "three")) == (3, CANCEL)


async def test_what_a_cancelled_task_says_last_completes_its_log(desk):
    lease = await desk.start_task()
    await desk.append(lease, packed(1, "up"))
    await desk.writer.submit(CancelTask(NAMESPACE, "t", "enough"))
    await desk.append(lease, packed(2, "tidied"))
    await desk.end(lease, "up", "tidied")
    assert await desk.state(wanted=LogState.COMPLETE)


async def test_the_last_words_of_a_superseded_attempt_are_kept_in_its_own_log(desk):
    lease = await desk.start_task()
    await desk.append(lease, packed(1, "one"))
    agent, _ = await desk.reader.agent(NAMESPACE, "a")
    await desk.writer.submit(LoseSession("a", agent.session_id, agent.last_seen))
    await desk.writer.submit(Register(NAMESPACE, "b", "b-1", Profile(slots=1), Held()))
    second = await desk.claim(agent_id="b")
    await desk.append(second, packed(1, "new"), agent_id="b")
    assert await desk.append(lease, packed(2, "last words")) == (2, SUPERSEDED)
    assert await desk.texts(attempt=1) == ["one", "last words"]
    assert await desk.texts(attempt=2) == ["new"]


async def test_nobody_writes_for_another(desk):
    lease = await desk.start_task()
    await desk.writer.submit(Register(NAMESPACE, "b", "b-1", Profile(slots=1), Held()))
    assert await desk.append(lease, packed(1, "no"), agent_id="b") == (0, SUPERSEDED)
    assert await desk.append(LeaseRef("t", "t.9"), packed(1, "no")) == (0, SUPERSEDED)
    with pytest.raises(NotFound):
        await desk.append(LeaseRef("x", "x.1"), packed(1, "no"))
    await desk.append(lease, packed(1, "yes"))
    assert await desk.append(lease, packed(2, "no"), agent_id="b") == (0, SUPERSEDED)
    assert await desk.texts() == ["yes"]


async def test_a_deleted_tasks_log_is_gone_for_good(desk):
    lease = await desk.start_task()
    await desk.append(lease, packed(1, "one"))
    await desk.end(lease, "one")
    assert await desk.state(wanted=LogState.COMPLETE)
    await desk.writer.submit(DeleteTask(NAMESPACE, "t"))
    with pytest.raises(NotFound):
        await desk.append(lease, packed(2, "two"))
    await desk.restart()
    if desk.journal is not None:
        assert desk.journal.logs() == []


async def test_tail_and_since_find_their_line(desk):
    lease = await desk.start_task()
    for first in (1, 3, 5):
        await desk.append(lease, packed(first, "x", "y"))
    for _ in range(2):
        assert (await desk.reader.log_place(NAMESPACE, "t", 0, 3, 0)).line == 4
        assert (await desk.reader.log_place(NAMESPACE, "t", 0, 0, 1003)).line == 3
        assert (await desk.reader.log_place(NAMESPACE, "t", 0, 1, 1003)).line == 6
        assert (await desk.reader.log_place(NAMESPACE, "t", 0, 0, 9999)).line == 7
        await desk.restart()


async def test_any_breaks_and_restarts_leave_neither_holes_nor_repeats(desk):
    """An agent that is cut off at random sends again from wherever it believes to be."""
    dice = random.Random(5)  # noqa: S311 (the same breaks every time)
    lease = await desk.start_task()
    texts = [str(n) for n in range(1, 301)]
    position = 0
    while position < len(texts):
        believed = max(0, position - dice.randrange(8))
        size = dice.randrange(1, 12)
        acked, _ = await desk.append(lease, packed(believed + 1, *texts[believed:][:size]))
        assert acked >= position
        position = acked if dice.random() < 0.7 else position
        if dice.random() < 0.05:
            await desk.restart()
    await desk.end(lease, *texts)
    assert await desk.state(wanted=LogState.COMPLETE)
    assert await desk.texts() == texts


# ---- the limit


async def test_a_log_in_rows_keeps_its_beginning_and_its_end(desk):
    limit = 10_000
    desk.policy = Policy(log_limit=limit)
    await desk.restart()
    desk.intake = RowIntake(desk.writer)
    lease = await desk.start_task()
    texts = [f"{n:05} " + "x" * 93 for n in range(1, 501)]  # 100 bytes each with their ends
    for n in range(0, 500, 4):
        await desk.append(lease, packed(n + 1, *texts[n : n + 4]))
    page = await desk.reader.log(NAMESPACE, "t", 0, 1, 1000)
    head = [line.text for line in page.lines]
    mark = await desk.reader.log(NAMESPACE, "t", 0, len(head) + 1, 1000)
    tail = await desk.texts(first=mark.first_line + 1)
    assert head + tail == texts[: len(head)] + texts[mark.first_line :]
    assert mark.lines[0].text.startswith(f"[muster: lines {len(head) + 1:,} to {mark.first_line:,}")
    assert min(len(head), len(tail)) >= 30
    assert 100 * len(head + tail) <= limit + limit // 16 + 400
    await desk.end(lease, *texts)
    assert await desk.state(wanted=LogState.COMPLETE)
    assert (await desk.page()).total == 500
