"""Throughput and latency on PostgreSQL, with its default durability."""

from collections.abc import AsyncIterator

from bench.client import BATCH
from bench.figure import Figure
from bench.lab import Lab
from bench.numbers import median, rounded
from bench.postgres import postgres_url
from bench.workloads import NOOP, latencies, tasks_per_second

RATES = {"noop_tasks_per_second_postgres": 256, "noop_tasks_per_second_16_slots_postgres": 16}
LATENCIES = {
    "submit_to_start_ms_p50_postgres": "start_p50",
    "submit_to_start_ms_p99_postgres": "start_p99",
    "submit_to_end_ms_p50_postgres": "end_p50",
    "submit_to_end_ms_p99_postgres": "end_p99",
}

FIGURES = (*RATES, *LATENCIES)

TASKS = 20_000
WARM_UP = 500
IN_TURN = 500
SETTINGS = {"database": "postgresql fsync=on synchronous_commit=on, over a Unix socket"}


async def measure(lab: Lab, wanted: frozenset[str]) -> AsyncIterator[Figure]:
    """See Family."""
    for name, slots in RATES.items():
        if name in wanted:
            yield await _rate(lab, name, slots)
    if wanted.intersection(LATENCIES):
        number = lab.count(IN_TURN)
        measured = []
        for _ in range(lab.rounds):
            with postgres_url() as url:
                async with lab.muster(4, server_flags=("--database-url", url)) as muster:
                    measured.append(await latencies(muster.client, NOOP, number))
        for name, moment in LATENCIES.items():
            rounds = [each.of(moment) for each in measured]
            settings = {"task": NOOP.name, "in_flight": 1, "rounds": list(map(rounded, rounds))}
            yield Figure(name, median(rounds), "ms", number, SETTINGS | settings)


async def _rate(lab: Lab, name: str, slots: int) -> Figure:
    number = lab.count(TASKS)
    with postgres_url() as url:
        async with lab.muster(slots, server_flags=("--database-url", url)) as muster:
            await tasks_per_second(muster.client, NOOP, lab.count(WARM_UP))
            rounds = [
                await tasks_per_second(muster.client, NOOP, number) for _ in range(lab.rounds)
            ]
    settings = {
        "slots": slots,
        "agents": 1,
        "submitted": f"{BATCH} a call",
        "rounds": list(map(rounded, rounds)),
    }
    return Figure(name, median(rounds), "tasks/s", number, SETTINGS | settings)
