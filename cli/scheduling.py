"""Options that say when a task's turn comes."""

import re
from collections.abc import Callable
from typing import TypeVar

import click

from generated.task.v1 import task_pb2

Function = TypeVar("Function", bound=Callable[..., object])


class GroupType(click.ParamType[task_pb2.ConcurrencyGroup]):
    """A concurrency group, with its limit after the last colon."""

    name = "group"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> task_pb2.ConcurrencyGroup:
        """Return the group; what follows a colon and is no number is part of the key."""
        text = str(value)
        key, colon, limit = text.rpartition(":")
        if colon and not key:
            self.fail(f"the key is missing; write KEY:{limit or 'LIMIT'}", param, ctx)
        if colon and not limit:
            self.fail(f"the limit is missing; write {key} or {key}:LIMIT", param, ctx)
        if not colon or not re.fullmatch(r"[+-]?[0-9.]+", limit):
            return task_pb2.ConcurrencyGroup(key=text)
        if not re.fullmatch(r"0*[1-9][0-9]{0,8}", limit):
            self.fail(f"the limit must be a whole number of at least 1, is {limit}", param, ctx)
        return task_pb2.ConcurrencyGroup(key=key, limit=int(limit))


def scheduling_options(function: Function) -> Function:
    """Add `--priority`, `--start-within`, `--concurrency` and `--cancel-running`."""
    cancel_running = click.option(
        "--cancel-running",
        is_flag=True,
        help="If its group is full, cancel the group's tasks that were submitted before it.",
    )
    concurrency = click.option(
        "--concurrency",
        type=GroupType(),
        metavar="KEY[:LIMIT]",
        help="Group of which only LIMIT tasks (default: 1) may run at once; the others wait.",
    )
    start_within = click.option(
        "--start-within",
        type=click.IntRange(1),
        metavar="SECONDS",
        help="End it in TIMEOUT unless it has started by then.",
    )
    priority = click.option(
        "--priority",
        type=click.IntRange(0, 9),
        metavar="0-9",
        help="How urgent it is, the highest first (default: 5).",
    )
    return priority(start_within(concurrency(cancel_running(function))))


def concurrency_group(
    group: task_pb2.ConcurrencyGroup | None, *, cancel_running: bool
) -> task_pb2.ConcurrencyGroup | None:
    """Return the group that the options say, or None when they say nothing."""
    if cancel_running:
        if group is None:
            raise click.UsageError("--cancel-running needs --concurrency")
        group.on_conflict = task_pb2.CONCURRENCY_POLICY_CANCEL_RUNNING
    return group
