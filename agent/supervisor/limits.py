"""What attempts may take on the host."""

from dataclasses import dataclass

from agent.spool import SEGMENT_BYTES, SPARE_BYTES


@dataclass(frozen=True)
class Limits:
    """Bounds of one attempt's spool."""

    spool_bytes: int = 256 * 1024 * 1024
    """Output the server does not have yet; beyond it the task's pipe is not read."""

    spare_disk: int = SPARE_BYTES
    """Free bytes below which no task starts and no pipe is read; less on a small disk."""

    segment_bytes: int = SEGMENT_BYTES
    """Size of one segment of output."""
