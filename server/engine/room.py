"""Leaves room on a disk for the database: what only moves or copies waits while there is little."""

import structlog

from server.stores.interfaces import BlobStore

SPARE_BYTES = 64 * 1024 * 1024
SPARE_SHARE = 20
"""What blobs leave free on their disk: so many bytes, or one part in so many of a small disk."""

log = structlog.get_logger(__name__)


class SpareRoom:
    """Whether there is room for blobs. Says once that there is none, and once that there is again.

    `what` names in the log what waits meanwhile.
    """

    def __init__(self, blobs: BlobStore, what: str) -> None:
        self._blobs = blobs
        self._what = what
        self._waits = False

    async def is_there(self) -> bool:
        """Return whether a blob may be written."""
        room = await self._blobs.room()
        full = room is not None and room.free < min(SPARE_BYTES, room.total // SPARE_SHARE)
        if full and not self._waits:
            free = room.free if room is not None else None
            log.error(f"{self._what}_waits", reason="the disk is full", free=free)
        if self._waits and not full:
            log.info(f"{self._what}_goes_on")
        self._waits = full
        return not full
