"""Schedules come, change and go, and strike: a time and its run are written together."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate

from server.domain.canceling import stop_run
from server.domain.checks import Checks
from server.domain.errors import AlreadyExists, Invalid, NotFound, WrongState
from server.domain.event import Event, EventKind
from server.domain.ids import moment_id
from server.domain.ledger import Ledger
from server.domain.moment import SECOND, Moment
from server.domain.pipeline import Pipeline
from server.domain.schedule import MADE_UP_LIMIT, CatchUp, Fire, Overlap, Owner, Plan, Schedule
from server.domain.trigger_event import TriggerEvent
from server.domain.triggering import Trigger, start_run

ON_TIME = 60 * SECOND
"""How late a time may be looked at and count as not missed."""

NOTE_LIMIT = 1024


@dataclass(frozen=True, slots=True)
class CreateSchedule:
    """Have a pipeline started by the clock; answers the schedule's id."""

    namespace: str
    schedule_id: str
    name: str
    pipeline_id: str
    plan: Plan
    created_by: str = ""

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> str:
        """See Command."""
        pipeline = ledger.pipeline(self.namespace, self.pipeline_id)
        known = ledger.schedule_named(self.namespace, self.name)
        if known is not None:
            if known.public_id == self.schedule_id:  # a retry after a lost answer
                return known.public_id
            raise AlreadyExists("schedule", self.name)
        _check(ledger, self.name, self.plan)
        add_schedule(
            ledger,
            pipeline,
            self.schedule_id,
            self.name,
            self.plan,
            owner=Owner.CALLER,
            author=self.created_by,
        )
        return self.schedule_id


@dataclass(frozen=True, slots=True)
class UpdateSchedule:
    """Give a schedule another plan; its next time is found anew."""

    namespace: str
    schedule_id: str
    plan: Plan

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> None:
        """See Command."""
        schedule = _own(ledger, self.namespace, self.schedule_id)
        _check(ledger, schedule.name, self.plan)
        change_schedule(ledger, schedule, self.plan)


@dataclass(frozen=True, slots=True)
class DeleteSchedule:
    """Forget a schedule; its runs stay."""

    namespace: str
    schedule_id: str

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> None:
        """See Command."""
        ledger.delete_schedule(_own(ledger, self.namespace, self.schedule_id))


@dataclass(frozen=True, slots=True)
class PauseSchedule:
    """Pause a schedule, or let it go on; times that come meanwhile are not made up for."""

    namespace: str
    schedule_id: str
    paused: bool
    note: str = ""

    def check(self) -> None:
        """Check the note.

        Raises:
            Invalid: it is malformed.
        """
        checks = Checks()
        checks.text("note", self.note, NOTE_LIMIT)
        checks.done()

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> None:
        """See Command."""
        schedule = ledger.schedule(self.namespace, self.schedule_id)
        schedule.note = self.note if self.paused else ""
        if not self.paused:
            schedule.paused_at = None
            find_next(ledger, schedule, ledger.now)
        elif schedule.paused_at is None:
            schedule.paused_at = ledger.now
            schedule.due_at = None
            _drop_pending(ledger, schedule, "the schedule was paused while it waited")
        ledger.touch_schedule(schedule)


@dataclass(frozen=True, slots=True)
class RunSchedule:
    """Start a run as a schedule would, now; answers its id."""

    namespace: str
    schedule_id: str
    run_id: str
    triggered_by: str

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> str:
        """See Command."""
        schedule = ledger.schedule(self.namespace, self.schedule_id)
        pipeline = ledger.pipeline(self.namespace, schedule.pipeline_id)
        trigger = Trigger(
            branch=schedule.branch, inputs=schedule.inputs, triggered_by=self.triggered_by
        )
        return start_run(ledger, pipeline, self.run_id, trigger)[0]


@dataclass(frozen=True, slots=True)
class FileSchedule:
    """A schedule as the server's schedule file says it."""

    namespace: str
    name: str
    pipeline: str
    """The pipeline's name."""
    plan: Plan


@dataclass(frozen=True, slots=True)
class ReconcileSchedules:
    """Bring the schedules of the schedule file in line with it; answers what could not be done."""

    wanted: Sequence[FileSchedule]

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> list[str]:
        """See Command."""
        ledger.flush()
        left = {(s.namespace, s.name): s for s in ledger.source.file_schedules()}
        problems = []
        for each in self.wanted:
            known = left.pop((each.namespace, each.name), None)
            if problem := self._keep(ledger, each, known):
                problems.append(f"{each.name}: {problem}")
        for schedule in left.values():
            ledger.delete_schedule(schedule)
        return problems

    def _keep(self, ledger: Ledger, wanted: FileSchedule, known: Schedule | None) -> str:
        """Keep one schedule as it is wanted; return why that cannot be, or nothing."""
        pipeline = ledger.pipeline_named(wanted.namespace, wanted.pipeline)
        if pipeline is None:
            return f"there is no pipeline {wanted.pipeline!r} in namespace {wanted.namespace!r}"
        if known is not None and known.pipeline_key == pipeline.key:
            if plan_of(known) != wanted.plan:
                change_schedule(ledger, known, wanted.plan)
            return ""
        if known is not None:
            ledger.delete_schedule(known)
        elif ledger.schedule_named(wanted.namespace, wanted.name) is not None:
            return "a schedule that is not of the file has the name"
        public_id = moment_id(f"{wanted.namespace} {wanted.name}", ledger.now)
        add_schedule(
            ledger,
            pipeline,
            public_id,
            wanted.name,
            wanted.plan,
            owner=Owner.FILE,
            author="schedule file",
        )
        return ""


