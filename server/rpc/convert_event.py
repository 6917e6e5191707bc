"""Events: from rows to what the API tells of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from generated.stream.v1 import stream_pb2
from server.domain.agent import SchedulingState
from server.domain.event import Event, EventKind
from server.domain.run import RunStatus
from server.domain.task import TaskStatus
from server.rpc.convert import enum

RESOURCE_TYPES = ("task", "run", "pipeline", "agent", "schedule", "hook")

_TASK_TYPES = {
    TaskStatus.RUNNING: stream_pb2.EVENT_TYPE_JOB_STARTED,
    TaskStatus.SUCCESS: stream_pb2.EVENT_TYPE_JOB_COMPLETED,
    TaskStatus.FAILED: stream_pb2.EVENT_TYPE_JOB_FAILED,
    TaskStatus.TIMEOUT: stream_pb2.EVENT_TYPE_JOB_FAILED,
    TaskStatus.CANCELLED: stream_pb2.EVENT_TYPE_JOB_CANCELLED,
}
_RUN_TYPES = {
    RunStatus.SUCCESS: stream_pb2.EVENT_TYPE_PIPELINE_COMPLETED,
    RunStatus.PARTIAL: stream_pb2.EVENT_TYPE_PIPELINE_COMPLETED,
    RunStatus.FAILED: stream_pb2.EVENT_TYPE_PIPELINE_FAILED,
    RunStatus.CANCELLED: stream_pb2.EVENT_TYPE_PIPELINE_FAILED,
}
_AGENT_TYPES = {
    EventKind.AGENT_REGISTERED: stream_pb2.EVENT_TYPE_AGENT_REGISTERED,
    EventKind.AGENT_UNREGISTERED: stream_pb2.EVENT_TYPE_AGENT_UNREGISTERED,
    EventKind.AGENT_OFFLINE: stream_pb2.EVENT_TYPE_AGENT_OFFLINE,
}
_TASK_WORDS = {
    TaskStatus.PENDING: "waits",
    TaskStatus.QUEUED: "is queued",
    TaskStatus.RUNNING: "runs",
    TaskStatus.SUCCESS: "succeeded",
    TaskStatus.FAILED: "failed",
    TaskStatus.CANCELLED: "was cancelled",
    TaskStatus.TIMEOUT: "ran out of time",
    TaskStatus.SKIPPED: "was skipped",
}
_RUN_WORDS = {
    RunStatus.PENDING: "was started",
    RunStatus.RUNNING: "runs",
    RunStatus.SUCCESS: "succeeded",
    RunStatus.FAILED: "failed",
    RunStatus.CANCELLED: "was cancelled",
    RunStatus.PARTIAL: "succeeded in part",
}
_AGENT_WORDS = {
    EventKind.AGENT_REGISTERED: "registered",
    EventKind.AGENT_UNREGISTERED: "left",
    EventKind.AGENT_OFFLINE: "was lost",
    EventKind.AGENT_LABELS: "has other labels",
    EventKind.AGENT_SLOTS: "has another number of slots",
    EventKind.AGENT_CONFIG: "has other settings",
}
_SCHEDULING_WORDS = {
    SchedulingState.ACTIVE: "is given work again",
    SchedulingState.PAUSED: "is paused",
    SchedulingState.DRAINING: "is draining",
    SchedulingState.DRAINED: "is drained",
}
# What only servers tell each other.
_INTERNAL = frozenset(
    {
        *("session", "session_state", "lease", "class", "by", "run", "metrics", "labels"),
        *("status", "previous", "text", "state", "open", "control"),
    }
)
_NAMES = {"agent": "agent_id", "duration": "duration_ms"}


@dataclass(frozen=True, slots=True)
class _Told:
    """How an event reads."""

    title: str
    description: str = ""


def event_type(event: Event) -> "stream_pb2.EventType.ValueType":
    """Return what v1 calls an event; UNSPECIFIED when it has no name for it."""
    unnamed = stream_pb2.EVENT_TYPE_UNSPECIFIED
    if event.kind is EventKind.TASK_STATUS:
        known = _TASK_TYPES.get(TaskStatus(event.data["status"]))
        if known is None and not event.data["previous"]:
            return stream_pb2.EVENT_TYPE_JOB_CREATED
        return known or unnamed
    if event.kind is EventKind.RUN_STATUS:
        if not event.data["previous"]:
            return stream_pb2.EVENT_TYPE_PIPELINE_STARTED
        return _RUN_TYPES.get(RunStatus(event.data["status"]), unnamed)
    return _AGENT_TYPES.get(event.kind, unnamed)


def resource_type(event: Event) -> str:
    """Return what kind of thing an event is about."""
    return event.kind.partition(".")[0]


def event_message(event: Event) -> stream_pb2.StreamEventsResponse:
    """Return an event as StreamEvents tells it."""
    told = _told(event)
    cursor = str(event.position)
    return stream_pb2.StreamEventsResponse(
        event_id=cursor,
        event_type=event_type(event),
        timestamp=event.at,
        resource_id=event.resource_id,
        resource_type=resource_type(event),
        title=told.title,
        description=told.description,
        metadata=_metadata(event),
        user_id=event.data.get("by", ""),
        cursor=cursor,
    )


def status_change(event: Event) -> stream_pb2.StreamTaskStatusResponse:
    """Return a task's event as StreamTaskStatus tells it."""
    data = event.data
    return stream_pb2.StreamTaskStatusResponse(
        task_id=event.resource_id,
        task_name=data["name"],
        status=enum(data["status"]),
        previous_status=enum(data["previous"]),
        timestamp=event.at,
        agent_id=data["agent"],
        exit_code=data["exit_code"],
        error_message=data["error"],
        duration=data["duration"],
        metrics=data.get("metrics", {}),
        cursor=str(event.position),
        attempt=data["attempt"],
    )


