"""A pipeline file becomes a definition: matrices spread out, defaults filled in."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from server.definition.expression import TEMPLATE, asks_for_failures
from server.definition.matrix import cells_of
from server.definition.problem import Report
from server.definition.reading import read_file
from server.definition.record import Artifacts, Concurrency, Input, Job, PipelineFile, Stage
from server.definition.selector import parse_selector
from server.domain import pipeline as domain
from server.domain.checks import Checks
from server.domain.errors import Violation
from server.domain.group import Membership
from server.domain.labels import Selector
from server.domain.task import ArtifactSpec, ArtifactUse

DAY = 86_400

_JOB_PATH = re.compile(r"stages\[(\d+)\]\.jobs\[(\d+)\]")
_OTHER_NAMES = {"depends_on": "needs", "label_selector": "labels", "concurrency.key": "concurrency"}


def read_definition(data: bytes | str) -> tuple[PipelineFile, domain.Definition]:
    """Return what a pipeline file says, and the definition that comes of it.

    Raises:
        Refused: it is malformed; has every problem that was found, each with its place.
    """
    file = read_file(data)
    definition = expand(file)
    checks = Checks()
    domain.check_definition(checks, definition)
    if checks.violations:
        _refuse(data, file, definition, checks.violations)
    return file, definition


def _refuse(
    data: bytes | str,
    file: PipelineFile,
    definition: domain.Definition,
    violations: Iterable[Violation],
) -> None:
    """Tell what the domain's rules found, at the places of the file."""
    report = Report()
    read_file(data, report)
    report.take(
        Violation(_path_in_file(each.field, file, definition), each.description)
        for each in violations
    )
    report.done()


def _path_in_file(field: str, file: PipelineFile, definition: domain.Definition) -> str:
    found = _JOB_PATH.match(field)
    if found is None:
        return field
    stage, place = int(found[1]), int(found[2])
    job = definition.stages[stage].jobs[place]
    path = next(j.path for j in file.stages[stage].jobs if j.name == (job.base or job.name))
    rest = field[found.end() :]
    for name, other in _OTHER_NAMES.items():
        rest = rest.replace(name, other)
    return path + rest


def expand(file: PipelineFile) -> domain.Definition:
    """Return the definition that a file amounts to; the file has been checked."""
    names = {job.name: [name for name, _ in _named_cells(job)] for _, job in file.jobs()}
    return domain.Definition(
        stages=tuple(
            domain.Stage(
                stage.name,
                tuple(
                    _job(file, stage, job, name, cell, names)
                    for job in stage.jobs
                    for name, cell in _named_cells(job)
                ),
                stage.parallel,
            )
            for stage in file.stages
        ),
        env=dict(file.env),
        repo_url=file.repo_url,
        branch=file.branch,
        inputs=tuple(_input(name, each) for name, each in file.inputs.items()),
        triggers=_triggers(file),
        group=_group(file.concurrency),
    )


def _named_cells(job: Job) -> list[tuple[str, dict[str, str]]]:
    """Return the names of the jobs that one becomes, each with its cell."""
    if job.matrix is None:
        return [(job.name, {})]
    return [(f"{job.name} ({', '.join(cell.values())})", cell) for cell in cells_of(job.matrix)]


def _job(
    file: PipelineFile,
    stage: Stage,
    job: Job,
    name: str,
    cell: Mapping[str, str],
    names: Mapping[str, list[str]],
) -> domain.Job:
    condition = _both(stage.condition, job.condition)
    with_plugins = bool(job.plugins())
    return domain.Job(
        name=name,
        commands=() if with_plugins else job.script(),
        image=_filled(file.image_of(job), cell),
        env={**{f"MATRIX_{axis.upper()}": value for axis, value in cell.items()}, **job.env},
        depends_on=tuple(each for need in job.needs for each in names[need]),
        timeout=file.timeout_of(job),
        retry=file.retry_of(job),
        selector=_selector(file, job, cell),
        allow_failure=job.allow_failure,
        priority=file.priority_of(job),
        secret_refs=dict(job.secrets),
        condition=condition,
        after_failure=bool(condition) and asks_for_failures(condition),
        matrix=dict(cell),
        base=job.name if job.matrix is not None else "",
        group=_group(job.concurrency),
        outputs=job.outputs,
        approval=_approval(job),
        artifacts=_artifacts(job, name),
        steps=_steps(job) if with_plugins else (),
        inputs=tuple(ArtifactUse(take.job, take.name, take.into) for take in job.take),
        checkout=job.checkout,
        keep_workspace=job.keep_workspace,
    )


def _both(first: str, second: str) -> str:
    return f"({first}) && ({second})" if first and second else first or second


def _filled(text: str, cell: Mapping[str, str]) -> str:
    return TEMPLATE.sub(lambda found: cell[found[1].strip().removeprefix("matrix.")], text)


def _selector(file: PipelineFile, job: Job, cell: Mapping[str, str]) -> Selector:
    labels = {name: _filled(value, cell) for name, value in file.labels_of(job).items()}
    text = _filled(file.selector_of(job), cell)
    requirements = tuple(parse_selector(text)) if text else ()
    return Selector(tuple(sorted(labels.items())), requirements)


def _approval(job: Job) -> domain.Approval | None:
    asked = job.approval
    return None if asked is None else domain.Approval(asked.who, asked.timeout, asked.message)


def _artifacts(job: Job, name: str) -> tuple[ArtifactSpec, ...]:
    kept: Artifacts | None = job.artifacts
    if kept is None:
        return ()
    days = -(-kept.keep // DAY)
    return tuple(
        ArtifactSpec(
            kept.name or name,
            path,
            expire=bool(days),
            expire_days=days,
            on_failure=kept.on_failure,
            archive=kept.archive,
            no_dot_files=not kept.dot_files,
        )
        for path in kept.files
    )


def _steps(job: Job) -> tuple[domain.Step, ...]:
    return tuple(
        domain.Step(step.name, step.commands, step.uses, dict(step.settings)) for step in job.steps
    )


def _group(group: Concurrency | None) -> Membership | None:
    if group is None:
        return None
    return Membership(group.group, group.limit, cancels_older=group.cancel_running)


def _input(name: str, each: Input) -> domain.Input:
    return domain.Input(
        name, each.type, each.description, each.default, each.required, each.options
    )


def _triggers(file: PipelineFile) -> dict[str, Any]:
    """Return what starts runs as JSON values, without what the file does not say."""
    triggers: dict[str, Any] = {}
    for name in file.triggers.names():
        found = getattr(file.triggers, name)
        if isinstance(found, tuple):
            triggers[name] = [_plain(asdict(each)) for each in found]
        else:
            triggers[name] = _plain(asdict(found))
    return triggers


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in data.items()
        if name != "path" and value not in ("", ())
    }
