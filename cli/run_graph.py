"""A run's jobs as a picture in Mermaid's language."""

from collections.abc import Iterator
from itertools import pairwise

from cli.run_tables import job_status
from cli.times import between
from generated.pipeline.v1 import pipeline_pb2

COLOURS = {
    "SUCCESS": "fill:#d8f5d8,stroke:#2e8b57",
    "FAILED": "fill:#fadbd8,stroke:#c0392b",
    "TIMEOUT": "fill:#fadbd8,stroke:#c0392b",
    "RUNNING": "fill:#d6eaf8,stroke:#2471a3",
    "CANCELLED": "fill:#eeeeee,stroke:#888888",
    "SKIPPED": "fill:#eeeeee,stroke:#888888",
    "LEFT OUT": "fill:#eeeeee,stroke:#888888",
    "APPROVAL?": "fill:#fcf3cf,stroke:#b7950b",
}


def mermaid(run: pipeline_pb2.RunDetail) -> str:
    """Return a run as a flow chart: a box a job, a frame a stage, an arrow for each wait."""
    return "\n".join(["flowchart LR", *_stages(run), *_arrows(run), *_classes(run)])


def _stages(run: pipeline_pb2.RunDetail) -> Iterator[str]:
    names = {job.stage: job.stage_name for job in run.jobs}
    for number in sorted(names):
        yield f'  subgraph s{number}["{_text(names[number])}"]'
        for place, job in enumerate(run.jobs):
            if job.stage == number:
                status, took = job_status(job), between(job.started_at, job.finished_at)
                words = "<br/>".join(filter(None, (_text(job.name), status, took)))
                yield f'    j{place}["{words}"]'
        yield "  end"


def _arrows(run: pipeline_pb2.RunDetail) -> Iterator[str]:
    places = {job.name: place for place, job in enumerate(run.jobs)}
    for place, job in enumerate(run.jobs):
        for other in job.depends_on:
            if other in places:
                yield f"  j{places[other]} --> j{place}"
    stages = sorted({job.stage for job in run.jobs})
    behind = {job.stage for job in run.jobs if job.behind_stage}
    for before, stage in pairwise(stages):
        if stage in behind:
            yield f"  s{before} --> s{stage}"


def _classes(run: pipeline_pb2.RunDetail) -> Iterator[str]:
    statuses = [job_status(job) for job in run.jobs]
    for status, look in COLOURS.items():
        boxes = [f"j{place}" for place, each in enumerate(statuses) if each == status]
        if boxes:
            name = status.strip("?").replace(" ", "_").lower()
            yield f"  classDef {name} {look}"
            yield f"  class {','.join(boxes)} {name}"


def _text(text: str) -> str:
    """Return text as it may stand between quotes."""
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
