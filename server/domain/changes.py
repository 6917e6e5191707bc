"""What a transaction writes, and what the rest of the server must hear of it."""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeAlias

from server.domain.agent import Agent
from server.domain.artifact import Artifact
from server.domain.attempt import Attempt
from server.domain.audit import AuditEntry
from server.domain.event import Event
from server.domain.gate import Gate
from server.domain.group import GroupId
from server.domain.hook import Delivery, Hook
from server.domain.kept_secret import KeptSecret
from server.domain.log import LogBlock, LogKey
from server.domain.moment import Moment
from server.domain.pipeline import Pipeline, PipelineVersion
from server.domain.plugin import PublishedPlugin
from server.domain.run import Run
from server.domain.schedule import Fire, Schedule
from server.domain.task import Queue, Task
from server.domain.token import Token

RememberedAnswer: TypeAlias = str | list[str]


@dataclass(frozen=True, slots=True)
class LogBatch:
    """A block of one attempt's log, as one row."""

    task_key: int
    attempt: int
    namespace: str
    block: LogBlock
    blob: str = ""
    """The blob that has the data, or empty when the row has it."""
    offset: int = 0
    size: int = 0


class ChoreKind(IntEnum):
    """What is to be done with a log once it is closed."""

    ARCHIVE = 1
    SEAL = 2
    """Its rows are to be packed into a blob."""


@dataclass(frozen=True, slots=True)
class LogChore:
    """Something that is to be done with a log."""

    kind: ChoreKind
    key: LogKey
    due: Moment
    """From when on it may be taken."""
    batch: str | None = None
    """With which others it was taken and not finished."""


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """An answered request id."""

    namespace: str
    caller: str
    request_id: str
    body_hash: str
    answer: RememberedAnswer
    expires_at: Moment


@dataclass(slots=True)
class Changes:
    """What a transaction writes."""

    new_tasks: list[Task] = field(default_factory=list)
    tasks: dict[int, Task] = field(default_factory=dict)
    deleted_tasks: list[Task] = field(default_factory=list)
    new_attempts: list[Attempt] = field(default_factory=list)
    attempts: dict[tuple[int, int], Attempt] = field(default_factory=dict)
    new_agents: list[Agent] = field(default_factory=list)
    agents: dict[int, Agent] = field(default_factory=dict)
    new_runs: list[Run] = field(default_factory=list)
    runs: dict[int, Run] = field(default_factory=dict)
    new_pipelines: list[Pipeline] = field(default_factory=list)
    pipelines: dict[int, Pipeline] = field(default_factory=dict)
    new_versions: list[PipelineVersion] = field(default_factory=list)
    links: dict[int, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    """By a pipeline's key: its namespace, and the names of those whose runs' ends start it."""
    new_gates: list[Gate] = field(default_factory=list)
    gates: dict[int, Gate] = field(default_factory=dict)
    new_schedules: list[Schedule] = field(default_factory=list)
    schedules: dict[int, Schedule] = field(default_factory=dict)
    deleted_schedules: list[Schedule] = field(default_factory=list)
    fires: list[Fire] = field(default_factory=list)
    new_hooks: list[Hook] = field(default_factory=list)
    hooks: dict[int, Hook] = field(default_factory=dict)
    deleted_hooks: list[Hook] = field(default_factory=list)
    new_deliveries: list[Delivery] = field(default_factory=list)
    deliveries: dict[int, Delivery] = field(default_factory=dict)
    new_secrets: list[KeptSecret] = field(default_factory=list)
    secrets: dict[int, KeptSecret] = field(default_factory=dict)
    deleted_secrets: list[KeptSecret] = field(default_factory=list)
    new_artifacts: list[Artifact] = field(default_factory=list)
    artifacts: dict[int, Artifact] = field(default_factory=dict)
    deleted_artifacts: list[Artifact] = field(default_factory=list)
    new_plugins: list[PublishedPlugin] = field(default_factory=list)
    plugins: dict[int, PublishedPlugin] = field(default_factory=dict)
    new_tokens: list[Token] = field(default_factory=list)
    tokens: dict[int, Token] = field(default_factory=dict)
    new_classes: dict[str, str] = field(default_factory=dict)
    dependencies: list[tuple[int, int]] = field(default_factory=list)
    """Pairs (task, what it waits for)."""
    logs: list[LogBatch] = field(default_factory=list)
    chores: list[LogChore] = field(default_factory=list)
    """New ones; one that is known already stays as it is."""
    requests: list[RequestRecord] = field(default_factory=list)
    expired_requests: list[RequestRecord] = field(default_factory=list)
    """Answers that make room for new ones under their ids. Only these go: an answer that another
    server has stored meanwhile must be found out, not replaced."""
    events: list[Event] = field(default_factory=list)
    audit: list[AuditEntry] = field(default_factory=list)

    def any(self) -> bool:
        """Whether there is something to write."""
        return any(getattr(self, name) for name in self.__slots__)


@dataclass(slots=True)
class Effects:
    """What the rest of the server must hear about once the transaction is committed."""

    ready_queues: set[Queue] = field(default_factory=set)
    """Where a task became ready."""
    next_due: Moment | None = None
    """The earliest moment that the timers must look."""
    log_tasks: set[str] = field(default_factory=set)
    """Tasks whose log grew or whose log or task ended."""
    freed: set[str] = field(default_factory=set)
    """Sessions that hold fewer leases than before."""
    ended_leases: list[tuple[str, str]] = field(default_factory=list)
    """Leases that are not current any more, as (session id, lease id)."""
    adopted_leases: list[tuple[str, str]] = field(default_factory=list)
    """Leases that are current again, as (session id, lease id)."""
    touched: set[int] = field(default_factory=set)
    """Keys of tasks that were edited or deleted."""
    deleted: set[int] = field(default_factory=set)
    """Keys of tasks that were deleted."""
    closed_logs: set[LogKey] = field(default_factory=set)
    """Logs that take no more."""
    deliveries: bool = False
    """Whether something was delivered that is to be looked at."""
    tokens: set[str] = field(default_factory=set)
    """Digests and ids of tokens that were changed."""
    unsettled: set[GroupId] = field(default_factory=set)
    """Concurrency groups in which older members are still to be cancelled."""
    wrote: bool = False
    """Whether there was anything to write."""
    lines: int = 0
    """Log lines stored."""
    bytes: int = 0
    """Log bytes stored."""

    def hint_due(self, moment: Moment | None) -> None:
        """Note that something is due at a moment."""
        if moment is not None and (self.next_due is None or moment < self.next_due):
            self.next_due = moment
