"""A database written by an earlier schema opens, is brought up to date, and works on."""

import json
from dataclasses import replace

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, insert, text

from server.domain.ledger import Ledger
from server.domain.log import LogLine
from server.domain.policy import Policy
from server.domain.submitting import CreateTask, NewTask, UpdateTask
from server.domain.task import TaskSpec
from server.stores.log_blocks import lines_of
from server.stores.sql import log_rows
from server.stores.sql.database import PostgresDatabase, SqliteDatabase
from server.stores.sql.migrate import config, current_version, revisions
from server.stores.sql.reader import SqlReader
from server.stores.sql.rows import AGENT, TASK
from tests.fakes.memory_source import MemoryDatabase
from tests.records import agent

NOW = 1_700_000_000_000
EARLIER = [
    "0001",
    "0002",
    "0003",
    "0004",
    "0005",
    "0006",
    "0007",
    "0008",
    "0009",
    "0010",
    "0011",
    "0012",
    "0013",
    "0014",
    "0015",
    "0016",
    "0017",
]
PACKED = "0005"
"""From this schema on a log is kept in blocks; before, it was JSON."""
OLD_LINES = [
    [NOW, "stdout", "info", "one", "", False],
    [NOW + 1, "stderr", "warn", "\ufffd", "ff", True],
]
KEPT_LINES = [
    LogLine(NOW, "stdout", "info", "one"),
    LogLine(NOW + 1, "stderr", "warn", "\ufffd", b"\xff", True),
]
OLD_LOG = (
    "INSERT INTO logs (task_key, attempt, first_line, namespace, lines, data)"
    " SELECT key, 1, 1, 'default', 2, :data FROM tasks"
)


def submit(task_id):
    def work(source):
        ledger = Ledger(source, NOW, Policy())
        new = NewTask("kept", TaskSpec(("true",)))
        CreateTask("default", task_id, new, "somebody").decide(ledger)
        ledger.finish()

    return work


def write_earlier(connection, keys, revision):
    """Make a database of an earlier schema, with a task and an agent in it."""
    settings = config()
    settings.attributes["connection"] = connection
    command.upgrade(settings, revision)
    earlier = MetaData()
    earlier.reflect(connection)
    rows = MemoryDatabase()
    rows.transact_now(submit("old"))
    key = keys.take(connection)
    for class_key, canonical in rows.tables.classes.items():
        classes = earlier.tables["task_classes"]
        connection.execute(insert(classes).values(class_key=class_key, canonical=canonical))
    for record, kept in (
        (TASK, replace(next(iter(rows.tables.tasks.values())), key=key)),
        (AGENT, agent(key, public_id="old")),
    ):
        table = earlier.tables[record.table.name]
        values = {name: v for name, v in record.full(kept).items() if name in table.c}
        for name in values:
            table.c[name].type = record.table.c[name].type  # what JSON is, SQLite does not tell
        connection.execute(insert(table).values(values))
    if revision < PACKED:
        connection.execute(text(OLD_LOG), {"data": json.dumps(OLD_LINES).encode()})


@pytest.fixture
async def make(request, tmp_path):
    """Return a function that makes an unopened database holding an earlier schema."""
    made = []

    async def make_sqlite(revision):
        database = SqliteDatabase(tmp_path / "muster.db")

        def write():
            with database._writer.begin() as connection:
                write_earlier(connection, database._keys, revision)

        await database._in_thread(write)
        return database

    async def make_postgresql(revision):
        postgres = request.getfixturevalue("postgres")
        database = PostgresDatabase(postgres.url(await postgres.create()))
        async with database._engine.begin() as connection:
            await connection.run_sync(lambda c: write_earlier(c, database._keys, revision))
        return database

    async def make(kind, revision):
        database = await {"sqlite": make_sqlite, "postgresql": make_postgresql}[kind](revision)
        made.append(database)
        return database

    yield make
    for database in made:
        await database.close()


@pytest.mark.parametrize("revision", EARLIER)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_an_earlier_database_is_upgraded_and_works_on(make, kind, revision):
    database = await make(kind, revision)
    await database.open()
    async with database.reading() as connection:
        version = await connection.run_sync(current_version)
        names = await connection.scalars(text("SELECT name FROM tasks"))
        assert (version, list(names)) == (revisions()[-1], ["kept"])

    def change(source):
        ledger = Ledger(source, NOW, Policy())
        UpdateTask("default", "old", name="changed").decide(ledger)
        ledger.finish()

    await database.transact(submit("new"))
    await database.transact(change)
    reader = SqlReader(database)
    view = await reader.task("default", "old")
    assert view.task.name == "changed"
    assert (view.task.priority, view.task.start_by, view.crowd) == (5, None, None)
    # What waits goes before what was submitted after it.
    ready = await database.transact(lambda source: source.ready_tasks(view.task.queue, 9))
    assert [task.public_id for task in ready] == ["old", "new"]
    ((found, held),) = await reader.agents("default")
    assert (found, held) == (agent(found.key, public_id="old"), 0)
    async with database.reading() as connection:
        blocks = log_rows.blocks(connection, view.task.key, 1, 1)
        lines = [line async for block in blocks for line in lines_of(block.block)]
        assert lines == ([] if revision >= PACKED else KEPT_LINES)


def test_the_files_of_the_migrations_bear_their_revisions():
    scripts = list(ScriptDirectory.from_config(config()).walk_revisions())
    assert [script.revision for script in reversed(scripts)] == revisions()
