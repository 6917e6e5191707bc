"""Who may speak about a task: the fence.

Each claim raises a task's `lease_epoch`, and the lease id carries it. A report counts only when it
comes from the agent of that epoch and the lease still stands, or stood last and was lost without a
claim since. An attempt number would not do: an agent id alone cannot tell the agent's first try
from its second.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum, auto

from server.domain.agent import Agent
from server.domain.attempt import Attempt, AttemptStatus
from server.domain.ledger import Ledger
from server.domain.releasing import DRAINED
from server.domain.task import Task, TaskStatus


class VerdictAction(IntEnum):
    """What an agent must do with a lease. The numbers are those of `agent.v1.VerdictAction`."""

    CONTINUE = 1
    CANCEL = 2
    SUPERSEDED = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer about one lease."""

    task_id: str
    lease_id: str
    action: VerdictAction
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LeaseRef:
    """A lease as an agent names it; `lease_id` is empty from v1 agents."""

    task_id: str
    lease_id: str


class Standing(Enum):
    """How a lease stands that an agent speaks about."""

    CURRENT = auto()
    ADOPTABLE = auto()
    """Lost, and nobody has claimed the task since."""
    ENDED = auto()
    """The attempt ended by this lease's own report."""
    STALE = auto()


def standing(ledger: Ledger, task: Task, agent: Agent, lease_id: str) -> Standing:
    """Return how the lease stands; an empty lease id means the agent's latest on that task."""
    if lease_id and lease_id != task.lease_id:
        return Standing.STALE
    if task.last_agent != agent.key or not task.attempt:
        return Standing.STALE
    if task.lease_agent == agent.key:
        return Standing.CURRENT
    attempt = ledger.last_attempt(task)
    if attempt.reported:
        return Standing.ENDED
    lost = attempt.status is AttemptStatus.LOST and task.status is TaskStatus.QUEUED
    return Standing.ADOPTABLE if lost else Standing.STALE


def attempt_of(ledger: Ledger, task: Task, lease_id: str) -> Attempt | None:
    """Return the attempt that a lease of the task was for, or None when it never had such a one."""
    task_id, _, epoch = lease_id.rpartition(".")
    if task_id != task.public_id or not epoch.isdecimal() or len(epoch) > 9 or not int(epoch):
        return None
    # Attempts and epochs both grow by one at each claim.
    return ledger.attempt(task, task.attempt - (task.lease_epoch - int(epoch)))


def verdict_for(task: Task, lease_id: str) -> Verdict:
    """Return the verdict on a lease that is current."""
    if task.cancel_requested_at is not None:
        return Verdict(task.public_id, lease_id, VerdictAction.CANCEL, task.cancel_reason)
    if task.release_requested_at is not None:
        return Verdict(task.public_id, lease_id, VerdictAction.CANCEL, DRAINED)
    return Verdict(task.public_id, lease_id, VerdictAction.CONTINUE)


def go_on(ref: LeaseRef) -> Verdict:
    """Return the verdict CONTINUE."""
    return Verdict(ref.task_id, ref.lease_id, VerdictAction.CONTINUE)


def superseded(ref: LeaseRef) -> Verdict:
    """Return the verdict SUPERSEDED."""
    reason = "The lease is not current any more; the task was given up or handed to another agent."
    return Verdict(ref.task_id, ref.lease_id, VerdictAction.SUPERSEDED, reason)
