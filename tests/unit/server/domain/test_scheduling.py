"""The clock starts pipelines: each time once, whatever becomes of the clock."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.domain.canceling import StopPipeline
from server.domain.defining import CreatePipeline, DeletePipeline, Description, UpdatePipeline
from server.domain.errors import AlreadyExists, Invalid, NotFound, WrongState
from server.domain.event import EventKind
from server.domain.pipeline import Definition, Input
from server.domain.run import RunStatus
from server.domain.schedule import CatchUp, Overlap, Owner, Plan
from server.domain.scheduling import (
    CreateSchedule,
    DeleteSchedule,
    PauseSchedule,
    RunSchedule,
    UpdateSchedule,
)
from server.domain.timing import RunTimers
from tests.fakes.core import NAMESPACE, Core, job, serial
from tests.unit.server.domain.test_moving_runs import run_to_end

MINUTE = 60_000
HOUR = 60 * MINUTE


def scheduled(core, cron="* * * * *", *, name="each", inputs=(), **chosen):
    """Store a pipeline with a schedule; return the schedule's id."""
    pipeline = core.pipeline(serial("s", job("j")), name=f"p-{name}", inputs=inputs)
    plan = Plan(cron, **chosen)
    return core.do(CreateSchedule(NAMESPACE, f"id-{name}", name, pipeline, plan, "olga"))


def schedule(core):
    (found,) = core.tables.schedules.values()
    return found


def fires(core):
    """Return each time that has come, with why it has no run."""
    return [(key[1], fire.outcome) for key, fire in sorted(core.tables.fires.items())]


def finish(core):
    run_to_end(core, [task.public_id for task in core.tables.tasks.values()])


def to_the_minute(core):
    """Set the clock to the beginning of a minute."""
    core.clock.advance(-core.clock.now() % MINUTE)


def test_a_time_that_comes_starts_a_run_once(core):
    to_the_minute(core)
    scheduled(core)
    first = schedule(core).next_at
    core.pass_time(MINUTE - 1)
    assert not core.tables.runs
    core.pass_time(1)
    core.run_timers()
    (run,) = core.tables.runs.values()
    assert run.triggered_by == "cron:each"
    assert fires(core) == [(first, "")]
    assert schedule(core).next_at == first + MINUTE


@pytest.mark.parametrize(
    ("overlap", "outcomes", "runs"),
    [
        (Overlap.SKIP, ["", "run 1 still goes on", "run 1 still goes on"], 1),
        (Overlap.ALLOW, ["", "", ""], 3),
        (Overlap.CANCEL_RUNNING, ["", "", ""], 3),
        (Overlap.QUEUE, ["", "a later time took its place"], 1),
    ],
)
def test_a_time_that_finds_a_run_going_on(core, overlap, outcomes, runs):
    to_the_minute(core)
    scheduled(core, overlap=overlap)
    for _ in range(3):
        core.pass_time(MINUTE)
    assert [outcome for _, outcome in fires(core)] == outcomes
    assert len(core.tables.runs) == runs
    going_on = [run for run in core.tables.runs.values() if not run.status.ended]
    assert len(going_on) == {Overlap.ALLOW: 3}.get(overlap, 1)
    finish(core)
    core.run_timers()
    queued = overlap is Overlap.QUEUE
    assert len(core.tables.runs) == runs + queued
    assert len(fires(core)) == 3


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"catch_up": CatchUp.NONE}, 0),
        ({"catch_up": CatchUp.LAST}, 1),
        ({"catch_up": CatchUp.ALL, "overlap": Overlap.ALLOW}, 5),
        ({"catch_up": CatchUp.ALL, "overlap": Overlap.ALLOW, "catch_up_limit": 2}, 2),
        ({"catch_up": CatchUp.ALL, "overlap": Overlap.ALLOW, "catch_up_window": 2 * 3600}, 2),
        ({"catch_up": CatchUp.LAST, "catch_up_window": 60}, 0),
    ],
)
def test_missed_times_are_made_up_for_as_asked(core, chosen, expected):
    to_the_minute(core)
    core.clock.advance(-core.clock.now() % HOUR)
    scheduled(core, "0 * * * *", **chosen)
    core.pass_time(5 * HOUR + 30 * MINUTE)
    assert len(core.tables.runs) == expected
    assert schedule(core).next_at > core.clock.now()


