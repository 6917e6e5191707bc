"""Databases with a past: rows that the server itself has written, copied a million times.

One real task is run (or left queued) by a real server. Its rows are then copied inside SQLite with
new ids and moments, so that they have every column and every value the server gives them.
"""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from sqlalchemy import Table

from bench.lab import Lab
from bench.workloads import NOOP
from generated.task.v1 import task_pb2
from server.stores.sql import tables

# A copy is this much older than the next, in ms: a million of them are younger than the five to
# seven days after which events would be removed.
APART = 400
FOREIGN = task_pb2.LabelSelector(match_labels={"role": "nobody-has-this"})

# `n` counts the copies from 1; the last is the youngest, and all are older than the original.
_MOMENT = "{column} - (:number - n) * :apart"
_PUBLIC_ID = "printf('00000000-0000-7000-8000-%012x', n)"
_TASK = {
    "key": ":last_key + n",
    "public_id": _PUBLIC_ID,
    **dict.fromkeys(("created_at", "claimed_at", "started_at", "finished_at"), _MOMENT),
    "sort_key": _MOMENT,
}
_ATTEMPT = {
    "task_key": ":last_key + n",
    **dict.fromkeys(("claimed_at", "started_at", "ended_at"), _MOMENT),
}
_EVENT = {
    "position": ":last_position + (n - 1) * :events + position - :first_position + 1",
    "at": _MOMENT,
    "resource_id": _PUBLIC_ID,
}


async def seed_ended(lab: Lab, number: int) -> Path:
    """Return a server's folder with so many ended tasks, their attempts and events."""
    folder = lab.new_folder("s")
    async with lab.muster(slots=1, data_dir=folder) as muster:
        task_ids = await muster.client.create_many(NOOP, 1)
        await muster.client.wait_until_succeeded(task_ids, 1)
    multiply(folder / "muster.db", task_ids[0], number)
    return folder


async def seed_foreign(lab: Lab, number: int) -> Path:
    """Return a server's folder with so many queued tasks that no agent fits."""
    folder = lab.new_folder("s")
    async with lab.muster(slots=1, data_dir=folder) as muster:
        request = task_pb2.CreateTaskRequest(label_selector=FOREIGN)
        request.MergeFrom(NOOP)
        task_ids = await muster.client.create_many(request, 1)
    multiply(folder / "muster.db", task_ids[0], number)
    return folder


def multiply(database: Path, task_id: str, number: int) -> None:
    """Copy a task with its attempts and events so many times, in the database of no server."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        (key,) = connection.execute(
            "SELECT key FROM tasks WHERE public_id = ?", [task_id]
        ).fetchone()
        sequence = dict(connection.execute("SELECT name, next FROM sequences"))
        events, first = connection.execute(
            "SELECT count(*), min(position) FROM events WHERE resource_id = ?", [task_id]
        ).fetchone()
        values = {
            "key": key,
            "task_id": task_id,
            "number": number,
            "apart": APART,
            "last_key": sequence["keys"],
            "last_position": sequence["events"],
            "first_position": first,
            "events": events,
        }
        connection.execute(_copies(tables.tasks, _TASK, "key = :key"), values)
        connection.execute(_copies(tables.attempts, _ATTEMPT, "task_key = :key"), values)
        connection.execute(_copies(tables.events, _EVENT, "resource_id = :task_id"), values)
        _advance(connection, "keys", number)
        _advance(connection, "events", number * events)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _copies(table: Table, changed: Mapping[str, str], original: str) -> str:
    """Return the statement that copies the original's rows with some columns changed."""
    names = [column.name for column in table.columns]
    values = [changed.get(name, name).format(column=name) for name in names]
    return (
        f"INSERT INTO {table.name} ({', '.join(names)})"  # noqa: S608 - names of our own tables
        " WITH RECURSIVE copies(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM copies"
        " WHERE n < :number)"
        f" SELECT {', '.join(values)} FROM copies, {table.name} WHERE {original}"
    )


def _advance(connection: sqlite3.Connection, name: str, by: int) -> None:
    connection.execute("UPDATE sequences SET next = next + ? WHERE name = ?", [by, name])
