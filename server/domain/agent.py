"""An agent and its session."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from server.domain.moment import Moment


class SessionState(StrEnum):
    """How an agent's latest session stands."""

    LIVE = "live"
    LOST = "lost"
    """Three heartbeats were missed; its next word revives it."""
    CLOSED = "closed"
    """The agent said goodbye."""


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
    labels: dict[str, str] = field(default_factory=dict)
    """What it reported."""
    overlay: dict[str, str] = field(default_factory=dict)
    """What UpdateLabels put over that."""
    plugins: list[str] = field(default_factory=list)

    @property
    def effective_labels(self) -> dict[str, str]:
        """Labels as they count for selectors."""
        return effective_labels(self)


def effective_labels(agent: Agent) -> dict[str, str]:
    """Return reported labels, under the overlay, under the facts about the host."""
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
        **{key: value for key, value in facts.items() if value},
    }


def _split(plugin: str) -> tuple[str, str]:
    name, _, version = plugin.partition("@")
    return name, version