def test_a_clock_that_goes_back_and_forth_brings_no_time_twice(core):
    to_the_minute(core)
    scheduled(core, overlap=Overlap.ALLOW, catch_up=CatchUp.ALL)
    for step in (MINUTE, -10 * MINUTE, 5 * MINUTE, 6 * MINUTE, -MINUTE, 3 * MINUTE):
        core.pass_time(step)
    times = [at for at, _ in fires(core)]
    assert len(set(times)) == len(times) == len(core.tables.runs)
    assert times == list(range(times[0], times[-1] + 1, MINUTE))


def test_times_outside_start_and_end_do_not_come(core):
    to_the_minute(core)
    now = core.clock.now()
    scheduled(core, starts_at=now + 3 * MINUTE, ends_at=now + 4 * MINUTE, overlap=Overlap.ALLOW)
    for _ in range(8):
        core.pass_time(MINUTE)
    assert [at for at, _ in fires(core)] == [now + 3 * MINUTE, now + 4 * MINUTE]
    assert schedule(core).due_at is None


def test_a_paused_schedule_makes_up_for_nothing(core):
    to_the_minute(core)
    made = scheduled(core)
    core.do(PauseSchedule(NAMESPACE, made, True, "moving"))
    core.pass_time(10 * MINUTE)
    assert not core.tables.fires
    assert schedule(core).note == "moving"
    core.do(PauseSchedule(NAMESPACE, made, False))
    core.pass_time(MINUTE)
    assert len(core.tables.fires) == 1


def test_jitter_puts_off_a_time_but_not_its_name(core):
    to_the_minute(core)
    scheduled(core, jitter=50)
    at, due = schedule(core).next_at, schedule(core).due_at
    assert at <= due <= at + 50_000
    core.pass_time(due - core.clock.now())
    assert fires(core) == [(at, "")]


def test_a_pipeline_that_refuses_is_told_in_the_outcome(core):
    to_the_minute(core)
    scheduled(core, inputs=(Input("level", required=True),))
    core.pass_time(MINUTE)
    ((_, outcome),) = fires(core)
    assert "inputs[level]: must be given" in outcome
    (told,) = core.events(EventKind.SCHEDULE_STRUCK)
    assert told.data["text"] == outcome


def test_what_is_malformed_is_refused(core):
    pipeline = core.pipeline(serial("s", job("j")))
    for plan, field in (
        (Plan("x"), "cron"),
        (Plan("0 0 30 2 *"), "cron"),
        (Plan("@daily", zone="Nowhere"), "zone"),
        (Plan("@daily", jitter=-1), "jitter"),
        (Plan("@daily", starts_at=5, ends_at=5), "ends_at"),
    ):
        with pytest.raises(Invalid, match=f"^{field}: "):
            core.do(CreateSchedule(NAMESPACE, "s", "n", pipeline, plan))
    with pytest.raises(Invalid, match="name: "):
        core.do(CreateSchedule(NAMESPACE, "s", "a #1", pipeline, Plan("@daily")))
    assert not core.tables.schedules


def test_names_are_unique_and_schedules_go_with_their_pipeline(core):
    made = scheduled(core)
    pipeline = schedule(core).pipeline_id
    with pytest.raises(AlreadyExists):
        core.do(CreateSchedule(NAMESPACE, "other", "each", pipeline, Plan("@daily")))
    assert core.do(CreateSchedule(NAMESPACE, made, "each", pipeline, Plan("@daily"))) == made
    core.do(UpdateSchedule(NAMESPACE, made, Plan("@hourly")))
    assert schedule(core).cron == "@hourly"
    run_id = core.do(RunSchedule(NAMESPACE, made, "00000000-0000-7000-8000-00000000aaaa", "olga"))
    core.do(StopPipeline(NAMESPACE, pipeline, run_id))
    core.do(DeletePipeline(NAMESPACE, pipeline))
    assert not core.tables.schedules
    with pytest.raises(NotFound):
        core.do(DeleteSchedule(NAMESPACE, made))


