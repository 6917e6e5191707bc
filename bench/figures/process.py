"""Tasks that are one process each, four at a time, beside the shell's own tool for that."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator

from bench.figure import Figure
from bench.lab import Lab
from bench.numbers import median, rounded
from bench.workloads import PROCESS, tasks_per_second

OURS, XARGS = FIGURES = ("process_tasks_per_second", "xargs_process_per_second")

TASKS = 2_000
WARM_UP = 50
SLOTS = 4
XARGS_SECONDS = 300.0


async def measure(lab: Lab, wanted: frozenset[str]) -> AsyncIterator[Figure]:
    """See Family. The rounds take turns, so that both meet the machine in the same mood."""
    number = lab.count(TASKS)
    rounds: dict[str, list[float]] = {OURS: [], XARGS: []}
    async with lab.muster(SLOTS) as muster:
        await tasks_per_second(muster.client, PROCESS, lab.count(WARM_UP))
        for _ in range(lab.rounds):
            rounds[OURS].append(await tasks_per_second(muster.client, PROCESS, number))
            rounds[XARGS].append(await asyncio.to_thread(xargs_per_second, number))
    settings: dict[str, dict[str, object]] = {
        OURS: {"database": "sqlite FULL", "slots": SLOTS, "command": "true", "output": "captured"},
        XARGS: {"command": "xargs -P4 -n1 sh -c true", "output": "not captured"},
    }
    for name in FIGURES:
        told = settings[name] | {"rounds": [rounded(each) for each in rounds[name]]}
        yield Figure(name, median(rounds[name]), "tasks/s", number, told)


def xargs_per_second(number: int) -> float:
    """Return how many shells a second xargs starts, four at a time."""
    began = time.perf_counter()
    subprocess.run(  # noqa: S603 - nothing in it comes from outside
        ["xargs", f"-P{SLOTS}", "-n1", "sh", "-c", "true"],  # noqa: S607 - by PATH, as in a shell
        input="\n".join(map(str, range(number))),
        text=True,
        check=True,
        timeout=XARGS_SECONDS,
    )
    return number / (time.perf_counter() - began)
