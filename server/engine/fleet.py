"""The agents of this server in sum, for Prometheus: looked at only when it asks."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean

from server import metrics
from server.domain.measuring import number
from server.engine.sessions import Session, Sessions

STATES = ("idle", "online", "busy", "closed", "lost")
"""As `agent.v1.AgentStatus`; `closed` is paused or drained, `lost` not heard any more."""
RESOURCES = {"cpu": "cpu_usage", "memory": "memory_usage", "disk": "disk_usage"}

STATS: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": lambda values: sum(values) / len(values),  # fmean raises where the sum is too large
    "max": max,
    "sum": sum,
}
CUSTOM_SHOWN = 64
"""Names of agents' own measurements that are shown."""


class Fleet:
    """See the module."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def show(self) -> None:
        """Let the series ask here."""
        for state in STATES:
            metrics.agents_by_state.labels(state).set_function(partial(self.count, state))
        for resource in RESOURCES:
            of = metrics.agents_usage.labels
            of(resource, "mean").set_function(partial(self.mean, resource))
            of(resource, "max").set_function(partial(self.highest, resource))
        metrics.agents_running.set_function(self.running)
        metrics.leases_current.set_function(self.held)

    def count(self, state: str) -> int:
        """Return how many agents stand so."""
        return Counter(map(_state, self._sessions))[state]

    def mean(self, resource: str) -> float:
        """Return the mean share of a resource in use, 0 when nobody has measured."""
        return fmean(self._shares(resource) or [0.0])

    def highest(self, resource: str) -> float:
        """Return the highest share of a resource in use, 0 when nobody has measured."""
        return max(self._shares(resource), default=0.0)

    def running(self) -> int:
        """Return how many tasks agents say they run."""
        return sum(s.measured.get("running_tasks", 0) for s in self._sessions if not s.lost)

    def held(self) -> int:
        """Return how many tasks agents hold."""
        return sum(len(session.leases) for session in self._sessions)

    def look(self) -> None:
        """Set the series of what agents measure under names of their own: the commonest names."""
        metrics.agents_custom.clear()
        values = self._custom()
        by_use = sorted(values, key=lambda name: (-len(values[name]), name))
        for name in by_use[:CUSTOM_SHOWN]:
            for stat, of in STATS.items():
                metrics.agents_custom.labels(name, stat).set(of(values[name]))

    def _custom(self) -> dict[str, list[float]]:
        found: defaultdict[str, list[float]] = defaultdict(list)
        for session in self._sessions:
            if not session.lost:
                for name, text in session.measured.get("custom", {}).items():
                    if (value := number(text)) is not None:
                        found[name].append(value)
        return found

    def _shares(self, resource: str) -> list[float]:
        measured = [s.measured for s in self._sessions if s.measured and not s.lost]
        return [each[RESOURCES[resource]] / 100 for each in measured]


def _state(session: Session) -> str:
    if session.lost:
        return "lost"
    if not session.open:
        return "closed"
    if not session.leases:
        return "idle"
    return "busy" if len(session.leases) >= session.slots else "online"