def test_a_definitions_schedules_come_change_and_go_with_it(core):
    definition = Definition((serial("s", job("j")),))
    plans = (Plan("0 1 * * *"), Plan("0 2 * * *"))
    core.do(CreatePipeline(NAMESPACE, "p", Description("n", definition, schedules=plans)))
    own = sorted(core.tables.schedules.values(), key=lambda each: each.name)
    assert [(s.name, s.cron, s.owner) for s in own] == [
        ("n #1", "0 1 * * *", Owner.PIPELINE),
        ("n #2", "0 2 * * *", Owner.PIPELINE),
    ]
    with pytest.raises(WrongState, match="belongs to its pipeline's definition"):
        core.do(DeleteSchedule(NAMESPACE, own[0].public_id))
    changed = Description("m", definition, schedules=(Plan("0 3 * * *"),))
    core.do(UpdatePipeline(NAMESPACE, "p", changed))
    assert (schedule(core).name, schedule(core).cron) == ("m #1", "0 3 * * *")
    assert schedule(core).public_id == own[0].public_id
    bad = Description("m", definition, schedules=(Plan("61 * * * *"),))
    with pytest.raises(Invalid, match="cron"):
        core.do(UpdatePipeline(NAMESPACE, "p", bad))


@pytest.mark.parametrize("catch_up", CatchUp)
@pytest.mark.parametrize(("cron", "jitter", "step"), [("* * * * *", 600, 1), ("* * * * * *", 0, 5)])
def test_no_time_is_lost_to_long_jitter_or_a_late_look(core, catch_up, cron, jitter, step):
    to_the_minute(core)
    scheduled(core, cron, jitter=jitter, catch_up=catch_up, overlap=Overlap.ALLOW)
    begin = core.clock.now()
    for _ in range(2400 // step if jitter else 12):
        core.clock.advance(step * 1000)
        core.do(RunTimers())
        assert schedule(core).due_at > core.clock.now(), "the timers would spin"
    period = MINUTE if jitter else 1000
    times = [at for at, _ in fires(core)]
    assert times == list(range(begin + period, times[-1] + 1, period))
    assert times[-1] >= core.clock.now() - jitter * 1000 - period


@pytest.mark.parametrize("what", ["changed", "paused"])
def test_what_becomes_of_a_queued_time_is_written_down(core, what):
    to_the_minute(core)
    key = scheduled(core, overlap=Overlap.QUEUE)
    core.pass_time(2 * MINUTE)
    at = schedule(core).pending_at
    assert at is not None
    if what == "changed":
        core.do(UpdateSchedule(NAMESPACE, key, Plan("0 0 * * *")))
    else:
        core.do(PauseSchedule(NAMESPACE, key, paused=True))
    assert fires(core)[-1] == (at, f"the schedule was {what} while it waited")
    assert schedule(core).pending_at is None


def test_more_times_than_are_looked_at_do_not_let_the_timers_spin(core):
    to_the_minute(core)
    scheduled(core, "* * * * * *", jitter=3600)
    core.pass_time(30 * MINUTE)
    assert schedule(core).due_at > core.clock.now()


@pytest.mark.parametrize(
    "plan", [Plan("0 0 * * *", starts_at=10**15), Plan("@daily", ends_at=10**15)]
)
def test_a_moment_far_off_is_refused(core, plan):
    pipeline = core.pipeline(serial("s", job("j")), name="p")
    with pytest.raises(Invalid, match="before the year 2200"):
        core.do(CreateSchedule(NAMESPACE, "id", "n", pipeline, plan, "olga"))


STEPS = st.lists(st.tuples(st.integers(-20, 90), st.booleans()), min_size=1, max_size=25)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.sampled_from(CatchUp), st.sampled_from(Overlap), st.integers(0, 900))
def test_no_time_comes_twice_and_none_is_lost_that_was_looked_at(steps, catch_up, overlap, jitter):
    core = Core()
    core.join("a")
    to_the_minute(core)
    scheduled(core, catch_up=catch_up, overlap=overlap, jitter=jitter, catch_up_limit=1000)
    begin = highest = core.clock.now()
    for minutes, ends in steps:
        core.clock.advance(minutes * MINUTE)
        core.batch(RunTimers(), RunTimers())
        core.run_timers()
        highest = max(highest, core.clock.now())
        if ends:
            finish(core)
            core.run_timers()
    pending = schedule(core).pending_at
    times = sorted([at for at, _ in fires(core)] + ([pending] if pending else []))
    assert len(set(times)) == len(times)
    assert all(begin < at <= highest for at in times)
    runs = [run for run in core.tables.runs.values() if run.schedule_key is not None]
    assert len(runs) == sum(not outcome for _, outcome in fires(core))
    if catch_up is CatchUp.ALL and times:
        assert times == list(range(begin + MINUTE, times[-1] + 1, MINUTE))
    if overlap is not Overlap.ALLOW:
        active = [run for run in runs if not run.status.ended]
        assert len(active) <= 1 or overlap is Overlap.CANCEL_RUNNING
    assert all(run.status is not RunStatus.FAILED for run in runs)
