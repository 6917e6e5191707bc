"""A real PostgreSQL that is crashed and comes back."""

import asyncio
import contextlib
import signal

import asyncpg

from tests.postgres import PostgresNotStartedError, PostgresServer

BACK_WITHIN = 60.0
MODES = {"immediate": signal.SIGQUIT, "kill": signal.SIGKILL, "fast": signal.SIGINT}
"""How it goes: pg_ctl's modes, and a kill -9 of the postmaster."""


class CrashingPostgres(PostgresServer):
    """See the module."""

    async def crash(self, mode: str, down: float):
        """End it, leave it down for so many seconds, and start it again.

        Raises:
            PostgresNotStartedError: it does not come back.
        """
        self._process.send_signal(MODES[mode])
        await self._gone()
        await asyncio.sleep(down)
        async with asyncio.timeout(BACK_WITHIN):
            while not await self._up():  # noqa: ASYNC110 (a process sets no event)
                await asyncio.sleep(0.2)

    async def _gone(self):
        loop = asyncio.get_running_loop()
        give_up = loop.time() + BACK_WITHIN
        while self._process.poll() is None:
            if loop.time() > give_up:
                raise PostgresNotStartedError("PostgreSQL does not stop:\n" + self._log_text())
            await asyncio.sleep(0.02)

    async def _up(self) -> bool:
        """Start it and return whether it answers: after a kill -9 its children need a moment."""
        self._process = self._start()
        while self._process.poll() is None:
            with contextlib.suppress(OSError, asyncpg.PostgresError, TimeoutError):
                connection = await asyncpg.connect(
                    host=str(self.folder), user="muster", database="postgres", timeout=5
                )
                await connection.close(timeout=5)
                return True
            await asyncio.sleep(0.05)
        return False

    def _log_text(self) -> str:
        return self._log.read_text(errors="replace")[-5000:]
