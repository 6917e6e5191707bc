"""Pipelines that start when another's run has ended, in the transaction that ends it."""

from collections.abc import Iterable, Mapping
from typing import Any

from server.domain.dag import find_cycle
from server.domain.errors import Invalid, Violation
from server.domain.event import Event, EventKind
from server.domain.glob import selects
from server.domain.ids import moment_id
from server.domain.ledger import Ledger
from server.domain.pipeline import Definition, Pipeline
from server.domain.run import Run, RunStatus
from server.domain.trigger_event import TriggerEvent
from server.domain.triggering import Trigger, start_run

STATUSES = {
    RunStatus.SUCCESS: "success",
    RunStatus.PARTIAL: "partial",
    RunStatus.FAILED: "failed",
    RunStatus.CANCELLED: "cancelled",
}


def names_followed(definition: Definition) -> list[str]:
    """Return the pipelines whose runs' ends start this one."""
    return sorted({str(each["name"]) for each in definition.triggers.get("pipeline", ())})


def check_links(
    ledger: Ledger, namespace: str, name: str, definition: Definition, before: str = ""
) -> None:
    """See that pipelines do not start each other for ever; `before` is what one was called.

    Raises:
        Invalid: they would.
    """
    names = names_followed(definition)
    if not names:
        return
    ledger.flush()
    waits: dict[str, list[str]] = {}
    for each, after in ledger.source.links(namespace):
        if each not in (name, before):
            waits.setdefault(each, []).append(after)
    waits[name] = names
    if cycle := find_cycle(waits):
        text = "pipelines would start each other for ever: " + " → ".join(cycle)
        raise Invalid([Violation("on.pipeline", text)])


def link(ledger: Ledger, pipeline: Pipeline, definition: Definition | None) -> None:
    """Note which pipelines' ends start one; none once it has no definition any more."""
    names = names_followed(definition) if definition is not None else []
    ledger.set_links(pipeline, names)


def follow_runs(ledger: Ledger) -> None:
    """Start what follows the runs that have ended in this transaction."""
    while ledger.ended_runs:
        run = ledger.ended_runs.pop()
        pipeline = ledger.pipeline_of(run)
        ledger.flush()
        for follower in ledger.followers(pipeline):
            if follower.deleted_at is None and _is_asked(follower, pipeline, run):
                _start(ledger, follower, pipeline, run)


def _is_asked(follower: Pipeline, pipeline: Pipeline, run: Run) -> bool:
    asked: Iterable[Mapping[str, Any]] = Definition.from_json(follower.definition).triggers.get(
        "pipeline", ()
    )
    return any(
        each["name"] == pipeline.name
        and STATUSES[run.status] in each.get("statuses", ("success",))
        and selects(each.get("branches", ()), run.branch)
        for each in asked
    )


def _start(ledger: Ledger, follower: Pipeline, pipeline: Pipeline, run: Run) -> None:
    data = {"pipeline": pipeline.name, "run_id": run.public_id, "status": STATUSES[run.status]}
    trigger = Trigger(
        triggered_by=f"pipeline:{pipeline.name}",
        event=TriggerEvent(kind="pipeline", branch=run.branch, commit=run.commit_sha, data=data),
    )
    run_id = moment_id(f"{run.public_id} {follower.public_id}", ledger.now)
    try:
        start_run(ledger, follower, run_id, trigger)
    except Invalid as error:
        ledger.tell(
            Event(
                EventKind.RUN_REMARK,
                run.namespace,
                ledger.now,
                run.public_id,
                run_id=run.public_id,
                pipeline_id=run.pipeline_id,
                data={"text": f"pipeline {follower.name} does not follow: {error}"},
            )
        )
