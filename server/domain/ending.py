"""How attempts and tasks end, and what follows from it in the same transaction."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from server.domain.attempt import Attempt, AttemptStatus, LogSummary
from server.domain.condition import note_end
from server.domain.event import Event, EventKind
from server.domain.facts import how_it_ended
from server.domain.gate import Gate
from server.domain.judging import judge
from server.domain.ledger import Ledger
from server.domain.moment import Millis, Moment
from server.domain.policy import Policy
from server.domain.quarantine import blame, forgive
from server.domain.retry import backoff
from server.domain.rules import Rules
from server.domain.run import Run, RunStatus, count_end, count_running, counts, status_of
from server.domain.task import Judged, Task, TaskStatus, move


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended."""

    status: AttemptStatus
    exit_code: int = 0
    cause: str = ""
    reported: bool = False
    """Whether the agent said so itself."""
    fault: bool = False
    """Whether the agent or its host is to blame."""
    log: LogSummary | None = None
    ended_at: Moment | None = None
    outputs: Mapping[str, str] = field(default_factory=dict)
    """What the task tells later jobs."""


Ending: TypeAlias = tuple[Task, TaskStatus, str]
"""A task that is to end, how, and why."""

_END = {
    AttemptStatus.SUCCESS: TaskStatus.SUCCESS,
    AttemptStatus.FAILED: TaskStatus.FAILED,
    AttemptStatus.CANCELLED: TaskStatus.CANCELLED,
    AttemptStatus.TIMEOUT: TaskStatus.TIMEOUT,
}


def start_attempt(ledger: Ledger, task: Task, started_at: Moment | None) -> None:
    """Record that the agent runs the task; again is fine."""
    task.confirm_by = None
    if task.status is TaskStatus.RUNNING:
        ledger.touch(task)
        return
    attempt = ledger.last_attempt(task)
    previous = move(task, TaskStatus.RUNNING)
    task.start_by = None
    task.started_at = attempt.started_at = started_at or ledger.now
    # The deadline is the server's own, by its own clock: an agent's clock may be an hour off.
    policy = ledger.policy
    task.deadline = ledger.now + task.timeout + policy.kill_grace + policy.deadline_slack
    attempt.status = AttemptStatus.RUNNING
    ledger.touch(task)
    ledger.touch_attempt(attempt)
    tell_status(ledger, task, previous)
    _start_run(ledger, task)


def end_attempt(ledger: Ledger, task: Task, outcome: Outcome) -> None:
    """End the current attempt of a leased task, and move the task on."""
    attempt = ledger.last_attempt(task)
    if task.status is TaskStatus.QUEUED and outcome.status in _END:
        start_attempt(ledger, task, attempt.claimed_at)
    _close(ledger, attempt, outcome)
    drop_lease(ledger, task)
    _judge_agent(ledger, attempt, outcome)
    task.exit_code = outcome.exit_code
    if outcome.status is AttemptStatus.RELEASED:
        _after_release(ledger, task)
    elif outcome.status is AttemptStatus.LOST:
        _after_loss(ledger, task, attempt, outcome)
    else:
        _after_end(ledger, task, outcome)


def _close(ledger: Ledger, attempt: Attempt, outcome: Outcome) -> None:
    attempt.status = outcome.status
    attempt.ended_at = outcome.ended_at or ledger.now
    # An end may be told long after it was: its last lines are awaited from here on.
    attempt.log_at = ledger.now
    attempt.exit_code = outcome.exit_code
    attempt.cause = outcome.cause
    attempt.reported = outcome.reported
    summary = outcome.log
    never_ran = attempt.started_at is None and outcome.status is AttemptStatus.RELEASED
    if summary is None and never_ran and not attempt.log_lines:
        summary = LogSummary(0, 0, 0)  # there is nothing to wait for
    if summary is not None:
        attempt.sum_lines, attempt.sum_bytes = summary.lines, summary.bytes
        attempt.sum_crc = summary.crc32
    ledger.touch_attempt(attempt)


