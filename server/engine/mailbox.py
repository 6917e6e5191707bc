"""Frames on their way to an agent's stream."""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TypeAlias

from server.domain.claiming import Assignment
from server.domain.errors import MusterError
from server.domain.lease import Verdict


@dataclass(frozen=True, slots=True)
class Work:
    """Tasks for the agent, with the number of their frame."""

    assignments: list[Assignment]
    frame: int


@dataclass(frozen=True, slots=True)
class Stop:
    """A task to end."""

    verdict: Verdict


@dataclass(frozen=True, slots=True)
class HandBackAll:
    """Word that the agent is given no work now, so that what has not started goes back."""


@dataclass(frozen=True, slots=True)
class Configure:
    """Settings that were made for the agent; one taken away is 0."""

    config: dict[str, int]


Frame: TypeAlias = Work | Stop | HandBackAll | Configure


class Mailbox:
    """Holds frames until the stream takes them."""

    def __init__(self, *, pushes: bool) -> None:
        self.pushes = pushes
        """Whether work may be pushed; v1 streams get it only when they ask."""
        self._frames: deque[Frame] = deque()
        self._news = asyncio.Event()
        self.closed = False
        self.error: MusterError | None = None
        """What to tell the agent when the mailbox is closed."""

    def put(self, frame: Frame) -> None:
        """Add a frame."""
        self._frames.append(frame)
        self._news.set()

    def close(self, error: MusterError | None = None) -> None:
        """End the stream once everything in it has been taken."""
        self.closed = True
        self.error = self.error or error
        self._news.set()

    async def take(self) -> list[Frame]:
        """Return every frame that waits, as soon as there is one; empty means closed."""
        while not self._frames and not self.closed:
            self._news.clear()
            await self._news.wait()
        frames = list(self._frames)
        self._frames.clear()
        return frames
