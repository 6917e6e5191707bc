"""Takes in log lines: checks whose they are and where they belong, and has them made durable.

Where several servers share a database each block is a row, written like everything else. Where one
server has the database to itself, blocks go to its journal: the database is asked once an attempt
who may write, and told what came when that matters (the end of the attempt), so a block costs it
nothing.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Protocol
from weakref import WeakValueDictionary

import structlog

from server import metrics
from server.domain.changes import Effects
from server.domain.errors import LogGap, MusterError
from server.domain.lease import LeaseRef, VerdictAction, go_on
from server.domain.log import LogBlock, LogCounts, LogKey
from server.domain.log_keeping import (
    AppendLog,
    Batch,
    FindLog,
    FoundLog,
    KnownLog,
    LogAnswer,
    LookUpLogs,
    RecordLog,
    fresh_blocks,
)
from server.engine.clock import Clock
from server.engine.writer import Committed, Writer
from server.stores.interfaces import Journal

LOOKED_UP = 200
"""Logs looked up in one transaction at the start."""

RECORD_AGAIN = 1.0
"""Seconds before another try to tell the database what came."""


class LogIntake(Protocol):
    """Where doors bring lines."""

    async def append(self, agent_id: str, ref: LeaseRef, batch: Batch) -> LogAnswer:
        """Make lines durable and return how far the log is.

        Raises:
            MusterError: they are refused, or the store does not answer.
        """


class RowIntake:
    """Each block is a row."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def append(self, agent_id: str, ref: LeaseRef, batch: Batch) -> LogAnswer:
        """See LogIntake."""
        return await self._writer.submit(AppendLog(agent_id, ref, batch))


log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Log:
    """One attempt's log while it grows."""

    task_id: str
    key: LogKey
    accepted: LogCounts
    """With what is on its way to the disk."""
    durable: LogCounts
    recorded: int
    """Lines that the database knows of."""
    ended: bool = True
    """Whether its attempt may have ended: then the database is told of each block."""
    last: "asyncio.Future[None] | None" = None
    """What was sent to the disk last."""


@dataclass(frozen=True, slots=True)
class _Writing:
    """The right of an agent to write a log with one lease, until its task changes."""

    agent_id: str
    log: _Log


