"""What agents say about their tasks: starts, ends and log lines."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from server.domain.attempt import Attempt, AttemptStatus, LogState, LogSummary
from server.domain.changes import LogBatch
from server.domain.ending import Outcome, end_attempt, start_attempt
from server.domain.errors import LogGap, NotLeaseHolder
from server.domain.holding import adopt
from server.domain.lease import (
    LeaseRef,
    Standing,
    Verdict,
    go_on,
    standing,
    superseded,
    verdict_for,
)
from server.domain.ledger import Ledger
from server.domain.log import LogBlock, LogCounts, LogLine, pack
from server.domain.moment import Moment
from server.domain.task import Task, TaskStatus

REPORTABLE = (
    TaskStatus.RUNNING,
    TaskStatus.SUCCESS,
    TaskStatus.FAILED,
    TaskStatus.CANCELLED,
    TaskStatus.TIMEOUT,
)
LOOSE_BLOCK = 256 * 1024
"""Text after which lines that came one by one go into another block."""

_ENDS = {
    TaskStatus.SUCCESS: AttemptStatus.SUCCESS,
    TaskStatus.FAILED: AttemptStatus.FAILED,
    TaskStatus.CANCELLED: AttemptStatus.CANCELLED,
    TaskStatus.TIMEOUT: AttemptStatus.TIMEOUT,
}


@dataclass(frozen=True, slots=True)
class Report:
    """How a task goes, from its agent; answers a Verdict."""

    agent_id: str
    ref: LeaseRef
    status: TaskStatus
    exit_code: int = 0
    error: str = ""
    started_at: Moment | None = None
    ended_at: Moment | None = None
    log: LogSummary | None = None
    infrastructure: bool = False
    """Whether a FAILED attempt was lost with the agent's own process."""
    released: bool = False
    """Whether a FAILED attempt was ended because its agent was told to stop."""
    measured: dict[str, str] = field(default_factory=dict)
    """What the agent measured, to be told with the change."""

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return (self.ref.task_id,)

    def decide(self, ledger: Ledger) -> Verdict:
        """See Command."""
        agent = ledger.agent(self.agent_id)
        task = ledger.task(None, self.ref.task_id)
        how = standing(ledger, task, agent, self.ref.lease_id)
        if how is Standing.ENDED and self._repeats(task, ledger.last_attempt(task)):
            return go_on(self.ref)
        if how in (Standing.STALE, Standing.ENDED):
            return self._refuse(task)
        if self.measured:
            ledger.measured[task.key] = self.measured
        if how is Standing.ADOPTABLE:
            adopt(ledger, task, agent)
        if self.status is TaskStatus.RUNNING:
            start_attempt(ledger, task, self.started_at)
            return verdict_for(task, self.ref.lease_id)
        if self.started_at is not None and task.status is TaskStatus.QUEUED:
            start_attempt(ledger, task, self.started_at)
        end_attempt(ledger, task, self._outcome(task))
        return go_on(self.ref)

    def _outcome(self, task: Task) -> Outcome:
        status = self._end(task)
        return Outcome(
            status,
            exit_code=self.exit_code,
            cause=self.error or _cause(self.status, self.exit_code),
            reported=True,
            log=self.log,
            ended_at=self.ended_at,
        )

    def _end(self, task: Task) -> AttemptStatus:
        if self.infrastructure:
            return AttemptStatus.LOST
        asked = self.status is TaskStatus.CANCELLED and task.cancel_requested_at is None
        if self.released or (asked and task.release_requested_at is not None):
            return AttemptStatus.RELEASED
        return _ENDS[self.status]

    def _repeats(self, task: Task, attempt: Attempt) -> bool:
        return self.status is TaskStatus.RUNNING or attempt.status is self._end(task)

    def _refuse(self, task: Task) -> Verdict:
        if not self.ref.lease_id:
            raise NotLeaseHolder(self.agent_id, task.public_id)
        return superseded(self.ref)


def _cause(status: TaskStatus, exit_code: int) -> str:
    if status is TaskStatus.FAILED:
        return f"exit code {exit_code}"
    return "its time was up" if status is TaskStatus.TIMEOUT else ""


@dataclass(frozen=True, slots=True)
class LogAnswer:
    """Answer to a batch of log lines."""

    acked_through: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class LooseLines:
    """Lines that come one by one, from a v1 agent; `first_line` 0 appends."""

    first_line: int
    lines: tuple[LogLine, ...]

    def fresh(self, task_id: str, expected: int, now: Moment) -> Iterator[LogBlock]:
        """Yield what is not stored yet, in blocks. Lines without a time get `now`.

        Raises:
            LogGap: the lines begin after the one expected next.
        """
        first = self.first_line or expected
        if first > expected:
            raise LogGap(task_id, expected, first)
        lines = [line if line.at else line._replace(at=now) for line in self.lines]
        return _blocks(expected, lines[expected - first :])


