"""agent.v1.AgentService."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

from uuid_utils import uuid7

from generated.agent.v1 import agent_pb2, agent_pb2_grpc
from server.auth import Caller, Kind, check_acts_for, current_caller
from server.domain.canceling import CancelTask, check_reason
from server.domain.checks import Checks
from server.domain.claiming import Assignment, Refetch
from server.domain.enrolling import Identity
from server.domain.errors import Invalid, NotFound, Violation, WrongState
from server.domain.labels import check_labels, check_selector
from server.domain.lease import LeaseRef
from server.domain.measuring import from_text
from server.domain.plugin import PublishedPlugin, Reference, rank
from server.domain.policy import Policy
from server.domain.registering import (
    SLOT_LIMIT,
    Attached,
    Register,
    RevokeAgent,
    Unregister,
    UpdateLabels,
)
from server.domain.token import TokenKind
from server.engine.attendance import Attendance
from server.engine.catalog import Catalog
from server.engine.clock import Clock
from server.engine.dispatcher import Dispatcher
from server.engine.log_intake import LogIntake
from server.engine.minting import mint
from server.engine.parked import Parked
from server.engine.writer import Writer
from server.issuer import Issuer
from server.rpc.context import Context
from server.rpc.convert import batch_of, counted, selector_of
from server.rpc.convert_agent import (
    agent_detail,
    agent_status,
    config_message,
    configure_of,
    held_of,
    profile_of,
    report_of,
    said_of,
    set_state_of,
    verdict_message,
)
from server.rpc.convert_plugin import plugin_info
from server.rpc.handover import Handover
from server.stores.interfaces import Reader

WAIT_LIMIT = 60
# How long a fetch that does not wait may take to look once: a commit, with room to spare.
LOOK_SECONDS = 5.0
AGENT_PAGE_DEFAULT = 100
AGENT_PAGE_LIMIT = 1000
AGENT_KEY = "muster-agent-key"
INLINE_BYTES = 2 * 1024 * 1024
"""Of a plugin's package in one answer: v1 clients take 4 MiB."""

PIECE_BYTES = 256 * 1024

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