class JournalIntake:
    """Blocks go to the journal."""

    def __init__(
        self, writer: Writer, journal: Journal, clock: Clock, grew: Callable[[str, int], None]
    ) -> None:
        self._writer = writer
        self._journal = journal
        self._clock = clock
        self._grew = grew
        self._logs: dict[LogKey, _Log] = {}
        self._writing: dict[str, _Writing] = {}
        """By lease."""
        self._of_task: defaultdict[int, set[str]] = defaultdict(set)
        """Leases in `_writing`."""
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """By lease, for batches that come while another's right is asked for."""
        self._committed = Effects()
        """What the last transaction did."""
        self._untold: dict[LogKey, _Log] = {}
        self._wake = asyncio.Event()

    # ---- what agents bring

    async def append(self, agent_id: str, ref: LeaseRef, batch: Batch) -> LogAnswer:
        """See LogIntake."""
        # One that must ask the database for its right is not overtaken by those behind it: they
        # would find a gap where it belongs.
        async with self._turn(ref):
            writing = self._writing.get(ref.lease_id)
            if writing is None or writing.agent_id != agent_id:
                found = await self._find(agent_id, ref)
                if found.counts is None:
                    return found.answer
                its, verdict = self._log(ref.task_id, found), found.answer.verdict
                if ref.lease_id and verdict.action is VerdictAction.CONTINUE and not its.ended:
                    self._writing[ref.lease_id] = _Writing(agent_id, its)
                    self._of_task[its.key[0]].add(ref.lease_id)
                else:
                    its.ended = True  # nobody will tell us: a cancel may end it at any moment
            else:
                its, verdict = writing.log, go_on(ref)
            gap = self._take(its, ref.task_id, batch)
        # Also a refusal names a position that the agent goes on from.
        await self._durable(its)
        if gap is not None:
            raise gap
        return LogAnswer(its.durable.lines, verdict)

    def _turn(self, ref: LeaseRef) -> AbstractAsyncContextManager[object]:
        if not ref.lease_id:
            return nullcontext()  # each of them asks, and is answered in order
        return self._turns.setdefault(ref.lease_id, asyncio.Lock())

    def _take(self, its: _Log, task_id: str, batch: Batch) -> LogGap | None:
        """Send what is new in a batch to the disk; return why nothing of it can be taken."""
        if its.last is not None and _failed(its.last):
            its.accepted = its.durable  # `_sent` will say so, but only after us
            its.last = None  # who adds nothing has nothing to wait for
        expected = its.accepted.lines + 1
        try:
            blocks = list(fresh_blocks(task_id, batch, expected, self._clock.now()))
        except LogGap as gap:
            return gap
        if blocks:
            self._send(its, blocks)
        return None

    async def _durable(self, its: _Log) -> None:
        if its.last is not None:
            await asyncio.shield(its.last)

    async def _find(self, agent_id: str, ref: LeaseRef) -> FoundLog:
        while True:
            found = await self._writer.submit(FindLog(agent_id, ref))
            # What was decided later in the same transaction is known here, and not there.
            if found.key not in self._committed.closed_logs:
                return found

    def _log(self, task_id: str, found: FoundLog) -> _Log:
        its = self._logs.get(found.key)
        if its is None:
            counts = self._counted(found.key, found.counts or LogCounts())
            its = _Log(task_id, found.key, counts, counts, found.answer.acked_through)
            self._logs[found.key] = its
        its.ended = found.ended or its.key[0] in self._committed.touched
        return its

    def _counted(self, key: LogKey, counts: LogCounts) -> LogCounts:
        for entry in self._journal.entries(key, counts.lines + 1):
            counts = counts.plus(entry.block)
        return counts

    def _send(self, its: _Log, blocks: Sequence[LogBlock]) -> None:
        counts = its.accepted
        for block in blocks:
            counts = counts.plus(block)
        its.last = self._journal.append(its.key, blocks)
        its.accepted = counts
        its.last.add_done_callback(partial(self._sent, its, counts))

    def _sent(self, its: _Log, counts: LogCounts, done: "asyncio.Future[None]") -> None:
        """Note that blocks are durable, or that they are not and none after them either."""
        if _failed(done):
            if its.last is done:  # else what came after the failure is on its way already
                its.accepted = its.durable
            return
        metrics.log_lines.inc(counts.lines - its.durable.lines)
        metrics.log_bytes.inc(counts.bytes - its.durable.bytes)
        its.durable = counts
        self._grew(its.task_id, its.key[1])
        if its.ended:
            self._tell(its)

    # ---- what the database is told

    def committed(self, committed: Committed) -> None:
        """Take in a commit: rights may have changed, attempts ended, logs closed."""
        effects = self._committed = committed.effects
        changed = effects.touched | {key for key, _ in effects.closed_logs}
        for task_key in changed & self._of_task.keys():
            for lease_id in self._of_task.pop(task_key):
                its = self._writing.pop(lease_id).log
                its.ended = True  # perhaps; whoever writes next finds out
                if its.durable.lines > its.recorded:
                    self._tell(its)
        for key in effects.closed_logs:
            self._logs.pop(key, None)
        if effects.deleted:
            for key in [key for key in self._journal.logs() if key[0] in effects.deleted]:
                self._logs.pop(key, None)
                self._journal.forget(key)

    def _tell(self, its: _Log) -> None:
        self._untold[its.key] = its
        self._wake.set()

    async def run(self) -> None:
        """Tell the database what came, where it has to know, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not await self._tell_database():
                await asyncio.sleep(RECORD_AGAIN)
                self._wake.set()

    async def finish(self) -> None:
        """Tell the database the rest, before the writer stops; what fails is found at the start."""
        if self._untold:
            await self._tell_database()

    async def _tell_database(self) -> bool:
        """Tell of each log that it does not know; return whether none of them failed."""
        untold = list(self._untold.values())
        told = await asyncio.gather(*map(self._record, untold), return_exceptions=True)
        for its, error in zip(untold, told, strict=True):
            is_told = error is None and its.recorded >= its.durable.lines
            if is_told and self._untold.get(its.key) is its:
                self._untold.pop(its.key, None)
            if error is not None and not isinstance(error, MusterError):
                log.error("log_not_recorded", task=its.task_id, exc_info=error)
        return not any(told)

    async def _record(self, its: _Log) -> None:
        counts = its.durable
        await self._writer.submit(RecordLog(its.key, counts))
        its.recorded = max(its.recorded, counts.lines)

    async def recover(self) -> list[LogKey]:
        """Compare the journal with the database at the start: what is new in either is settled.

        Returns:
            Logs that take no more.
        """
        keys, closed = self._journal.logs(), []
        for start in range(0, len(keys), LOOKED_UP):
            part = tuple(keys[start : start + LOOKED_UP])
            known = await self._writer.submit(LookUpLogs(part))
            for key in part:
                self._settle(key, known.get(key))
            closed += [key for key in part if key in known and not known[key].open]
        return closed

    def _settle(self, key: LogKey, known: KnownLog | None) -> None:
        if known is None:
            self._journal.forget(key)
            return
        self._journal.forget(key, through=known.counts.lines)
        counts = self._counted(key, known.counts)
        if counts.lines > known.recorded:
            self._tell(_Log(known.task_id, key, counts, counts, known.recorded))


def _failed(sent: "asyncio.Future[None]") -> bool:
    return sent.cancelled() or (sent.done() and sent.exception() is not None)
