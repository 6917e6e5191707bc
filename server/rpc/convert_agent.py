"""Agents, leases and reports: between messages and records."""

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from generated.agent.v1 import agent_pb2
from generated.stream.v1 import stream_pb2
from server.domain.agent import Agent, SchedulingState, SessionState, scheduling_state
from server.domain.attempt import LogSummary
from server.domain.checks import Checks
from server.domain.claiming import Assignment, HandBack
from server.domain.configuring import FIELDS, ConfigureAgent
from server.domain.controlling import Action, SetAgentState
from server.domain.errors import Invalid, Violation
from server.domain.holding import Held
from server.domain.lease import LeaseRef, Verdict, VerdictAction
from server.domain.measuring import SHARES, check_custom, measured
from server.domain.moment import SECOND, Moment
from server.domain.policy import Policy
from server.domain.registering import HELD_LIMIT, Profile
from server.domain.reporting import REPORTABLE, Report
from server.domain.task import TaskSpec, TaskStatus
from server.rpc.convert import counted, enum, moment_of_seconds, seconds

log = structlog.get_logger(__name__)

ERROR_LIMIT = 4096
# Frames of a session are counted from 1; a million a second would take centuries to get here.
FRAME_LIMIT = 2**53


def profile_of(request: agent_pb2.RegisterRequest) -> Profile:
    """Return what an agent says about itself, checked.

    Raises:
        Invalid: a field is malformed.
    """
    profile = Profile(
        hostname=request.hostname,
        ip=request.ip,
        os=request.os,
        arch=request.arch,
        version=request.version,
        slots=request.max_concurrent_jobs,
        labels=dict(request.labels),
        plugins=tuple(request.installed_plugins),
    )
    profile.check(request.agent_id)
    return profile


def held_of(message: agent_pb2.Held, field: str) -> Held:
    """Return what an agent holds.

    Raises:
        Invalid: the list is too long.
    """
    if len(message.leases) > HELD_LIMIT:
        raise Invalid([Violation(f"{field}.leases", f"must have at most {HELD_LIMIT} leases")])
    if not 0 <= message.seen_through <= FRAME_LIMIT:
        text = f"must be from 0 to {FRAME_LIMIT}, is {message.seen_through}"
        raise Invalid([Violation(f"{field}.seen_through", text)])
    leases = tuple(LeaseRef(lease.task_id, lease.lease_id) for lease in message.leases)
    return Held(leases, message.seen_through)


def verdict_message(verdict: Verdict, policy: Policy) -> agent_pb2.LeaseVerdict:
    """Return a verdict."""
    cancels = verdict.action is VerdictAction.CANCEL
    return agent_pb2.LeaseVerdict(
        task_id=verdict.task_id,
        lease_id=verdict.lease_id,
        action=enum(verdict.action),
        reason=verdict.reason,
        grace_seconds=policy.kill_grace_seconds if cancels else 0,
    )


def task_message(assignment: Assignment, spec: TaskSpec, policy: Policy) -> agent_pb2.Task:
    """Return a task as agents of ours, and v1 agents that fetch, get it; `spec` is its own."""
    message = agent_pb2.Task(
        job_id=assignment.task_id,
        name=assignment.name,
        commands=spec.commands,
        timeout=assignment.timeout // SECOND,
        lease_id=assignment.lease_id,
        attempt=assignment.attempt,
        executor=spec.executor,
        kill_grace=policy.kill_grace_seconds,
        stop_with_lease=assignment.stop_with_lease,
    )
    # Nearly always empty, and each costs as much as all of the above.
    if spec.env:
        message.env.update(spec.env)
    for each in spec.artifacts:
        message.artifacts.add(
            name=each.name,
            path=each.path,
            destination=each.destination,
            on_failure=each.on_failure,
            archive=each.archive,
            no_dot_files=each.no_dot_files,
            expire_days=each.expire_days if each.expire else 0,
        )
    if spec.signature is not None:
        key_id, not_after, encoded = spec.signature
        message.signature.key_id, message.signature.not_after = key_id, not_after
        message.signature.signature = base64.b64decode(encoded)
    if spec.keep_workspace:
        message.keep_workspace = True
    if spec.workspace or spec.image:
        message.workspace, message.image = spec.workspace, spec.image
    if assignment.pipeline_id or assignment.stage:
        message.pipeline_id, message.stage = assignment.pipeline_id, assignment.stage
        message.run_id = assignment.run_id
    return message


