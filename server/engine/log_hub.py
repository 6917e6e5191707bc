"""Task logs to those who read them: what is stored, then what comes."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from server import metrics
from server.domain.attempt import LogState
from server.domain.errors import Draining
from server.domain.log import LogLine
from server.engine.writer import Committed
from server.stores.interfaces import LogPage, Reader

PAGE = 1000
# Stands behind the wake-ups: another server may have written the lines.
LOOK_AGAIN = 5.0


@dataclass(frozen=True, slots=True)
class LogPart:
    """Consecutive lines for a reader, or the end."""

    attempt: int
    first_line: int
    lines: list[LogLine]
    complete: bool = False
    """Whether this is the end: the task has ended and every line has been sent."""
    state: LogState = LogState.OPEN


class LogHub:
    """See the module."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._watches: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._stopping = False

    def stop(self) -> None:
        """End every follower with Draining."""
        self._stopping = True
        for watches in self._watches.values():
            for news in watches:
                news.set()

    def committed(self, committed: Committed) -> None:
        """Take in a commit: wake those who read the logs that changed."""
        metrics.log_lines.inc(committed.effects.lines)
        metrics.log_bytes.inc(committed.effects.bytes)
        self.hint(committed.effects.log_tasks)

    def hint(self, task_ids: Iterable[str]) -> None:
        """Wake those who read the logs of these tasks."""
        for task_id in task_ids:
            for news in self._watches.get(task_id, ()):
                news.set()

    async def follow(
        self, namespace: str, task_id: str, attempt: int, first_line: int, *, follow: bool
    ) -> AsyncIterator[LogPart]:
        """Yield a log from a line on; with `follow` until the task has ended and it is whole.

        Attempt 0 is the current one, and goes on into the next when the task is tried again.

        Raises:
            NotFound: no such task or attempt.
            Draining: the server stops.
        """
        current, line = attempt, first_line
        with self._watching(task_id) as news:
            while True:
                if self._stopping:
                    raise Draining
                news.clear()
                page = await self._reader.log(namespace, task_id, current, line, PAGE)
                current = page.attempt
                if page.lines:
                    yield LogPart(current, line, page.lines)
                    line += len(page.lines)
                if line <= page.total:
                    continue
                if not attempt and _is_over(page) and page.last_attempt > current:
                    current, line = current + 1, 1
                    continue
                if page.state is not LogState.OPEN and (page.task_ended or attempt):
                    yield LogPart(current, line, [], complete=True, state=page.state)
                    return
                if not follow:
                    return
                await _wait(news)

    @contextmanager
    def _watching(self, task_id: str) -> Iterator[asyncio.Event]:
        news = asyncio.Event()
        self._watches[task_id].add(news)
        try:
            yield news
        finally:
            self._watches[task_id].discard(news)
            if not self._watches[task_id]:
                del self._watches[task_id]


def _is_over(page: LogPage) -> bool:
    return page.state is not LogState.OPEN or page.given_up


async def _wait(news: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(LOOK_AGAIN):
            await news.wait()
    except TimeoutError:
        return
