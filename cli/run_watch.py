"""Seeing a run through: all its tasks' logs at once, its changes, its end."""

import asyncio
from datetime import timedelta

from cli.alongside import together
from cli.connection import Api
from cli.log_follow import LogFollower
from cli.log_print import PrefixedPrinter
from cli.output import as_data, coloured_status, print_line
from cli.patience import call_patiently
from cli.run_tables import run_status
from cli.states import ENDED, RUN_ENDED, task_status
from cli.stream_follow import Answers, follow
from cli.times import lasted
from generated.pipeline.v1 import pipeline_pb2
from generated.stream.v1 import stream_pb2
from generated.task.v1 import task_pb2

LOOK_AGAIN = timedelta(milliseconds=300)
WIDEST_NAME = 24


async def get_run(api: Api, run_id: str) -> pipeline_pb2.RunDetail:
    """Return a run as it stands."""
    request = pipeline_pb2.GetRunRequest(run_id=run_id)
    return (await call_patiently(api, api.pipelines.GetRun, request)).run


async def wait_for_run(api: Api, run_id: str) -> pipeline_pb2.RunDetail:
    """Return a run once it has ended."""
    while True:
        run = await get_run(api, run_id)
        if run.status in RUN_ENDED:
            return run
        await asyncio.sleep(LOOK_AGAIN.total_seconds())


async def print_run_logs(api: Api, run: pipeline_pb2.RunDetail, *, follow: bool) -> None:
    """Print the logs of a run's tasks behind their names: interleaved when they are followed."""
    width = min(max((len(job.name) for job in run.jobs), default=0), WIDEST_NAME)
    printers = [PrefixedPrinter(job.name, width) for job in run.jobs]
    if not follow:
        for job, printer in zip(run.jobs, printers, strict=True):
            await _print_job(api, job.task_id, printer, follow=False)
        return
    await together(
        *(
            _print_job(api, job.task_id, printer, follow=True)
            for job, printer in zip(run.jobs, printers, strict=True)
        )
    )


async def print_changes(api: Api, run_id: str) -> pipeline_pb2.RunDetail:
    """Print where a run's jobs stand and each change until it has ended; return it then."""

    def look(after: str) -> Answers[stream_pb2.StreamTaskStatusResponse]:
        request = stream_pb2.StreamTaskStatusRequest(run_id=run_id, after=after)
        return api.streams.StreamTaskStatus(request, metadata=api.metadata)

    async for job in follow(look):
        print_line(as_data(job), _change(job))
    run = await wait_for_run(api, run_id)
    last = f"run {run.number}: {coloured_status(run_status(run.status))}"
    print_line(as_data(run), last)
    return run


def _change(job: stream_pb2.StreamTaskStatusResponse) -> str:
    """Return where a job stands now, on one line."""
    took = lasted(job.duration) if job.status in ENDED and job.duration else ""
    agent = job.agent_id if job.status == task_pb2.TASK_STATUS_RUNNING else ""
    attempt = f"attempt {job.attempt}" if agent and job.attempt > 1 else ""
    status = coloured_status(task_status(job.status))
    parts = (status, attempt, agent, took, job.error_message)
    return f"{job.task_name}: {'  '.join(part for part in parts if part)}"


def _tried_again(attempt: int) -> str:
    return f"attempt {attempt - 1} failed; tried again: attempt {attempt}"


async def _print_job(api: Api, task_id: str, printer: PrefixedPrinter, *, follow: bool) -> None:
    """Print one task's log, and its end when it is followed."""
    follower = LogFollower(api, task_id, follow=follow)
    shown = 0
    async for attempt, lines in follower.batches():
        if follow and shown and attempt > shown:
            printer.print_remark(_tried_again(attempt))
        shown = attempt
        printer.print_lines(lines)
    if follow:
        request = task_pb2.GetTaskRequest(task_id=task_id)
        task = (await call_patiently(api, api.tasks.GetTask, request)).task
        if shown and task.attempt > shown:  # the last attempts printed nothing
            printer.print_remark(_tried_again(task.attempt))
        if task.status in ENDED:
            printer.print_remark(f"{task_status(task.status)} {task.error_message}".rstrip())