def _judge_agent(ledger: Ledger, attempt: Attempt, outcome: Outcome) -> None:
    for agent in ledger.agents_by_key([attempt.agent_key]).values():
        if outcome.status is AttemptStatus.SUCCESS:
            forgive(ledger, agent)
        elif outcome.fault:
            blame(ledger, agent, attempt, outcome.cause)
        note_end(ledger, agent)


def _after_end(ledger: Ledger, task: Task, outcome: Outcome) -> None:
    end = _END[outcome.status]
    tells = outcome.outputs and end in (TaskStatus.SUCCESS, TaskStatus.FAILED)
    task.outputs = json.dumps(dict(outcome.outputs), ensure_ascii=False) if tells else ""
    if end is TaskStatus.SUCCESS:
        end_task(ledger, task, end)
    elif task.cancel_requested_at is not None:
        end_task(ledger, task, TaskStatus.CANCELLED, task.cancel_reason or "cancelled")
    elif end is TaskStatus.CANCELLED:
        end_task(ledger, task, end, outcome.cause)
    else:
        task.failed_attempts += 1
        if task.failed_attempts > task.retry_limit:
            end_task(ledger, task, end, outcome.cause)
        else:
            _retry_later(ledger, task, outcome.cause)


def _retry_later(ledger: Ledger, task: Task, cause: str) -> None:
    task.error = cause
    task.not_before = ledger.now + backoff(task.failed_attempts, ledger.policy)
    previous = move(task, TaskStatus.PENDING)
    ledger.touch(task)
    ledger.unsettle(task)
    tell_status(ledger, task, previous)


def _after_release(ledger: Ledger, task: Task) -> None:
    attempt = ledger.last_attempt(task)
    if task.cancel_requested_at is not None:
        end_task(ledger, task, TaskStatus.CANCELLED, task.cancel_reason or "cancelled")
    elif attempt.started_at is not None and not task.retry_on_lost:
        end_task(ledger, task, TaskStatus.FAILED, attempt.cause)
    else:
        requeue(ledger, task)


def heard_until(task: Task, lost_at: Moment, policy: Policy) -> Moment:
    """Return when a lost run can be heard of no more: its time is up, on its host too.

    It had started by then or was starting: the time of a run goes from its start.
    """
    return lost_at + task.timeout + policy.kill_grace + policy.deadline_slack


def _after_loss(ledger: Ledger, task: Task, attempt: Attempt, outcome: Outcome) -> None:
    task.infra_retries += 1
    if task.cancel_requested_at is not None:
        end_task(ledger, task, TaskStatus.CANCELLED, task.cancel_reason or "cancelled")
    elif not task.retry_on_lost:
        end_task(ledger, task, TaskStatus.FAILED, outcome.cause)
    elif task.infra_retries > ledger.policy.infra_retry_limit:
        cause = f"{outcome.cause}; given up after {task.infra_retries} lost attempts"
        end_task(ledger, task, TaskStatus.FAILED, cause)
    else:
        if attempt.session == "":
            # Spares the search; the claim itself looks at every attempt.
            task.avoid_agent = attempt.agent_key
            task.avoid_until = heard_until(task, ledger.now, ledger.policy)
        task.error = outcome.cause
        requeue(ledger, task)


def drop_lease(ledger: Ledger, task: Task) -> None:
    """Free the lease; the epoch stays, so that its holder is still recognised."""
    if task.lease_session is not None:
        ledger.effects.freed.add(task.lease_session)
        ledger.effects.ended_leases.append((task.lease_session, task.lease_id))
    task.lease_agent = None
    task.lease_session = None
    task.lease_request = None
    task.claimed_at = None
    task.confirm_by = None
    task.deadline = None
    ledger.touch(task)


def requeue(ledger: Ledger, task: Task) -> None:
    """Make a task ready again, or for the first time; a group's member gets a place first."""
    task.ready_at = None  # the ledger notes when it is ready anew
    if task.status is TaskStatus.PENDING and task.group_key is not None:
        task.not_before = None
        ledger.touch(task)
        ledger.unsettle(task)
        return
    if task.status is not TaskStatus.QUEUED:
        previous = move(task, TaskStatus.QUEUED)
        tell_status(ledger, task, previous)
    task.not_before = None
    ledger.touch(task)
    ledger.effects.ready_queues.add(task.queue)


