"""`muster schedule`: have pipelines started by the clock."""

import functools
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import click

from cli.connection import Api, with_api
from cli.exit_codes import Exit
from cli.failure import CommandFailed
from cli.framework import Group
from cli.names import UUID, pipeline_id
from cli.output import print_fields, print_table, show, show_all
from cli.pairs import PAIR
from cli.since import DURATION
from cli.states import short_name
from cli.times import deadline, moment
from generated.schedule.v1 import schedule_pb2

HEADINGS = ("SCHEDULE", "NAME", "CRON", "ZONE", "NEXT", "LAST", "BY")
FIRE_HEADINGS = ("TIME", "RUN", "WHY NOT")
CATCH_UP = ("none", "last", "all")
PLAN_OPTIONS = (
    *("zone", "jitter", "start", "end", "catch_up", "window", "at_most", "overlap", "branch"),
    "inputs",
)
OVERLAP = ("skip", "queue", "cancel_running", "allow")


@click.group("schedule", cls=Group)
def command() -> None:
    """Have pipelines started by the clock."""


def plan_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that make a plan; the command gets them as `given`."""

    @functools.wraps(function)
    def gathering(*args: object, **kwargs: Any) -> object:  # noqa: ANN401 (options of any type)
        given = {name: kwargs.pop(name) for name in PLAN_OPTIONS}
        return function(*args, given=given, **kwargs)

    for option in reversed(
        (
            click.option("--zone", default="", help="IANA time zone (default: UTC)."),
            click.option("--jitter", type=DURATION, help="Up to how much later, evenly spread."),
            click.option("--start", type=click.DateTime(), help="No time before this one, in UTC."),
            click.option("--end", type=click.DateTime(), help="No time after this one, in UTC."),
            click.option(
                "--catch-up",
                type=click.Choice(CATCH_UP),
                default="last",
                show_default=True,
                help="Which missed times are made up for.",
            ),
            click.option("--window", type=DURATION, help="How late still counts (default: 1d)."),
            click.option("--at-most", type=click.IntRange(1, 1000), help="With all: how many."),
            click.option(
                "--overlap",
                type=click.Choice(OVERLAP),
                default="skip",
                show_default=True,
                help="When a run of it still goes on.",
            ),
            click.option("--branch", default="", help="Branch to work on."),
            click.option("-i", "--input", "inputs", type=PAIR, multiple=True, metavar="K=V"),
        )
    ):
        gathering = option(gathering)
    return gathering


def plan_of(cron: str, given: dict[str, Any]) -> schedule_pb2.Plan:
    """Return the plan that the options say."""
    return schedule_pb2.Plan(
        cron=cron,
        zone=given["zone"],
        jitter=_seconds(given["jitter"]),
        starts_at=_unix(given["start"]),
        ends_at=_unix(given["end"]),
        catch_up=schedule_pb2.CatchUp.Value(f"CATCH_UP_{given['catch_up'].upper()}"),
        catch_up_window=_seconds(given["window"]),
        catch_up_limit=given["at_most"] or 0,
        overlap=schedule_pb2.Overlap.Value(f"OVERLAP_{given['overlap'].upper()}"),
        branch=given["branch"],
        inputs=dict(given["inputs"]),
    )


def _seconds(duration: timedelta | None) -> int:
    return int(duration.total_seconds()) if duration is not None else 0


def _unix(wall: datetime | None) -> int:
    from datetime import UTC

    return int(wall.replace(tzinfo=UTC).timestamp() * 1000) if wall is not None else 0


def print_times(times: Sequence[int]) -> None:
    """Print the next times, one a line."""
    for each in times:
        click.echo(deadline(each / 1000))


async def schedule_id(api: Api, reference: str) -> str:
    """Return the id of a schedule named by its id or its name.

    Raises:
        CommandFailed: no schedule has the name.
    """
    if UUID.fullmatch(reference):
        return reference
    request = schedule_pb2.ListSchedulesRequest(name=reference)
    found = (await api.call(api.schedules.ListSchedules, request)).schedules
    if not found:
        raise CommandFailed(
            f"no schedule is named {reference!r} — see what there is with: muster schedule list",
            Exit.NOT_FOUND,
        )
    return found[0].schedule_id


@command.command("add", epilog="muster schedule add nightly build '0 3 * * *' --zone Europe/Berlin")
@click.argument("name")
@click.argument("pipeline", metavar="PIPELINE")
@click.argument("cron")
@plan_options
@with_api
async def add(api: Api, name: str, pipeline: str, cron: str, given: dict[str, Any]) -> None:
    """Have a pipeline started by the clock; print its next times.

    CRON has five fields (minute hour day month weekday), six with seconds in front, or is @yearly,
    @monthly, @weekly, @daily or @hourly.
    """
    request = schedule_pb2.CreateScheduleRequest(
        name=name, pipeline_id=await pipeline_id(api, pipeline), plan=plan_of(cron, given)
    )
    answer = await api.call(api.schedules.CreateSchedule, request)
    show(answer, lambda: print_times(answer.next_times))


@command.command("update", epilog="muster schedule update nightly '0 4 * * *'")
@click.argument("schedule", metavar="NAME|ID")
@click.argument("cron")
@plan_options
@with_api
async def update(api: Api, schedule: str, cron: str, given: dict[str, Any]) -> None:
    """Give a schedule another plan, whole; print its next times."""
    request = schedule_pb2.UpdateScheduleRequest(
        schedule_id=await schedule_id(api, schedule), plan=plan_of(cron, given)
    )
    answer = await api.call(api.schedules.UpdateSchedule, request)
    show(answer, lambda: print_times(answer.next_times))


@command.command("preview", epilog="muster schedule preview '30 2 * * *' --zone Europe/Berlin")
@click.argument("cron")
@plan_options
@with_api
async def preview(api: Api, cron: str, given: dict[str, Any]) -> None:
    """Print the next ten times of a plan without keeping it."""
    request = schedule_pb2.PreviewScheduleRequest(plan=plan_of(cron, given))
    answer = await api.call(api.schedules.PreviewSchedule, request)
    show(answer, lambda: print_times(answer.next_times))


@command.command("list", epilog="muster schedule list --pipeline build")
@click.option("--pipeline", default="", metavar="NAME|ID", help="Only schedules of this pipeline.")
@with_api
async def list_schedules(api: Api, pipeline: str) -> None:
    """List schedules by name."""
    of_pipeline = await pipeline_id(api, pipeline) if pipeline else ""
    request = schedule_pb2.ListSchedulesRequest(pipeline_id=of_pipeline)
    found = (await api.call(api.schedules.ListSchedules, request)).schedules
    show_all(found, lambda: print_table(HEADINGS, map(_row, found)))


def _row(schedule: schedule_pb2.Schedule) -> tuple[str, ...]:
    return (
        schedule.schedule_id,
        schedule.name,
        schedule.plan.cron,
        schedule.plan.zone,
        "paused" if schedule.paused_at else deadline(schedule.next_at / 1000),
        moment(schedule.last_at / 1000),
        _owner(schedule),
    )


def _owner(schedule: schedule_pb2.Schedule) -> str:
    owner = short_name(schedule_pb2.Owner.DESCRIPTOR, schedule.owner).lower()
    return schedule.created_by if owner == "caller" else f"its {owner}"


@command.command("get", epilog="muster schedule get nightly")
@click.argument("schedule", metavar="NAME|ID")
@with_api
async def get(api: Api, schedule: str) -> None:
    """Show a schedule, its next ten times and the last that have come."""
    request = schedule_pb2.GetScheduleRequest(schedule_id=await schedule_id(api, schedule))
    answer = await api.call(api.schedules.GetSchedule, request)
    show(answer, lambda: _print(answer))


def _print(answer: schedule_pb2.GetScheduleResponse) -> None:
    schedule, plan = answer.schedule, answer.schedule.plan
    paused = moment(schedule.paused_at / 1000)
    print_fields(
        (
            ("Schedule", schedule.schedule_id),
            ("Name", schedule.name),
            ("Pipeline", schedule.pipeline_id),
            ("Cron", f"{plan.cron} ({plan.zone})"),
            ("Jitter", f"up to {plan.jitter} s" if plan.jitter else ""),
            ("Not before", moment(plan.starts_at / 1000)),
            ("Not after", moment(plan.ends_at / 1000)),
            ("Catches up", short_name(schedule_pb2.CatchUp.DESCRIPTOR, plan.catch_up).lower()),
            ("Overlap", short_name(schedule_pb2.Overlap.DESCRIPTOR, plan.overlap).lower()),
            ("Branch", plan.branch),
            ("Inputs", "\n".join(f"{k}={v}" for k, v in sorted(plan.inputs.items()))),
            ("Paused", f"since {paused}{': ' if schedule.note else ''}{schedule.note}"
             if schedule.paused_at else ""),
            ("Waits", "a run until others have ended" if schedule.pending_at else ""),
            ("By", _owner(schedule)),
            ("Next", "\n".join(deadline(each / 1000) for each in answer.next_times) or "never"),
        )
    )  # fmt: skip
    if answer.fires:
        click.echo()
        rows = ((moment(each.at / 1000), each.run_id, each.outcome) for each in answer.fires)
        print_table(FIRE_HEADINGS, rows)


@command.command("pause", epilog="muster schedule pause nightly --note 'until the move is over'")
@click.argument("schedule", metavar="NAME|ID")
@click.option("--note", default="", help="Why, for people.")
@with_api
async def pause(api: Api, schedule: str, note: str) -> None:
    """Pause a schedule; times that come meanwhile are not made up for."""
    request = schedule_pb2.PauseScheduleRequest(
        schedule_id=await schedule_id(api, schedule), note=note
    )
    answer = await api.call(api.schedules.PauseSchedule, request)
    show(answer, lambda: click.echo("Paused."))


@command.command("resume", epilog="muster schedule resume nightly")
@click.argument("schedule", metavar="NAME|ID")
@with_api
async def resume(api: Api, schedule: str) -> None:
    """Let a paused schedule go on; print its next times."""
    request = schedule_pb2.ResumeScheduleRequest(schedule_id=await schedule_id(api, schedule))
    answer = await api.call(api.schedules.ResumeSchedule, request)
    show(answer, lambda: print_times(answer.next_times))


@command.command("run", epilog="muster schedule run nightly")
@click.argument("schedule", metavar="NAME|ID")
@with_api
async def run(api: Api, schedule: str) -> None:
    """Start a run now, as the schedule would; print its id."""
    request = schedule_pb2.RunScheduleRequest(schedule_id=await schedule_id(api, schedule))
    answer = await api.call(api.schedules.RunSchedule, request)
    show(answer, lambda: click.echo(answer.run_id))


@command.command("remove", epilog="muster schedule remove nightly")
@click.argument("schedule", metavar="NAME|ID")
@with_api
async def remove(api: Api, schedule: str) -> None:
    """Forget a schedule; its runs stay."""
    request = schedule_pb2.DeleteScheduleRequest(schedule_id=await schedule_id(api, schedule))
    answer = await api.call(api.schedules.DeleteSchedule, request)
    show(answer, lambda: click.echo("Removed."))
