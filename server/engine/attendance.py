"""Agents come, are heard, and go: between the doors, the writer and the sessions in memory."""

from dataclasses import replace
from typing import Any

from server.domain.agent import Agent
from server.domain.configuring import ConfigureAgent
from server.domain.errors import SessionSuperseded, Unauthenticated, WrongState
from server.domain.event import Event, EventKind
from server.domain.holding import Held
from server.domain.lease import Verdict, VerdictAction
from server.domain.moment import SECOND, Millis
from server.domain.policy import Policy
from server.domain.registering import (
    Attach,
    Attached,
    ChangeAgent,
    Register,
    Unregister,
    UpdateLabels,
)
from server.engine.clock import Clock
from server.engine.dispatcher import Dispatcher
from server.engine.mailbox import Configure, HandBackAll, Mailbox, Stop
from server.engine.measurements import Measurements
from server.engine.sessions import Session, Sessions
from server.engine.writer import Committed, Writer

BEATS_A_SECOND = 200
"""Heartbeats that one server is to hear, about; agents that came early beat more often."""


class Attendance:
    """Keeps the sessions in memory in step with the database."""

    def __init__(
        self,
        writer: Writer,
        sessions: Sessions,
        dispatcher: Dispatcher,
        clock: Clock,
        policy: Policy,
        measurements: Measurements | None = None,
    ) -> None:
        self._writer = writer
        self._sessions = sessions
        self._dispatcher = dispatcher
        self._clock = clock
        self._policy = policy
        self._measurements = measurements or Measurements()

    async def register(self, command: Register) -> tuple[Session, Attached]:
        """Open a session; the agent's older stream and fetches end."""
        older = self._sessions.of_agent(command.agent_id)
        # Where agents show who they are, nobody else ends a session by naming its agent.
        if older is not None and command.identity is None:
            self._sessions.remove(older, SessionSuperseded(older.agent_id))
        attached = await self._writer.submit(replace(command, lease=self._lease()))
        return self._take_up(attached), attached

    def _lease(self) -> Millis:
        """Return the lease of an agent that registers now.

        The more agents there are the longer it is, and with it the time between heartbeats: one
        server hears no more than a few hundred a second.
        """
        policy = self._policy
        interval = max(
            policy.heartbeat_interval, int(len(self._sessions) * SECOND / BEATS_A_SECOND)
        )
        return policy.lease * interval // policy.heartbeat_interval

    def times_of(self, session: Session) -> tuple[int, int]:
        """Return a session's seconds between heartbeats, and those its leases last."""
        policy = self._policy
        interval = policy.heartbeat_interval * session.lease // policy.lease // SECOND
        if wanted := session.config.get("interval"):
            interval = min(wanted, session.lease // SECOND // 3)
        return max(1, interval), session.lease // SECOND

    async def session(self, agent_id: str, session_id: str) -> Session:
        """Return a session that speaks, reviving it when it was lost or is new to this server.

        Raises:
            NotFound: no such agent.
            SessionSuperseded: the agent has a newer session, or has left.
        """
        session = self._sessions.of_agent(agent_id)
        known = session is not None and (not session_id or session.session_id == session_id)
        if session is None or not known or session.lost:
            attached = await self._writer.submit(Attach(agent_id, session_id))
            session = self._take_up(attached)
        self.hear(session)
        return session

    async def open_stream(
        self, agent_id: str, session_id: str, held: Held, mailbox: Mailbox
    ) -> tuple[Session, tuple[Verdict, ...]]:
        """Attach a stream to its session; older streams and fetches of it end first."""
        older = self._sessions.of_agent(agent_id)
        if older is not None and older.session_id == session_id:
            older.close(WrongState("stream of session", session_id, "was replaced by a newer one"))
            older.mailbox = None
        attached = await self._writer.submit(Attach(agent_id, session_id, held, complete=True))
        session = self._take_up(attached)
        session.frame = max(session.frame, held.seen_through)
        session.draining = False
        session.ahead = 0
        self._use(session, mailbox)
        return session, attached.verdicts

    def use_v1_stream(self, session: Session, mailbox: Mailbox) -> None:
        """Attach a v1 agent's stream, on which it hears of cancels."""
        if session.mailbox is not None:
            session.mailbox.close()
        self._use(session, mailbox)

    def close_stream(self, session: Session, mailbox: Mailbox) -> None:
        """Note that a stream has ended; the session lives on until it is silent for too long."""
        if session.mailbox is mailbox:
            session.mailbox = None

    async def heartbeat(
        self,
        session: Session,
        held: Held | None,
        slots: int = 0,
        labels: dict[str, str] | None = None,
    ) -> list[Verdict]:
        """Hear an agent; return a verdict for each lease that must be ended.

        The database is asked only when what the agent holds is not what memory says.
        """
        self.hear(session)
        if "slots" in session.config:
            slots = 0  # its own number does not count
        if labels or (slots and slots != session.slots):
            await self._change(session, labels or None, slots or None)
        if held is not None:
            # A session new to this server goes on counting where its agent stands.
            session.frame = max(session.frame, held.seen_through)
        if held is None or self._as_expected(session, held):
            return list(session.cancels.values())
        command = Attach(session.agent_id, session.session_id, held)
        attached = await self._writer.submit(command)
        session.awaits_held = False
        # Only what the agent must have seen: a claim of the same commit may have added more.
        for lease_id, frame in list(session.leases.items()):
            if lease_id not in attached.leases and frame <= held.seen_through:
                session.let_go(lease_id)
        self._dispatcher.capacity_changed()
        return [v for v in attached.verdicts if v.action is not VerdictAction.CONTINUE]

    async def _change(
        self, session: Session, labels: dict[str, str] | None, slots: int | None
    ) -> None:
        agent = await self._writer.submit(ChangeAgent(session.agent_id, labels, slots))
        self._adjusted(agent)

    async def update_labels(self, command: UpdateLabels) -> Agent:
        """Change an agent's labels, for its next claim and for work that waits."""
        agent = await self._writer.submit(command)
        self._adjusted(agent)
        return agent

    async def unregister(self, command: Unregister) -> bool:
        """Close a session; return whether it was the current one."""
        current = await self._writer.submit(command)
        session = self._sessions.of_agent(command.agent_id)
        if current and session is not None:
            self._sessions.remove(session)
        return current

    def committed(self, committed: Committed) -> None:
        """Tell agents what concerns them as soon as it is durable."""
        for event in committed.events:
            self.told(event)

    def told(self, event: Event) -> None:
        """Take in an event of this server or another."""
        if event.kind in (EventKind.TASK_CANCEL_REQUESTED, EventKind.TASK_RELEASE_REQUESTED):
            data = event.data
            verdict = Verdict(
                event.resource_id, data["lease"], VerdictAction.CANCEL, data["reason"]
            )
            self._pass_on(data["session"], verdict)
        elif event.kind is EventKind.AGENT_OFFLINE:
            session = self._sessions.get(event.data["session"])
            if session is not None:
                session.lost = True  # its next word revives it
        elif event.kind is EventKind.AGENT_REGISTERED:
            session = self._sessions.of_agent(event.resource_id)
            if session is not None and session.session_id != event.data["session"]:
                self._sessions.remove(session, SessionSuperseded(session.agent_id))
        elif event.kind is EventKind.AGENT_UNREGISTERED and "revoked" in event.data:
            session = self._sessions.of_agent(event.resource_id)
            if session is not None and session.session_id == event.data["session"]:
                reason = "The agent was revoked; it has to be enrolled anew."
                self._sessions.remove(session, Unauthenticated(reason))
        elif event.kind is EventKind.AGENT_CONFIG:
            session = self._sessions.of_agent(event.resource_id)
            if session is not None:
                self._configure(session, event.data["config"])
        elif event.kind is EventKind.AGENT_STATE:
            session = self._sessions.of_agent(event.resource_id)
            if session is not None:
                self._admit(session, event.data["control"], is_open=event.data["open"])

    def _configure(self, session: Session, config: dict[str, int]) -> None:
        gone = dict.fromkeys(session.config.keys() - config.keys(), 0)
        session.config = config
        if "slots" in config:
            session.slots = config["slots"]
            self._dispatcher.capacity_changed()
        if session.mailbox is not None:
            session.mailbox.put(Configure({**gone, **config}))

    async def configure(self, command: ConfigureAgent) -> tuple[Agent, int]:
        """Change an agent's settings, which it hears of by the event; return it and its leases."""
        return await self._writer.submit(command)

    def measure(self, session: Session, measured: dict[str, Any]) -> None:
        """Take in what an agent measured; it is written down with the next renewal."""
        session.measured, session.measured_anew = measured, True
        self._measurements.tell(session.agent_id, measured)

    def _admit(self, session: Session, control: int, *, is_open: bool) -> None:
        if not session.admit(control, is_open=is_open):
            return
        if is_open:
            self._dispatcher.capacity_changed()
        elif session.mailbox is not None and session.mailbox.pushes:
            session.mailbox.put(HandBackAll())

    def _pass_on(self, session_id: str, verdict: Verdict) -> None:
        session = self._sessions.get(session_id)
        if session is None:
            return
        session.cancels[verdict.lease_id] = verdict
        if session.mailbox is not None:
            session.mailbox.put(Stop(verdict))

    def _as_expected(self, session: Session, held: Held) -> bool:
        if session.awaits_held:
            return False
        named = {ref.lease_id for ref in held.leases}
        seen = {lease for lease, frame in session.leases.items() if frame <= held.seen_through}
        return seen <= named and named <= session.leases.keys()

    def _take_up(self, attached: Attached) -> Session:
        session = self._sessions.add(attached, self._clock.monotonic())
        self._dispatcher.capacity_changed()
        return session

    def _use(self, session: Session, mailbox: Mailbox) -> None:
        self._sessions.check_open()
        session.mailbox = mailbox
        for verdict in session.cancels.values():
            mailbox.put(Stop(verdict))
        if session.config:
            mailbox.put(Configure(session.config))
        self._dispatcher.capacity_changed()

    def hear(self, session: Session) -> None:
        """Note that a session has spoken: its leases are renewed."""
        session.heard = self._clock.monotonic()

    def _adjusted(self, agent: Agent) -> None:
        session = self._sessions.of_agent(agent.public_id)
        if session is not None:
            session.adjust(agent)
            self._dispatcher.capacity_changed()
