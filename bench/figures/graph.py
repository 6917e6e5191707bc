"""A run of many jobs in layers, beside as many tasks that have nothing to do with each other."""

import time
from collections.abc import AsyncIterator

from bench.client import Client
from bench.figure import Figure
from bench.lab import Lab
from bench.numbers import median, rounded
from bench.workloads import PROCESS, tasks_per_second
from generated.pipeline.v1 import pipeline_pb2

RUN, TASKS = FIGURES = ("run_of_layers_seconds", "independent_tasks_seconds")

JOBS = 10_000
LAYERS = 50
WARM_UP = 50
SLOTS = 4


async def measure(lab: Lab, wanted: frozenset[str]) -> AsyncIterator[Figure]:
    """See Family. The two take turns on one server."""
    width = max(1, lab.count(JOBS) // LAYERS)
    number = width * LAYERS
    rounds: dict[str, list[float]] = {RUN: [], TASKS: []}
    async with lab.muster(SLOTS) as muster:
        await tasks_per_second(muster.client, PROCESS, lab.count(WARM_UP))
        for _ in range(lab.rounds):
            rounds[TASKS].append(number / await tasks_per_second(muster.client, PROCESS, number))
            rounds[RUN].append(await _run(muster.client, width))
    for name in FIGURES:
        settings: dict[str, object] = {
            "database": "sqlite FULL",
            "slots": SLOTS,
            "command": "true",
            "rounds": [rounded(value) for value in rounds[name]],
        }
        if name == RUN:
            settings["layers"] = LAYERS
        yield Figure(name, median(rounds[name]), "s", number, settings)


async def _run(client: Client, width: int) -> float:
    """Return how many seconds a run takes from its trigger until it has succeeded."""
    stages = [
        pipeline_pb2.Stage(
            name=f"layer-{layer}",
            parallel=True,
            jobs=[
                pipeline_pb2.Job(name=f"{layer}-{place}", commands=["true"])
                for place in range(width)
            ],
        )
        for layer in range(LAYERS)
    ]
    pipeline_id = await client.create_pipeline(f"layers at {time.monotonic_ns()}", stages)
    began = time.perf_counter()
    await client.run_to_success(pipeline_id)
    return time.perf_counter() - began
