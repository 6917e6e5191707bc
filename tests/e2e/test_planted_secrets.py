"""Secrets planted in a run: the task has them, and they are nowhere else."""

import asyncio
import base64
import json
import secrets
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

import asyncpg
import psutil
import pytest

from tests.e2e.kit import eventually
from tests.e2e.scripts import Gate
from tests.postgres import PostgresServer

NAMED = f"named-{uuid.uuid4().hex}"
ALONG = f"along-{uuid.uuid4().hex}"
CHANGED = f"changed-{uuid.uuid4().hex}"
OPEN = f"open-{uuid.uuid4().hex}"
"""No secret: it has to be found, or the search sees nothing."""


class Walled:
    """A server that asks who calls, its agent, and all places where a secret could lie."""

    def __init__(self, kit, database, *flags):
        self.kit = kit
        self._database = database
        made = kit.launcher.run([*kit.server_program, *flags[:2], "token", "root"])
        assert made.returncode == 0, made.stderr
        self._env = {"MUSTER_TOKEN": made.stdout.strip(), "MUSTER_KEYRING": "off"}
        self.server = kit.start_server("--auth", "on", *flags)
        token = kit.folder / "enrolment"
        token.write_text(self.run("token", "enrol", "hosts"))
        self.agent = kit.start_agent(self.server, "--enrolment-token-file", str(token), slots=2)

    def run(self, *arguments, stdin="", code=0):
        done = self.kit.cli(*arguments, server=self.server, env=self._env, stdin=stdin)
        assert done.returncode == code, done.stderr
        return done.stdout

    def places(self):
        """Return what all places hold, by name."""
        return {
            "rows": self._database.rows(),
            "files": b"\0".join(
                file.read_bytes()
                for folder in (self.server.data_dir, self.agent.data_dir, *self._database.folders)
                for file in folder.rglob("*")
                if file.is_file()
            ),
            "audit": self.run("audit", "-o", "json").encode(),
            "events": self.run("events", "-o", "json").encode(),
            "tasks": self.run("task", "list", "-o", "json").encode(),
            "stderr": "".join(text for _, text in self.kit.stderr()).encode(),
            "processes": arguments().encode(),
        }


class Sqlite:
    """A database in a file."""

    folders = ()

    def __init__(self, file):
        self._file = file

    def rows(self):
        with closing(sqlite3.connect(f"file:{self._file}?mode=ro", uri=True)) as connection:
            names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            return told(
                row
                for (name,) in names.fetchall()
                for row in connection.execute(f'SELECT * FROM "{name}"')  # noqa: S608 - its own
            )


class Postgres:
    """A database on a server of its own."""

    def __init__(self, server):
        self._server = server
        self._name = asyncio.run(server.create())
        self.url = server.url(self._name).render_as_string(hide_password=False)
        self.folders = (server.folder / "data",)

    def rows(self):
        return asyncio.run(self._rows())

    async def _rows(self):
        connection = await asyncpg.connect(
            host=str(self._server.folder), user="muster", database=self._name
        )
        try:
            names = await connection.fetch(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
            )
            found = []
            for (name,) in names:
                found += await connection.fetch(f'SELECT * FROM "{name}"')  # noqa: S608 - its own
            return told(map(tuple, found))
        finally:
            await connection.close()


def told(rows):
    """Return all values of rows, text and bytes alike."""
    return b"\0".join(
        value if isinstance(value, bytes) else str(value).encode() for row in rows for value in row
    )


def arguments():
    found = []
    for process in psutil.process_iter(["cmdline"]):
        found.append(" ".join(process.info["cmdline"] or ()))
    return "\n".join(found)


@pytest.fixture(params=["sqlite", "postgres"])
def walled(kit, request):
    if request.param == "sqlite":
        data = kit.folder / "server"
        yield Walled(kit, Sqlite(data / "muster.db"), "--data-dir", str(data))
        return
    server = PostgresServer()
    try:
        database = Postgres(server)
        files = []
        for name, key in (
            ("signing-keys", "s" * 40),
            ("secret-keys", base64.b64encode(secrets.token_bytes(32)).decode()),
        ):
            file = kit.folder / name
            file.write_text(f"k1:{key}\n")
            file.chmod(0o600)
            files += [f"--{name}", str(file)]
        yield Walled(kit, database, "--database-url", database.url, *files)
        kit.launcher.end_all()
    finally:
        server.stop()


def forms(value):
    """Return a secret as it could be written down."""
    raw = value.encode()
    return {raw, base64.b64encode(raw), raw.hex().encode(), value[::-1].encode()}


def test_a_planted_secret_is_found_nowhere(walled, tmp_path):
    run = walled.run
    run("secret", "set", "db", stdin=NAMED)
    run("secret", "set", "db", stdin=CHANGED)
    run("secret", "set", "db", stdin=NAMED)
    gate = Gate(tmp_path)
    file = Path(tmp_path, "task.json")
    fields = {
        "name": "holds",
        "commands": [
            'echo "plain: $DB $ALONG"',
            'test "$(printf %s "$DB" | wc -c)" = ' + str(len(NAMED)),
            'printf %s "$ALONG" | base64',
            "echo kept > file.txt",
            gate.wait,
            "exit 3",
        ],
        "env": {"OPEN": OPEN},
        "secrets": {"ALONG": ALONG},
        "secret_refs": {"DB": "db"},
        "retry_count": 1,
        "artifacts": [{"name": "file", "path": "file.txt", "on_failure": True}],
    }
    file.write_text(json.dumps(fields))
    task_id = run("task", "create", "-f", str(file)).split()[0]
    file.unlink()

    def lines():
        return run("task", "logs", task_id, "--attempt", "1").splitlines()

    eventually(lambda: len(lines()) >= 2)
    assert [line.rstrip("=") for line in lines()] == ["plain: *** ***", "***"]
    walled.server.kill9()  # what the journal holds is searched as well
    walled.server.start()
    running = walled.places()
    gate.open()
    eventually(lambda: "FAILED" in run("task", "get", task_id))
    run("secret", "delete", "db")
    ended = walled.places()
    for places in (running, ended):
        for place, found in places.items():
            for value in (NAMED, ALONG, CHANGED):
                assert not [form for form in forms(value) if form in found], place
        assert OPEN.encode() in places["rows"]
        assert OPEN.encode() in places["files"]
        assert OPEN.encode() in places["tasks"]
        assert task_id.encode() in places["events"]
        assert b"secret.put" in places["audit"]
    assert b"secret.delete" in ended["audit"]
