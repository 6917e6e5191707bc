"""Pipeline files at the door: read by `server.definition`, refused by line and column."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from server.definition.expanding import read_definition
from server.definition.expression import Scope, asks_for_failures, find_faults
from server.definition.problem import Refused
from server.definition.schedule_file import plan_of_cron
from server.domain.defining import Description
from server.domain.errors import Invalid, Violation
from server.domain.pipeline import Definition, Job, Stage

_TYPES = {"cron": 3, "push": 2, "tag": 2, "pull_request": 2, "webhook": 2}
"""`TriggerType` by what a file says starts runs: the first of these."""


def described_by(text: str) -> Description:
    """Return the pipeline that a file describes.

    Raises:
        Invalid: it is malformed.
    """
    with _refusing():
        file, definition = read_definition(text)
    kinds = (number for name, number in _TYPES.items() if name in definition.triggers)
    return Description(
        file.name,
        definition,
        description=file.description,
        trigger_type=next(kinds, 1),
        source=text,
        schedules=tuple(map(plan_of_cron, file.triggers.cron)),
    )


def jobs_of_file(text: str) -> Definition:
    """Return the stages of a file, to be added to a run.

    Raises:
        Invalid: it is malformed.
    """
    with _refusing():
        return read_definition(text)[1]


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn the problems of a file into violations of the field `file`."""
    try:
        yield
    except Refused as error:
        lines = error.describe("file")
        raise Invalid([Violation("file", line) for line in lines]) from error


def stages_checked(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """Return stages that came in messages, their conditions read.

    Raises:
        Invalid: a condition is malformed.
    """
    jobs = {job.base or job.name: job for stage in stages for job in stage.jobs}
    if not any(job.condition for job in jobs.values()):
        return stages
    bases = {job.name: job.base or job.name for stage in stages for job in stage.jobs}
    checked = []
    for place, stage in enumerate(stages):
        path = f"stages[{place}].jobs"
        done = [_job(job, f"{path}[{n}]", bases, jobs) for n, job in enumerate(stage.jobs)]
        checked.append(replace(stage, jobs=tuple(done)))
    return tuple(checked)


def _job(job: Job, path: str, bases: dict[str, str], jobs: dict[str, Job]) -> Job:
    if not job.condition:
        return job
    needs = {bases.get(name, name) for name in job.depends_on}
    scope = Scope(
        needs=frozenset(needs),
        outputs={name: frozenset(jobs[name].outputs) for name in needs if name in jobs},
        jobs=frozenset(jobs),
        matrix=frozenset(job.matrix),
    )
    faults = find_faults(job.condition, scope, condition=True)
    if faults:
        field = f"{path}.condition"
        raise Invalid(
            [Violation(field, f"character {each.offset + 1}: {each.why}") for each in faults]
        )
    return replace(job, after_failure=asks_for_failures(job.condition))
