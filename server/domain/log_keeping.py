"""What becomes of log lines: whose they are, where they belong, what a log amounts to."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from server.domain.attempt import Attempt, LogState
from server.domain.changes import LogBatch
from server.domain.errors import LogGap, NotLeaseHolder
from server.domain.holding import adopt
from server.domain.lease import (
    LeaseRef,
    Standing,
    Verdict,
    attempt_of,
    go_on,
    standing,
    superseded,
    verdict_for,
)
from server.domain.ledger import Ledger
from server.domain.log import (
    Encoding,
    LogBlock,
    LogCounts,
    LogKey,
    LogLine,
    amount,
    middle,
    omitted,
    pack,
)
from server.domain.moment import Moment
from server.domain.task import Task

LOOSE_BLOCK = 256 * 1024
"""Text after which lines that came one by one go into another block."""


@dataclass(frozen=True, slots=True)
class LooseLines:
    """Lines that come one by one, from a v1 agent; `first_line` 0 appends."""

    first_line: int
    lines: tuple[LogLine, ...]


Batch: TypeAlias = LooseLines | LogBlock


@dataclass(frozen=True, slots=True)
class LogAnswer:
    """Answer to a batch of log lines."""

    acked_through: int
    verdict: Verdict


def fresh_blocks(task_id: str, batch: Batch, expected: int, now: Moment) -> Iterator[LogBlock]:
    """Yield what a batch adds to a log that goes on with the line `expected`.

    A block that begins before that line adds nothing: the answer tells its agent where to go on.
    Loose lines without a time get `now`.

    Raises:
        LogGap: the batch begins after that line.
    """
    first = batch.first_line or expected
    if first > expected:
        raise LogGap(task_id, expected, first)
    if isinstance(batch, LooseLines):
        lines = [line if line.at else line._replace(at=now) for line in batch.lines]
        yield from _packed(expected, lines[expected - first :])
    elif first == expected:
        yield batch


def _packed(first: int, lines: Sequence[LogLine]) -> Iterator[LogBlock]:
    begin = size = 0
    for end, line in enumerate(lines, 1):
        size += len(line.text) + len(line.raw)
        if size >= LOOSE_BLOCK or end == len(lines):
            yield pack(first + begin, lines[begin:end])
            begin, size = end, 0


@dataclass(slots=True)
class _Writer:
    """Who wants to write a log, and which."""

    task: Task
    attempt: Attempt | None
    """None when the agent may write none."""
    how: Standing


def _writer(ledger: Ledger, agent_id: str, ref: LeaseRef) -> _Writer:
    """Return which attempt's log an agent may write.

    Raises:
        NotLeaseHolder: a v1 agent may write none.
    """
    agent = ledger.agent(agent_id)
    task = ledger.task(None, ref.task_id)
    attempt = _attempt(ledger, task, ref)
    if attempt is None or attempt.agent_key != agent.key:
        if not ref.lease_id:
            raise NotLeaseHolder(agent_id, task.public_id)
        return _Writer(task, None, Standing.STALE)
    how = standing(ledger, task, agent, ref.lease_id)
    if not ref.lease_id and how is Standing.STALE:
        raise NotLeaseHolder(agent_id, task.public_id)
    return _Writer(task, attempt, how)


def _attempt(ledger: Ledger, task: Task, ref: LeaseRef) -> Attempt | None:
    if not ref.lease_id:
        return ledger.attempt(task, task.attempt)
    return attempt_of(ledger, task, ref.lease_id)


def _heard(ledger: Ledger, agent_id: str, ref: LeaseRef, writer: _Writer) -> Verdict:
    """Note that the agent runs the task, for lines say so, and return the verdict."""
    task = writer.task
    if not ref.lease_id and writer.how is Standing.ADOPTABLE:
        # A v1 agent has no other way to say that it still runs.
        adopt(ledger, task, ledger.agent(agent_id))
        writer.how = Standing.CURRENT
    if writer.how is not Standing.CURRENT:
        return superseded(ref) if writer.how is Standing.STALE else go_on(ref)
    if task.confirm_by is not None:
        task.confirm_by = None
        ledger.touch(task)
    return verdict_for(task, ref.lease_id)


@dataclass(frozen=True, slots=True)
class AppendLog:
    """Lines of an attempt's log, from its agent, stored as rows; answers a LogAnswer.

    Lines join the log of their own lease's attempt until it is closed, whatever has become of the
    task: a superseded attempt's last words are kept.
    """

    agent_id: str
    ref: LeaseRef
    batch: Batch

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return (self.ref.task_id,)

    def decide(self, ledger: Ledger) -> LogAnswer:
        """See Command."""
        writer = _writer(ledger, self.agent_id, self.ref)
        attempt = writer.attempt
        if attempt is None:
            return LogAnswer(0, superseded(self.ref))
        expected = attempt.log_lines + 1
        blocks = list(fresh_blocks(self.ref.task_id, self.batch, expected, ledger.now))
        verdict = _heard(ledger, self.agent_id, self.ref, writer)
        if attempt.log_state is LogState.OPEN:
            before = attempt.log_bytes
            for block in blocks:
                _store(ledger, writer.task, attempt, block)
            if _outgrows(before, attempt.log_bytes, ledger.policy.log_limit):
                key = (attempt.task_key, attempt.number)
                ledger.flush()
                stored = ledger.source.log_heads([key]).get(key, [])
                _cut(ledger, writer.task, attempt.number, stored, ledger.policy.log_limit)
        return LogAnswer(attempt.log_lines, verdict)


def _store(ledger: Ledger, task: Task, attempt: Attempt, block: LogBlock) -> None:
    ledger.add_log(LogBatch(task.key, attempt.number, task.namespace, block))
    _count(ledger, attempt, counts_of(attempt).plus(block))
    ledger.effects.log_tasks.add(task.public_id)
    ledger.effects.lines += block.lines
    ledger.effects.bytes += block.text_bytes


def _outgrows(before: int, after: int, limit: int) -> bool:
    """Whether a log is to be cut: beyond its limit, and again with each sixteenth of that."""
    step = max(1, limit // 16)
    return after > limit and (before <= limit or before // step < after // step)


def _cut(ledger: Ledger, task: Task, number: int, blocks: Sequence[LogBlock], limit: int) -> None:
    """Leave the middle of a log out whose rows hold more than `limit` bytes of text."""
    key = (task.key, number)
    if sum(b.text_bytes for b in blocks if b.encoding is not Encoding.OMITTED) <= limit:
        return
    begin, end = middle(blocks, limit)
    gone = blocks[begin:end]
    if gone:
        ledger.source.drop_log(key, gone[0].first_line, gone[-1].first_line)
        ledger.add_log(LogBatch(*key, task.namespace, omitted(gone)))


def counts_of(attempt: Attempt) -> LogCounts:
    """Return what the database knows of a log."""
    return LogCounts(attempt.log_lines, attempt.log_bytes, attempt.log_crc)


def _count(ledger: Ledger, attempt: Attempt, counts: LogCounts) -> None:
    attempt.log_lines, attempt.log_bytes, attempt.log_crc = counts.lines, counts.bytes, counts.crc
    attempt.log_at = ledger.now
    ledger.touch_attempt(attempt)


# ---- logs in a journal


@dataclass(frozen=True, slots=True)
class FoundLog:
    """Whether and where an agent may write."""

    answer: LogAnswer
    """What it is told when it has nothing to write."""
    key: LogKey = (0, 0)
    counts: LogCounts | None = None
    """What the rows of the log amount to; None when the log takes no more."""
    ended: bool = False
    """Whether the attempt has ended."""


@dataclass(frozen=True, slots=True)
class FindLog:
    """Ask whether an agent may write a log with a lease; answers a FoundLog."""

    agent_id: str
    ref: LeaseRef

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return (self.ref.task_id,)

    def decide(self, ledger: Ledger) -> FoundLog:
        """See Command."""
        writer = _writer(ledger, self.agent_id, self.ref)
        attempt = writer.attempt
        if attempt is None:
            return FoundLog(LogAnswer(0, superseded(self.ref)))
        answer = LogAnswer(attempt.log_lines, _heard(ledger, self.agent_id, self.ref, writer))
        if attempt.log_state is not LogState.OPEN:
            return FoundLog(answer)
        key = (attempt.task_key, attempt.number)
        counts = amount(ledger.source.log_heads([key]).get(key, ()))
        return FoundLog(answer, key, counts, attempt.status.ended)


@dataclass(frozen=True, slots=True)
class RecordLog:
    """Note what a log in the journal amounts to by now; answers whether it is still there.

    A closed log takes it too: lines that came at the very moment of its closing are there.
    """

    key: LogKey
    counts: LogCounts

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> bool:
        """See Command."""
        found = ledger.tasks_by_key([self.key[0]])
        attempt = ledger.attempt(found[0], self.key[1]) if found else None
        if attempt is None:
            return False
        if self.counts.lines > attempt.log_lines:
            _count(ledger, attempt, self.counts)
        return True


@dataclass(frozen=True, slots=True)
class KnownLog:
    """How a log stands in the database."""

    task_id: str
    recorded: int
    """Lines noted with its attempt."""
    counts: LogCounts
    """What its rows amount to."""
    open: bool


@dataclass(frozen=True, slots=True)
class LookUpLogs:
    """Ask how logs stand that were found in the journal; those that are gone are left out."""

    keys: tuple[LogKey, ...]

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> dict[LogKey, KnownLog]:
        """See Command."""
        tasks = {t.key: t for t in ledger.tasks_by_key(sorted({key for key, _ in self.keys}))}
        ledger.prefetch_attempts(key for key in self.keys if key[0] in tasks)
        heads = ledger.source.log_heads(self.keys)
        known = {}
        for key in self.keys:
            task = tasks.get(key[0])
            attempt = ledger.attempt(task, key[1]) if task is not None else None
            if task is not None and attempt is not None:
                is_open = attempt.log_state is LogState.OPEN
                stored = amount(heads.get(key, ()))
                known[key] = KnownLog(task.public_id, attempt.log_lines, stored, is_open)
        return known


# ---- logs in blobs


@dataclass(frozen=True, slots=True)
class SealedBlock:
    """A block without its data, and where that lies."""

    key: LogKey
    block: LogBlock
    blob: str
    offset: int
    size: int

    def batch(self, namespace: str) -> LogBatch:
        """Return it as a row."""
        return LogBatch(*self.key, namespace, self.block, self.blob, self.offset, self.size)


@dataclass(frozen=True, slots=True)
class SealLogs:
    """Note where blocks lie that were in the journal; answers how many are noted.

    A log of more than `limit` bytes keeps its beginning and its end.
    """

    blocks: tuple[SealedBlock, ...]
    limit: int

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> int:
        """See Command."""
        tasks = {t.key: t for t in ledger.tasks_by_key(sorted({b.key[0] for b in self.blocks}))}
        noted = [sealed for sealed in self.blocks if sealed.key[0] in tasks]
        for sealed in noted:
            ledger.add_log(sealed.batch(tasks[sealed.key[0]].namespace))
        ledger.flush()
        keys = sorted({sealed.key for sealed in noted})
        ledger.prefetch_attempts(keys)
        for key, blocks in ledger.source.log_heads(keys).items():
            self._settle(ledger, tasks[key[0]], key[1], blocks)
        return len(noted)

    def _settle(self, ledger: Ledger, task: Task, number: int, blocks: Sequence[LogBlock]) -> None:
        """Note what a log amounts to as far as it has rows, and cut it to its limit."""
        attempt = ledger.attempt(task, number)
        counts = amount(blocks)
        if attempt is not None and counts.lines > attempt.log_lines:
            _count(ledger, attempt, counts)
        if counts.bytes > self.limit:
            _cut(ledger, task, number, blocks, self.limit)
