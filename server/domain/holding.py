"""What agents hold: leases kept, adopted, released and lost."""

from dataclasses import dataclass

from server.domain.agent import Agent, Scheduling
from server.domain.attempt import AttemptStatus, LogState
from server.domain.ending import Outcome, end_attempt, tell_status
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
from server.domain.quarantine import unblame
from server.domain.releasing import ask_release
from server.domain.task import Task, TaskStatus, move


@dataclass(frozen=True, slots=True)
class Held:
    """Everything an agent of ours holds."""

    leases: tuple[LeaseRef, ...] = ()
    seen_through: int = 0


def reconcile(ledger: Ledger, agent: Agent, held: Held, *, complete: bool) -> tuple[Verdict, ...]:
    """Bring the leases of an agent in line with what it says it holds; return a verdict on each.

    Adoption beats requeue: a lease that was lost is taken up again. A lease the agent does not
    name is released, without charge: its assignment never arrived, or the agent has dropped it.
    On a heartbeat only those it must have seen by now are (`complete` False).
    """
    verdicts = tuple(_judge(ledger, agent, ref) for ref in held.leases)
    named = {ref.lease_id for ref in held.leases}
    for task in ledger.tasks_leased_to(agent):
        if task.lease_agent != agent.key:
            continue
        if task.lease_id in named:
            _carry_over(ledger, task, agent)
        elif complete or task.lease_frame <= held.seen_through:
            cause = f"agent {agent.public_id} does not hold it"
            end_attempt(ledger, task, Outcome(AttemptStatus.RELEASED, cause=cause))
    return verdicts


def _judge(ledger: Ledger, agent: Agent, ref: LeaseRef) -> Verdict:
    task = ledger.find_task(ref.task_id)
    if task is None or not ref.lease_id:
        return superseded(ref)
    how = standing(ledger, task, agent, ref.lease_id)
    if how is Standing.ADOPTABLE:
        adopt(ledger, task, agent)
        return verdict_for(task, ref.lease_id)
    if how is Standing.CURRENT:
        return verdict_for(task, ref.lease_id)
    return go_on(ref) if how is Standing.ENDED else superseded(ref)


def _carry_over(ledger: Ledger, task: Task, agent: Agent) -> None:
    if task.lease_session != agent.session_id:
        task.lease_session = agent.session_id
        task.lease_frame = 0
        ledger.touch(task)


def adopt(ledger: Ledger, task: Task, agent: Agent) -> None:
    """Give a lost lease back to its agent, and undo the loss."""
    attempt = ledger.last_attempt(task)
    started = attempt.started_at is not None
    unblame(ledger, agent, attempt)
    attempt.status = AttemptStatus.RUNNING if started else AttemptStatus.CLAIMED
    attempt.ended_at = None
    attempt.cause = ""
    attempt.sum_lines = attempt.sum_bytes = attempt.sum_crc = None
    attempt.log_state = LogState.OPEN
    ledger.touch_attempt(attempt)
    task.lease_agent = agent.key
    task.lease_session = agent.session_id
    task.lease_frame = 0  # the agent has seen it: it speaks of it
    task.claimed_at = attempt.claimed_at if started else ledger.now
    task.infra_retries -= 1
    task.error = ""
    task.avoid_agent = task.avoid_until = None
    if started:
        previous = move(task, TaskStatus.RUNNING)
        policy = ledger.policy
        began = attempt.started_at or ledger.now
        task.started_at = began
        slack = policy.kill_grace + policy.deadline_slack
        task.deadline = max(ledger.now, began + task.timeout) + slack
        tell_status(ledger, task, previous)
    ledger.touch(task)
    if agent.scheduling is Scheduling.STOPPING:
        ask_release(ledger, task)
    ledger.effects.adopted_leases.append((agent.session_id, task.lease_id))


def keep_unconfirmed(ledger: Ledger, agent: Agent) -> None:
    """Keep the leases of a v1 agent that restarted, for three intervals (dispatch.md)."""
    for task in ledger.tasks_leased_to(agent):
        task.lease_session = agent.session_id
        # A later restart does not put it off: an agent that keeps crashing must not keep tasks.
        task.confirm_by = task.confirm_by or ledger.now + agent.lease
        ledger.touch(task)


def lose_leases(ledger: Ledger, agent: Agent, cause: str, *, fault: bool) -> None:
    """End every lease of an agent as lost."""
    for task in ledger.tasks_leased_to(agent):
        end_attempt(ledger, task, Outcome(AttemptStatus.LOST, cause=cause, fault=fault))
