"""`muster-server db`: look after the database, also while a server works on it."""

import os
import shutil
import sqlite3
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import click
from sqlalchemy import Connection, create_engine, make_url, text

from server.domain.log import LogBlock, LogKey
from server.settings import LOG_SUFFIX, Settings
from server.stores.log_journal import Scan, scan
from server.stores.sql.migrate import VERSION_TABLE, current_version

PAGES_AT_ONCE = 1000
_HAS_SCHEMA = f"SELECT 1 FROM sqlite_master WHERE name = '{VERSION_TABLE}'"  # noqa: S608 (a constant)

# What must hold in every database at rest: a sentence, and a query that finds what breaks it.
RULES = {
    "an ended task has no lease": """
        SELECT public_id FROM tasks WHERE status >= 4 AND lease_agent IS NOT NULL""",
    "an ended task has a time of its end, and no other has": """
        SELECT public_id FROM tasks WHERE (status >= 4) <> (finished_at IS NOT NULL)""",
    "a running task is leased": """
        SELECT public_id FROM tasks WHERE status = 3 AND lease_agent IS NULL""",
    "a waiting task waits for something": """
        SELECT public_id FROM tasks WHERE status = 1 AND unmet = 0 AND not_before IS NULL""",
    "a task has as many attempts as it says": """
        SELECT public_id FROM tasks t
        WHERE attempt <> (SELECT count(*) FROM attempts a WHERE a.task_key = t.key)""",
    "a task ends at most once": """
        SELECT resource_id FROM events WHERE kind = 'task.status'
        AND json_extract(data, '$.status') >= 4 GROUP BY resource_id HAVING count(*) > 1""",
    "no agent holds more tasks than it has slots": """
        SELECT public_id FROM agents g
        WHERE slots < (SELECT count(*) FROM tasks t WHERE t.lease_agent = g.key)""",
}

# Logs of which the rows have fewer lines than were acknowledged: the journal must have the rest.
SHORT_LOGS = """
    SELECT t.public_id, a.task_key, a.number, a.log_lines,
    (SELECT coalesce(sum(l.lines), 0) FROM logs l
    WHERE l.task_key = a.task_key AND l.attempt = a.number) AS stored
    FROM attempts a JOIN tasks t ON t.key = a.task_key WHERE a.log_lines > stored"""


class DatabaseCommandError(Exception):
    """The command cannot be carried out; the message says why."""


def check(settings: Settings) -> list[str]:
    """Return what is wrong with the database, a line each.

    Raises:
        DatabaseCommandError: it cannot be read.
    """
    problems: list[str] = []
    file = _file(settings)
    engine = create_engine("sqlite://", creator=lambda: _read_only(file))
    try:
        with engine.connect() as connection:
            problems += _broken_file(connection)
            if current_version(connection) is None:
                return [*problems, "it has no schema of Muster's"]
            problems += _broken_rules(connection)
            problems += _broken_logs(connection, settings.log_folder)
    except Exception as error:
        raise DatabaseCommandError(f"cannot read the database: {error}") from error
    finally:
        engine.dispose()
    return problems


def _file(settings: Settings) -> Path:
    file = settings.sqlite_file
    if file is None:
        raise DatabaseCommandError("checking PostgreSQL is its own tools' work: use pg_amcheck")
    if not file.exists():
        raise DatabaseCommandError(f"there is no database at {file}")
    return file


def _read_only(file: Path) -> sqlite3.Connection:
    """Open a database without changing or creating anything, whatever its name holds."""
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)


def _broken_file(connection: Connection) -> Iterator[str]:
    for (line,) in connection.execute(text("PRAGMA integrity_check(20)")):
        if line != "ok":
            yield f"the file is damaged: {line}"
    for row in connection.execute(text("PRAGMA foreign_key_check")):
        yield f"a row of {row[0]} refers to a row of {row[2]} that does not exist"


def _broken_rules(connection: Connection) -> Iterator[str]:
    for rule, query in RULES.items():
        found = [str(row[0]) for row in connection.execute(text(f"{query} LIMIT 5"))]
        if found:
            yield f"{rule}: broken by {', '.join(found)}"


