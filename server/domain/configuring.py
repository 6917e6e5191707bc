"""Settings of an agent that are made on the server's side."""

from collections.abc import Iterable
from dataclasses import dataclass

from server.domain.agent import Agent, as_told
from server.domain.checks import Checks
from server.domain.errors import NotFound
from server.domain.event import Event, EventKind
from server.domain.ledger import Ledger
from server.domain.moment import SECOND
from server.domain.registering import SLOT_LIMIT

LOG_DELAY_LIMIT = 5000
FIELDS = {
    "interval": "heartbeat_interval",
    "slots": "max_concurrent_jobs",
    "log_delay": "log_delay_ms",
}
"""Our names for the fields of the request."""


@dataclass(frozen=True, slots=True)
class ConfigureAgent:
    """Change settings: a number makes one, 0 takes it away; answers the agent and its leases."""

    namespace: str
    agent_id: str
    changes: dict[str, int]

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> tuple[Agent, int]:
        """See Command."""
        agent = ledger.agent(self.agent_id)
        if agent.namespace != self.namespace:
            raise NotFound("agent", self.agent_id)
        self._check(max(1, agent.lease // SECOND // 3))
        config = {**agent.config, **self.changes}
        config = {name: value for name, value in config.items() if value}
        if config != agent.config:
            agent.config = config
            agent.slots = config.get("slots", agent.slots)
            ledger.touch_agent(agent)
            _tell_config(ledger, agent)
        return agent, ledger.leases_of([agent.key]).get(agent.key, 0)

    def _check(self, longest_interval: int) -> None:
        limits = {"interval": longest_interval, "slots": SLOT_LIMIT, "log_delay": LOG_DELAY_LIMIT}
        checks = Checks()
        for name, value in self.changes.items():
            checks.number(FIELDS[name], value, 0, limits[name])
        checks.done()


def _tell_config(ledger: Ledger, agent: Agent) -> None:
    data = {**as_told(agent), "config": agent.config}
    ledger.tell(
        Event(EventKind.AGENT_CONFIG, agent.namespace, ledger.now, agent.public_id, data=data)
    )
