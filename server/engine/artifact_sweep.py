"""Deletes artifacts whose time is up, whose task is gone, or that were never handed in whole."""

import asyncio
from itertools import count

import structlog

from server.domain.artifact import ABANDONED, INCOMING, Artifact
from server.domain.errors import NotFound, StoreUnavailable
from server.domain.handing_in import DeleteArtifact, ForgetArtifact
from server.engine.clock import Clock
from server.engine.surviving import survives
from server.engine.writer import Writer
from server.stores.interfaces import Lender, ObjectStore, Reader

STEP = 100
STEP_PAUSE = 0.05
ROUND_SECONDS = 30.0
INCOMING_ROUNDS = 120
"""Every how many rounds it is looked for what producers put by themselves and never announced."""

log = structlog.get_logger(__name__)


class ArtifactSweep:
    """See the module."""

    def __init__(self, writer: Writer, reader: Reader, store: ObjectStore, clock: Clock) -> None:
        self._writer = writer
        self._reader = reader
        self._store = store
        self._clock = clock

    async def run(self) -> None:
        """Sweep until cancelled."""
        for turn in count():
            await survives("artifact sweep", self.sweep)
            if turn % INCOMING_ROUNDS == 0:
                await survives("sweep of incoming objects", self.sweep_incoming)
            await asyncio.sleep(ROUND_SECONDS)

    async def sweep_incoming(self) -> None:
        """Delete what was put so long ago that its grant has ended, and its upload is given up."""
        if not isinstance(self._store, Lender) or not self._store.lends:
            return
        try:
            before = self._clock.now() - 2 * ABANDONED
            deleted = await self._store.delete_older(INCOMING, before)
        except StoreUnavailable as error:
            log.warning("incoming objects stay for now", reason=str(error))
            return
        if deleted:
            log.info("incoming objects deleted", objects=deleted)

    async def sweep(self) -> int:
        """Delete what is to go; return how many artifacts that were."""
        deleted = 0
        for artifact in await self._reader.orphaned_artifacts(STEP):
            await self._mark(artifact)
        while found := await self._reader.artifacts_due(self._clock.now(), STEP):
            before = deleted
            for artifact in found:
                deleted += await self._delete(artifact)
            if deleted == before or len(found) < STEP:
                break
            await asyncio.sleep(STEP_PAUSE)
        if deleted:
            log.info("artifacts deleted", artifacts=deleted)
        return deleted

    async def _mark(self, artifact: Artifact) -> None:
        """Let nobody see it any more."""
        try:
            await self._writer.submit(DeleteArtifact(None, artifact.public_id))
        except NotFound:  # somebody else was quicker
            return

    async def _delete(self, artifact: Artifact) -> int:
        """Delete bytes first and the row last: what is left half done is done again."""
        if not artifact.deleted:
            await self._mark(artifact)
        try:
            await self._store.abort(artifact.blob)
            await self._store.delete(artifact.blob)
        except StoreUnavailable as error:
            log.warning("artifact stays for now", artifact=artifact.public_id, reason=str(error))
            return 0
        await self._writer.submit(ForgetArtifact(artifact.public_id))
        return 1
