"""Rows to records and back. Columns bear the names of the record's fields."""

from collections.abc import Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, Generic, TypeVar

from sqlalchemy import Column, Row, Table

from server.domain.agent import Agent, SessionState
from server.domain.attempt import Attempt, AttemptStatus, LogState
from server.domain.event import Event, EventKind
from server.domain.pipeline import Pipeline
from server.domain.run import Run, RunStatus
from server.domain.task import Task, TaskStatus
from server.stores.sql import tables

R = TypeVar("R")


class Record(Generic[R]):
    """How one record type is kept in one table."""

    def __init__(
        self, record_type: type[R], table: Table, constant: Sequence[str] = (), **enums: type[Any]
    ) -> None:
        self.record_type = record_type
        self.table = table
        self.names = [f.name for f in fields(record_type)]  # type: ignore[arg-type]  # R is a dataclass
        self.columns: list[Column[Any]] = [table.c[name] for name in self.names]
        self.changing = [name for name in self.names if name not in constant]
        self._enums = [(self.names.index(name), enum) for name, enum in enums.items()]
        self._values = attrgetter(*self.names)
        self._changing_values = attrgetter(*self.changing)

    def load(self, row: Row[Any] | Sequence[Any]) -> R:
        """Return the record of a row selected by `columns`."""
        values = list(row)
        for index, enum in self._enums:
            values[index] = enum(values[index])
        return self.record_type(*values)

    def full(self, record: R) -> dict[str, Any]:
        """Return every column's value, for INSERT."""
        return dict(zip(self.names, self._values(record), strict=True))

    def changed(self, record: R) -> dict[str, Any]:
        """Return the values of columns that change, for UPDATE."""
        return dict(zip(self.changing, self._changing_values(record), strict=True))


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
        "retry_of",
    ),
    status=TaskStatus,
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
    status=AttemptStatus,
    log_state=LogState,
)
AGENT = Record(
    Agent,
    tables.agents,
    constant=("key", "namespace", "public_id", "created_at"),
    session_state=SessionState,
)
RUN = Record(
    Run,
    tables.runs,
    constant=("key", "namespace", "public_id", "pipeline_key", "pipeline_id", "number"),
    status=RunStatus,
)
PIPELINE = Record(
    Pipeline, tables.pipelines, constant=("key", "namespace", "public_id", "created_at")
)
EVENT = Record(Event, tables.events, constant=("position",), kind=EventKind)
