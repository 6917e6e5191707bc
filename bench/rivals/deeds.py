"""What the workers of every rival do; their programs declare these as tasks of theirs."""

import os
import subprocess
import time

import redis

STARTED = "bench-started"
URL_VARIABLE = "BENCH_REDIS_URL"


def url() -> str:
    """Return where the Redis server is that this run has started."""
    return os.environ[URL_VARIABLE]


def noop() -> None:
    """Do nothing."""


def process() -> None:
    """Run `true` in a fresh shell; what it prints is thrown away."""
    subprocess.run(["sh", "-c", "true"], check=True, stdout=subprocess.DEVNULL)  # noqa: S607 - by PATH, as a task finds it


def stamp() -> None:
    """Tell when this was started."""
    started = time.time()
    with redis.Redis.from_url(url()) as connection:
        connection.rpush(STARTED, repr(started))


ALL = (noop, process, stamp)
