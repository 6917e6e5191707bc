"""Which sessions want work, grouped by what task classes can tell of their agents.

An agent class is an agent's labels, cut to the keys that selectors look at: `hostname` does not
make every agent a class of its own. A selector is evaluated once an agent class, however many
agents and tasks there are.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from server.domain.labels import Selector

if TYPE_CHECKING:
    from server.engine.sessions import Session


KNOWN_CLASSES = 10_000
"""Task classes whose needs, or how they fit, are kept in memory beside those with ready tasks."""


class AgentClass:
    """Agents that no selector tells apart."""

    def __init__(
        self, key: frozenset[tuple[str, str]], labels: dict[str, str], serves: str | None = None
    ) -> None:
        self.key = key
        self.serves = serves
        """The only namespace whose tasks they run; None where they run those of all."""
        self.members = 0
        self.hungry: dict[str, Session] = {}
        """Sessions that want work, by id; the longest without an offer first."""
        self._labels = labels
        self._fits: dict[str, bool] = {}

    def serves_any(self, namespaces: Collection[str]) -> bool:
        """Whether they run tasks of one of these namespaces."""
        return self.serves is None or self.serves in namespaces

    def fits(self, class_key: str, selector: Selector, *, asked: int = 0) -> bool:
        """Whether these agents satisfy a task class, one of about so many that are asked for."""
        known = self._fits.get(class_key)
        if known is None:
            if len(self._fits) >= KNOWN_CLASSES + asked:
                self._fits.clear()
            known = self._fits[class_key] = selector.matches(self._labels)
        return known


class Roster:
    """Every session's agent class, and who of it wants work."""

    def __init__(self) -> None:
        self._keys: frozenset[str] = frozenset()
        self._classes: dict[frozenset[tuple[str, str]], AgentClass] = {}
        self._members: dict[str, tuple[Session, AgentClass]] = {}
        self._hungry: dict[AgentClass, None] = {}

    def __len__(self) -> int:
        """How many agent classes there are."""
        return len(self._classes)

    def learn(self, selector: Selector) -> None:
        """Tell agents apart by the labels that a selector looks at."""
        if not selector.keys() <= self._keys:
            self._keys |= selector.keys()
            self._classes.clear()
            self._hungry.clear()
            for session, _ in list(self._members.values()):
                self.place(session)

    def place(self, session: "Session") -> None:
        """Take in a session that is new or whose labels have changed."""
        self.remove(session)
        labels = {key: value for key, value in session.labels.items() if key in self._keys}
        key = frozenset(labels.items())
        if session.serves is not None:
            key |= {("", session.serves)}  # no label has an empty name
        agent_class = self._classes.setdefault(key, AgentClass(key, labels, session.serves))
        agent_class.members += 1
        self._members[session.session_id] = session, agent_class
        self.note(session)

    def remove(self, session: "Session") -> None:
        """Forget a session."""
        if session.session_id in self._members:
            _, agent_class = self._members.pop(session.session_id)
            agent_class.hungry.pop(session.session_id, None)
            agent_class.members -= 1
            self._settle(agent_class)
            if not agent_class.members and self._classes.get(agent_class.key) is agent_class:
                del self._classes[agent_class.key]

    def note(self, session: "Session") -> None:
        """Take in that a session wants more or less work than before."""
        if session.session_id not in self._members:
            return
        _, agent_class = self._members[session.session_id]
        if session.wants > 0:
            agent_class.hungry.setdefault(session.session_id, session)
        else:
            agent_class.hungry.pop(session.session_id, None)
        self._settle(agent_class)

    def _settle(self, agent_class: AgentClass) -> None:
        if agent_class.hungry:
            self._hungry.setdefault(agent_class)
        else:
            self._hungry.pop(agent_class, None)

    def hungry(
        self, classes_for: Callable[[AgentClass], Iterable[str]], limit: int
    ) -> Iterator[tuple["Session", frozenset[str]]]:
        """Yield sessions that want work, with the task classes for them; who waits longest first.

        Whoever is given an offer stops being hungry, and comes last when it is hungry again.
        """
        for agent_class in list(self._hungry):
            class_keys = frozenset(classes_for(agent_class))
            if not class_keys:
                continue
            for session in list(islice(agent_class.hungry.values(), limit)):
                yield session, class_keys
                limit -= 1
            if agent_class in self._hungry:
                self._hungry[agent_class] = self._hungry.pop(agent_class)  # others come first next
            if limit <= 0:
                return