def end_task(ledger: Ledger, task: Task, end: TaskStatus, error: str = "") -> None:
    """End a task, and with it what depends on it and its run, in one sweep."""
    end_all(ledger, [(task, end, error)])


def end_all(ledger: Ledger, ending: list[Ending]) -> None:
    """End tasks, and with each what depends on it."""
    while ending:
        task, end, error = ending.pop()
        if task.status.ended:
            continue
        _end_one(ledger, task, end, error)
        ending.extend(_release_dependents(ledger, task))


def _end_one(ledger: Ledger, task: Task, end: TaskStatus, error: str) -> None:
    previous = move(task, end)
    task.error = error
    task.finished_at = ledger.now
    task.not_before = None
    ledger.touch(task)
    ledger.unsettle(task)
    ledger.effects.log_tasks.add(task.public_id)
    if task.run_key is None:
        tell_status(ledger, task, previous)
        return
    run = ledger.run_by_key(task.run_key)
    count_end(run, task)
    ledger.touch_run(run)
    tell_status(ledger, task, previous)
    settle_run(ledger, run)


def _release_dependents(ledger: Ledger, task: Task) -> list[Ending]:
    """Count an ended task off its dependents; return those that end without having run."""
    endings = []
    for dependent in ledger.dependents(task):
        if _is_out(ledger, dependent, well=task.went_well):
            endings.append(_never(ledger, dependent, task, how_it_ended(task)))
        else:
            endings += count_off(ledger, dependent)
    if task.opens is not None:
        endings += _count_off_gate(ledger, ledger.gate(task.opens), task)
    return endings


def _is_out(ledger: Ledger, task: Task, *, well: bool) -> bool:
    """Whether a waiting task will not run, because what it waited for ended as it did."""
    if well or task.status.ended:
        return False
    return _is_stopped(ledger, task) or not Rules.from_json(task.rules).after_failure


def _never(ledger: Ledger, task: Task, other: Task, cause: str) -> Ending:
    """Return the end of a task that waited in vain."""
    if _is_stopped(ledger, task):
        return task, TaskStatus.CANCELLED, other.error
    return task, TaskStatus.SKIPPED, cause


def count_off(ledger: Ledger, task: Task) -> list[Ending]:
    """Note that a waiting task has one thing less to wait for; start it when that was the last."""
    if task.status.ended:
        return []
    task.unmet -= 1
    ledger.touch(task)
    if task.unmet or task.status is not TaskStatus.PENDING:
        return []
    return begin(ledger, task)


def begin(ledger: Ledger, task: Task) -> list[Ending]:
    """Judge a task that waits for nothing more, and make it ready if it is to run."""
    end = judge(ledger, task)
    if end is not None:
        return [(task, *end)]
    if task.judged is not Judged.ASKED:
        requeue(ledger, task)
    return []


def _count_off_gate(ledger: Ledger, gate: Gate, task: Task) -> list[Ending]:
    """Count an ended task off a gate, and tell what is behind it."""
    gate.unmet -= 1
    ledger.touch_gate(gate)
    endings = []
    if not task.went_well and not gate.spoiled:
        gate.spoiled = how_it_ended(task)
        for waiting in ledger.behind(gate):
            if _is_out(ledger, waiting, well=False):
                endings.append(_never(ledger, waiting, task, gate.spoiled))
    if gate.unmet == 0:
        for waiting in ledger.behind(gate):
            if not _is_out(ledger, waiting, well=not gate.spoiled):
                endings += count_off(ledger, waiting)
    return endings


def _is_stopped(ledger: Ledger, task: Task) -> bool:
    """Whether a task's run was stopped: then what will not run is cancelled, not skipped."""
    if task.run_key is None:
        return False
    return ledger.run_by_key(task.run_key).stop_requested_at is not None


def _start_run(ledger: Ledger, task: Task) -> None:
    if task.run_key is None:
        return
    run = ledger.run_by_key(task.run_key)
    if run.started_at is None:
        run.started_at = ledger.now
        ledger.touch_run(run)
        settle_run(ledger, run)


