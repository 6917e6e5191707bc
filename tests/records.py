"""Records for tests: `full` fills every field, `row` only what a row needs."""

from dataclasses import fields, replace
from enum import Enum
from itertools import count
from types import NoneType, UnionType
from typing import get_args, get_origin, get_type_hints

from server.domain.access import Role
from server.domain.agent import Agent
from server.domain.attempt import Attempt
from server.domain.changes import Changes
from server.domain.event import Event, EventKind
from server.domain.pipeline import Pipeline
from server.domain.run import Run
from server.domain.task import Task, TaskStatus
from server.domain.token import Token, TokenKind

_numbers = count(100)


def full(record_type, **chosen):
    """Return a record whose every field has a value of its own; `chosen` ones are yours."""
    hints = get_type_hints(record_type)
    values = {f.name: _value(f.name, hints[f.name]) for f in fields(record_type) if f.init}
    return record_type(**{**values, **chosen})


def bare(record, *kept):
    """Return a record with every optional field unset, except `kept`."""
    hints = get_type_hints(type(record))
    unset = {n: None for n, hint in hints.items() if NoneType in get_args(hint) and n not in kept}
    return replace(record, **unset)


def _value(name, hint):
    if isinstance(hint, UnionType):
        hint = next(part for part in get_args(hint) if part is not NoneType)
    number = next(_numbers)
    kind = get_origin(hint) or hint
    if isinstance(kind, type) and issubclass(kind, Enum):
        return list(kind)[-1]
    return {
        bool: True,
        int: number,
        str: f"{name} {number} ü",
        bytes: b"\x00\xff" + str(number).encode(),
        dict: {f"{name} {number}": "ü \u2028"},
        list: [f"{name} {number}", "ü"],
    }[kind]


def agent(key=1, **chosen):
    """Return an agent's row."""
    needed = {"namespace": "default", "public_id": f"agent-{key}", "session_id": f"session-{key}"}
    moments = {"created_at": 1, "registered_at": 1, "last_seen": 1}
    return Agent(key=key, **{**needed, **moments, **chosen})


def pipeline(key=1, **chosen):
    """Return a pipeline's row."""
    needed = {"namespace": "default", "public_id": f"pipeline-{key}", "name": f"pipeline {key}"}
    rest = {"definition": "{}", "created_at": 1, "updated_at": 1}
    return Pipeline(key=key, **{**needed, **rest, **chosen})


def run(key=1, **chosen):
    """Return a run's row, of pipeline 1."""
    needed = {"namespace": "default", "public_id": f"run-{key}", "pipeline_key": 1}
    rest = {"pipeline_id": "pipeline-1", "number": key, "created_at": 1, "total": 1}
    return Run(key=key, **{**needed, **rest, **chosen})


def task(key=1, **chosen):
    """Return a task's row, ready."""
    needed = {"namespace": "default", "public_id": f"task-{key}", "name": f"task {key}"}
    rest = {"spec": "{}", "class_key": "any", "sort_key": key, "status": TaskStatus.QUEUED}
    return Task(key=key, **{**needed, **rest, "created_at": 1, "timeout": 3_600_000, **chosen})


def attempt(task_key=1, number=1, **chosen):
    """Return an attempt's row, by agent 1."""
    needed = {"namespace": "default", "epoch": number, "agent_key": 1, "agent_id": "agent-1"}
    rest = {"session": "session-1", "claimed_at": 1}
    return Attempt(task_key=task_key, number=number, **{**needed, **rest, **chosen})


def token(key=1, **chosen):
    """Return a token's row, of an operator."""
    needed = {"namespace": "default", "public_id": f"token-{key}", "digest": f"digest {key}"}
    rest = {"kind": TokenKind.USER, "name": f"token {key}", "role": Role.OPERATOR, "subject": ""}
    made = {"created_at": 1, "created_by": "somebody"}
    return Token(key=key, **{**needed, **rest, **made, **chosen})


def event(resource_id="task-1", **chosen):
    """Return an event."""
    needed = {"kind": EventKind.TASK_STATUS, "namespace": "default", "at": 1}
    return Event(resource_id=resource_id, **{**needed, **chosen})


def new(**records):
    """Return Changes of new rows: `new(tasks=[…], agents=[…], dependencies=[…])`."""
    plain = ("dependencies", "logs", "requests", "events")
    return Changes(**{n if n in plain else f"new_{n}": rows for n, rows in records.items()})


def changed(**records):
    """Return Changes of rows that were edited."""
    keyed = {
        name: {(row.task_key, row.number) if name == "attempts" else row.key: row for row in rows}
        for name, rows in records.items()
    }
    return Changes(**keyed)
