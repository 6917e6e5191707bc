"""An agent and its session."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any

from server.domain.moment import SECOND, Millis, Moment


class SessionState(StrEnum):
    """How an agent's latest session stands."""

    LIVE = "live"
    LOST = "lost"
    """Three heartbeats were missed; its next word revives it."""
    CLOSED = "closed"
    """The agent said goodbye."""


class Scheduling(StrEnum):
    """Whether an agent is given work, as its operator wants it."""

    ACTIVE = "active"
    PAUSED = "paused"
    DRAINING = "draining"
    """No new work; what runs may finish, until the deadline if there is one."""
    STOPPING = "stopping"
    """The deadline of a drain has passed: what still runs is being stopped."""


class SchedulingState(IntEnum):
    """The same as callers see it. The numbers are those of `agent.v1.SchedulingState`."""

    ACTIVE = 1
    PAUSED = 2
    DRAINING = 3
    DRAINED = 4


@dataclass(slots=True)
class Agent:
    """An agent's row."""

    key: int
    namespace: str
    public_id: str
    session_id: str
    created_at: Moment
    registered_at: Moment
    last_seen: Moment
    session_state: SessionState = SessionState.LIVE
    hostname: str = ""
    ip: str = ""
    os: str = ""
    arch: str = ""
    version: str = ""
    slots: int = 1
    v1: bool = False
    """Whether it speaks without leases."""
    lease: Millis = 30 * SECOND
    """How long its leases last without a word from it; more than usual in a large fleet."""
    labels: dict[str, str] = field(default_factory=dict)
    """What it reported."""
    overlay: dict[str, str] = field(default_factory=dict)
    """What UpdateLabels put over that."""
    plugins: list[str] = field(default_factory=list)
    scheduling: Scheduling = Scheduling.ACTIVE
    note: str = ""
    """Why it is paused or drained."""
    scheduling_since: Moment | None = None
    """Since when it is not active."""
    drain_until: Moment | None = None
    """Until when a drain lets its tasks run."""
    faults: int = 0
    """Failures in a row that were its fault, without a success between."""
    fault: str = ""
    """What the last of them was."""
    faulted_at: Moment | None = None
    """When that was."""
    quarantined_at: Moment | None = None
    """When its last quarantine began, if it has had no success since."""
    quarantined_until: Moment | None = None
    """Until when it is quarantined; None when it is not."""
    control: int = 0
    """Grows whenever `open` may have changed: servers hear of it in any order."""
    due_at: Moment | None = None
    """When the timers look at it next; always `next_agent_due(agent)`."""
    config: dict[str, int] = field(default_factory=dict)
    """Settings made here: `interval` (seconds), `slots`, `log_delay` (milliseconds)."""
    measured: dict[str, Any] = field(default_factory=dict)
    """Its latest measurements; see `measuring`."""
    locked: dict[str, str] = field(default_factory=dict)
    """Labels from the token it enrolled with, which nothing it says can change."""
    confined: bool = False
    """Whether it runs tasks of its own namespace alone."""

    def serves(self, namespace: str) -> bool:
        """Tell whether it runs tasks of a namespace."""
        return not self.confined or self.namespace == namespace

    @property
    def open(self) -> bool:
        """Whether it is given work."""
        return self.scheduling is Scheduling.ACTIVE and self.quarantined_until is None

    @property
    def effective_labels(self) -> dict[str, str]:
        """Labels as they count for selectors."""
        return effective_labels(self)


def as_told(agent: Agent) -> dict[str, Any]:
    """Return what every event about an agent says of it."""
    return {
        "session": agent.session_id,
        "session_state": agent.session_state.value,
        "hostname": agent.hostname,
        "ip": agent.ip,
        "slots": agent.slots,
        "labels": agent.effective_labels,
    }


def effective_labels(agent: Agent) -> dict[str, str]:
    """Return reported labels, under the overlay, the locked ones and the facts about the host."""
    facts: Mapping[str, str] = {
        "os": agent.os,
        "arch": agent.arch,
        "hostname": agent.hostname,
        "agent": agent.public_id,
    }
    plugins = {f"plugin/{name}": version for name, version in map(_split, agent.plugins) if name}
    return {
        **plugins,
        **agent.labels,
        **agent.overlay,
        **agent.locked,
        **{key: value for key, value in facts.items() if value},
    }


def scheduling_state(agent: Agent, held: int) -> SchedulingState:
    """Return how its operator's wish stands, given how many leases the agent holds."""
    match agent.scheduling:
        case Scheduling.ACTIVE:
            return SchedulingState.ACTIVE
        case Scheduling.PAUSED:
            return SchedulingState.PAUSED
        case Scheduling.DRAINING | Scheduling.STOPPING:
            return SchedulingState.DRAINING if held else SchedulingState.DRAINED


def next_agent_due(agent: Agent) -> Moment | None:
    """Return when something happens to the agent by itself, or None."""
    drain_until = agent.drain_until if agent.scheduling is Scheduling.DRAINING else None
    dues = (drain_until, agent.quarantined_until)
    return min((due for due in dues if due is not None), default=None)


def _split(plugin: str) -> tuple[str, str]:
    name, _, version = plugin.partition("@")
    return name, version
