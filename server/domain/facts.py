"""What a job's condition and values may read: how the run was started, how others have ended."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from server.domain.ledger import Ledger
from server.domain.rules import Rules
from server.domain.run import Run
from server.domain.task import Judged, Task, TaskStatus
from server.domain.trigger_event import TriggerEvent

ASKED_FOR = TriggerEvent(kind="manual")
"""What has happened when nothing has: somebody asked for the run."""

_RESULT = {
    TaskStatus.SUCCESS: "success",
    TaskStatus.FAILED: "failed",
    TaskStatus.TIMEOUT: "timeout",
    TaskStatus.CANCELLED: "cancelled",
    TaskStatus.SKIPPED: "skipped",
}
_WORST = ("failed", "timeout", "cancelled", "success", "skipped")
"""What several jobs of a matrix amount to: the first of these that one of them is."""


def facts_of(ledger: Ledger, run: Run, rules: Rules, needs: Sequence[Task]) -> dict[str, Any]:
    """Return what the expressions of one job of a run may read."""
    started: dict[str, Any] = json.loads(run.facts) if run.facts else {}
    told = started.get("event")
    event = told or replace(ASKED_FOR, branch=run.branch, commit=run.commit_sha).to_facts()
    return {
        "event": {**event, "paths": event["paths"] or []},
        "inputs": started.get("inputs", {}),
        "branch": run.branch,
        "commit": run.commit_sha,
        "matrix": rules.matrix,
        "needs": _needs(rules, needs),
        "run": {"id": run.public_id, "number": run.number},
        "pipeline": {
            "id": run.pipeline_id,
            "name": ledger.pipeline_of(run).name,
        },
    }


def _needs(rules: Rules, needs: Sequence[Task]) -> dict[str, Any]:
    grouped: dict[str, list[Task]] = {}
    for task in sorted(needs, key=lambda task: task.position):
        grouped.setdefault(rules.bases.get(task.name, task.name), []).append(task)
    return {
        name: {"result": _result(tasks), "outputs": _outputs(tasks)}
        for name, tasks in grouped.items()
    }


def _outputs(tasks: Iterable[Task]) -> dict[str, str]:
    """Return what jobs tell; of the cells of a matrix the last one's word counts."""
    told: dict[str, str] = {}
    for task in tasks:
        if task.outputs:
            told.update(json.loads(task.outputs))
    return told


def _result(tasks: Iterable[Task]) -> str:
    results = {_RESULT.get(task.status, "") for task in tasks}
    return next(each for each in _WORST if each in results)


def how_it_ended(task: Task) -> str:
    """Return how a job has ended, for people."""
    if task.judged is Judged.LEFT_OUT:
        return f"{task.name} was left out"
    return f"{task.name} ended in {task.status.name}"
