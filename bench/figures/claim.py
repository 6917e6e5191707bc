"""What one claim costs, alone and beside a million queued tasks that this agent does not fit."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

from bench.client import CALL_SECONDS, Client
from bench.figure import Figure
from bench.lab import Lab
from bench.numbers import median, percentile, rounded
from bench.seeding import seed_foreign
from bench.workloads import NOOP
from generated.agent.v1 import agent_pb2

EMPTY, FOREIGN = FIGURES = ("claim_ms_empty", "claim_ms_with_1m_foreign_queued")

QUEUED = 1_000_000
CLAIMS = 300
WARM_UP = 20


async def measure(lab: Lab, wanted: frozenset[str]) -> AsyncIterator[Figure]:
    """See Family. The two take turns."""
    number, queued = lab.count(CLAIMS), lab.count(QUEUED)
    foreign = await seed_foreign(lab, queued)
    rounds: dict[str, list[list[float]]] = {name: [] for name in FIGURES}
    for _ in range(lab.rounds):
        for name, folder in ((EMPTY, lab.new_folder("s")), (FOREIGN, foreign)):
            rounds[name].append(await _claims(lab, folder, number))
    for name, times in rounds.items():
        medians = [median(each) for each in times]
        settings = {
            "database": "sqlite FULL",
            "call": "FetchTask of one task that is queued",
            "foreign_queued": queued if name == FOREIGN else 0,
            "p99_ms": rounded(median(percentile(each, 0.99) for each in times)),
            "rounds": [rounded(each) for each in medians],
        }
        yield Figure(name, median(medians), "ms", number, settings)


async def _claims(lab: Lab, folder: Path, number: int) -> list[float]:
    """Return milliseconds of each claim: the whole call, with its commit."""
    async with lab.server(data_dir=folder) as server, Client(server.grpc, server.http) as client:
        await client.create_many(NOOP, WARM_UP + number)
        registration = agent_pb2.RegisterRequest(
            hostname="bench", max_concurrent_jobs=WARM_UP + number, held=agent_pb2.Held()
        )
        session = await client.agents.Register(registration, timeout=CALL_SECONDS)
        request = agent_pb2.FetchTaskRequest(
            agent_id=session.agent_id, session_id=session.session_id, max_jobs=1
        )
        times = []
        for _ in range(WARM_UP + number):
            began = time.perf_counter()
            answer = await client.agents.FetchTask(request, timeout=CALL_SECONDS)
            times.append((time.perf_counter() - began) * 1000)
            if len(answer.tasks) != 1:
                raise RuntimeError(f"{len(answer.tasks)} tasks were handed out, not one.")
        leave = agent_pb2.UnregisterRequest(
            agent_id=session.agent_id, session_id=session.session_id
        )
        await client.agents.Unregister(leave, timeout=CALL_SECONDS)
    return times[WARM_UP:]
