"""Muster and a rival at the same work, round by round in turn, and the ratio."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from bench.figure import Figure
from bench.lab import Lab
from bench.numbers import median, percentile, rounded
from bench.rivals import deeds
from bench.rivals.rival import Rival, running
from bench.workloads import NOOP, PROCESS, latencies, tasks_per_second
from generated.task.v1 import task_pb2

WARM_UP = 100
LATENCY_TASKS = 300
LATENCY_SLOTS = 4


@dataclass(frozen=True)
class Workload:
    """One kind of task on both sides."""

    name: str
    request: task_pb2.CreateTaskRequest
    deed: str
    slots: int
    at_once: int
    ours: int
    """How many tasks Muster is given a round."""
    theirs: int
    """How many the rival is given: fewer, so that a round takes about as long."""


NOOP_WORK = Workload("noop", NOOP, deeds.noop.__name__, 256, 16, 10_000, 2_000)
PROCESS_WORK = Workload("process", PROCESS, deeds.process.__name__, 4, 4, 1_000, 1_000)


async def compare(
    lab: Lab, rival: str, kind: type[Rival], wanted: frozenset[str]
) -> AsyncIterator[Figure]:
    """Yield the wanted figures against a rival."""
    for work in (NOOP_WORK, PROCESS_WORK):
        if any(work.name in name for name in wanted):
            async for figure in _throughput(lab, rival, kind, work):
                yield figure
    if any("submit_to_start" in name for name in wanted):
        async for figure in _latency(lab, rival, kind):
            yield figure


async def _throughput(
    lab: Lab, rival: str, kind: type[Rival], work: Workload
) -> AsyncIterator[Figure]:
    number, ours, theirs = lab.count(work.theirs), [], []
    for _ in range(lab.rounds):
        async with lab.muster(work.slots) as muster:
            await tasks_per_second(muster.client, work.request, lab.count(WARM_UP))
            rate = await tasks_per_second(muster.client, work.request, lab.count(work.ours))
            ours.append(rate)
        theirs.append(await asyncio.to_thread(_their_rate, lab, kind, work, number))
    settings: dict[str, object] = {
        "redis": "appendfsync always",
        "worker": " ".join(kind.worker(work.at_once)),
        "rounds": list(map(rounded, theirs)),
    }
    name = f"{rival}_{work.name}_tasks_per_second"
    yield Figure(name, median(theirs), "tasks/s", number, settings)
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    rounds = {"ours": list(map(rounded, ours)), "theirs": list(map(rounded, theirs))}
    told: dict[str, object] = {
        "database": "sqlite FULL",
        "slots": work.slots,
        "n_ours": lab.count(work.ours),
    }
    yield Figure(f"{work.name}_ratio_to_{rival}", median(ratios), "times", number, told | rounds)


def _their_rate(lab: Lab, kind: type[Rival], work: Workload, number: int) -> float:
    with running(lab, kind, work.at_once) as rival:
        rival.per_second(work.deed, lab.count(WARM_UP))
        return rival.per_second(work.deed, number)


async def _latency(lab: Lab, rival: str, kind: type[Rival]) -> AsyncIterator[Figure]:
    number, ours, theirs = lab.count(LATENCY_TASKS), [], []
    for _ in range(lab.rounds):
        async with lab.muster(LATENCY_SLOTS) as muster:
            ours.append(percentile((await latencies(muster.client, NOOP, number)).start, 0.5))
        theirs.append(await asyncio.to_thread(_their_latencies, lab, kind, number))
    for share in (50, 99):
        values = [percentile(each, share / 100) for each in theirs]
        settings: dict[str, object] = {
            "redis": "appendfsync always",
            "worker": " ".join(kind.worker(LATENCY_SLOTS)),
            "until": "the worker starts, by its clock",
            "rounds": list(map(rounded, values)),
        }
        name = f"{rival}_submit_to_start_ms_p{share}"
        yield Figure(name, median(values), "ms", number, settings)
    medians = [percentile(each, 0.5) for each in theirs]
    ratios = [mine / other for mine, other in zip(ours, medians, strict=True)]
    rounds = {"ours": list(map(rounded, ours)), "theirs": list(map(rounded, medians))}
    told: dict[str, object] = {"less_is_better": True, "percentile": 50}
    yield Figure(
        f"submit_to_start_ratio_to_{rival}", median(ratios), "times", number, told | rounds
    )


def _their_latencies(lab: Lab, kind: type[Rival], number: int) -> list[float]:
    with running(lab, kind, LATENCY_SLOTS) as rival:
        return rival.start_latencies(number)
