"""Tasks that do nothing: what Muster itself costs, many at a time."""

from collections.abc import AsyncIterator

from bench.client import BATCH
from bench.figure import Figure
from bench.lab import Lab
from bench.numbers import median, rounded
from bench.workloads import NOOP, tasks_per_second

TASKS = 20_000
WARM_UP = 500
SLOTS = {"noop_tasks_per_second": 256, "noop_tasks_per_second_16_slots": 16}

FIGURES = tuple(SLOTS)


async def measure(lab: Lab, wanted: frozenset[str]) -> AsyncIterator[Figure]:
    """See Family."""
    for name, slots in SLOTS.items():
        if name in wanted:
            number = lab.count(TASKS)
            async with lab.muster(slots) as muster:
                await tasks_per_second(muster.client, NOOP, lab.count(WARM_UP))
                rounds = [
                    await tasks_per_second(muster.client, NOOP, number) for _ in range(lab.rounds)
                ]
            settings = {
                "database": "sqlite FULL",
                "slots": slots,
                "agents": 1,
                "submitted": f"{BATCH} a call",
                "rounds": [rounded(each) for each in rounds],
            }
            yield Figure(name, median(rounds), "tasks/s", number, settings)
