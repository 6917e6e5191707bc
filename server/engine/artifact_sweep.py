"""Deletes artifacts whose time is up, whose task is gone, or that were never handed in whole."""

import asyncio

import structlog

from server.domain.artifact import Artifact
from server.domain.errors import NotFound, StoreUnavailable
from server.domain.handing_in import DeleteArtifact, ForgetArtifact
from server.engine.clock import Clock
from server.engine.surviving import survives
from server.engine.writer import Writer
from server.stores.interfaces import ObjectStore, Reader

STEP = 100
STEP_PAUSE = 0.05
ROUND_SECONDS = 30.0

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
        while True:
            await survives("artifact sweep", self.sweep)
            await asyncio.sleep(ROUND_SECONDS)

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
