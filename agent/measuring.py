"""When to measure the host, and what: its own figures and those of its owner."""

import asyncio
import contextlib
import threading
import time
from pathlib import Path

import structlog

from agent import host, own_metrics
from generated.stream.v1 import stream_pb2

_EVERY_SECONDS = 30.0
_READ_SECONDS = 2.0
"""How long the owner's files may take: a disk that hangs must not delay a heartbeat for long."""

_TAKEN = frozenset(("cpu_usage", "memory_usage", "disk_usage", "running_tasks"))
"""Names of the host's own figures, where they travel beside the others."""

_log = structlog.get_logger("agent.measuring")


class Measuring:
    """Measures every 30 seconds, whatever line the agent has."""

    def __init__(self, data_dir: Path, metrics_dir: Path | None) -> None:
        self._data_dir = data_dir
        self._metrics_dir = metrics_dir
        self._last: float | None = None
        self._told: list[str] = []
        self._reading: asyncio.Future[tuple[dict[str, str], list[str]]] | None = None

    async def if_due(self, running: int) -> stream_pb2.AgentMetrics | None:
        """Returns measurements when it is time for them."""
        now = time.monotonic()
        if self._last is not None and now - self._last < _EVERY_SECONDS:
            return None
        self._last = now
        measured = host.metrics(self._data_dir, running)
        for name, value in (await self._own()).items():
            if name not in _TAKEN and name not in measured.custom_metrics:
                measured.custom_metrics[name] = value
        return measured

    async def _own(self) -> dict[str, str]:
        """Returns what the owner's files say, nothing while they cannot be read."""
        if self._metrics_dir is None:
            return {}
        if self._reading is None:
            self._reading = _reading(self._metrics_dir)
        try:
            async with asyncio.timeout(_READ_SECONDS):
                found, complaints = await asyncio.shield(self._reading)
        except TimeoutError:
            found, complaints = {}, [f"{self._metrics_dir}: takes too long to read"]
        if self._reading.done():
            self._reading = None
        self._complain(complaints)
        return found

    def _complain(self, complaints: list[str]) -> None:
        """Tells what was left out, once for as long as it stays the same."""
        if complaints and complaints != self._told:
            _log.warning("measurements left out", reasons=complaints[:10])
        self._told = complaints


def _reading(folder: Path) -> asyncio.Future[tuple[dict[str, str], list[str]]]:
    """Reads the owner's files in a thread that the agent's end does not wait for."""
    loop = asyncio.get_running_loop()
    read: asyncio.Future[tuple[dict[str, str], list[str]]] = loop.create_future()

    def work() -> None:
        try:
            found = own_metrics.read(folder)
        except Exception as error:
            found = {}, [f"{folder}: {error}"]
        with contextlib.suppress(RuntimeError):  # the agent has ended meanwhile
            loop.call_soon_threadsafe(read.set_result, found)

    threading.Thread(target=work, name="own metrics", daemon=True).start()
    return read
