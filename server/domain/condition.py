"""Word of an agent's condition: whether it is given work, and what it still holds."""

from server.domain.agent import (
    Agent,
    Scheduling,
    SchedulingState,
    as_told,
    scheduling_state,
)
from server.domain.event import Event, EventKind
from server.domain.ledger import Ledger


def tell_condition(ledger: Ledger, agent: Agent) -> None:
    """Add the event of an agent's condition."""
    held = ledger.leases_of([agent.key]).get(agent.key, 0)
    ledger.tell(
        Event(
            EventKind.AGENT_STATE,
            agent.namespace,
            ledger.now,
            agent.public_id,
            data={
                **as_told(agent),
                "state": int(scheduling_state(agent, held)),
                "note": agent.note,
                "quarantined_until": agent.quarantined_until,
                "fault": agent.fault,
                # Other servers learn from these whether to offer its slots.
                "open": agent.open,
                "control": agent.control,
            },
        )
    )


def note_end(ledger: Ledger, agent: Agent) -> None:
    """Take in that an agent holds one lease less."""
    if agent.scheduling not in (Scheduling.DRAINING, Scheduling.STOPPING):
        return
    held = ledger.leases_of([agent.key]).get(agent.key, 0)
    if scheduling_state(agent, held) is SchedulingState.DRAINED:
        tell_condition(ledger, agent)
