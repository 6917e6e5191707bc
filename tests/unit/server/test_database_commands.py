"""`muster-server db`: what is damaged is told, and a copy is whole."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from server.database_commands import RULES, check, run
from server.domain.ledger import Ledger
from server.domain.log import LogLine, pack
from server.domain.policy import Policy
from server.domain.submitting import CreateTask, NewTask
from server.domain.task import TaskSpec
from server.settings import Settings
from server.stores.log_journal import LogJournal
from server.stores.sql.database import SqliteDatabase
from tests.records import agent, attempt, new, task

NOW = 1_700_000_000_000


@pytest.fixture
async def settings(tmp_path: Path) -> Settings:
    """Settings of a server that has kept one task."""
    settings = Settings(data_dir=tmp_path)
    database = SqliteDatabase(settings.sqlite_file)
    await database.open()

    def submit(source):
        ledger = Ledger(source, NOW, Policy())
        new = NewTask("one", TaskSpec(("true",)))
        CreateTask("default", "0190-task", new, "somebody").decide(ledger)
        ledger.finish()

    await database.transact(submit)
    await database.close()
    return settings


def change(settings: Settings, statement: str) -> None:
    with closing(sqlite3.connect(settings.sqlite_file)) as connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        connection.execute(statement)
        connection.commit()


async def test_a_sound_database_is_called_sound(settings, capsys):
    assert run(["check"], settings) == 0
    assert "sound" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        ("UPDATE tasks SET status = 4", "a time of its end"),
        ("UPDATE tasks SET status = 3", "a running task is leased"),
        ("UPDATE tasks SET status = 1", "a waiting task waits for something"),
        ("UPDATE tasks SET attempt = 2", "as many attempts"),
        ("UPDATE tasks SET status = 4, finished_at = 1, lease_agent = 9", "has no lease"),
        (
            "INSERT INTO events SELECT position + n, namespace, kind, at, resource_id, run_id, "
            "pipeline_id, '{\"status\": 4}' FROM events, (SELECT 5 AS n UNION SELECT 6)",
            "ends at most once",
        ),
    ],
)
async def test_each_damage_is_told_with_its_task(settings, capsys, damage, rule):
    change(settings, damage)
    assert run(["check"], settings) == 1
    told = capsys.readouterr().err
    assert rule in told
    assert "0190-task" in told


async def test_every_rule_is_a_query_the_database_understands(settings):
    with closing(sqlite3.connect(settings.sqlite_file)) as connection:
        for query in RULES.values():
            assert connection.execute(query).fetchall() == []


async def test_a_file_of_another_kind_is_told(settings, capsys):
    settings.sqlite_file.write_bytes(b"not a database" * 1000)
    assert run(["check"], settings) == 1
    assert "cannot read the database" in capsys.readouterr().err


async def test_a_backup_is_a_sound_database_with_the_same_rows(settings, tmp_path):
    target = tmp_path / "copy.db"
    with closing(sqlite3.connect(settings.sqlite_file)) as writer:
        # A server that works on: its open transaction is not in the copy, and does not stop it.
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE tasks SET name = 'later'")
        assert run(["backup", str(target)], settings) == 0
        writer.rollback()
    copy = Settings(data_dir=tmp_path, database_url=f"sqlite:///{target}")
    assert run(["check"], copy) == 0
    with closing(sqlite3.connect(target)) as connection:
        assert connection.execute("SELECT name FROM tasks").fetchall() == [("one",)]


async def test_a_backup_never_replaces_a_file(settings, tmp_path, capsys):
    target = tmp_path / "copy.db"
    target.write_text("precious")
    assert run(["backup", str(target)], settings) == 1
    assert target.read_text() == "precious"
    assert "exists" in capsys.readouterr().err


async def test_a_backup_that_fails_leaves_nothing(settings, tmp_path):
    missing = tmp_path / "nowhere" / "copy.db"
    assert run(["backup", str(missing)], settings) == 1
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


async def test_an_unknown_word_is_wrong_usage(settings):
    assert run(["polish"], settings) == 2


# ---- logs


@pytest.fixture
async def logged(settings):
    """Return the journal's folder after a server has acknowledged two lines of task `t`."""
    folder = settings.log_folder / "journal"
    journal = LogJournal(folder)
    await journal.open()
    running = asyncio.ensure_future(journal.run())
    for number, text in enumerate(("one", "two"), 1):
        line = LogLine(1, "stdout", "info", text)
        await journal.append((99, 1), [pack(number, [line])])
    journal.stop()
    await running
    await journal.close()
    database = SqliteDatabase(settings.sqlite_file)
    await database.open()
    rows = new(
        agents=[agent(99)],
        tasks=[task(99, attempt=1, lease_agent=99, class_key="any")],
        attempts=[attempt(99, 1, log_lines=2)],
    )
    await database.transact(lambda source: source.save(rows))
    await database.close()
    return folder


async def test_what_is_only_in_the_journal_is_no_hole(settings, logged):
    assert check(settings) == []


async def test_a_journal_that_is_damaged_or_gone_is_found(settings, logged):
    path = next(path for path in logged.glob("*.log") if path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    assert check(settings) == [
        f"the journal of logs is damaged: {path.name}, byte 0",
        "a log has no hole: broken by task-99/1",
    ]
    path.unlink()
    assert check(settings) == ["a log has no hole: broken by task-99/1"]


async def test_a_backup_takes_the_logs_along(settings, logged, tmp_path):
    target = tmp_path / "copy.db"
    assert run(["backup", str(target)], settings) == 0
    copied = settings.model_copy(update={"database_url": f"sqlite:///{target}"})
    assert check(copied) == []
    assert run(["backup", str(target.with_name("copy.other"))], settings) == 1
