"""Task logs to those who read them: what is stored, then what comes."""

from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from server import metrics
from server.domain.attempt import LogState
from server.domain.errors import Draining
from server.domain.moment import Moment
from server.engine.log_live import PAGE, LiveLog, LogPart
from server.engine.writer import Committed
from server.stores.interfaces import LogPage, Reader
from server.stores.log_blocks import PAGE_BYTES

__all__ = ["LogHub", "LogPart"]

CATCH_UP_BYTES = 32 * 1024 * 1024
"""Text that readers of what is stored hold together, about; each may have its least."""
CATCH_UP_LEAST = 128 * 1024


class LogHub:
    """See the module."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._live: defaultdict[str, dict[tuple[str, int], LiveLog]] = defaultdict(dict)
        """By task, then by namespace and attempt."""
        self._behind = 0
        """Followers that hold a page of what is stored."""
        self._stopping = False

    def stop(self) -> None:
        """End every follower with Draining."""
        self._stopping = True
        self.hint(list(self._live))

    def committed(self, committed: Committed) -> None:
        """Take in a commit: wake those who read the logs that changed."""
        metrics.log_lines.inc(committed.effects.lines)
        metrics.log_bytes.inc(committed.effects.bytes)
        self.hint(committed.effects.log_tasks)

    def hint(self, task_ids: Iterable[str]) -> None:
        """Wake those who read the logs of these tasks."""
        for task_id in task_ids:
            for live in self._live.get(task_id, {}).values():
                live.touch()

    def grew(self, task_id: str, attempt: int) -> None:
        """Wake those who read a task's logs: one attempt's has more lines."""
        for (_, followed), live in self._live.get(task_id, {}).items():
            live.touch(grew=followed == attempt)  # else this attempt is news to them

    async def follow(
        self,
        namespace: str,
        task_id: str,
        attempt: int,
        first_line: int,
        *,
        follow: bool,
        tail: int = 0,
        since: Moment = 0,
    ) -> AsyncGenerator[LogPart, None]:
        """Yield a log from a line on; with `follow` until the task has ended and it is whole.

        Attempt 0 is the current one, and goes on into the next when the task is tried again.
        `tail` and `since` begin with the last lines, or those since a moment, instead.

        Raises:
            NotFound: no such task or attempt.
            DamagedLog: what comes next is not what was stored.
            Draining: the server stops.
        """
        current, line = attempt, first_line
        if tail or since:
            place = await self._reader.log_place(namespace, task_id, attempt, tail, since)
            current, line = place.attempt, place.line
        while True:
            if self._stopping:
                raise Draining
            with self._catching_up() as size:
                page = await self._reader.log(namespace, task_id, current, line, PAGE, size)
                current = page.attempt
                if page.lines:
                    yield LogPart(current, page.first_line, page.lines)
                    line = page.first_line + len(page.lines)
                    page = replace(page, lines=[])  # who waits for news holds nothing
            if line <= page.total:
                continue
            if follow and not _ends(page, attempt):
                with self._following(namespace, task_id, page, line) as live:
                    async for part in self._new_parts(live, line, attempt):
                        yield part
                        line = part.first_line + len(part.lines)
                    page = live.page
                    if not current and page.attempt:
                        current = 1  # the first attempt, even if there is a second by now
                        continue
                    if line < live.next_line:
                        continue  # too slow for what is kept: the store has it
            if not attempt and _is_over(page) and page.last_attempt > current:
                current, line = current + 1, 1
            elif page.state is not LogState.OPEN and (page.task_ended or attempt):
                yield LogPart(current, line, [], complete=True, state=page.state)
                return
            elif not follow:
                return

    async def _new_parts(
        self, live: LiveLog, line: int, attempt: int
    ) -> AsyncGenerator[LogPart, None]:
        """Yield what comes until the log has ended, or until a line is not kept any more."""
        while True:
            if self._stopping:
                raise Draining
            if line < live.next_line:
                part = live.part(line)
                if part is None:
                    return
                yield part
                line = part.first_line + len(part.lines)
            elif live.moved or (_ends(live.page, attempt) and line > live.page.total):
                return
            else:
                await live.wait()
                if self._stopping:
                    raise Draining
                await live.read()

    @contextmanager
    def _catching_up(self) -> Iterator[int]:
        """Give the size of a page that many readers may hold at once, however slow they are."""
        self._behind += 1
        try:
            yield max(CATCH_UP_LEAST, min(PAGE_BYTES, CATCH_UP_BYTES // self._behind))
        finally:
            self._behind -= 1

    @contextmanager
    def _following(
        self, namespace: str, task_id: str, page: LogPage, line: int
    ) -> Iterator[LiveLog]:
        lives, key = self._live[task_id], (namespace, page.attempt)
        live = lives.get(key)
        if live is None:
            live = lives[key] = LiveLog(self._reader, namespace, task_id, page, line)
        live.followers += 1
        try:
            yield live
        finally:
            live.followers -= 1
            if not live.followers:
                lives.pop(key, None)
                if not lives:
                    self._live.pop(task_id, None)


def _ends(page: LogPage, attempt: int) -> bool:
    """Whether nothing more comes of this attempt's log for a reader who asked for `attempt`."""
    if not attempt and _is_over(page) and page.last_attempt > page.attempt:
        return True
    return page.state is not LogState.OPEN and bool(page.task_ended or attempt)


def _is_over(page: LogPage) -> bool:
    return page.state is not LogState.OPEN or page.given_up