class AgentService(agent_pb2_grpc.AgentServiceServicer):
    """What an agent says to the control plane, one call at a time."""

    def __init__(
        self,
        writer: Writer,
        intake: LogIntake,
        reader: Reader,
        attendance: Attendance,
        dispatcher: Dispatcher,
        clock: Clock,
        policy: Policy,
        issuer: Issuer | None,
        handover: Handover,
        catalog: Catalog,
    ) -> None:
        self._catalog = catalog
        self._issuer = issuer
        self._handover = handover
        self._writer = writer
        self._intake = intake
        self._reader = reader
        self._attendance = attendance
        self._dispatcher = dispatcher
        self._clock = clock
        self._policy = policy

    async def Register(
        self, request: agent_pb2.RegisterRequest, context: Context
    ) -> agent_pb2.RegisterResponse:
        """See the proto."""
        caller = current_caller()
        if request.agent_id:
            check_acts_for(request.agent_id)
        command = Register(
            caller.namespace,
            request.agent_id or caller.agent_id or str(uuid7()),
            str(uuid7()),
            profile_of(request),
            held_of(request.held, "held") if request.HasField("held") else None,
            identity=_identity(request, caller),
        )
        session, attached = await self._attendance.register(command)
        interval, lease = self._attendance.times_of(session)
        key = self._key_of(attached, caller)
        if key:
            context.set_trailing_metadata(((AGENT_KEY, key),))
        return agent_pb2.RegisterResponse(
            success=True,
            message="The agent is registered.",
            agent_id=session.agent_id,
            heartbeat_interval=interval,
            session_id=session.session_id,
            verdicts=[verdict_message(v, self._policy) for v in attached.verdicts],
            lease_seconds=lease,
            agent_key=key,
        )

    def _key_of(self, attached: Attached, caller: Caller) -> str:
        if self._issuer is None or attached.credential is None:
            return ""
        return self._issuer.agent_key(attached.credential, caller.namespace)

    async def _renewed(self) -> str:
        """Return the next key of the agent that calls, where its own ends soon, or an empty text.

        Raises:
            Unauthenticated: its credential was revoked.
        """
        if self._issuer is None:
            return ""
        caller = current_caller()
        return (await self._issuer.renewed(caller, caller.expires_at))[0]

    async def Heartbeat(
        self, request: agent_pb2.HeartbeatRequest, context: Context
    ) -> agent_pb2.HeartbeatResponse:
        """See the proto."""
        check_acts_for(request.agent_id)
        checks = Checks()
        checks.number("max_concurrent_jobs", request.max_concurrent_jobs, 0, SLOT_LIMIT)
        checks.extend(check_labels(request.labels, "labels"))
        checks.done()
        session = await self._attendance.session(request.agent_id, request.session_id)
        if request.metrics:
            measured = from_text(request.metrics, self._clock.now(), "metrics")
            self._attendance.measure(session, measured)
        verdicts = await self._attendance.heartbeat(
            session,
            held_of(request.held, "held") if request.HasField("held") else None,
            request.max_concurrent_jobs,
            dict(request.labels),
        )
        return agent_pb2.HeartbeatResponse(
            success=True,
            message="Heard.",
            timestamp=self._clock.now(),
            verdicts=[verdict_message(v, self._policy) for v in verdicts],
            hand_back=not session.open,
            config=config_message(session.config),
            agent_key=await self._renewed(),
        )

    async def Unregister(
        self, request: agent_pb2.UnregisterRequest, context: Context
    ) -> agent_pb2.UnregisterResponse:
        """See the proto."""
        check_acts_for(request.agent_id)
        check_reason(request.reason)
        command = Unregister(request.agent_id, request.session_id, request.reason)
        current = await self._attendance.unregister(command)
        message = "The session is closed." if current else "The agent has a newer session."
        return agent_pb2.UnregisterResponse(success=True, message=message)

    async def FetchTask(
        self, request: agent_pb2.FetchTaskRequest, context: Context
    ) -> agent_pb2.FetchTaskResponse:
        """See the proto."""
        check_acts_for(request.agent_id)
        _check_fetch(request)
        session = await self._attendance.session(request.agent_id, request.session_id)
        session.draining = False  # who asks for work takes some
        if request.labels:
            await self._attendance.heartbeat(session, None, labels=dict(request.labels))
        if request.request_id:
            again = Refetch(request.agent_id, session.session_id, request.request_id)
            if held := await self._writer.submit(again):
                frame = max(session.leases.get(a.lease_id, 0) for a in held)
                return await self._fetched(held, frame, request.agent_id)
        wait = _wait(request.wait, context.time_remaining())
        parked = Parked(request.max_jobs or 1, request.request_id or None, once=wait <= 0)
        tasks, frame = await self._dispatcher.fetch(session, parked, wait or LOOK_SECONDS)
        return await self._fetched(tasks, frame, request.agent_id)

    async def _fetched(
        self, assignments: list[Assignment], frame: int, agent_id: str
    ) -> agent_pb2.FetchTaskResponse:
        tasks = await self._handover.messages(assignments, agent_id, current_caller())
        return agent_pb2.FetchTaskResponse(
            success=True,
            message=counted(len(tasks), "task")
            if tasks
            else "There is no work for this agent now.",
            tasks=tasks,
            frame_number=frame,
        )

    async def ReportTaskStatus(
        self, request: agent_pb2.ReportTaskStatusRequest, context: Context
    ) -> agent_pb2.ReportTaskStatusResponse:
        """See the proto."""
        check_acts_for(request.agent_id)
        report = report_of(request)
        await self._attendance.session(request.agent_id, "")
        verdict = await self._writer.submit(report)
        return agent_pb2.ReportTaskStatusResponse(
            success=True,
            message=verdict.reason or "Noted.",
            verdict=verdict_message(verdict, self._policy),
        )

    async def ReportTaskLog(
        self, request: agent_pb2.ReportTaskLogRequest, context: Context
    ) -> agent_pb2.ReportTaskLogResponse:
        """See the proto."""
        check_acts_for(request.agent_id)
        batch = batch_of(request)
        await self._attendance.session(request.agent_id, "")
        ref = LeaseRef(request.task_id, request.lease_id)
        answer = await self._intake.append(request.agent_id, ref, batch)
        return agent_pb2.ReportTaskLogResponse(
            success=True,
            message=f"Lines up to {answer.acked_through} are stored.",
            acked_through=answer.acked_through,
            verdict=verdict_message(answer.verdict, self._policy),
        )

    async def CancelTask(
        self, request: agent_pb2.CancelTaskRequest, context: Context
    ) -> agent_pb2.CancelTaskResponse:
        """See the proto."""
        check_acts_for(request.agent_id)
        check_reason(request.reason)
        if not request.agent_id:
            raise Invalid([Violation("agent_id", "must not be empty")])
        caller = current_caller()
        # An agent ends what it holds, of whichever namespace; a person's own namespace bounds them.
        namespace = caller.namespace if caller.kind is Kind.USER else None
        command = CancelTask(namespace, request.job_id, request.reason, request.agent_id)
        ended = await self._writer.submit(command)
        message = "The task is cancelled." if ended else "The agent is told to end it."
        return agent_pb2.CancelTaskResponse(success=True, message=message)

    async def UpdateLabels(
        self, request: agent_pb2.UpdateLabelsRequest, context: Context
    ) -> agent_pb2.UpdateLabelsResponse:
        """See the proto."""
        check_acts_for(request.agent_id)
        command = UpdateLabels(
            current_caller().namespace, request.agent_id, dict(request.labels), request.merge
        )
        command.check()
        agent = await self._attendance.update_labels(command)
        return agent_pb2.UpdateLabelsResponse(
            success=True, message="The labels are changed.", labels=agent.effective_labels
        )

    async def DownloadPlugin(
        self, request: agent_pb2.DownloadPluginRequest, context: Context
    ) -> agent_pb2.DownloadPluginResponse:
        """See the proto."""
        plugin, path = await self._package(request.plugin_id, request.version)
        if plugin.size > INLINE_BYTES:
            how = await self._catalog.url(plugin) or "the RPC FetchPlugin"
            why = f"has {plugin.size} bytes, and {INLINE_BYTES} go into one answer; take {how}"
            raise WrongState("plugin", plugin.name, why)
        return agent_pb2.DownloadPluginResponse(
            success=True,
            message=plugin.name,
            plugin_data=await asyncio.to_thread(path.read_bytes),
            checksum=plugin.sha256,
            size=plugin.size,
            version=plugin.version,
        )

    async def _package(self, plugin_id: str, version: str) -> tuple[PublishedPlugin, Path]:
        """Return which version is meant, and a file with its bytes.

        Raises:
            NotFound: there is none, or none that travels.
            StoreUnavailable: it cannot be had now.
            DamagedPlugin: its home gives other bytes than were published.
        """
        wanted = Reference(plugin_id, version)
        plugin, _ = await self._catalog.find(current_caller().namespace, wanted)
        path = None
        if plugin is not None and not plugin.bundled:
            path = await self._catalog.shelf.get(plugin.sha256)
        if plugin is None or path is None:
            raise NotFound("plugin", f"{plugin_id}@{version}".rstrip("@"))
        return plugin, path

    async def ListAvailablePlugins(
        self, request: agent_pb2.ListAvailablePluginsRequest, context: Context
    ) -> agent_pb2.ListAvailablePluginsResponse:
        """See the proto."""
        check_acts_for(request.agent_id)
        namespace = current_caller().namespace
        platform = await self._platform(request.agent_id)
        known = [
            each
            for each in await self._catalog.known(namespace)
            if not each.yanked
            and (not request.plugin_type or each.type == request.plugin_type)
            and _runs_on(each, platform)
        ]
        latest: dict[str, PublishedPlugin] = {}
        for each in sorted(known, key=lambda one: rank(one.version)):
            latest[each.plugin_id] = each
        home = self._catalog.home.kind
        plugins = [plugin_info(p, home, await self._catalog.url(p)) for p in latest.values()]
        return agent_pb2.ListAvailablePluginsResponse(
            success=True, message=counted(len(plugins), "plugin"), plugins=plugins
        )

    async def _platform(self, agent_id: str) -> str:
        """Return an agent's platform as os/arch; empty where nobody is named or it has not told."""
        if not agent_id:
            return ""
        agent, _ = await self._reader.agent(current_caller().namespace, agent_id)
        return f"{agent.os}/{agent.arch}" if agent.os and agent.arch else ""

    async def FetchPlugin(
        self, request: agent_pb2.FetchPluginRequest, context: Context
    ) -> AsyncIterator[agent_pb2.FetchPluginResponse]:
        """See the proto."""
        checks = Checks()
        checks.number("offset", request.offset, 0, 2**40)
        checks.done()
        plugin, path = await self._package(request.plugin_id, request.version)
        with await asyncio.to_thread(path.open, "rb") as file:
            file.seek(request.offset)
            yield agent_pb2.FetchPluginResponse(checksum=plugin.sha256, size=plugin.size)
            while data := await asyncio.to_thread(file.read, PIECE_BYTES):
                yield agent_pb2.FetchPluginResponse(data=data)

    async def ListAgents(
        self, request: agent_pb2.ListAgentsRequest, context: Context
    ) -> agent_pb2.ListAgentsResponse:
        """See the proto."""
        selector = selector_of(request.label_selector)
        checks = Checks()
        checks.number("page_size", request.page_size, 0, AGENT_PAGE_LIMIT)
        checks.extend(check_selector(selector, "label_selector"))
        if request.status not in agent_pb2.AgentStatus.values():
            checks.fail("status", f"there is no status {request.status}")
        checks.done()
        size = request.page_size or AGENT_PAGE_DEFAULT
        fitting = [
            agent_detail(agent, held)
            for agent, held in await self._reader.agents(current_caller().namespace)
            if agent.public_id > request.page_token
            and selector.matches(agent.effective_labels)
            and (not request.status or agent_status(agent, held) == request.status)
        ]
        more = len(fitting) > size
        return agent_pb2.ListAgentsResponse(
            success=True,
            message=counted(len(fitting), "agent"),
            agents=fitting[:size],
            next_page_token=fitting[size - 1].agent_id if more else "",
        )

    async def GetAgent(
        self, request: agent_pb2.GetAgentRequest, context: Context
    ) -> agent_pb2.GetAgentResponse:
        """See the proto."""
        namespace = current_caller().namespace
        agent, task_ids = await self._reader.agent(namespace, request.agent_id)
        detail = agent_detail(agent, len(task_ids))
        detail.task_ids.extend(task_ids)
        return agent_pb2.GetAgentResponse(
            success=True, message=f"It holds {counted(len(task_ids), 'task')}", agent=detail
        )

    async def SetAgentState(
        self, request: agent_pb2.SetAgentStateRequest, context: Context
    ) -> agent_pb2.SetAgentStateResponse:
        """See the proto."""
        command = set_state_of(request, current_caller().namespace)
        command.check()
        agent, held = await self._writer.submit(command)
        return agent_pb2.SetAgentStateResponse(
            success=True, message=said_of(agent, held), agent=agent_detail(agent, held)
        )

    async def ConfigureAgent(
        self, request: agent_pb2.ConfigureAgentRequest, context: Context
    ) -> agent_pb2.ConfigureAgentResponse:
        """See the proto."""
        command = configure_of(request, current_caller().namespace)
        agent, held = await self._attendance.configure(command)
        return agent_pb2.ConfigureAgentResponse(
            success=True, message="The settings are kept.", agent=agent_detail(agent, held)
        )

    async def RevokeAgent(
        self, request: agent_pb2.RevokeAgentRequest, context: Context
    ) -> agent_pb2.RevokeAgentResponse:
        """See the proto."""
        check_reason(request.reason)
        command = RevokeAgent(current_caller().namespace, request.agent_id, request.reason)
        revoked = await self._writer.submit(command)
        what = "1 credential" if revoked == 1 else f"{revoked} credentials"
        return agent_pb2.RevokeAgentResponse(
            success=True, message=f"{what} revoked; its session is over."
        )


