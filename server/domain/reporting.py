"""What agents say about their tasks: starts and ends."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from server.domain.attempt import Attempt, AttemptStatus, LogSummary
from server.domain.ending import Outcome, end_attempt, start_attempt
from server.domain.errors import NotLeaseHolder
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
from server.domain.moment import Moment
from server.domain.task import Task, TaskStatus

REPORTABLE = (
    TaskStatus.RUNNING,
    TaskStatus.SUCCESS,
    TaskStatus.FAILED,
    TaskStatus.CANCELLED,
    TaskStatus.TIMEOUT,
)
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
    outputs: dict[str, str] = field(default_factory=dict)
    """What the task tells later jobs."""

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
            fault=self.infrastructure,
            log=self.log,
            ended_at=self.ended_at,
            outputs=self.outputs,
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
