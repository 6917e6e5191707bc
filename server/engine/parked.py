"""A FetchTask that waits for work."""

import asyncio

from server.domain.claiming import Assignment


class Parked:
    """Wants some tasks, and is answered once."""

    def __init__(self, want: int, request_id: str | None, *, once: bool) -> None:
        self.want = want
        self.request_id = request_id
        self.once = once
        """Whether it is answered after one look, with or without tasks."""
        self.answer: asyncio.Future[tuple[list[Assignment], int]] = (
            asyncio.get_running_loop().create_future()
        )

    def resolve(self, assignments: list[Assignment], frame: int) -> bool:
        """Answer it; return False when the caller has gone."""
        if self.answer.done():
            return False
        self.answer.set_result((assignments, frame))
        return True