def task_info(assignment: Assignment) -> stream_pb2.TaskInfo:
    """Return a task as v1 streams carry it."""
    spec = TaskSpec.from_json(assignment.spec)
    return stream_pb2.TaskInfo(
        task_id=assignment.task_id,
        name=assignment.name,
        pipeline_id=assignment.pipeline_id,
        stage=assignment.stage,
        commands=spec.commands,
        env=spec.env,
        workspace=spec.workspace,
        timeout=assignment.timeout // SECOND,
        image=spec.image,
    )


def report_of(request: agent_pb2.ReportTaskStatusRequest) -> Report:
    """Return a unary report.

    Raises:
        Invalid: a field is malformed.
    """
    return Report(
        agent_id=request.agent_id,
        ref=LeaseRef(request.task_id, request.lease_id),
        status=_status(request.status),
        exit_code=request.exit_code,
        error=_error(request.error_message),
        started_at=moment_of_seconds(_time("start_time", request.start_time, _LATEST // SECOND)),
        ended_at=moment_of_seconds(_time("end_time", request.end_time, _LATEST // SECOND)),
        log=_summary(request.log) if request.HasField("log") else None,
        infrastructure=request.failure == agent_pb2.FAILURE_CLASS_INFRASTRUCTURE,
        released=request.failure == agent_pb2.FAILURE_CLASS_RELEASED,
        measured=_measured(request.metrics),
        outputs=_outputs(request.outputs),
    )


def update_of(agent_id: str, message: stream_pb2.TaskStatusUpdate) -> Report:
    """Return a report that came over a stream.

    Raises:
        Invalid: a field is malformed.
    """
    status = _status(message.status)
    return Report(
        agent_id=agent_id,
        ref=LeaseRef(message.task_id, message.lease_id),
        status=status,
        exit_code=message.exit_code,
        error=_error(message.error_message),
        started_at=_time("started_at", message.started_at) or None,
        ended_at=(_time("timestamp", message.timestamp) or None) if status.ended else None,
        log=_summary(message.log) if message.HasField("log") else None,
        infrastructure=message.failure == agent_pb2.FAILURE_CLASS_INFRASTRUCTURE,
        released=message.failure == agent_pb2.FAILURE_CLASS_RELEASED,
        outputs=_outputs(message.outputs),
    )


OUTPUT_LIMIT = 80 * 1024
"""Characters of what a task tells later jobs; the agent has bounded it before."""

OUTPUTS_LIMIT = 1000
_OUTPUT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", re.ASCII)


def _outputs(told: Mapping[str, str]) -> dict[str, str]:
    """Return what a task tells later jobs; nothing where it is too much.

    It is no reason to refuse a report: an end that is refused would never be one.
    """
    if not told:
        return {}
    size = sum(len(name) + len(value) for name, value in told.items())
    if size > OUTPUT_LIMIT or len(told) > OUTPUTS_LIMIT:
        log.warning("outputs are left out", characters=size, values=len(told))
        return {}
    return {
        name: value.replace("\0", "")
        for name, value in told.items()
        if _OUTPUT_NAME.fullmatch(name)
    }


# Moments beyond this (the year 5138) are a unit mistaken for another, and could leave 64 bits.
_LATEST = 100_000_000_000_000


def _time(field: str, value: int, latest: int = _LATEST) -> int:
    if not 0 <= value <= latest:
        raise Invalid([Violation(field, f"must be a time from 0 to {latest}, is {value}")])
    return value


_REPORTABLE = {int(status): status for status in REPORTABLE}


def _status(number: int) -> TaskStatus:
    status = _REPORTABLE.get(number)
    if status is None:
        names = ", ".join(status.name for status in REPORTABLE)
        raise Invalid([Violation("status", f"must be one of {names}")])
    return status


def _error(text: str) -> str:
    return text.replace("\0", "\ufffd")[:ERROR_LIMIT]


def _measured(metrics: Mapping[str, str]) -> dict[str, str]:
    checks = Checks()
    check_custom(checks, metrics, "metrics")
    checks.done()
    return dict(metrics)


def measured_of(message: stream_pb2.AgentMetrics, now: Moment) -> dict[str, Any]:
    """Return what an agent measured of its host.

    Raises:
        Invalid: a field is malformed.
    """
    numbers = {name: getattr(message, name) for name in (*SHARES, "running_tasks")}
    return measured(numbers, message.custom_metrics, now, "metrics")


def metrics_message(kept: Mapping[str, Any]) -> stream_pb2.AgentMetrics | None:
    """Return measurements as streams tell them, None without any."""
    if not kept:
        return None
    numbers = {name: kept[name] for name in (*SHARES, "running_tasks")}
    return stream_pb2.AgentMetrics(**numbers, custom_metrics=kept["custom"])


def _measurements(kept: Mapping[str, Any]) -> agent_pb2.Measurements | None:
    if not kept:
        return None
    numbers = {name: kept[name] for name in (*SHARES, "running_tasks")}
    custom = kept["custom"]
    return agent_pb2.Measurements(**numbers, custom_metrics=custom, measured_at=kept["at"])


def config_message(config: Mapping[str, int]) -> agent_pb2.AgentConfig:
    """Return an agent's settings; 0 where its own count."""
    message = agent_pb2.AgentConfig()
    for name, value in config.items():
        setattr(message, FIELDS[name], value)
    return message


def configure_of(request: agent_pb2.ConfigureAgentRequest, namespace: str) -> ConfigureAgent:
    """Return the change of settings that a request asks for."""
    given = {each.name for each, _ in request.ListFields()}
    changes = {name: getattr(request, field) for name, field in FIELDS.items() if field in given}
    return ConfigureAgent(namespace, request.agent_id, changes)


def _summary(message: agent_pb2.LogSummary) -> LogSummary:
    return LogSummary(max(0, message.lines), max(0, message.bytes), message.crc32)


def agent_detail(agent: Agent, held: int) -> agent_pb2.AgentDetail:
    """Return an agent as it stands."""
    return agent_pb2.AgentDetail(
        agent_id=agent.public_id,
        hostname=agent.hostname,
        ip=agent.ip,
        os=agent.os,
        arch=agent.arch,
        version=agent.version,
        status=enum(agent_status(agent, held)),
        max_concurrent_jobs=agent.slots,
        running_jobs_count=held,
        labels=agent.effective_labels,
        created_at=seconds(agent.created_at),
        last_seen=agent.last_seen,
        scheduling=enum(scheduling_state(agent, held)),
        note=agent.note,
        scheduling_since=agent.scheduling_since or 0,
        drain_deadline=agent.drain_until or 0,
        config=config_message(agent.config),
        measurements=_measurements(agent.measured),
        quarantined_until=agent.quarantined_until or 0,
        fault=agent.fault,
        faults=agent.faults,
    )


def hand_back_of(agent_id: str, leases: Sequence[agent_pb2.HeldLease]) -> HandBack:
    """Return what an agent hands back."""
    return HandBack(
        agent_id,
        tuple(LeaseRef(lease.task_id, lease.lease_id) for lease in leases),
        {lease.lease_id: _error(lease.reason) for lease in leases if lease.reason},
    )


def set_state_of(request: agent_pb2.SetAgentStateRequest, namespace: str) -> SetAgentState:
    """Return what an operator wants of an agent.

    Raises:
        Invalid: there is no such action.
    """
    if request.action not in {int(action) for action in Action}:
        names = ", ".join(action.name for action in Action)
        raise Invalid([Violation("action", f"must be one of {names}")])
    return SetAgentState(
        namespace,
        request.agent_id,
        Action(request.action),
        request.note,
        request.deadline_seconds if request.HasField("deadline_seconds") else None,
    )


def said_of(agent: Agent, held: int) -> str:
    """Return in a sentence how an agent stands with its operator."""
    tasks = counted(held, "task").removesuffix(".")
    match scheduling_state(agent, held):
        case SchedulingState.ACTIVE:
            return "The agent is given work."
        case SchedulingState.PAUSED:
            return f"The agent is paused; it holds {tasks}."
        case SchedulingState.DRAINING:
            return f"The agent is draining; it holds {tasks}."
        case SchedulingState.DRAINED:
            return "The agent is drained."


def agent_status(agent: Agent, held: int) -> int:
    """Return how an agent stands, as the number of `agent.v1.AgentStatus`."""
    if agent.session_state is not SessionState.LIVE:
        return agent_pb2.AGENT_STATUS_OFFLINE
    if not held:
        return agent_pb2.AGENT_STATUS_IDLE
    full = held >= agent.slots
    return agent_pb2.AGENT_STATUS_BUSY if full else agent_pb2.AGENT_STATUS_ONLINE