def _broken_logs(connection: Connection, folder: Path | None) -> Iterator[str]:
    found = scan(folder / "journal") if folder is not None else Scan()
    for place in found.damage:
        yield f"the journal of logs is damaged: {place}"
    journal: defaultdict[LogKey, list[LogBlock]] = defaultdict(list)
    for entry in found.entries:
        journal[entry.key].append(entry.block)
    broken = []
    for task_id, task_key, number, lines, stored in connection.execute(text(SHORT_LOGS)):
        for block in journal[task_key, number]:
            if block.first_line <= stored + 1:
                stored = max(stored, block.last_line)
        if stored < lines:
            broken.append(f"{task_id}/{number}")
    if broken:
        yield f"a log has no hole: broken by {', '.join(broken[:5])}"


def backup(settings: Settings, target: Path) -> None:
    """Write a consistent copy of the database and its logs; a server may go on working on it.

    Raises:
        DatabaseCommandError: the target exists, or the copy cannot be made.
    """
    logs = target.with_suffix(LOG_SUFFIX)
    if target.exists() or logs.exists():
        raise DatabaseCommandError(f"{target if target.exists() else logs} exists; name another")
    partial = target.with_name(f".{target.name}.partial")
    partial_logs = target.with_name(f".{logs.name}.partial")
    try:
        if settings.sqlite_file is not None and settings.log_folder is not None:
            _file(settings)
            # In this order: what moves from the journal meanwhile is in rows by then.
            partial_logs.mkdir(mode=0o700)
            _copy_folder(settings.log_folder / "journal", partial_logs / "journal")
            _copy_sqlite(_file(settings), partial)
            _copy_folder(settings.log_folder / "blobs", partial_logs / "blobs")
            partial_logs.replace(logs)
        else:
            _dump_postgres(settings.database_url, partial)
        partial.replace(target)
    except (OSError, sqlite3.Error) as error:
        raise DatabaseCommandError(f"cannot back up to {target}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
        shutil.rmtree(partial_logs, ignore_errors=True)


def _copy_folder(source: Path, target: Path) -> None:
    """Copy files that are only appended to, replaced as a whole, or deleted."""
    target.mkdir(mode=0o700)
    for path in sorted(source.rglob("*")):
        copy = target / path.relative_to(source)
        if path.is_dir():
            copy.mkdir(exist_ok=True)
            continue
        try:
            shutil.copyfile(path, copy)
        except FileNotFoundError:
            continue  # nothing needed it any more
        _sync(copy)


def _copy_sqlite(file: Path, target: Path) -> None:
    with (
        closing(_read_only(file)) as source,
        closing(sqlite3.connect(target)) as copy,
    ):
        # One read transaction sees one state, however long the copy takes.
        source.execute("BEGIN")
        if not source.execute(_HAS_SCHEMA).fetchone():
            raise DatabaseCommandError(f"{file} holds no tables of Muster's")
        source.backup(copy, pages=PAGES_AT_ONCE)
    _sync(target)


def _dump_postgres(url: str, target: Path) -> None:
    program = shutil.which("pg_dump")
    if program is None:
        raise DatabaseCommandError("pg_dump is not on PATH; it comes with PostgreSQL's client")
    parsed = make_url(url).set(drivername="postgresql")
    environment = {**os.environ, "PGPASSWORD": str(parsed.password or "")}
    name = parsed.set(password=None).render_as_string()
    done = subprocess.run(  # noqa: S603 (the program found on PATH, arguments of our own)
        [program, "--format=custom", f"--file={target}", f"--dbname={name}"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DatabaseCommandError(f"pg_dump failed: {done.stderr.strip()}")
    _sync(target)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def run(arguments: list[str], settings: Settings) -> int:
    """Carry out `db check` or `db backup FILE`; return the exit code."""
    try:
        match arguments:
            case ["check"]:
                problems = check(settings)
                for problem in problems:
                    click.echo(problem, err=True)
                state = "damaged" if problems else "sound"
                click.echo(f"The database {_file(settings)} is {state}.")
                return 1 if problems else 0
            case ["backup", target]:
                backup(settings, Path(target))
                click.echo(f"Backed up {settings.sqlite_file or 'the database'} to {target}.")
                return 0
    except DatabaseCommandError as error:
        click.echo(f"Error: {error}", err=True)
        return 1
    click.echo("Usage: muster-server [OPTIONS] db check | db backup FILE", err=True)
    return 2
