"""What is left to look at when a run is over: the database, the journal, processes, folders."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import select
from sqlalchemy.ext.asyncio import create_async_engine

from server.domain.changes import LogBatch
from server.stores.log_blocks import lines_of
from server.stores.log_journal import scan
from server.stores.sql import log_rows, tables
from tests.chaos.workload import RUN_MARK, Submitted

ATTEMPT_MARK = "MUSTER_ATTEMPT"
Row = dict[str, Any]


@dataclass
class Evidence:
    """Everything the checks look at."""

    submitted: Submitted
    tasks: list[Row] = field(default_factory=list)
    attempts: list[Row] = field(default_factory=list)
    events: list[Row] = field(default_factory=list)
    logs: list[Row] = field(default_factory=list)
    dependencies: list[Row] = field(default_factory=list)
    runs: list[Row] = field(default_factory=list)
    agents: list[Row] = field(default_factory=list)
    journal: list[str] = field(default_factory=list)
    """Lines `TASK/ATTEMPT start` and `TASK/ATTEMPT end`, in the order they were written."""
    processes: list[str] = field(default_factory=list)
    """Processes of tasks that live though all have ended."""
    left_over: dict[str, list[str]] = field(default_factory=dict)
    """What lies in the agents' spools, by agent."""
    infra_retry_limit: int = 3


async def read_database(evidence: Evidence, url: str, folder: Path) -> None:
    """Read every table that the checks need, from a database at rest."""
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            for name in ("tasks", "attempts", "dependencies", "runs", "agents"):
                table = getattr(tables, name)
                rows = await connection.execute(select(table).order_by(*table.primary_key))
                setattr(evidence, name, [dict(row) for row in rows.mappings()])
            events = await connection.execute(
                select(tables.events).order_by(tables.events.c.position)
            )
            evidence.events = [dict(row) for row in events.mappings()]
            logs = await connection.execute(select(tables.logs).order_by(*tables.logs.primary_key))
            evidence.logs = [_opened(dict(row), folder) for row in logs.mappings()]
    finally:
        await engine.dispose()


def _opened(row: Row, folder: Path) -> Row:
    data = row.pop("data")
    if row["blob"] is not None:
        whole = (folder / "blobs" / row["blob"]).read_bytes()
        data = whole[row["blob_offset"] :][: row["blob_size"]]
    block = log_rows.block_of([row[name] for name in log_rows.HEAD], data)
    row["texts"] = [line.text for line in lines_of(block)]
    return row


def read_log_journal(evidence: Evidence, folder: Path) -> None:
    """Read the blocks that are in the journal of a server at rest, and nowhere else."""
    through: dict[tuple[int, int], int] = {}
    for row in evidence.logs:
        through[row["task_key"], row["attempt"]] = row["first_line"] + row["lines"] - 1
    journal = folder / "journal"
    for entry in scan(journal).entries:
        data = (journal / f"{entry.file:010d}.log").read_bytes()
        block = replace(entry.block, data=data[entry.offset : entry.offset + entry.size])
        if block.first_line > through.get(entry.key, 0):
            row = log_rows.log_row(LogBatch(*entry.key, "", block))
            evidence.logs.append(_opened(row, folder))


def read_journal(path: Path) -> list[str]:
    """Return what the tasks themselves wrote down."""
    return path.read_text().splitlines() if path.exists() else []


def living(run: str) -> list[psutil.Process]:
    """Return the processes of tasks of a run, wherever they hide."""
    return [process for process in psutil.process_iter() if _of_run(process, run)]


def _of_run(process: psutil.Process, run: str) -> bool:
    try:
        environment = process.environ()
        return (
            environment.get(RUN_MARK) == run
            and ATTEMPT_MARK in environment
            and process.status() != psutil.STATUS_ZOMBIE
        )
    except psutil.Error:
        return False


def described(processes: Iterable[psutil.Process]) -> list[str]:
    """Return processes as people can read them."""
    found = []
    for process in processes:
        try:
            attempt = process.environ().get(ATTEMPT_MARK)
            found.append(f"pid {process.pid} of {attempt}: {process.cmdline()}")
        except psutil.Error:
            continue
    return found
