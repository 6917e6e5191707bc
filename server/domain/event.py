"""An event: something that happened, written in the transaction of its cause."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from server.domain.moment import Moment


class EventKind(StrEnum):
    """What happened."""

    TASK_STATUS = "task.status"
    TASK_CANCEL_REQUESTED = "task.cancel_requested"
    TASK_RELEASE_REQUESTED = "task.release_requested"
    TASK_DELETED = "task.deleted"
    RUN_STATUS = "run.status"
    RUN_REMARK = "run.remark"
    APPROVAL_ASKED = "task.approval_asked"
    APPROVAL_GIVEN = "task.approval_given"
    PIPELINE_CREATED = "pipeline.created"
    PIPELINE_UPDATED = "pipeline.updated"
    PIPELINE_DELETED = "pipeline.deleted"
    HOOK_DELIVERED = "hook.delivered"
    SCHEDULE_STRUCK = "schedule.struck"
    AGENT_REGISTERED = "agent.registered"
    AGENT_UNREGISTERED = "agent.unregistered"
    AGENT_OFFLINE = "agent.offline"
    AGENT_LABELS = "agent.labels"
    AGENT_STATE = "agent.state"
    AGENT_SLOTS = "agent.slots"
    AGENT_CONFIG = "agent.config"


@dataclass(slots=True)
class Event:
    """One row of the event log. `position` is its place in commit order, 0 until it is stored."""

    kind: EventKind
    namespace: str
    at: Moment
    resource_id: str
    run_id: str | None = None
    pipeline_id: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    position: int = 0