def _told(event: Event) -> _Told:
    telling = _TELLING.get(resource_type(event))
    if telling is None:
        return _Told(event.kind)
    return telling(event)


def _of_task(event: Event) -> _Told:
    data = event.data
    if event.kind is EventKind.TASK_CANCEL_REQUESTED:
        return _Told("Task is to be cancelled", data["reason"])
    if event.kind is EventKind.TASK_RELEASE_REQUESTED:
        return _Told("Task is to be given up by its agent", data.get("reason", ""))
    if event.kind is not EventKind.TASK_STATUS:
        return _Told(f"Task was {event.kind.partition('.')[2].replace('_', ' ')}")
    status = TaskStatus(data["status"])
    words = _TASK_WORDS[status]
    if not data["previous"] and status in (TaskStatus.PENDING, TaskStatus.QUEUED):
        words = "was submitted"
    elif status is TaskStatus.QUEUED and data["attempt"]:
        words = "is queued again"
    elif status is TaskStatus.PENDING:
        words = "waits for its next try"
    return _Told(f"Task {data['name']} {words}", _of_attempt(status, data))


def _of_attempt(status: TaskStatus, data: Mapping[str, Any]) -> str:
    if status is TaskStatus.RUNNING:
        return f"Attempt {data['attempt']} on agent {data['agent']}."
    return str(data["error"])


def _of_run(event: Event) -> _Told:
    data = event.data
    if event.kind is not EventKind.RUN_STATUS:
        return _Told("About a run", data.get("text", ""))
    name = f"{data.get('name', '')} {data.get('number', '')}".strip()
    words = _RUN_WORDS[RunStatus(data["status"])]
    if "total" not in data:  # written by an earlier version
        return _Told(f"Run {words}")
    return _Told(f"Run {name} {words}", f"{data['ended']} of {data['total']} jobs have ended.")


def _of_pipeline(event: Event) -> _Told:
    words = event.kind.partition(".")[2].replace("_", " ")
    return _Told(f"Pipeline {event.data.get('name', '')} was {words}")


def _of_agent(event: Event) -> _Told:
    if event.kind is EventKind.AGENT_STATE:
        state = SchedulingState(event.data["state"])
        if state is SchedulingState.ACTIVE and event.data.get("quarantined_until"):
            return _Told(f"Agent {event.resource_id} is quarantined", event.data["fault"])
        words = _SCHEDULING_WORDS[state]
        return _Told(f"Agent {event.resource_id} {words}", event.data["note"])
    words = _AGENT_WORDS.get(event.kind) or event.kind.partition(".")[2].replace("_", " ")
    return _Told(f"Agent {event.resource_id} {words}", event.data.get("reason", ""))


def _of_schedule(event: Event) -> _Told:
    words = "has come, without a run" if event.data["text"] else "has started a run"
    return _Told(f"A time of schedule {event.data['name']} {words}", event.data["text"])


def _of_hook(event: Event) -> _Told:
    words = "was delivered" if not event.data["text"] else "was delivered and started nothing"
    return _Told(f"{event.data['name'] or 'Something'} {words}", event.data["text"])


_TELLING: dict[str, Callable[[Event], _Told]] = {
    "schedule": _of_schedule,
    "hook": _of_hook,
    "task": _of_task,
    "run": _of_run,
    "pipeline": _of_pipeline,
    "agent": _of_agent,
}


def _metadata(event: Event) -> dict[str, str]:
    details = {"kind": str(event.kind), "run_id": event.run_id, "pipeline_id": event.pipeline_id}
    details |= {_NAMES.get(k, k): v for k, v in event.data.items() if k not in _INTERNAL}
    if kind := {EventKind.TASK_STATUS: TaskStatus, EventKind.RUN_STATUS: RunStatus}.get(event.kind):
        details["status"] = kind(event.data["status"]).name
        previous = event.data["previous"]
        details["previous_status"] = kind(previous).name if previous else ""
    plain = {name: value for name, value in details.items() if isinstance(value, str | int)}
    return {name: str(value) for name, value in plain.items() if value != ""}
