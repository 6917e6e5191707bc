"""A rival while it runs: what it is sent, and when it is done."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis

from bench.lab import Lab
from bench.programs import Program
from bench.rivals import deeds
from bench.rivals.redis_server import redis_url

DONE_SECONDS = 300.0
STAMP_SECONDS = 30
LOOK_EVERY = 0.02
WARM_UP = 20


class Rival(ABC):
    """A task queue on Redis: its worker is a program of its own, its client is in this process."""

    def __init__(self, url: str, connection: Any) -> None:  # noqa: ANN401 - redis has its own types
        self.url = url
        self._connection = connection

    @staticmethod
    @abstractmethod
    def worker(at_once: int) -> Sequence[str]:
        """Return the command of a worker that runs so many tasks at once."""

    @abstractmethod
    def send(self, deed: str) -> None:
        """Submit one task; it is durable when this returns."""

    @abstractmethod
    def left(self) -> int:
        """Return how many tasks have not ended."""

    def per_second(self, deed: str, number: int) -> float:
        """Return how many tasks went from submission to their end in a second."""
        began = time.perf_counter()
        for _ in range(number):
            self.send(deed)
        self.wait()
        return number / (time.perf_counter() - began)

    def wait(self) -> None:
        """Wait until every task has ended.

        Raises:
            TimeoutError: they take too long.
        """
        deadline = time.monotonic() + DONE_SECONDS
        while self.left():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.left()} tasks have not ended.")
            time.sleep(LOOK_EVERY)  # a broker tells nobody that a queue is empty

    def start_latencies(self, number: int) -> list[float]:
        """Return milliseconds from before the submission to the worker's start of each task."""
        return [self._start_latency() for _ in range(WARM_UP + number)][WARM_UP:]

    def _start_latency(self) -> float:
        began = time.time()
        self.send(deeds.stamp.__name__)
        told = self._connection.blpop([deeds.STARTED], timeout=STAMP_SECONDS)
        if told is None:
            raise TimeoutError("The worker does not start what it is sent.")
        self.wait()
        return (float(told[1]) - began) * 1000


@contextmanager
def running(lab: Lab, kind: type[Rival], at_once: int) -> Iterator[Rival]:
    """Give a rival whose worker takes so many tasks at once, with a Redis of its own."""
    with redis_url(lab) as url, redis.Redis.from_url(url) as connection:
        rival = kind(url, connection)
        environment = {deeds.URL_VARIABLE: url}
        worker = Program("worker", kind.worker(at_once), lab.new_folder("w"), environment)
        try:
            rival.send(deeds.noop.__name__)
            worker.wait_for(lambda: rival.left() == 0)
            yield rival
        finally:
            worker.stop()
