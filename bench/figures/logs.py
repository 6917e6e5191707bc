"""Logs: how many lines a second become durable, how late a follower sees them, in what memory."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import psutil

from bench.client import ENDED_SECONDS, Client
from bench.figure import Figure
from bench.lab import Lab, Muster, supervisors_of
from bench.numbers import median, percentile, rounded
from generated.stream.v1 import stream_pb2
from generated.task.v1 import task_pb2

LINES, P50, P99 = "log_lines_per_second_durable", "tail_delay_ms_p50", "tail_delay_ms_p99"
AGENT_MIB = "agent_mib_while_1_gib_log"
SERVER_MIB = "server_growth_mib_while_1_gib_log"
FIGURES = (LINES, P50, P99, AGENT_MIB, SERVER_MIB)

AGENTS = 2
LINES_EACH = 2_000_000
LINE = "line %011.0f of a task that prints sixty bytes a line ......"
LINE_BYTES = 60
LONG_LOG_BYTES = 1 << 30

TAILED = 10
FOLLOWERS = 50
TAIL_SECONDS = 30
LINES_A_SECOND = 100
PRINTER = """
# Keeps to a pace, whatever a line takes to be printed.
import time
began = time.monotonic()
for number in range({lines}):
    time.sleep(max(0.0, began + number / {rate} - time.monotonic()))
    print(time.time_ns(), flush=True)
"""

LOOK_EVERY = 0.2
MIB = 1 << 20


async def measure(lab: Lab, wanted: frozenset[str]) -> AsyncIterator[Figure]:
    """See Family."""
    if LINES in wanted:
        yield await _lines_per_second(lab)
    if not wanted.isdisjoint((P50, P99)):
        for figure in await _tail_delays(lab):
            yield figure
    if not wanted.isdisjoint((AGENT_MIB, SERVER_MIB)):
        for figure in await _memory(lab):
            yield figure


def _printing(lines: int) -> task_pb2.CreateTaskRequest:
    """Return a task that prints so many lines as fast as it can."""
    return task_pb2.CreateTaskRequest(name="lines", commands=[f"seq -f '{LINE}' {lines}"])


async def _whole_log(client: Client, task_id: str, lines: int) -> None:
    """Wait until every line is durable and the log's sums agree with the agent's.

    Raises:
        RuntimeError: it has ended otherwise.
    """
    async with asyncio.timeout(ENDED_SECONDS):
        while True:
            request = task_pb2.GetTaskRequest(task_id=task_id)
            task = (await client.tasks.GetTask(request)).task
            attempt = task.attempts[-1] if task.attempts else None
            if attempt is not None and attempt.log_state != task_pb2.LOG_STATE_OPEN:
                break
            await asyncio.sleep(LOOK_EVERY)
    if (attempt.log_state, attempt.log_lines) != (task_pb2.LOG_STATE_COMPLETE, lines):
        raise RuntimeError(f"The log of {lines} lines ended with {attempt.log_lines}.")


# ---- throughput


async def _lines_per_second(lab: Lab) -> Figure:
    each = lab.count(LINES_EACH)
    rounds = []
    for _ in range(lab.rounds):
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(lab.server())
            for _ in range(AGENTS):
                await stack.enter_async_context(lab.agent(server, 1))
            client = await stack.enter_async_context(Client(server.grpc, server.http))
            began = time.perf_counter()
            task_ids = await client.create_many(_printing(each), AGENTS)
            async with asyncio.TaskGroup() as group:
                for task_id in task_ids:
                    group.create_task(_whole_log(client, task_id, each))
            rounds.append(AGENTS * each / (time.perf_counter() - began))
    settings = {
        "database": "sqlite FULL",
        "agents": AGENTS,
        "bytes_a_line": LINE_BYTES,
        "rounds": [rounded(value) for value in rounds],
    }
    return Figure(LINES, median(rounds), "lines/s", AGENTS * each, settings)


# ---- delay


async def _tail_delays(lab: Lab) -> list[Figure]:
    seconds = max(3, lab.count(TAIL_SECONDS))
    lines = seconds * LINES_A_SECOND
    script = PRINTER.format(lines=lines, rate=LINES_A_SECOND)
    request = task_pb2.CreateTaskRequest(
        name="clock", commands=[f"exec {sys.executable} -c '{script}'"]
    )
    rounds: list[list[float]] = []
    for _ in range(lab.rounds):
        async with lab.muster(slots=TAILED) as muster, asyncio.TaskGroup() as group:
            task_ids = await muster.client.create_many(request, TAILED)
            followers = [
                group.create_task(_delays(muster.client, task_ids[number % TAILED], lines))
                for number in range(FOLLOWERS)
            ]
        rounds.append([delay for follower in followers for delay in follower.result()])
    figures = []
    for name, share in ((P50, 0.5), (P99, 0.99)):
        values = [percentile(delays, share) for delays in rounds]
        settings = {
            "tasks": TAILED,
            "lines_a_second_each": LINES_A_SECOND,
            "followers": FOLLOWERS,
            "rounds": [rounded(value) for value in values],
        }
        figures.append(Figure(name, median(values), "ms", FOLLOWERS * lines, settings))
    return figures


async def _delays(client: Client, task_id: str, lines: int) -> list[float]:
    """Follow a log; return how many ms after it was printed each line came.

    Raises:
        RuntimeError: not every line came.
    """
    request = stream_pb2.StreamTaskLogRequest(job_id=task_id, follow=True, batched=True)
    delays: list[float] = []
    async for answer in client.streams.StreamTaskLog(request, timeout=ENDED_SECONDS):
        now = time.time_ns()
        delays += [(now - int(chunk.content)) / 1e6 for chunk in answer.log_chunks]
    if len(delays) != lines:
        raise RuntimeError(f"A follower got {len(delays)} lines of {lines}.")
    return delays


# ---- memory


async def _memory(lab: Lab) -> list[Figure]:
    lines = lab.count(LONG_LOG_BYTES) // LINE_BYTES
    agents, servers = [], []
    for _ in range(lab.rounds):
        async with lab.muster(slots=1) as muster:
            await _printed(muster, lab.count(LINES_EACH) // 10)
            before = _resident([psutil.Process(muster.server.program.pid)])
            peaks = await _peaks_while(muster, lines)
        agents.append(peaks[0])
        servers.append(peaks[1] - before)
    settings: dict[str, object] = {"memory": "peak resident set", "log_bytes": lines * LINE_BYTES}
    return [
        Figure(name, median(values), "MiB", lines, settings | {"rounds": [*map(rounded, values)]})
        for name, values in ((AGENT_MIB, agents), (SERVER_MIB, servers))
    ]


async def _printed(muster: Muster, lines: int) -> None:
    task_id = await muster.client.create(_printing(lines))
    await _whole_log(muster.client, task_id, lines)


async def _peaks_while(muster: Muster, lines: int) -> tuple[float, float]:
    """Return the most memory, in MiB, of the agent's two processes together and of the server."""
    session = psutil.Process(muster.agent.pid)
    agent = [session, *supervisors_of(muster.agent)]
    server = [psutil.Process(muster.server.program.pid)]
    peaks = (0.0, 0.0)
    printed = asyncio.ensure_future(_printed(muster, lines))
    while not printed.done():
        peaks = max(peaks[0], _resident(agent)), max(peaks[1], _resident(server))
        await asyncio.wait([printed], timeout=LOOK_EVERY)
    await printed
    return peaks


def _resident(processes: Sequence[psutil.Process]) -> float:
    return float(sum(process.memory_info().rss for process in processes)) / MIB