def _blocks(first: int, lines: Sequence[LogLine]) -> Iterator[LogBlock]:
    begin = size = 0
    for end, line in enumerate(lines, 1):
        size += len(line.text) + len(line.raw)
        if size >= LOOSE_BLOCK or end == len(lines):
            yield pack(first + begin, lines[begin:end])
            begin, size = end, 0


def fresh_block(task_id: str, block: LogBlock, expected: int) -> Iterator[LogBlock]:
    """Yield a block that begins with the line expected next.

    One that begins before it brings nothing: the answer tells its agent where to go on.

    Raises:
        LogGap: it begins after that line.
    """
    if block.first_line > expected:
        raise LogGap(task_id, expected, block.first_line)
    if block.first_line == expected:
        yield block


@dataclass(frozen=True, slots=True)
class AppendLog:
    """Lines of an attempt's log, from its agent; answers a LogAnswer.

    Lines join the log of their own lease's attempt until it is closed, whatever has become of the
    task: a superseded attempt's last words are kept.
    """

    agent_id: str
    ref: LeaseRef
    batch: LooseLines | LogBlock

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return (self.ref.task_id,)

    def decide(self, ledger: Ledger) -> LogAnswer:
        """See Command."""
        agent = ledger.agent(self.agent_id)
        task = ledger.task(None, self.ref.task_id)
        attempt = self._attempt(ledger, task)
        if attempt is None or attempt.agent_key != agent.key:
            if not self.ref.lease_id:
                raise NotLeaseHolder(self.agent_id, task.public_id)
            return LogAnswer(0, superseded(self.ref))
        if not self.ref.lease_id and standing(ledger, task, agent, "") is Standing.STALE:
            raise NotLeaseHolder(self.agent_id, task.public_id)
        fresh = list(self._fresh(ledger, attempt))
        how = standing(ledger, task, agent, self.ref.lease_id)
        if not self.ref.lease_id and how is Standing.ADOPTABLE:
            adopt(ledger, task, agent)  # a v1 agent has no other way to say that it still runs
            how = Standing.CURRENT
        if attempt.log_state is LogState.OPEN:
            for block in fresh:
                self._store(ledger, task, attempt, block)
        if how is Standing.CURRENT and task.confirm_by is not None:
            task.confirm_by = None
            ledger.touch(task)
        return LogAnswer(attempt.log_lines, self._verdict(how, task))

    def _attempt(self, ledger: Ledger, task: Task) -> Attempt | None:
        if not self.ref.lease_id:
            return ledger.attempt(task, task.attempt)
        task_id, _, epoch = self.ref.lease_id.rpartition(".")
        if task_id != task.public_id or not epoch.isdecimal() or len(epoch) > 9 or not int(epoch):
            return None
        # Attempts and epochs both grow by one at each claim.
        return ledger.attempt(task, task.attempt - (task.lease_epoch - int(epoch)))

    def _fresh(self, ledger: Ledger, attempt: Attempt) -> Iterator[LogBlock]:
        """Return the blocks that are not stored yet.

        Raises:
            LogGap: the batch begins after the line expected next.
        """
        expected = attempt.log_lines + 1
        if isinstance(self.batch, LogBlock):
            return fresh_block(self.ref.task_id, self.batch, expected)
        return self.batch.fresh(self.ref.task_id, expected, ledger.now)

    def _store(self, ledger: Ledger, task: Task, attempt: Attempt, block: LogBlock) -> None:
        ledger.add_log(LogBatch(task.key, attempt.number, task.namespace, block))
        counts = LogCounts(attempt.log_lines, attempt.log_bytes, attempt.log_crc).plus(block)
        attempt.log_lines, attempt.log_bytes = counts.lines, counts.bytes
        attempt.log_crc = counts.crc
        attempt.log_at = ledger.now
        ledger.touch_attempt(attempt)
        ledger.effects.log_tasks.add(task.public_id)
        ledger.effects.lines += block.lines
        ledger.effects.bytes += block.text_bytes

    def _verdict(self, how: Standing, task: Task) -> Verdict:
        if how is Standing.CURRENT:
            return verdict_for(task, self.ref.lease_id)
        return superseded(self.ref) if how is Standing.STALE else go_on(self.ref)
