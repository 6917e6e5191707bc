"""Rows to records and back. Columns bear the names of the record's fields."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from operator import attrgetter, itemgetter
from typing import Any, Generic, TypeVar

from sqlalchemy import Column, Row, Table

from server.domain.access import Role
from server.domain.agent import Agent, Scheduling, SessionState
from server.domain.artifact import Artifact
from server.domain.attempt import Attempt, AttemptStatus, LogState
from server.domain.audit import AuditEntry
from server.domain.event import Event, EventKind
from server.domain.gate import Gate
from server.domain.hook import Delivery, DeliveryState, Hook, HookKind
from server.domain.kept_secret import KeptSecret
from server.domain.pipeline import Pipeline, PipelineVersion
from server.domain.plugin import PublishedPlugin
from server.domain.run import Run, RunStatus
from server.domain.schedule import CatchUp, Fire, Overlap, Owner, Schedule
from server.domain.task import Judged, Task, TaskStatus
from server.domain.token import Token, TokenKind
from server.stores.sql import tables

R = TypeVar("R")


class Record(Generic[R]):
    """How one record type is kept in one table."""

    def __init__(
        self,
        record_type: type[R],
        table: Table,
        constant: Sequence[str] = (),
        *,
        keys: tuple[str, ...] = (),
        **enums: type[Any],
    ) -> None:
        self.record_type = record_type
        self.table = table
        self.keys = keys
        """Columns that name a row, where only what differs from it is written."""
        self.names = tuple(f.name for f in fields(record_type))  # type: ignore[arg-type]  # R is a dataclass
        self.columns: list[Column[Any]] = [table.c[name] for name in self.names]
        self.changing = [name for name in self.names if name not in constant]
        self._enums = [
            (self.names.index(name), {member.value: member for member in enum})
            for name, enum in enums.items()
        ]
        self._changing_places = [self.names.index(name) for name in self.changing]
        self.values: Callable[[R], tuple[Any, ...]] = attrgetter(*self.names)
        """Returns every column's value, in the order of `names`."""
        self.key_places = [self.names.index(name) for name in keys]
        self.key_of: Callable[[Sequence[Any]], Any] = itemgetter(*(self.key_places or (0,)))
        """Returns what names the row of these values."""

    def load(self, row: Row[Any] | Sequence[Any]) -> R:
        """Return the record of a row selected by `columns`."""
        values = list(row)
        for index, members in self._enums:
            if values[index] is not None:
                values[index] = members[values[index]]
        return self.record_type(*values)

    def full(self, record: R) -> dict[str, Any]:
        """Return every column's value by its name."""
        return dict(zip(self.names, self.values(record), strict=True))

    def changed(self, record: R) -> dict[str, Any]:
        """Return the values of columns that may change, by their names."""
        return {name: getattr(record, name) for name in self.changing}

    def differing(self, before: Sequence[Any] | None, now: Sequence[Any]) -> tuple[int, ...]:
        """Return the places in `names` of values that may change and did; all when unknown."""
        if before is None:
            return tuple(self._changing_places)
        return tuple([place for place in self._changing_places if before[place] != now[place]])


TASK = Record(
    Task,
    tables.tasks,
    constant=(
        "key",
        "namespace",
        "public_id",
        "class_key",
        "sort_key",
        "created_at",
        "created_by",
        "pipeline_id",
        "run_key",
        "run_id",
        "stage",
        "position",
        "retry_limit",
        "allow_failure",
        "retry_on_lost",
        "priority",
        "schedule_to_start",
        "group_key",
        "cancels_older",
        "retry_of",
        "rules",
        "gate",
        "opens",
    ),
    keys=("key",),
    status=TaskStatus,
    judged=Judged,
)
ATTEMPT = Record(
    Attempt,
    tables.attempts,
    constant=(
        "task_key",
        "number",
        "namespace",
        "epoch",
        "agent_key",
        "agent_id",
        "session",
        "claimed_at",
    ),
    keys=("task_key", "number"),
    status=AttemptStatus,
    log_state=LogState,
)
AGENT = Record(
    Agent,
    tables.agents,
    constant=("key", "namespace", "public_id", "created_at"),
    session_state=SessionState,
    scheduling=Scheduling,
)
RUN = Record(
    Run,
    tables.runs,
    constant=(
        "key",
        "namespace",
        "public_id",
        "pipeline_key",
        "pipeline_id",
        "number",
        "version",
        "facts",
        "retry_of",
        "group_key",
        "schedule_key",
    ),
    status=RunStatus,
)
PIPELINE = Record(
    Pipeline, tables.pipelines, constant=("key", "namespace", "public_id", "created_at")
)
VERSION = Record(PipelineVersion, tables.pipeline_versions)
SCHEDULE = Record(
    Schedule,
    tables.schedules,
    constant=(
        "key",
        "namespace",
        "public_id",
        "pipeline_key",
        "pipeline_id",
        "owner",
        "created_at",
        "created_by",
    ),
    owner=Owner,
    catch_up=CatchUp,
    overlap=Overlap,
)
HOOK = Record(
    Hook,
    tables.hooks,
    constant=("key", "namespace", "public_id", "pipeline_key", "pipeline_id", "kind", "created_at"),
    kind=HookKind,
)
DELIVERY = Record(
    Delivery,
    tables.deliveries,
    constant=(
        "key",
        "namespace",
        "public_id",
        "hook_key",
        "pipeline_id",
        "received_at",
        "forge_id",
        "digest",
        "event",
        "size",
        "body",
        "blob",
        "redelivers",
    ),
    state=DeliveryState,
)
FIRE = Record(Fire, tables.schedule_fires)
GATE = Record(Gate, tables.gates, constant=("key", "namespace", "run_key"))
TOKEN = Record(
    Token,
    tables.tokens,
    constant=(
        "key", "namespace", "public_id", "kind", "digest", "name", "role", "subject",
        "created_at", "created_by", "labels",
    ),
    kind=TokenKind,
    role=Role,
)  # fmt: skip
SECRET = Record(KeptSecret, tables.secrets, constant=("key", "namespace", "name", "created_at"))
ARTIFACT = Record(
    Artifact,
    tables.artifacts,
    constant=(
        "key", "namespace", "public_id", "name", "path", "size", "sha256", "blob", "part_size",
        "created_at", "task_id", "task_name", "run_id", "attempt", "lease_id", "grant_id",
        "handed_in_by",
    ),
)  # fmt: skip
PLUGIN = Record(
    PublishedPlugin,
    tables.plugins,
    constant=(
        "key", "namespace", "plugin_id", "version", "type", "protocol", "sha256", "size", "about",
        "published_at", "published_by",
    ),
)  # fmt: skip
AUDIT = Record(AuditEntry, tables.audit)
EVENT = Record(Event, tables.events, constant=("position",), kind=EventKind)
