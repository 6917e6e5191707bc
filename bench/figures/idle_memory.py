"""What a server and an agent take of memory while nothing runs."""

import asyncio
from collections.abc import AsyncIterator

import psutil

from bench.figure import Figure
from bench.lab import Lab, supervisors_of
from bench.numbers import median, rounded

FIGURES = ("idle_memory_mib",)

SETTLE_SECONDS = 5.0
MIB = 1024 * 1024


async def measure(lab: Lab, wanted: frozenset[str]) -> AsyncIterator[Figure]:
    """See Family."""
    rounds = []
    for _ in range(lab.rounds):
        async with lab.muster(slots=2) as muster:
            await asyncio.sleep(SETTLE_SECONDS)
            server = psutil.Process(muster.server.program.pid)
            session = psutil.Process(muster.agent.pid)
            parts = {"server": [server], "agent": [session, *supervisors_of(muster.agent)]}
            rounds.append({name: _pss(processes) for name, processes in parts.items()})
    settings = {
        "memory": "PSS of server, agent session and supervisor",
        "server_mib": rounded(median(each["server"] for each in rounds)),
        "agent_mib": rounded(median(each["agent"] for each in rounds)),
    }
    yield Figure(
        "idle_memory_mib",
        median(sum(each.values()) for each in rounds),
        "MiB",
        lab.rounds,
        settings,
    )


def _pss(processes: list[psutil.Process]) -> float:
    """Return their memory in MiB; what they share is counted once."""
    return float(sum(process.memory_full_info().pss for process in processes)) / MIB