def _own(ledger: Ledger, namespace: str, schedule_id: str) -> Schedule:
    """Return a schedule that callers may change."""
    schedule = ledger.schedule(namespace, schedule_id)
    if schedule.owner is Owner.PIPELINE:
        reason = "belongs to its pipeline's definition; change it there, or pause it"
        raise WrongState("schedule", schedule.public_id, reason)
    if schedule.owner is Owner.FILE:
        reason = "comes from the server's schedule file; change it there, or pause it"
        raise WrongState("schedule", schedule.public_id, reason)
    return schedule


def _check(ledger: Ledger, name: str, plan: Plan) -> None:
    checks = Checks()
    checks.name("name", name)
    if "#" in name:
        checks.fail("name", "must not contain '#': so are those of pipelines called")
    plan.check(checks, ledger.times, ledger.now)
    checks.done()


def add_schedule(
    ledger: Ledger,
    pipeline: Pipeline,
    public_id: str,
    name: str,
    plan: Plan,
    *,
    owner: Owner,
    author: str,
) -> Schedule:
    """Add a schedule, and find its first time."""
    schedule = Schedule(
        key=ledger.source.new_key(),
        namespace=pipeline.namespace,
        public_id=public_id,
        name=name,
        pipeline_key=pipeline.key,
        pipeline_id=pipeline.public_id,
        owner=owner,
        cron=plan.cron,
        created_at=ledger.now,
        created_by=author,
    )
    ledger.add_schedule(schedule)
    change_schedule(ledger, schedule, plan)
    return schedule


def change_schedule(ledger: Ledger, schedule: Schedule, plan: Plan) -> None:
    """Give a schedule a plan, and find its next time from now on."""
    _drop_pending(ledger, schedule, "the schedule was changed while it waited")
    for each in fields(Plan):
        setattr(schedule, each.name, getattr(plan, each.name))
    find_next(ledger, schedule, ledger.now)
    ledger.touch_schedule(schedule)


def plan_of(schedule: Schedule) -> Plan:
    """Return what a schedule says."""
    return Plan(**{each.name: getattr(schedule, each.name) for each in fields(Plan)})


def find_next(ledger: Ledger, schedule: Schedule, after: Moment) -> None:
    """Find the first time after a moment, and when the timers must look."""
    if schedule.starts_at is not None:
        after = max(after, schedule.starts_at - 1)
    found = ledger.times.after(schedule.cron, schedule.zone, after)
    if found is not None and schedule.ends_at is not None and found > schedule.ends_at:
        found = None
    schedule.next_at = found
    schedule.due_at = None
    if found is not None and schedule.paused_at is None:
        schedule.due_at = found + _jitter(ledger, schedule, found)


def _jitter(ledger: Ledger, schedule: Schedule, moment: Moment) -> int:
    return ledger.times.jitter(schedule.public_id, moment, schedule.jitter)


def set_pipeline_schedules(ledger: Ledger, pipeline: Pipeline, plans: Sequence[Plan]) -> None:
    """Bring a pipeline's own schedules in line with its definition; what stays keeps its times."""
    own = [
        each
        for each in ledger.schedules_of(pipeline)
        if each.owner is Owner.PIPELINE or pipeline.deleted_at is not None
    ]
    if pipeline.deleted_at is not None:
        plans = ()
    for number, plan in enumerate(plans, 1):
        name = f"{pipeline.name} #{number}"
        if number <= len(own):
            schedule = own[number - 1]
            schedule.name = name
            ledger.touch_schedule(schedule)
            if plan_of(schedule) != plan:
                change_schedule(ledger, schedule, plan)
        else:
            public_id = moment_id(f"{pipeline.public_id} {number}", ledger.now)
            add_schedule(
                ledger,
                pipeline,
                public_id,
                name,
                plan,
                owner=Owner.PIPELINE,
                author=pipeline.created_by,
            )
    for schedule in own[len(plans) :]:
        ledger.delete_schedule(schedule)


# ---- the clock strikes


