"""StreamAgentStatus: how agents stand, then each change."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from generated.stream.v1 import stream_pb2
from server.domain.agent import Agent, SchedulingState, SessionState, scheduling_state
from server.domain.checks import Checks
from server.domain.errors import NotFound
from server.domain.event import Event, EventKind
from server.domain.moment import SECOND, Moment
from server.domain.task import TaskStatus
from server.engine.event_feed import EventFeed
from server.engine.measurements import Measurements
from server.rpc.convert import enum
from server.rpc.convert_agent import metrics_message
from server.rpc.cursor import check_reached, cursor_of
from server.stores.interfaces import AgentStanding, Reader

FOLLOWED = 1000

Response = stream_pb2.StreamAgentStatusResponse
Status = stream_pb2.AgentStatus


@dataclass(slots=True)
class Seen:
    """An agent as one stream has seen it."""

    agent_id: str
    hostname: str = ""
    ip: str = ""
    state: SessionState = SessionState.LIVE
    slots: int = 1
    running: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    heard: Moment = 0
    scheduling: SchedulingState = SchedulingState.ACTIVE
    note: str = ""
    measured: dict[str, Any] = field(default_factory=dict)
    quarantined_until: Moment = 0
    told: "Status.ValueType" = stream_pb2.AGENT_STATUS_UNSPECIFIED
    """Its status in the last message."""

    @property
    def status(self) -> "Status.ValueType":
        """How it stands."""
        if self.state is not SessionState.LIVE:
            return stream_pb2.AGENT_STATUS_OFFLINE
        if not self.running:
            return stream_pb2.AGENT_STATUS_IDLE
        full = self.running >= self.slots
        return stream_pb2.AGENT_STATUS_BUSY if full else stream_pb2.AGENT_STATUS_ONLINE

    def take(self, agent: Agent, running: int) -> None:
        """Take over what the agent's row says."""
        self.hostname, self.ip, self.slots = agent.hostname, agent.ip, agent.slots
        self.state, self.labels = agent.session_state, agent.effective_labels
        self.running, self.heard, self.measured = running, agent.last_seen, agent.measured
        self.scheduling, self.note = scheduling_state(agent, running), agent.note
        self.quarantined_until = agent.quarantined_until or 0

    def hear(self, event: Event) -> None:
        """Take in an event about the agent itself."""
        data = event.data
        if event.kind is EventKind.AGENT_STATE:
            self.scheduling, self.note = SchedulingState(data["state"]), data["note"]
            self.quarantined_until = data.get("quarantined_until") or 0
        if event.kind not in (EventKind.AGENT_OFFLINE, EventKind.AGENT_STATE):
            self.heard = event.at
        if "session_state" not in data:  # written by an earlier version
            lost = event.kind in (EventKind.AGENT_OFFLINE, EventKind.AGENT_UNREGISTERED)
            self.state = SessionState.LOST if lost else SessionState.LIVE
            return
        self.state = SessionState(data["session_state"])
        self.hostname, self.ip = data["hostname"], data["ip"]
        self.slots, self.labels = data["slots"], data["labels"]


