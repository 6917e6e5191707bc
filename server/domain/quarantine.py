"""Agents whose attempts keep failing by no fault of their tasks get no work for a while.

Failures that are an agent's fault are counted until an attempt of it succeeds. Some in a row
quarantine it; each further one does so for twice as long. What was handed out before a quarantine
began tells nothing new: it failed for the same reason.
"""

from server.domain.agent import Agent
from server.domain.attempt import Attempt
from server.domain.condition import tell_condition
from server.domain.ledger import Ledger
from server.domain.moment import Millis, Moment
from server.domain.policy import Policy


def blame(ledger: Ledger, agent: Agent, attempt: Attempt, fault: str) -> None:
    """Count a failure that was an agent's fault; what fails at one moment has one cause."""
    known = agent.quarantined_at is not None and attempt.claimed_at <= agent.quarantined_at
    if known or agent.faulted_at == ledger.now:
        return
    agent.faults += 1
    agent.fault, agent.faulted_at = fault, ledger.now
    ledger.touch_agent(agent)
    if agent.faults >= ledger.policy.quarantine_after:
        agent.quarantined_at = ledger.now
        _quarantine(ledger, agent, ledger.now + quarantine_length(agent.faults, ledger.policy))


def quarantine_length(faults: int, policy: Policy) -> Millis:
    """Return how long the last of so many faults quarantines."""
    doublings = min(faults - policy.quarantine_after, 32)
    return min(policy.quarantine << doublings, policy.quarantine_limit)


def unblame(ledger: Ledger, agent: Agent, lost: Attempt) -> None:
    """Undo what a loss counted, for its lease is taken up again."""
    if agent.faulted_at is None or agent.faulted_at != lost.ended_at:
        return
    agent.faults -= 1
    agent.faulted_at = None
    ledger.touch_agent(agent)
    if agent.quarantined_at == lost.ended_at:
        agent.quarantined_at = None
        _quarantine(ledger, agent, None)


def forgive(ledger: Ledger, agent: Agent) -> None:
    """Forget an agent's faults: an attempt of it has succeeded, or its operator says so."""
    if not agent.faults:
        return
    agent.faults, agent.fault = 0, ""
    agent.faulted_at = agent.quarantined_at = None
    ledger.touch_agent(agent)
    _quarantine(ledger, agent, None)


def end_quarantine(ledger: Ledger, agent: Agent) -> None:
    """Give an agent work again whose quarantine is over; its faults stay counted."""
    if agent.quarantined_until is not None and agent.quarantined_until <= ledger.now:
        _quarantine(ledger, agent, None)


def _quarantine(ledger: Ledger, agent: Agent, until: Moment | None) -> None:
    if agent.quarantined_until == until:
        return
    agent.quarantined_until = until
    agent.control += 1
    ledger.touch_agent(agent)
    tell_condition(ledger, agent)
