"""A server with a past: how fast it starts, and whether it is slower for it."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

from bench.figure import Figure
from bench.lab import Lab
from bench.numbers import median, rounded
from bench.seeding import seed_ended
from bench.workloads import NOOP, tasks_per_second

START_EMPTY, START_FULL = STARTS = ("server_start_seconds_empty", "server_start_seconds_1m_ended")
RATE_EMPTY, RATE_FULL = RATES = ("tasks_per_second_at_no_history", "tasks_per_second_at_1m_history")

FIGURES = (*STARTS, *RATES)

HISTORY = 1_000_000
TASKS = 10_000
WARM_UP = 500
SLOTS = 256
# The default keeps a million ended tasks; removing the oldest would be measured with the rest.
KEEP_ALL = ("--task-retention-count", "10000000", "--event-retention-count", "100000000")


async def measure(lab: Lab, wanted: frozenset[str]) -> AsyncIterator[Figure]:
    """See Family. What has a past and what has none take turns."""
    past = lab.count(HISTORY)
    full = await seed_ended(lab, past)
    if wanted.intersection(STARTS):
        seconds: dict[str, list[float]] = {name: [] for name in STARTS}
        for _ in range(lab.rounds):
            for name, folder in ((START_EMPTY, lab.new_folder("s")), (START_FULL, full)):
                seconds[name].append(await _start_seconds(lab, folder))
        for name, rounds in seconds.items():
            settings = _settings(past if name == START_FULL else 0, rounds)
            yield Figure(name, median(rounds), "s", 1, settings)
    if wanted.intersection(RATES):
        number = lab.count(TASKS)
        rates: dict[str, list[float]] = {name: [] for name in RATES}
        for _ in range(lab.rounds):
            for name, folder in ((RATE_EMPTY, lab.new_folder("s")), (RATE_FULL, full)):
                rates[name].append(await _rate(lab, folder, number))
        for name, rounds in rates.items():
            settings = _settings(past if name == RATE_FULL else 0, rounds) | {"slots": SLOTS}
            yield Figure(name, median(rounds), "tasks/s", number, settings)


async def _start_seconds(lab: Lab, folder: Path) -> float:
    """Return seconds from starting the process until it says that it serves."""
    began = time.perf_counter()
    async with lab.server(data_dir=folder):
        return time.perf_counter() - began


async def _rate(lab: Lab, folder: Path, number: int) -> float:
    async with lab.muster(SLOTS, data_dir=folder, server_flags=KEEP_ALL) as muster:
        await tasks_per_second(muster.client, NOOP, lab.count(WARM_UP))
        return await tasks_per_second(muster.client, NOOP, number)


def _settings(ended: int, rounds: list[float]) -> dict[str, object]:
    return {
        "database": "sqlite FULL",
        "ended_tasks": ended,
        "rounds": [rounded(each) for each in rounds],
    }
