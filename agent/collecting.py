"""What a task leaves behind: its artifacts are kept before its end is told."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from agent.executor import Identity
from agent.supervisor.frames import Message


class CannotCollect(Exception):  # noqa: N818 (it is the task's failure)
    """Artifacts cannot be kept; the message says why.

    Attributes:
        elsewhere: Whether another try of the task may do better.
    """

    def __init__(self, message: str, *, elsewhere: bool) -> None:
        super().__init__(message)
        self.elsewhere = elsewhere


class Collector(Protocol):
    """Keeps artifacts."""

    async def collect(
        self, identity: Identity, workspace: Path, wanted: Sequence[Message]
    ) -> list[str]:
        """Keeps the files that are wanted, and returns remarks for the task's log.

        Raises:
            CannotCollect: Some cannot be kept.
        """
