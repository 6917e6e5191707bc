"""Celery on Redis, with late acknowledgement, without the chatter between its workers."""

from collections.abc import Sequence
from typing import Any

from celery import Celery

from bench.rivals.rival import Rival

QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING")


class OnCelery(Rival):
    """See Rival."""

    def __init__(self, url: str, connection: Any) -> None:  # noqa: ANN401 - redis has its own types
        super().__init__(url, connection)
        self._app = Celery(broker=url.replace("unix:", "redis+socket:"))

    @staticmethod
    def worker(at_once: int) -> Sequence[str]:
        """See Rival: a process a slot, four at most; more only cost it on two cores."""
        slots = str(min(4, at_once))
        command = ["celery", "--app", "bench.rivals.celery_app", "worker"]
        return [*command, "--pool", "prefork", "--concurrency", slots, *QUIET]

    def send(self, deed: str) -> None:
        """See Rival."""
        self._app.send_task(deed, ignore_result=True)

    def left(self) -> int:
        """See Rival: what waits, and what a worker has taken and not acknowledged."""
        with self._connection.pipeline() as both:
            waiting, taken = both.llen("celery").hlen("unacked").execute()
        return int(waiting) + int(taken)
