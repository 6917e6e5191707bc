"""How many connected agents one server bears while none has work, and what each costs it."""

import asyncio
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil

from bench.client import Client
from bench.figure import Figure
from bench.lab import Lab, Server, Unmeasurable
from bench.numbers import median, rounded
from bench.programs import Program, module

AGENTS, CPU, RSS = FIGURES = (
    "idle_agents",
    "idle_agents_cpu_percent",
    "server_rss_per_idle_agent_kib",
)

TARGET = 5_000
CONNECT_SECONDS = 300.0
SETTLE_SECONDS = 15.0
WINDOW_SECONDS = 20.0
KIB = 1024
SPARE_FILES = 100


async def measure(lab: Lab, wanted: frozenset[str]) -> AsyncIterator[Figure]:
    """See Family."""
    number = lab.count(TARGET)
    allow_open_files(number + SPARE_FILES)
    async with lab.server() as server, Client(server.grpc, server.http) as client:
        await asyncio.sleep(SETTLE_SECONDS / 5)
        process = psutil.Process(server.program.pid)
        rss_before = process.memory_info().rss
        async with idle_agents(lab, server, number) as connect_seconds:
            await asyncio.sleep(SETTLE_SECONDS)
            shares = [await _cpu_percent(process) for _ in range(lab.rounds)]
            per_agent = (process.memory_info().rss - rss_before) / number / KIB
            connected = await client.metric("muster_agents_connected")
    settings: dict[str, object] = {
        "database": "sqlite FULL",
        "agents": number,
        "heartbeat": "as the server says",
        "connections": "one an agent",
    }
    connect = {"connect_seconds": rounded(connect_seconds), "target": TARGET}
    yield Figure(AGENTS, connected, "agents", number, settings | connect)
    windows = {"window_seconds": WINDOW_SECONDS, "rounds": [rounded(share) for share in shares]}
    yield Figure(CPU, median(shares), "% of one core", number, settings | windows)
    yield Figure(RSS, per_agent, "KiB", number, settings)


def allow_open_files(number: int) -> None:
    """Let the programs that are started from here have so many files and sockets open.

    Raises:
        Unmeasurable: the machine does not allow it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < number:
        raise Unmeasurable(f"a process may have {hard} open files, and {number} are needed")
    if soft != resource.RLIM_INFINITY and soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))


@asynccontextmanager
async def idle_agents(lab: Lab, server: Server, number: int) -> AsyncIterator[float]:
    """Give how long it took until so many agents were connected, and keep them."""
    began = time.perf_counter()
    command = module("bench.load.idle_agents", "--server", server.grpc, "--agents", str(number))
    program = Program("idle-agents", command, lab.new_folder("l"))
    try:
        await asyncio.to_thread(program.ready, CONNECT_SECONDS)
        yield time.perf_counter() - began
        program.check()
    finally:
        await asyncio.to_thread(program.stop)


async def _cpu_percent(process: psutil.Process) -> float:
    """Return how much of one core a process used in one window."""
    before, began = process.cpu_times(), time.perf_counter()
    await asyncio.sleep(WINDOW_SECONDS)
    after, took = process.cpu_times(), time.perf_counter() - began
    used = after.user + after.system - before.user - before.system
    return 100 * float(used) / took
