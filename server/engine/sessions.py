"""Agents as this server knows them now: who is connected, what each holds, who is silent."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from server import metrics
from server.domain.agent import Agent
from server.domain.claiming import Assignment
from server.domain.errors import Draining, MusterError, SessionSuperseded
from server.domain.lease import Verdict
from server.domain.moment import SECOND, Millis, Moment
from server.domain.registering import Attached
from server.engine.mailbox import Mailbox
from server.engine.parked import Parked
from server.engine.roster import Roster

_WANTS = frozenset(
    [
        "slots",
        "leases",
        "reserved",
        "ahead",
        "draining",
        "open",
        "lost",
        "awaits_held",
        "mailbox",
        "parked",
        "roster",
    ]
)
"""What `Session.wants` goes by."""


@dataclass(slots=True)
class Session:
    """One session. Memory only: everything here can be told again by the database or the agent."""

    agent_key: int
    agent_id: str
    session_id: str
    slots: int
    labels: dict[str, str]
    v1: bool
    leases: dict[str, int] = field(default_factory=dict)
    """Leases held, with the number of the frame that carried each."""
    reserved: int = 0
    """Slots offered to a claim that is being written."""
    frame: int = 0
    """Number of the last assignment frame."""
    heard: float = 0.0
    """When it last spoke, on the monotonic clock."""
    written: float = 0.0
    """What `heard` was when it was last written down."""
    last_seen: Moment = 0
    """What its row says, as far as this server knows."""
    lease: Millis = 30 * SECOND
    """How long it may be silent."""
    assigned_at: Moment = 0
    draining: bool = False
    open: bool = True
    """Whether its agent is given work: it is neither paused, drained nor quarantined."""
    control: int = 0
    """Which `Agent.control` that goes by: word of it may come in any order."""
    lost: bool = False
    awaits_held: bool = False
    """Whether its agent must say what it holds before it is offered more."""
    mailbox: Mailbox | None = None
    """Where frames for its stream go, while one is open."""
    parked: Parked | None = None
    """A FetchTask that waits for work."""
    cancels: dict[str, Verdict] = field(default_factory=dict)
    """Cancels its agent has not confirmed, by lease."""
    config: dict[str, int] = field(default_factory=dict)
    """Settings that were made for its agent."""
    measured: dict[str, Any] = field(default_factory=dict)
    """What its agent measured last."""
    measured_anew: bool = False
    """Whether that is still to be written down."""
    ahead: int = 0
    """Tasks that its agent takes beyond its slots, because its tasks are short."""
    serves: str | None = None
    """The only namespace whose tasks it runs; None where it runs those of all."""
    roster: Roster | None = None
    """Who is told when it wants more or less than before."""

    def __setattr__(self, name: str, value: object) -> None:
        """Tell the roster of everything that may change what it wants."""
        object.__setattr__(self, name, value)
        if name in _WANTS:
            self._tell_roster()

    def _tell_roster(self) -> None:
        roster: Roster | None = getattr(self, "roster", None)  # it is set last
        if roster is not None:
            roster.note(self)

    @property
    def free(self) -> int:
        """Slots that nothing holds or is about to; negative while it works ahead."""
        return self.slots - len(self.leases) - self.reserved

    @property
    def wants(self) -> int:
        """How many tasks it would take now."""
        if not self.open or self.draining or self.lost or self.awaits_held:
            return 0
        if self.parked is not None:
            return max(0, min(self.free, self.parked.want))
        mailbox = self.mailbox
        if mailbox is None or not mailbox.pushes or mailbox.closed:
            return 0
        return max(0, self.free + self.ahead)

    def next_frame(self) -> int:
        """Return the number of the next assignment frame."""
        self.frame += 1
        return self.frame

    def adjust(self, agent: Agent) -> None:
        """Take over what the agent's row says."""
        self.slots = agent.slots
        self.config = agent.config
        self.admit(agent.control, is_open=agent.open)
        labels = agent.effective_labels
        if labels != self.labels:
            self.labels = labels
            if self.roster is not None:
                self.roster.place(self)

    def admit(self, control: int, *, is_open: bool) -> bool:
        """Take in whether its agent is given work; return whether that changed."""
        if control < self.control:
            return False
        changed = self.open is not is_open
        self.control, self.open = control, is_open
        return changed

    def hold(self, assignments: list[Assignment], frame: int, now: Moment) -> None:
        """Note new leases."""
        self.leases.update((a.lease_id, frame) for a in assignments)
        self.assigned_at = now
        self._tell_roster()

    def adopt(self, lease_id: str) -> None:
        """Note that a lease is current again."""
        self.leases.setdefault(lease_id, 0)
        self._tell_roster()

    def let_go(self, *lease_ids: str) -> None:
        """Note that leases are not current any more."""
        for lease_id in lease_ids:
            self.leases.pop(lease_id, None)
            self.cancels.pop(lease_id, None)
        self._tell_roster()

    def close(self, error: MusterError | None = None) -> None:
        """Tell whoever serves it that it is over."""
        if self.mailbox is not None:
            self.mailbox.close(error)
        if self.parked is not None:
            self.parked.resolve([], 0)
            self.parked = None