def when_schedule_due(ledger: Ledger, schedule: Schedule) -> None:
    """Let a schedule's times come that are due, and find its next one."""
    if schedule.due_at is None or schedule.due_at > ledger.now or schedule.paused_at is not None:
        return  # an earlier command of this batch has changed it
    if schedule.pending_at is not None and not ledger.active_runs_of(schedule):
        at, schedule.pending_at = schedule.pending_at, None
        _start(ledger, schedule, at)
    times = _times_due(ledger, schedule)
    for at, missed in times:
        if missed:
            _note(ledger, schedule, at, "it was missed: nobody looked at the clock in time")
        else:
            _strike(ledger, schedule, at)
    if times:
        schedule.last_at = times[-1][0]
    if schedule.next_at is not None:
        last = schedule.next_at - 1 if not times else times[-1][0]
        find_next(ledger, schedule, last if times else max(last, _skipped_to(ledger, schedule)))
    else:
        schedule.due_at = None
    if schedule.due_at is not None and schedule.due_at <= ledger.now:
        # More times wait for their jitter than are looked at.
        schedule.due_at = ledger.now + SECOND
    ledger.touch_schedule(schedule)


def _skipped_to(ledger: Ledger, schedule: Schedule) -> Moment:
    """Return up to when times are passed over, for they are too old to be made up for."""
    return ledger.now - schedule.catch_up_window * SECOND - ON_TIME


def _times_due(ledger: Ledger, schedule: Schedule) -> list[tuple[Moment, bool]]:
    """Return the times that have come, each with whether it is left out as missed."""
    if schedule.next_at is None:
        return []
    now = ledger.now
    oldest = now - max(schedule.catch_up_window * SECOND, ON_TIME + schedule.jitter * SECOND)
    begin = max(schedule.next_at, oldest) - 1
    found = ledger.times.between(schedule.cron, schedule.zone, begin, now, MADE_UP_LIMIT)
    if schedule.ends_at is not None:
        found = [at for at in found if at <= schedule.ends_at]
    # In their order: a time waits for those before it, however short its own jitter is.
    due = list(accumulate((at + _jitter(ledger, schedule, at) for at in found), max))
    come = bisect_right(due, now)
    found, due = found[:come], due[:come]
    late = {at for at, moment in zip(found, due, strict=True) if moment < now - ON_TIME}
    limit = schedule.catch_up_limit if schedule.catch_up is CatchUp.ALL else 2
    found = found[-max(limit, len(found) - len(late)) :]
    if schedule.catch_up is CatchUp.NONE:
        return [(at, at in late) for at in found]
    if schedule.catch_up is CatchUp.LAST:
        return [(at, at in late and at != found[-1]) for at in found]
    return [(at, False) for at in found]


def _strike(ledger: Ledger, schedule: Schedule, at: Moment) -> None:
    if ledger.source.fire(schedule.key, at) is not None:
        return
    active = ledger.active_runs_of(schedule)
    if active and schedule.overlap is Overlap.SKIP:
        _note(ledger, schedule, at, f"run {active[0].number} still goes on")
    elif active and schedule.overlap is Overlap.QUEUE:
        if schedule.pending_at is not None:
            _note(ledger, schedule, schedule.pending_at, "a later time took its place")
        schedule.pending_at = at
    else:
        if schedule.overlap is Overlap.CANCEL_RUNNING:
            for run in active:
                stop_run(ledger, run, f"schedule {schedule.name} starts its next run")
        _start(ledger, schedule, at)


def _drop_pending(ledger: Ledger, schedule: Schedule, why: str) -> None:
    at, schedule.pending_at = schedule.pending_at, None
    if at is not None:
        _note(ledger, schedule, at, why)


def _start(ledger: Ledger, schedule: Schedule, at: Moment) -> None:
    trigger = Trigger(
        branch=schedule.branch,
        inputs=schedule.inputs,
        triggered_by=f"cron:{schedule.name}",
        event=TriggerEvent(kind="cron", branch=schedule.branch, data={"at": at}),
    )
    run_id = moment_id(schedule.public_id, at)
    try:
        pipeline = ledger.pipeline(schedule.namespace, schedule.pipeline_id)
        start_run(ledger, pipeline, run_id, trigger, schedule_key=schedule.key)
    except (Invalid, NotFound) as error:
        _note(ledger, schedule, at, f"the pipeline refuses it: {error}")
    else:
        _note(ledger, schedule, at, "", run_id)


def _note(
    ledger: Ledger, schedule: Schedule, at: Moment, outcome: str, run_id: str | None = None
) -> None:
    """Write down what has come of a time."""
    ledger.add_fire(Fire(schedule.key, at, schedule.namespace, ledger.now, run_id, outcome))
    ledger.tell(
        Event(
            EventKind.SCHEDULE_STRUCK,
            schedule.namespace,
            ledger.now,
            schedule.public_id,
            run_id=run_id,
            pipeline_id=schedule.pipeline_id,
            data={"name": schedule.name, "at": at, "text": outcome},
        )
    )
