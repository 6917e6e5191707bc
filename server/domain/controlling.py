"""An operator says whether an agent is given work: paused, drained, resumed."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from server.domain.agent import Agent, Scheduling
from server.domain.checks import REASON_LIMIT, Checks
from server.domain.condition import tell_condition
from server.domain.errors import NotFound
from server.domain.ledger import Ledger
from server.domain.moment import SECOND, Moment
from server.domain.quarantine import end_quarantine, forgive
from server.domain.releasing import ask_release

DEADLINE_LIMIT = 30 * 24 * 3600


class Action(IntEnum):
    """What is wanted of an agent. The numbers are those of `agent.v1.AgentAction`."""

    PAUSE = 1
    RESUME = 2
    DRAIN = 3


@dataclass(frozen=True, slots=True)
class SetAgentState:
    """Pause, drain or resume an agent; answers the agent and how many leases it holds."""

    namespace: str
    agent_id: str
    action: Action
    note: str = ""
    deadline: int | None = None
    """Seconds that a drain lets running tasks go on; None lets them end by themselves."""

    def check(self) -> None:
        """Check every field, by its path in SetAgentStateRequest.

        Raises:
            Invalid: a field is malformed, or does not belong to the action.
        """
        checks = Checks()
        checks.text("note", self.note, REASON_LIMIT)
        if self.note and self.action is Action.RESUME:
            checks.fail("note", "must be empty with RESUME")
        if self.deadline is not None:
            checks.number("deadline_seconds", self.deadline, 0, DEADLINE_LIMIT)
            if self.action is not Action.DRAIN:
                checks.fail("deadline_seconds", "belongs to DRAIN only")
        checks.done()

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> tuple[Agent, int]:
        """See Command."""
        agent = ledger.agent(self.agent_id)
        if agent.namespace != self.namespace:
            raise NotFound("agent", self.agent_id)
        if self.action is Action.RESUME:
            forgive(ledger, agent)
        before = (agent.scheduling, agent.note, agent.drain_until)
        self._set(agent, ledger.now)
        if before != (agent.scheduling, agent.note, agent.drain_until):
            agent.control += 1
            ledger.touch_agent(agent)
            tell_condition(ledger, agent)
        when_agent_due(ledger, agent)
        return agent, ledger.leases_of([agent.key]).get(agent.key, 0)

    def _set(self, agent: Agent, now: Moment) -> None:
        kept = "" if self.action is Action.RESUME else agent.note
        agent.note = self.note or kept
        agent.drain_until = None
        paused = agent.scheduling is Scheduling.PAUSED
        match self.action:
            case Action.PAUSE:
                agent.scheduling = Scheduling.PAUSED
            case Action.RESUME:
                agent.scheduling = Scheduling.ACTIVE
            case Action.DRAIN:
                agent.scheduling = Scheduling.DRAINING
                if self.deadline is not None:
                    agent.drain_until = now + self.deadline * SECOND
        if self.action is Action.RESUME:
            agent.scheduling_since = None
        elif agent.scheduling_since is None or paused is not (self.action is Action.PAUSE):
            agent.scheduling_since = now


def when_agent_due(ledger: Ledger, agent: Agent) -> None:
    """Let happen to an agent what is due: a quarantine ends, or a drain's patience."""
    end_quarantine(ledger, agent)
    until = agent.drain_until
    if agent.scheduling is Scheduling.DRAINING and until is not None and until <= ledger.now:
        agent.scheduling = Scheduling.STOPPING
        ledger.touch_agent(agent)
        for task in ledger.tasks_leased_to(agent):
            if task.cancel_requested_at is None:
                ask_release(ledger, task)
