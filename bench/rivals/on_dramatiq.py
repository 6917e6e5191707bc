"""Dramatiq on Redis. It acknowledges a message after its task has ended, as it comes."""

from collections.abc import Sequence
from typing import Any

from dramatiq import Message
from dramatiq.brokers.redis import RedisBroker

from bench.rivals.rival import Rival

QUEUE = "default"


class OnDramatiq(Rival):
    """See Rival."""

    def __init__(self, url: str, connection: Any) -> None:  # noqa: ANN401 - redis has its own types
        super().__init__(url, connection)
        self._broker = RedisBroker(url=url)
        self._broker.declare_queue(QUEUE)

    @staticmethod
    def worker(at_once: int) -> Sequence[str]:
        """See Rival: two processes, one a core, as it starts by itself on this machine."""
        threads = str(max(1, at_once // 2))
        return ["dramatiq", "bench.rivals.dramatiq_app", "--processes", "2", "--threads", threads]

    def send(self, deed: str) -> None:
        """See Rival."""
        self._broker.enqueue(Message(QUEUE, deed, (), {}, {}))

    def left(self) -> int:
        """See Rival."""
        return int(self._connection.hlen(f"dramatiq:{QUEUE}.msgs"))