def _identity(request: agent_pb2.RegisterRequest, caller: Caller) -> Identity | None:
    """Return how an agent that registers has shown who it is; None where nobody asks.

    Raises:
        Invalid: the digest is none.
    """
    if caller.kind is Kind.ANYBODY:
        return None
    digest = request.credential_digest
    if digest and not _DIGEST.fullmatch(digest):
        text = "should be a SHA-256 of 64 hexadecimal digits in lower case"
        raise Invalid([Violation("credential_digest", text)])
    # A v1 agent has none: nobody will ever show this one, it only bears the revocation.
    return Identity(
        caller.credential_id,
        digest or mint(TokenKind.AGENT)[1],
        certified=caller.kind is Kind.AGENT and not caller.credential_id,
    )


def _runs_on(plugin: PublishedPlugin, platform: str) -> bool:
    platforms = plugin.about["platforms"]
    return not platform or (
        isinstance(platforms, list) and ("any" in platforms or platform in platforms)
    )


def _check_fetch(request: agent_pb2.FetchTaskRequest) -> None:
    checks = Checks()
    checks.number("max_jobs", request.max_jobs, 0, SLOT_LIMIT)
    checks.number("wait", request.wait, 0, 3600)
    checks.name("request_id", request.request_id, required=False, limit=128)
    checks.extend(check_labels(request.labels, "labels"))
    checks.done()


def _wait(asked: int, time_remaining: float | None) -> float:
    """Return how long a fetch waits: at most 60 s, and a second less than its caller does."""
    wait = float(min(asked, WAIT_LIMIT))
    if time_remaining is not None:
        wait = min(wait, time_remaining - 1)
    return max(0.0, wait)
