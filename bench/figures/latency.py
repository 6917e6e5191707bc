"""One task after another on an idle agent: how long until its start and its end are told."""

from collections.abc import AsyncIterator

from bench.figure import Figure
from bench.lab import Lab
from bench.numbers import median, rounded
from bench.workloads import NOOP, PROCESS, latencies

TASKS = 500
NOOP_FIGURES = {
    "submit_to_start_ms_p50": "start_p50",
    "submit_to_start_ms_p99": "start_p99",
    "submit_to_end_ms_p50": "end_p50",
    "submit_to_end_ms_p99": "end_p99",
}
PROCESS_FIGURES = {
    "process_submit_to_start_ms_p50": "start_p50",
    "process_submit_to_start_ms_p99": "start_p99",
}
WORKLOADS = ((NOOP, NOOP_FIGURES), (PROCESS, PROCESS_FIGURES))

FIGURES = (*NOOP_FIGURES, *PROCESS_FIGURES)


async def measure(lab: Lab, wanted: frozenset[str]) -> AsyncIterator[Figure]:
    """See Family."""
    number = lab.count(TASKS)
    for request, figures in WORKLOADS:
        if wanted.isdisjoint(figures):
            continue
        rounds = []
        for _ in range(lab.rounds):
            async with lab.muster(slots=4) as muster:
                rounds.append(await latencies(muster.client, request, number))
        for name, moment in figures.items():
            values = [each.of(moment) for each in rounds]
            settings = {
                "database": "sqlite FULL",
                "task": request.name,
                "in_flight": 1,
                "rounds": [rounded(value) for value in values],
            }
            yield Figure(name, median(values), "ms", number, settings)