def settle_run(ledger: Ledger, run: Run) -> None:
    """Give a run the status its counters amount to, and tell when that is news."""
    status = status_of(run)
    if status is run.status:
        return
    previous, run.status = run.status, status
    if status.ended:
        run.finished_at = ledger.now
    ledger.touch_run(run)
    pipeline = ledger.pipeline_of(run)
    if run.number == pipeline.runs:
        pipeline.last_status = status
        ledger.touch_pipeline(pipeline)
    tell_run(ledger, run, previous, pipeline.name)
    if status.ended:
        ledger.ended_runs.append(run)
    if status.ended and run.group_key is not None:
        give_turns(ledger, run.namespace, run.group_key)
    if status.ended and run.schedule_key is not None:
        _wake_schedule(ledger, run.schedule_key)


def _wake_schedule(ledger: Ledger, key: int) -> None:
    """Have the timers look at a schedule of which a time waits until its runs have ended."""
    schedule = ledger.schedule_by_key(key)
    if schedule is not None and schedule.pending_at is not None and schedule.paused_at is None:
        schedule.due_at = ledger.now
        ledger.touch_schedule(schedule)


def give_turns(ledger: Ledger, namespace: str, group_key: str) -> None:
    """Let as many runs of a group go on as it has places for, the oldest first."""
    places = ledger.lock_turns(namespace, group_key)
    runs = ledger.group_runs(namespace, group_key)
    waiting = [run for run in runs if run.turn is not None and not run.status.ended]
    free = places - sum(run.turn is None and not run.status.ended for run in runs)
    for run in waiting[: max(0, free)]:
        gate = ledger.gate(run.turn or 0)
        run.turn = None
        ledger.touch_run(run)
        gate.unmet = 0
        ledger.touch_gate(gate)
        for task in ledger.behind(gate):
            end_all(ledger, count_off(ledger, task))


def tell_run(ledger: Ledger, run: Run, previous: RunStatus | None, name: str) -> None:
    """Add the event of a run's new status; `name` is its pipeline's."""
    ledger.tell(
        Event(
            EventKind.RUN_STATUS,
            run.namespace,
            ledger.now,
            run.public_id,
            run_id=run.public_id,
            pipeline_id=run.pipeline_id,
            data={
                "name": name,
                "status": int(run.status),
                "previous": int(previous or 0),
                **({"by": run.triggered_by} if previous is None else {}),
                **counts(run, ledger.now),
            },
        )
    )


def tell_status(ledger: Ledger, task: Task, previous: TaskStatus | None) -> None:
    """Add the event of a task's new status."""
    runs = TaskStatus.RUNNING in (task.status, previous)
    measured = ledger.measured.get(task.key) if runs else None
    ledger.tell(
        Event(
            EventKind.TASK_STATUS,
            task.namespace,
            ledger.now,
            task.public_id,
            run_id=task.run_id,
            pipeline_id=task.pipeline_id,
            data={
                "name": task.name,
                # Other servers learn from it that there is work of this class.
                **({"class": task.class_key} if task.ready else {}),
                "status": int(task.status),
                "previous": int(previous or 0),
                "attempt": task.attempt,
                "agent": task.last_agent_id or "",
                "exit_code": task.exit_code,
                "error": task.error,
                "duration": _duration(ledger, task),
                **({"by": task.created_by} if previous is None else {}),
                **({"metrics": measured} if measured else {}),
                **_of_run(ledger, task, previous),
            },
        )
    )


def _of_run(ledger: Ledger, task: Task, previous: TaskStatus | None) -> dict[str, Any]:
    """Return how far the task's run is, where this change of the task is news about that."""
    if task.run_key is None or previous is None:
        return {}
    if TaskStatus.RUNNING not in (task.status, previous) and not task.status.ended:
        return {}
    run = ledger.run_by_key(task.run_key)
    if count_running(run, task, previous):
        ledger.touch_run(run)
    return {"run": {"status": int(run.status), **counts(run, ledger.now)}}


def _duration(ledger: Ledger, task: Task) -> Millis:
    """Return how long the last attempt ran, 0 while it runs and when there was none."""
    attempt = ledger.attempt(task, task.attempt) if task.status.ended else None
    if attempt is None or attempt.started_at is None or attempt.ended_at is None:
        return 0
    return max(0, attempt.ended_at - attempt.started_at)
