"""Artifacts to S3 and back, beside plain boto3 and the same store."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from bench.client import CALL_SECONDS, Client
from bench.figure import Figure
from bench.lab import Lab
from bench.numbers import median, rounded
from bench.s3 import BUCKET, S3, s3
from generated.pipeline.v1 import pipeline_pb2
from generated.task.v1 import task_pb2

UP, DOWN = FIGURES = ("artifact_up_ratio", "artifact_down_ratio")

MEBIBYTES = 512
MIB = 1 << 20
NOW = "date +%s%N"


async def measure(lab: Lab, wanted: frozenset[str]) -> AsyncIterator[Figure]:
    """See Family. The two take turns at one store."""
    size = lab.count(MEBIBYTES)
    rounds: dict[str, list[tuple[float, float]]] = {UP: [], DOWN: []}
    with s3(lab.new_folder("w")) as store:
        home = lab.new_folder("s")
        store.let_use(home)
        flags = ("--artifact-home", store.place)
        async with lab.muster(2, server_flags=flags, data_dir=home) as muster:
            await _ours(muster.client, 1)
            for _ in range(lab.rounds):
                theirs = await asyncio.to_thread(_theirs, store, lab.new_folder("f"), size)
                ours = await _ours(muster.client, size)
                for name in FIGURES:
                    rounds[name].append((ours[name], theirs[name]))
    for name in FIGURES:
        ratios = [theirs / ours for ours, theirs in rounds[name]]
        settings = {
            "mebibytes": size,
            "seconds": [rounded(ours) for ours, _ in rounds[name]],
            "boto3_seconds": [rounded(theirs) for _, theirs in rounds[name]],
            "rounds": [rounded(value) for value in ratios],
        }
        yield Figure(name, median(ratios), "of boto3's speed", size, settings)


def _theirs(store: S3, folder: Path, size: int) -> Mapping[str, float]:
    """Return how many seconds boto3 takes, by figure."""
    file, back = folder / "file", folder / "back"
    with file.open("wb") as opened:
        for _ in range(size):
            opened.write(os.urandom(MIB))
    client = store.client()
    began = time.perf_counter()
    client.upload_file(str(file), BUCKET, "theirs")
    stored = time.perf_counter()
    client.download_file(BUCKET, "theirs", str(back))
    brought = time.perf_counter()
    for each in (file, back):
        each.unlink()
    return {UP: stored - began, DOWN: brought - stored}


async def _ours(client: Client, size: int) -> Mapping[str, float]:
    """Return how many seconds a run takes, by figure.

    One job leaves a file, the next starts when it is stored, the third when it has been taken: so
    the way of two tasks to the agent is in it.
    """
    kept = task_pb2.ArtifactConfig(name="file", path="file")
    taken = task_pb2.ArtifactUse(job="leaves", path="in")
    made = f"head -c {size * MIB} /dev/urandom > file"
    jobs = [
        pipeline_pb2.Job(name="leaves", commands=[made, NOW], artifacts=[kept]),
        pipeline_pb2.Job(name="follows", commands=[NOW]),
        pipeline_pb2.Job(name="takes", commands=[NOW], inputs=[taken]),
    ]
    stages = [pipeline_pb2.Stage(name=job.name, jobs=[job]) for job in jobs]
    pipeline_id = await client.create_pipeline(f"files at {time.monotonic_ns()}", stages)
    await client.run_to_success(pipeline_id)
    request = pipeline_pb2.ListRunsRequest(pipeline_id=pipeline_id, page_size=1)
    (run,) = (await client.pipelines.ListRuns(request, timeout=CALL_SECONDS)).runs
    found = await client.pipelines.GetRun(
        pipeline_pb2.GetRunRequest(run_id=run.run_id), timeout=CALL_SECONDS
    )
    told = {job.name: await _told(client, job.task_id) for job in found.run.jobs}
    return {UP: told["follows"] - told["leaves"], DOWN: told["takes"] - told["follows"]}


async def _told(client: Client, task_id: str) -> float:
    """Return the moment that a task has printed, in seconds."""
    request = task_pb2.GetTaskLogRequest(task_id=task_id)
    answer = await client.tasks.GetTaskLog(request, timeout=CALL_SECONDS)
    return int(answer.logs[-1].content) / 1e9
