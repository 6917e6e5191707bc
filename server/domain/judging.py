"""A job has nothing left to wait for: whether it starts, is left out, or people are asked."""

from dataclasses import replace
from typing import Any

from server.domain.checks import Checks
from server.domain.event import Event, EventKind
from server.domain.expression import ExpressionError, Facts
from server.domain.facts import facts_of
from server.domain.ledger import Ledger
from server.domain.moment import SECOND
from server.domain.rules import TEMPLATE, Rules
from server.domain.run import Run
from server.domain.task import Judged, Task, TaskSpec, TaskStatus

End = tuple[TaskStatus, str]
"""How a task ends, and why."""


def judge(ledger: Ledger, task: Task) -> End | None:
    """Judge a waiting job of a run; return how it ends, None when it goes on.

    One that goes on and is not ASKED is to be made ready.
    """
    if not task.rules or task.run_key is None:
        return None
    rules = Rules.from_json(task.rules)
    run = ledger.run_by_key(task.run_key)
    needs = ledger.needs_of(task)
    facts = facts_of(ledger, run, rules, needs)
    try:
        if not _holds(ledger, task, rules, facts, needs):
            task.judged = Judged.LEFT_OUT
            return TaskStatus.SKIPPED, f"its condition does not hold: {rules.condition}"
        _fill(ledger, task, rules, facts)
    except ExpressionError as error:
        return TaskStatus.FAILED, str(error)
    if rules.approval is not None:
        _ask(ledger, task, rules, run)
    return None


def _holds(ledger: Ledger, task: Task, rules: Rules, facts: Facts, needs: list[Task]) -> bool:
    well = all(need.went_well for need in needs)
    if task.gate is not None:
        well = well and not ledger.gate(task.gate).spoiled
    if not rules.condition:
        return well
    return ledger.expressions.holds(rules.condition, facts, well=well)


def _fill(ledger: Ledger, task: Task, rules: Rules, facts: Facts) -> None:
    if not rules.fill and not rules.fill_steps:
        return
    spec = TaskSpec.from_json(task.spec)
    env = dict(spec.env)
    for name in rules.fill:
        if name not in env:
            continue  # somebody has changed the task meanwhile
        try:
            env[name] = ledger.expressions.fill(env[name], facts)
        except ExpressionError as error:
            raise ExpressionError(f"env.{name}: {error}") from error
    checks = Checks()
    checks.environment("env", {name: env[name] for name in rules.fill if name in env})
    checks.load("env", spec.commands, env)
    if checks.violations:
        first = checks.violations[0]
        raise ExpressionError(f"{first.field}: {first.description}")
    steps = tuple(_filled_step(ledger, step, facts) for step in spec.steps)
    task.spec = replace(spec, env=env, steps=steps).to_json()
    ledger.touch(task)


def _filled_step(ledger: Ledger, step: dict[str, Any], facts: Facts) -> dict[str, Any]:
    settings = dict(step["settings"])
    for name, value in settings.items():
        if isinstance(value, str) and TEMPLATE in value:
            try:
                settings[name] = ledger.expressions.fill(value, facts)
            except ExpressionError as error:
                raise ExpressionError(f"with.{name}: {error}") from error
    return {**step, "settings": settings}


def _ask(ledger: Ledger, task: Task, rules: Rules, run: Run) -> None:
    approval = rules.approval
    if approval is None:
        return
    task.judged = Judged.ASKED
    if approval.timeout:
        task.start_by = ledger.now + approval.timeout * SECOND
    ledger.touch(task)
    ledger.tell(
        Event(
            EventKind.APPROVAL_ASKED,
            task.namespace,
            ledger.now,
            task.public_id,
            run_id=run.public_id,
            pipeline_id=run.pipeline_id,
            data={"name": task.name, "who": list(approval.who), "message": approval.message},
        )
    )
