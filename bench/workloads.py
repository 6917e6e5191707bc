"""The workloads that several figures share, each on a running Muster."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from bench.client import SUCCESS, Change, Client
from bench.numbers import percentile
from generated.task.v1 import task_pb2

RUNNING = task_pb2.TASK_STATUS_RUNNING
CHANGE_SECONDS = 30.0
WARM_UP = 20

NOOP = task_pb2.CreateTaskRequest(name="noop", commands=["true"], executor="noop")
PROCESS = task_pb2.CreateTaskRequest(name="true", commands=["true"])


async def tasks_per_second(
    client: Client, request: task_pb2.CreateTaskRequest, number: int
) -> float:
    """Return how many tasks went from submission to a readable SUCCESS in a second."""
    before = await client.succeeded()
    began = time.perf_counter()
    task_ids = await client.create_many(request, number)
    await client.wait_until_succeeded(task_ids, before + number)
    took = time.perf_counter() - began
    await client.check_all_succeeded(task_ids)
    return number / took


@dataclass(frozen=True)
class Latencies:
    """How long after its submission each task's start and end was told to the client, in ms."""

    start: list[float]
    end: list[float]

    def of(self, name: str) -> float:
        """Return `start_p50`, `start_p99`, `end_p50` or `end_p99`."""
        moment, share = name.split("_p")
        values = self.start if moment == "start" else self.end
        return percentile(values, int(share) / 100)


async def latencies(client: Client, request: task_pb2.CreateTaskRequest, number: int) -> Latencies:
    """Return what one task after another takes on an idle agent."""
    pipeline_id = await client.create_pipeline(f"latency of {request.name}")
    filed = task_pb2.CreateTaskRequest(pipeline_id=pipeline_id)
    filed.MergeFrom(request)
    measured = Latencies([], [])
    async with client.following(pipeline_id) as changes:
        for number_so_far in range(WARM_UP + number):
            start, end = await _one(client, filed, changes)
            if number_so_far >= WARM_UP:
                measured.start.append(start * 1000)
                measured.end.append(end * 1000)
    return measured


async def _one(
    client: Client, request: task_pb2.CreateTaskRequest, changes: AsyncIterator[Change]
) -> tuple[float, float]:
    """Return seconds from the submission to the moments its start and end were told."""
    began = time.perf_counter()
    started = None
    async with asyncio.TaskGroup() as group, asyncio.timeout(CHANGE_SECONDS):
        group.create_task(client.create(request))
        while (change := await anext(changes)).status != SUCCESS:
            if change.status == RUNNING:
                started = time.perf_counter() - began
    ended = time.perf_counter() - began
    return started or ended, ended
