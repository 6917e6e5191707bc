"""What is new in one attempt's log, read once for all who follow it."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from server.domain.attempt import LogState
from server.domain.log import LogLine
from server.stores.interfaces import LogPage, Reader

PAGE = 10_000
# Stands behind the wake-ups: another server may have written the lines.
LOOK_AGAIN = 5.0
# Seconds from one read to the next: what comes meanwhile travels together.
TOGETHER = 0.04
# What followers may lag behind before they read the store on their own.
KEPT_BYTES = 1024 * 1024
LINE_BYTES = 64
"""What a line takes in memory besides its text, about."""


@dataclass(frozen=True, slots=True)
class LogPart:
    """Consecutive lines for a reader, or the end."""

    attempt: int
    first_line: int
    lines: Sequence[LogLine]
    complete: bool = False
    """Whether this is the end: the task has ended and every line has been sent."""
    state: LogState = LogState.OPEN


class LiveLog:
    """The newest lines of one attempt's log and how it stands.

    Followers share it. Whoever comes first after news reads the store, and the others wait for
    that one read. Followers who are slower than what is kept go back to the store.

    Attributes:
        next_line: The line after the last one kept; lines that followers still need lie before.
        page: How the log stood when it was read last.
    """

    def __init__(
        self, reader: Reader, namespace: str, task_id: str, page: LogPage, next_line: int
    ) -> None:
        self.page = page
        self.next_line = next_line
        self.followers = 0
        self._reader = reader
        self._whose = (namespace, task_id, page.attempt)
        self._parts: deque[tuple[LogPart, int]] = deque()
        self._size = 0
        self._fresh = False
        self._changed = True
        self._behind = False
        self._news = asyncio.Event()
        self._reading = asyncio.Lock()
        self._read_at = asyncio.get_running_loop().time()

    @property
    def moved(self) -> bool:
        """Whether the task, which had no attempt yet, has one now."""
        return bool(self.page.attempt) and not self._whose[2]

    def touch(self, *, grew: bool = False) -> None:
        """Note that the log may have changed, or only `grew`, and wake its followers."""
        self._changed |= not grew
        self._fresh = False
        self._news.set()
        self._news = asyncio.Event()

    def part(self, line: int) -> LogPart | None:
        """Return kept lines from a line on, or None when that line is not kept."""
        for part, _ in reversed(self._parts):
            if part.first_line <= line:
                skipped = line - part.first_line
                if skipped >= len(part.lines):
                    return None
                return LogPart(part.attempt, line, part.lines[skipped:]) if skipped else part
        return None

    async def wait(self) -> None:
        """Return when there is news to read, or it is time to look without any."""
        if not self._fresh:
            return
        try:
            async with asyncio.timeout(LOOK_AGAIN):
                await self._news.wait()
        except TimeoutError:
            if asyncio.get_running_loop().time() - self._read_at >= LOOK_AGAIN:
                self.touch()

    async def read(self) -> None:
        """Bring what is kept up to date, unless another follower has just done so.

        Raises:
            MusterError: the store's own.
        """
        async with self._reading:
            if self._fresh:
                return
            if not self._behind:
                await asyncio.sleep(self._read_at + TOGETHER - asyncio.get_running_loop().time())
            self._fresh = True  # news that comes while we read makes it stale again
            changed, self._changed = self._changed, False
            try:
                page = await self._page(changed=changed)
            except BaseException:
                self._fresh, self._changed = False, True
                raise
            self._read_at = asyncio.get_running_loop().time()
            self._keep(page)
            self._behind = self.next_line <= page.total
            if self._behind:
                self._fresh = False

    async def _page(self, *, changed: bool) -> LogPage:
        """Return what is new; how a log stands is asked only when that may have changed."""
        if changed or self.page.key is None:
            return await self._reader.log(*self._whose, self.next_line, PAGE)
        return await self._reader.more_of_log(self.page, self.next_line, PAGE)

    def _keep(self, page: LogPage) -> None:
        self.page = page
        if self.moved or not page.lines:
            return
        size = sum(len(line.text) + len(line.raw) + LINE_BYTES for line in page.lines)
        self._parts.append((LogPart(page.attempt, page.first_line, page.lines), size))
        self.next_line = page.first_line + len(page.lines)
        self._size += size
        while self._size > KEPT_BYTES and len(self._parts) > 1:
            self._size -= self._parts.popleft()[1]
