"""Brings secrets under the current key, a few at a time, after a new one was put first."""

import asyncio

import structlog

from server.domain.keeping_secrets import RewrapSecret, RewrapTask
from server.domain.task import TaskSpec
from server.engine.surviving import survives
from server.engine.writer import Writer
from server.sealing import Sealer, SealingError, bound_to
from server.stores.interfaces import Reader

ROUND_SECONDS = 60.0
TASKS_EVERY = 60
"""Rounds between two looks at open tasks."""

STEP = 50
STEP_PAUSE = 0.05

log = structlog.get_logger(__name__)


class SecretRewrapper:
    """See the module."""

    def __init__(self, writer: Writer, reader: Reader, sealer: Sealer) -> None:
        self._writer = writer
        self._reader = reader
        self._sealer = sealer

    async def run(self) -> None:
        """Rewrap until cancelled."""
        rounds = 0
        while True:
            await survives("rewrapping secrets", self.rewrap)
            if rounds % TASKS_EVERY == 0:  # it looks at every open task
                await survives("rewrapping tasks' secrets", self.rewrap_tasks)
            rounds += 1
            await asyncio.sleep(ROUND_SECONDS)

    async def rewrap_tasks(self) -> int:
        """Bring what open tasks have brought along under the current key; return how many."""
        done, after = 0, 0
        while found := await self._reader.sealed_not_under(self._sealer.current, after, STEP):
            for task in found:
                after = task.key
                sealed = TaskSpec.from_json(task.spec).sealed
                try:
                    anew = self._sealer.rewrap_all(sealed, task.namespace)
                except SealingError as error:
                    log.warning("a task's secrets stay under their key", reason=str(error))
                    continue
                done += await self._writer.submit(RewrapTask(task.public_id, sealed, anew))
            await asyncio.sleep(STEP_PAUSE)
        if done:
            log.info("tasks' secrets are under a new key", tasks=done, key=self._sealer.current)
        return done

    async def rewrap(self) -> int:
        """Bring all under the current key that can be; return how many were not."""
        done, after = 0, 0
        while found := await self._reader.secrets_not_under(self._sealer.current, after, STEP):
            for secret in found:
                after = secret.key
                try:
                    wrapped = self._sealer.rewrap(secret.kek, secret.wrapped, *bound_to(secret))
                except SealingError as error:
                    log.warning("a secret stays under its key", reason=str(error))
                    continue
                current = self._sealer.current
                command = RewrapSecret(
                    secret.namespace, secret.name, secret.wrapped, current, wrapped
                )
                done += await self._writer.submit(command)
            await asyncio.sleep(STEP_PAUSE)
        if done:
            log.info("secrets are under a new key", secrets=done, key=self._sealer.current)
        return done