class Sessions:
    """The sessions that have spoken to this server."""

    def __init__(self) -> None:
        self._by_agent: dict[str, Session] = {}
        self._by_id: dict[str, Session] = {}
        self._stopping = False
        self.roster = Roster()

    def __iter__(self) -> Iterator[Session]:
        return iter(self._by_agent.values())

    def __len__(self) -> int:
        return len(self._by_agent)

    def get(self, session_id: str) -> Session | None:
        """Return a session by its id."""
        return self._by_id.get(session_id)

    def of_agent(self, agent_id: str) -> Session | None:
        """Return an agent's session."""
        return self._by_agent.get(agent_id)

    def add(self, attached: Attached, heard: float) -> Session:
        """Take up a session as the database told it; an older one of the agent is closed."""
        agent = attached.agent
        known = self._by_agent.get(agent.public_id)
        if known is not None and known.session_id == agent.session_id:
            session = known
            session.lost = False
            session.adjust(agent)
        else:
            if known is not None:
                self.remove(known, SessionSuperseded(known.agent_id))
            session = self._new(agent)
        # No claim of the same commit is missing here: a session being taken up wants nothing.
        session.leases = dict(attached.leases)
        session.awaits_held = not (agent.v1 or attached.complete)
        session.frame = max([session.frame, *session.leases.values()])
        session.cancels = {verdict.lease_id: verdict for verdict in attached.cancels}
        session.heard = heard
        session.last_seen = agent.last_seen
        session.lease = agent.lease
        metrics.agents_connected.set(len(self))
        return session

    def _new(self, agent: Agent) -> Session:
        session = Session(
            agent_key=agent.key,
            agent_id=agent.public_id,
            session_id=agent.session_id,
            slots=agent.slots,
            labels=agent.effective_labels,
            v1=agent.v1,
            open=agent.open,
            control=agent.control,
            config=agent.config,
            measured=agent.measured,
            serves=agent.namespace if agent.confined else None,
        )
        self._by_agent[agent.public_id] = session
        self._by_id[agent.session_id] = session
        session.roster = self.roster
        self.roster.place(session)
        return session

    def stop(self) -> None:
        """Tell whoever serves a session that it is over, also those that come from now on."""
        self._stopping = True
        for session in list(self):
            session.close(Draining())

    def check_open(self) -> None:
        """Refuse what would wait for work that does not come any more.

        Raises:
            Draining: the server stops.
        """
        if self._stopping:
            raise Draining

    def remove(self, session: Session, error: MusterError | None = None) -> None:
        """Forget a session and close what serves it, with what its agent is told."""
        session.close(error)
        if self._by_agent.get(session.agent_id) is session:
            del self._by_agent[session.agent_id]
        self._by_id.pop(session.session_id, None)
        self.roster.remove(session)
        metrics.agents_connected.set(len(self))