class AgentStream:
    """One call: it keeps count of what the agents it follows run."""

    def __init__(
        self, feed: EventFeed, reader: Reader, measurements: Measurements, namespace: str
    ) -> None:
        self._measurements = measurements
        self._feed = feed
        self._reader = reader
        self._namespace = namespace
        self._seen: dict[str, Seen] = {}

    async def responses(
        self, request: stream_pb2.StreamAgentStatusRequest
    ) -> AsyncGenerator[Response, None]:
        """Yield how agents stand and each change, for ever.

        Raises:
            Invalid, NotFound: the request is wrong.
            CursorExpired: events after the cursor are gone.
            Draining: the server stops.
        """
        after = _check(request)
        if after is not None:
            await check_reached(after, self._feed, self._reader)
        agents, position = await self._reader.agents_with_position(
            self._namespace, request.agent_ids
        )
        _check_found(request, agents)
        wanted = frozenset(request.agent_ids)
        if after is not None:
            async with aclosing(self._kept(after, position, wanted)) as kept:
                async for response in kept:
                    yield response
        for standing in agents:
            seen = self._of(standing.agent.public_id)
            seen.take(standing.agent, standing.running)
            yield self._response(seen, seen.heard, position)
        wants = AgentEvents(self._namespace, wanted)
        with self._measurements.watching() as watcher:
            batches = self._feed.batches(position, wants, watcher.wake_by)
            async with aclosing(batches):
                async for batch in batches:
                    for event in batch.events:
                        if (change := self._change(event)) is not None:
                            yield change
                    for agent_id, measured in watcher.take().items():
                        if (measuring := self._measured(agent_id, measured)) is not None:
                            yield self._response(measuring, measured["at"], batch.cursor)

    def _measured(self, agent_id: str, measured: dict[str, Any]) -> Seen | None:
        """Take in measurements; return the agent when it is followed and they are news."""
        seen = self._seen.get(agent_id)
        if seen is None or measured["at"] <= seen.measured.get("at", 0):
            return None
        seen.measured, seen.heard = measured, max(seen.heard, measured["at"])
        return seen

    async def _kept(
        self, after: int, position: int, wanted: frozenset[str]
    ) -> AsyncGenerator[Response, None]:
        """Yield what is kept of the agents themselves; how busy they were is not."""
        wants = AgentEvents(self._namespace, wanted, tasks=False)
        async with aclosing(self._feed.replay(after, position, wants)) as events:
            async for event in events:
                seen = self._of(event.resource_id)
                seen.hear(event)
                yield self._response(seen, event.at, event.position)

    def _change(self, event: Event) -> Response | None:
        """Take in an event; return what is to be told of it."""
        if event.kind is not EventKind.TASK_STATUS:
            seen = self._of(event.resource_id)
            seen.hear(event)
        elif event.data["agent"] not in self._seen:
            return None  # an agent of another namespace
        else:
            seen = self._seen[event.data["agent"]]
            began = event.data["status"] == TaskStatus.RUNNING
            seen.running = max(0, seen.running + (1 if began else -1))
            seen.heard = max(seen.heard, event.at)
        return self._response(seen, event.at, event.position)

    def _of(self, agent_id: str) -> Seen:
        return self._seen.setdefault(agent_id, Seen(agent_id))

    def _response(self, seen: Seen, at: Moment, position: int) -> Response:
        previous, seen.told = seen.told, seen.status
        return Response(
            agent_id=seen.agent_id,
            hostname=seen.hostname,
            ip=seen.ip,
            status=seen.told,
            previous_status=previous,
            timestamp=at,
            running_jobs_count=seen.running,
            max_concurrent_jobs=seen.slots,
            last_heartbeat=seen.heard // SECOND,
            labels=seen.labels,
            scheduling=enum(seen.scheduling),
            note=seen.note,
            metrics=metrics_message(seen.measured),
            quarantined_until=seen.quarantined_until,
            cursor=str(position),
        )


class AgentEvents:
    """Which events are about the agents wanted, or about tasks that start or stop on them."""

    def __init__(self, namespace: str, agent_ids: frozenset[str], *, tasks: bool = True) -> None:
        self._namespace = namespace
        self._agent_ids = agent_ids
        self._tasks = tasks

    def __call__(self, event: Event) -> bool:
        """Return whether an event is wanted."""
        if event.kind.startswith("agent."):
            return event.namespace == self._namespace and self._wanted(event.resource_id)
        return (
            self._tasks
            and event.kind is EventKind.TASK_STATUS
            and (event.data["status"] == TaskStatus.RUNNING)
            is not (event.data["previous"] == TaskStatus.RUNNING)
            and self._wanted(event.data["agent"])
        )

    def _wanted(self, agent_id: str) -> bool:
        return not self._agent_ids or agent_id in self._agent_ids


def _check(request: stream_pb2.StreamAgentStatusRequest) -> int | None:
    checks = Checks()
    after = cursor_of(checks, request.after)
    if len(request.agent_ids) > FOLLOWED:
        checks.fail("agent_ids", f"must have at most {FOLLOWED} ids")
    checks.done()
    return after


def _check_found(request: stream_pb2.StreamAgentStatusRequest, agents: list[AgentStanding]) -> None:
    found = {standing.agent.public_id for standing in agents}
    for agent_id in request.agent_ids:
        if agent_id not in found:
            raise NotFound("agent", agent_id)
