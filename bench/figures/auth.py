"""What it costs that everybody shows who they are: the same work with `auth` off and on."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence

from bench.client import BATCH, Client
from bench.figure import Figure
from bench.lab import Lab
from bench.numbers import median, rounded
from bench.workloads import NOOP, latencies, tasks_per_second

MODES = {"off": False, "on": True}
CALL, START, TASKS = "get_task_ms_p50", "submit_to_start_ms_p50", "noop_tasks_per_second"
UNITS = {CALL: "ms", START: "ms", TASKS: "tasks/s"}
NUMBERS = {CALL: 2_000, START: 300, TASKS: 10_000}
FIGURES = tuple(f"{name}_auth_{mode}" for name in UNITS for mode in MODES)

WARM_UP = 500
SLOTS = 256


async def measure(lab: Lab, wanted: frozenset[str]) -> AsyncIterator[Figure]:
    """See Family. The two take turns."""
    names = [name for name in UNITS if any(each.startswith(name) for each in wanted)]
    rounds: dict[tuple[str, str], list[float]] = {(n, m): [] for n in names for m in MODES}
    for _ in range(lab.rounds):
        for mode, auth in MODES.items():
            for name, value in (await _round(lab, names, auth=auth)).items():
                rounds[name, mode].append(value)
    for (name, mode), values in rounds.items():
        settings = {
            "database": "sqlite FULL",
            "auth": mode,
            "slots": SLOTS,
            "submitted": f"{BATCH} a call" if name == TASKS else "one after another",
            "rounds": [rounded(value) for value in values],
        }
        number = lab.count(NUMBERS[name])
        yield Figure(f"{name}_auth_{mode}", median(values), UNITS[name], number, settings)


async def _round(lab: Lab, names: Sequence[str], *, auth: bool) -> Mapping[str, float]:
    values = {}
    async with lab.muster(SLOTS, auth=auth) as muster:
        client = muster.client
        await tasks_per_second(client, NOOP, lab.count(WARM_UP))
        if CALL in names:
            values[CALL] = median(await _calls(client, lab.count(NUMBERS[CALL])))
        if START in names:
            number = lab.count(NUMBERS[START])
            values[START] = (await latencies(client, NOOP, number)).of("start_p50")
        if TASKS in names:
            values[TASKS] = await tasks_per_second(client, NOOP, lab.count(NUMBERS[TASKS]))
    return values


async def _calls(client: Client, number: int) -> list[float]:
    """Return milliseconds of each of so many calls that read one task, one after another."""
    task_id = await client.create(NOOP)
    times = []
    for _ in range(number):
        began = time.perf_counter()
        await client.get(task_id)
        times.append((time.perf_counter() - began) * 1000)
    return times
