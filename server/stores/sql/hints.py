"""Hints between servers through PostgreSQL's LISTEN and NOTIFY.

Sent from a connection of their own after the commit they speak of, many commits in one: a NOTIFY
in every transaction would make all of them queue for one lock.
"""

import asyncio
import json
from collections.abc import Callable, Iterable
from uuid import uuid4

import asyncpg
import structlog
from sqlalchemy import URL

CHANNEL = "muster"
COALESCE_SECONDS = 0.01
RETRY_SECONDS = 1.0
# A payload may have 8000 bytes; the ids of this many tasks fit with room to spare.
LOG_TASKS = 100

# The last one is what asyncpg says when a connection breaks while it is between two steps.
PASSING = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

log = structlog.get_logger(__name__)


class PostgresHints:
    """See interfaces.Hints."""

    shared = True

    def __init__(self, url: URL) -> None:
        self._url = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._me = uuid4().hex
        self._news = asyncio.Event()
        self._log_tasks: set[str] = set()

    def say(self, log_tasks: Iterable[str]) -> None:
        """See Hints."""
        self._log_tasks.update(log_tasks)
        self._news.set()

    async def run(self, heard: Callable[[list[str]], None]) -> None:
        """See Hints."""
        while True:
            try:
                await self._talk(heard)
            except PASSING as error:
                log.warning("hints_wait", reason=str(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def _talk(self, heard: Callable[[list[str]], None]) -> None:
        def on_hint(_connection: object, _pid: int, _channel: str, payload: object) -> None:
            sender, log_tasks = json.loads(str(payload))
            if sender != self._me:
                heard(log_tasks)

        connection = await asyncpg.connect(self._url, timeout=5)
        try:
            await connection.add_listener(CHANNEL, on_hint)
            heard([])  # something may have been said while nobody listened
            while True:
                await self._news.wait()
                await asyncio.sleep(COALESCE_SECONDS)
                self._news.clear()
                names = sorted(self._log_tasks)[:LOG_TASKS]
                self._log_tasks.clear()
                payload = json.dumps([self._me, names])
                await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, payload, timeout=5)
        finally:
            await connection.close(timeout=2)
