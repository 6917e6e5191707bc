"""A run as it goes on, drawn anew in a terminal: stages, jobs, what each waits for."""

import asyncio
import time
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from cli.connection import Api
from cli.output import STYLES
from cli.run_tables import job_status, run_status
from cli.run_watch import get_run
from cli.states import RUN_ENDED
from cli.times import lasted
from generated.pipeline.v1 import pipeline_pb2

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

LOOK_AGAIN = 0.5
"""Seconds between two pictures."""

MOST_JOBS = 40
"""Jobs of a stage that are drawn; of more only those that are not over, and how many there are."""

MARKS = {
    "SUCCESS": "✓",
    "FAILED": "✗",
    "TIMEOUT": "✗",
    "RUNNING": "●",
    "CANCELLED": "■",
    "SKIPPED": "-",
    "LEFT OUT": "-",
    "APPROVAL?": "?",
}
OVER = ("SUCCESS", "SKIPPED", "LEFT OUT", "CANCELLED")


async def draw_run(api: Api, run_id: str) -> pipeline_pb2.RunDetail:
    """Draw a run until it has ended; return it then."""
    from rich.live import Live  # late: only terminals need it

    with Live(auto_refresh=False, transient=False) as live:
        while True:
            run = await get_run(api, run_id)
            live.update(picture(run), refresh=True)
            if run.status in RUN_ENDED:
                return run
            await asyncio.sleep(LOOK_AGAIN)


def picture(run: pipeline_pb2.RunDetail, now: float | None = None) -> "Tree":
    """Return a run as a tree of its stages and jobs; `now` is Unix seconds."""
    from rich.text import Text
    from rich.tree import Tree

    now = time.time() if now is None else now
    status = run_status(run.status)
    title = Text(f"{run.pipeline_name} {run.number}  ")
    title.append(status, STYLES.get(status, ""))
    title.append(f"  {run.ended_jobs}/{run.total_jobs} jobs  {_took(run, now)}")
    tree = Tree(title)
    for stage, jobs in groupby(run.jobs, key=lambda job: job.stage_name):
        branch = tree.add(Text(stage, "bold"))
        for line in _lines(list(jobs), now):
            branch.add(line)
    return tree


def _lines(jobs: list[pipeline_pb2.RunJob], now: float) -> Iterator["Text"]:
    from rich.text import Text

    width = max(len(job.name) for job in jobs)
    left_away = 0
    for job in jobs:
        status = job_status(job)
        if len(jobs) > MOST_JOBS and status in OVER:
            left_away += 1
            continue
        line = Text(f"{MARKS.get(status, '·')} {job.name:<{width}}  ")
        line.append(f"{status:<9}", STYLES.get(status, ""))
        details = [_took(job, now)]
        if status == "RUNNING":
            details.append(job.agent_id)
        elif job.error_message:
            details.append(job.error_message.splitlines()[0][:80])
        elif status in ("PENDING", "APPROVAL?") and job.depends_on:
            details.append(f"after {', '.join(job.depends_on[:3])}")
        line.append("  ".join(filter(None, details)))
        yield line
    if left_away:
        yield Text(f"and {left_away} that are over", "dim")


def _took(thing: pipeline_pb2.RunDetail | pipeline_pb2.RunJob, now: float) -> str:
    if not thing.started_at:
        return ""
    return lasted((thing.finished_at or now * 1000) - thing.started_at)
