"""What a run would do, without one: which jobs run, in which order, and why others would not."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from server.definition.expression import CelExpressions, asks_for_failures
from server.definition.trigger_filter import why_not
from server.domain.errors import Invalid
from server.domain.expression import ExpressionError
from server.domain.inputs import resolve_inputs
from server.domain.pipeline import Definition, Job, order_of
from server.domain.trigger_event import TriggerEvent


class WrongInputsError(ValueError):
    """A given input is unknown, missing or not of its type; says which."""


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """What a job would do."""

    stage: str
    name: str
    verdict: str
    """`runs`, `asks`, `left out`, or `depends` when only the run can tell."""
    reason: str
    after: tuple[str, ...]
    """What it waits for."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do."""

    refused: str
    """Why no run would be started, or empty."""
    jobs: tuple[PlannedJob, ...]


def plan(
    definition: Definition, event: TriggerEvent, name: str, given: Mapping[str, object]
) -> Plan:
    """Return what a run started by an event would do, if all that can go well does.

    Raises:
        WrongInputsError: a given input is unknown, missing or not of its type.
    """
    refused = why_not(definition.triggers, event) or ""
    try:
        inputs = resolve_inputs(definition.inputs, given)
    except Invalid as invalid:
        raise WrongInputsError(str(invalid)) from invalid
    branch = event.base if event.kind == "pull_request" else event.branch
    event = replace(event, branch=event.branch or definition.branch)
    told = event.to_facts()
    facts = {
        "event": {**told, "paths": told["paths"] or []},
        "branch": branch or definition.branch,
        "commit": event.commit,
        "inputs": inputs,
        "run": {"id": "", "number": 0},
        "pipeline": {"id": "", "name": name},
    }
    order = order_of(definition)
    waits = {name: list(others) for name, others in order.needs.items()}
    for last, first in order.gates:
        for each in first:
            waits[each] += last
    jobs = [
        _planned(stage.name, job, tuple(waits[job.name]), facts)
        for _, stage, job in definition.jobs()
    ]
    return Plan(refused, tuple(jobs))


def _planned(stage: str, job: Job, after: tuple[str, ...], facts: Mapping[str, Any]) -> PlannedJob:
    verdict, reason = _verdict(job, facts)
    return PlannedJob(stage, job.name, verdict, reason, after)


def _verdict(job: Job, facts: Mapping[str, Any]) -> tuple[str, str]:
    runs = ("runs", "") if job.approval is None else ("asks", ", ".join(job.approval.who))
    if not job.condition:
        return runs
    if "needs" in job.condition or asks_for_failures(job.condition):
        return "depends", job.condition
    try:
        holds = CelExpressions().holds(job.condition, {**facts, "matrix": job.matrix, "needs": {}})
    except ExpressionError as error:
        return "fails", str(error)
    return runs if holds else ("left out", f"{job.condition} does not hold")
