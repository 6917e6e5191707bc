"""Agents come, say what they hold, are lost, come back, and go."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from server.domain.agent import Agent, SessionState, as_told
from server.domain.checks import AGENT_ID, Checks
from server.domain.enrolling import Identity, admit
from server.domain.errors import NotFound, SessionSuperseded
from server.domain.event import Event, EventKind
from server.domain.holding import Held, keep_unconfirmed, lose_leases, reconcile
from server.domain.labels import check_labels
from server.domain.lease import Verdict, VerdictAction, verdict_for
from server.domain.ledger import Ledger
from server.domain.moment import Millis, Moment
from server.domain.token import EVERYWHERE, Token

SLOT_LIMIT = 10_000
HELD_LIMIT = 20_000
PLUGIN_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Profile:
    """What an agent says about itself."""

    hostname: str = ""
    ip: str = ""
    os: str = ""
    arch: str = ""
    version: str = ""
    slots: int = 1
    labels: dict[str, str] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()

    def check(self, agent_id: str) -> None:
        """Check every field, by its path in RegisterRequest.

        Raises:
            Invalid: a field is malformed.
        """
        checks = Checks()
        if agent_id and not AGENT_ID.fullmatch(agent_id):
            checks.fail("agent_id", "must be 1 to 128 letters, digits and . _ : -")
        for name in ("hostname", "ip", "os", "arch", "version"):
            checks.name(name, getattr(self, name), required=False)
        checks.number("max_concurrent_jobs", self.slots, 0, SLOT_LIMIT)
        checks.extend(check_labels(self.labels, "labels"))
        checks.number("installed_plugins", len(self.plugins), 0, PLUGIN_LIMIT)
        for index, plugin in enumerate(self.plugins[:PLUGIN_LIMIT]):
            checks.name(f"installed_plugins[{index}]", plugin)
        checks.done()


@dataclass(frozen=True, slots=True)
class Attached:
    """An agent with its session as the rest of the server keeps it in memory."""

    agent: Agent
    verdicts: tuple[Verdict, ...]
    complete: bool
    """Whether the agent has said what it holds."""
    cancels: tuple[Verdict, ...]
    """Leases held now that its agent was asked to end, and has not."""
    leases: dict[str, int]
    """Leases held now, with the number of the frame that carried each."""
    credential: Token | None = None
    """What it registered with, from now on its own; None where nobody asks."""


@dataclass(frozen=True, slots=True)
class Register:
    """Open a session; an agent id that exists is taken over. Answers `Attached`."""

    namespace: str
    agent_id: str
    session_id: str
    profile: Profile
    held: Held | None
    """None from v1 agents."""
    lease: Millis = 0
    """How long its leases last without a word from it; 0 takes the usual time."""
    identity: Identity | None = None
    """None where nobody asks who an agent is."""

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return [ref.task_id for ref in self.held.leases] if self.held else ()

    def decide(self, ledger: Ledger) -> Attached:
        """See Command."""
        agent = ledger.find_agent(self.agent_id)
        credential = None
        if self.identity is not None:
            credential = admit(ledger, agent, self.agent_id, self.namespace, self.identity)
        if agent is None:
            agent = self._add(ledger)
        if credential is not None:
            agent.locked = dict(credential.labels)
            agent.confined = credential.namespace != EVERYWHERE
        news = agent.session_id != self.session_id or agent.registered_at == ledger.now
        self._open(ledger, agent)
        if self.held is None:
            keep_unconfirmed(ledger, agent)
            verdicts: tuple[Verdict, ...] = ()
        else:
            verdicts = reconcile(ledger, agent, self.held, complete=True)
        if news:
            tell_agent(ledger, agent, EventKind.AGENT_REGISTERED)
        attached = _attached(ledger, agent, verdicts, complete=self.held is not None)
        return replace(attached, credential=credential)

    def _add(self, ledger: Ledger) -> Agent:
        agent = Agent(
            key=ledger.source.new_key(),
            namespace=self.namespace,
            public_id=self.agent_id,
            session_id=self.session_id,
            created_at=ledger.now,
            registered_at=ledger.now,
            last_seen=ledger.now,
        )
        ledger.add_agent(agent)
        return agent

    def _open(self, ledger: Ledger, agent: Agent) -> None:
        profile = self.profile
        agent.session_id = self.session_id
        agent.session_state = SessionState.LIVE
        agent.registered_at = agent.last_seen = ledger.now
        agent.hostname, agent.ip = profile.hostname, profile.ip
        agent.os, agent.arch, agent.version = profile.os, profile.arch, profile.version
        agent.slots = agent.config.get("slots") or profile.slots or 1
        agent.v1 = self.held is None
        agent.lease = self.lease or ledger.policy.lease
        agent.labels = dict(profile.labels)
        agent.plugins = list(profile.plugins)
        ledger.touch_agent(agent)


@dataclass(frozen=True, slots=True)
class Attach:
    """Go on with a session that this server does not know yet, or that was lost.

    Raises SessionSuperseded when the agent has a newer session. `held` None changes no lease.
    """

    agent_id: str
    session_id: str
    held: Held | None = None
    complete: bool = False
    """Whether leases absent from `held` are given up however new they are (stream open)."""

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return [ref.task_id for ref in self.held.leases] if self.held else ()

    def decide(self, ledger: Ledger) -> Attached:
        """See Command."""
        agent = ledger.agent(self.agent_id)
        # A v1 agent names no session: whoever bears its id is it.
        if self.session_id and agent.session_id != self.session_id:
            raise SessionSuperseded(self.agent_id)
        if agent.session_state is SessionState.CLOSED:
            raise SessionSuperseded(self.agent_id)
        # Written down at once: another server that has not heard it may be about to give it up.
        agent.last_seen = ledger.now
        ledger.touch_agent(agent)
        if agent.session_state is not SessionState.LIVE:
            agent.session_state = SessionState.LIVE
            tell_agent(ledger, agent, EventKind.AGENT_REGISTERED)
        verdicts: tuple[Verdict, ...] = ()
        if self.held is not None:
            verdicts = reconcile(ledger, agent, self.held, complete=self.complete)
        return _attached(ledger, agent, verdicts, complete=self.held is not None)


@dataclass(frozen=True, slots=True)
class Unregister:
    """Close a session and queue again what it holds; answers whether it was the current one."""

    agent_id: str
    session_id: str
    reason: str

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> bool:
        """See Command."""
        agent = ledger.agent(self.agent_id)
        if self.session_id and agent.session_id != self.session_id:
            return False
        if agent.session_state is SessionState.CLOSED:
            return True
        cause = f"agent {agent.public_id} left: {self.reason or 'no reason'}"
        lose_leases(ledger, agent, cause, fault=False)
        agent.session_state = SessionState.CLOSED
        agent.last_seen = ledger.now
        ledger.touch_agent(agent)
        tell_agent(ledger, agent, EventKind.AGENT_UNREGISTERED, reason=self.reason)
        return True


@dataclass(frozen=True, slots=True)
class RevokeAgent:
    """Let an agent's credentials count no more, and end its session; answers how many there were.

    What it holds is queued again, as when it leaves.
    """

    namespace: str
    agent_id: str
    reason: str

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> int:
        """See Command."""
        agent = ledger.agent(self.agent_id)
        if agent.namespace != self.namespace:
            raise NotFound("agent", self.agent_id)
        revoked = 0
        for token in ledger.source.tokens_of(self.agent_id):
            if token.revoked_at is None:
                token.revoked_at = ledger.now
                ledger.touch_token(token)
                revoked += 1
        if agent.session_state is not SessionState.CLOSED:
            cause = f"agent {agent.public_id} was revoked: {self.reason or 'no reason'}"
            lose_leases(ledger, agent, cause, fault=False)
            agent.session_state = SessionState.CLOSED
            ledger.touch_agent(agent)
            tell_agent(ledger, agent, EventKind.AGENT_UNREGISTERED, reason=cause, revoked="yes")
        return revoked


@dataclass(frozen=True, slots=True)
class LoseSession:
    """Give up a session that went silent, unless it has been heard since; answers whether it did.

    `last_seen` is what its row has said for a whole lease. It is compared, not subtracted: another
    server may have heard the agent, and clocks may have been set.
    """

    agent_id: str
    session_id: str
    last_seen: Moment

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> bool:
        """See Command."""
        agent = ledger.find_agent(self.agent_id)
        if agent is None or agent.session_id != self.session_id:
            return False
        if agent.session_state is not SessionState.LIVE or agent.last_seen != self.last_seen:
            return False
        lose_leases(ledger, agent, f"agent {agent.public_id} was lost", fault=True)
        agent.session_state = SessionState.LOST
        ledger.touch_agent(agent)
        tell_agent(ledger, agent, EventKind.AGENT_OFFLINE)
        return True


@dataclass(frozen=True, slots=True)
class RenewSessions:
    """Write down that sessions were heard: pairs of agent key and session id.

    Answers the moment written as `last_seen`.
    """

    heard: tuple[tuple[int, str], ...]
    measured: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Measurements that came since the last time, by the agent's key."""

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> Moment:
        """See Command."""
        agents = ledger.agents_by_key([key for key, _ in self.heard])
        for key, session_id in self.heard:
            agent = agents.get(key)
            if agent is not None and agent.session_id == session_id:
                agent.last_seen = ledger.now
                agent.measured = self.measured.get(key, agent.measured)
                ledger.touch_agent(agent)
        return ledger.now


@dataclass(frozen=True, slots=True)
class ChangeAgent:
    """Change an agent's reported labels or slots; answers the agent."""

    agent_id: str
    labels: dict[str, str] | None = None
    slots: int | None = None

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> Agent:
        """See Command."""
        agent = ledger.agent(self.agent_id)
        if self.labels is not None and self.labels != agent.labels:
            agent.labels = dict(self.labels)
            ledger.touch_agent(agent)
            tell_agent(ledger, agent, EventKind.AGENT_LABELS)
        fixed = "slots" in agent.config
        if self.slots is not None and self.slots != agent.slots and not fixed:
            agent.slots = self.slots
            ledger.touch_agent(agent)
            tell_agent(ledger, agent, EventKind.AGENT_SLOTS)
        return agent


@dataclass(frozen=True, slots=True)
class UpdateLabels:
    """Put labels over what an agent reports; answers the agent."""

    namespace: str
    agent_id: str
    labels: dict[str, str]
    merge: bool

    def check(self) -> None:
        """Check the labels.

        Raises:
            Invalid: one is malformed.
        """
        checks = Checks()
        checks.extend(check_labels(self.labels, "labels"))
        checks.done()

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> Agent:
        """See Command."""
        agent = ledger.agent(self.agent_id)
        if agent.namespace != self.namespace:
            raise NotFound("agent", self.agent_id)
        overlay = {**agent.overlay, **self.labels} if self.merge else dict(self.labels)
        checks = Checks()
        for key in sorted(self.labels.keys() & agent.locked.keys()):
            checks.fail(f"labels[{key}]", "was locked when the agent enrolled")
        checks.done()
        if overlay != agent.overlay:
            agent.overlay = overlay
            ledger.touch_agent(agent)
            tell_agent(ledger, agent, EventKind.AGENT_LABELS)
        return agent


def _attached(
    ledger: Ledger, agent: Agent, verdicts: tuple[Verdict, ...], *, complete: bool
) -> Attached:
    tasks = [t for t in ledger.tasks_leased_to(agent) if t.lease_agent == agent.key]
    verdicts_now = (verdict_for(task, task.lease_id) for task in tasks)
    cancels = [v for v in verdicts_now if v.action is VerdictAction.CANCEL]
    leases = {task.lease_id: task.lease_frame for task in tasks}
    return Attached(agent, verdicts, complete, tuple(cancels), leases)


def tell_agent(ledger: Ledger, agent: Agent, kind: EventKind, **data: str) -> None:
    """Add an event about an agent."""
    ledger.tell(
        Event(
            kind,
            agent.namespace,
            ledger.now,
            agent.public_id,
            data={**as_told(agent), **data},
        )
    )
