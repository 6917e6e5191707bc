"""`muster exec`: run a command on a fitting machine as if it were here."""

import functools
import uuid
from collections.abc import Callable, Sequence
from typing import ParamSpec

import click

from cli.alongside import alongside
from cli.connection import Api, with_api
from cli.exit_codes import Exit
from cli.failure import CommandFailed
from cli.framework import Command
from cli.interrupt import Interrupt, StopAskedFor
from cli.keeping import artifacts, keeping_options
from cli.pairs import VARIABLE
from cli.patience import call_patiently
from cli.requirements import label_selector, selector_options
from cli.scheduling import concurrency_group, scheduling_options
from cli.states import exit_code_of, why_it_failed
from cli.task_watch import see_through
from cli.words import SUBMIT_LIMIT, command_line
from generated.task.v1 import task_pb2
from server.definition.selector import Requirement

Params = ParamSpec("Params")

EXAMPLES = """
muster exec --label role=build -- make -j4
muster exec --selector 'zone in (a,b)' --env CI=1 --timeout 600 -- ./test.sh --fast
muster exec -- 'cd /tmp && ls | wc -l'
"""


def own_failures_are_125(function: Callable[Params, int]) -> Callable[Params, int]:
    """Give failures that are not the task's own an exit code that tasks hardly use."""

    @functools.wraps(function)
    def run(*args: Params.args, **kwargs: Params.kwargs) -> int:
        try:
            return function(*args, **kwargs)
        except CommandFailed as error:
            if error.exit_code < Exit.TASK_TIMEOUT:
                error.exit_code = Exit.EXEC_FAILED
            raise

    return run


@click.command(
    "exec", cls=Command, epilog=EXAMPLES, context_settings={"allow_interspersed_args": False}
)
@selector_options
@click.option("-e", "--env", type=VARIABLE, multiple=True, metavar="K=V", help="Variable to set.")
@click.option(
    "--timeout",
    "time_limit",
    type=click.IntRange(1),
    metavar="SECONDS",
    help="Time it may take (default: 3600).",
)
@click.option("--name", default="", help="What to call the task.")
@click.option("--retry", type=click.IntRange(0, 100), default=0, help="Further tries if it fails.")
@scheduling_options
@keeping_options
@click.argument("words", nargs=-1, required=True, metavar="COMMAND...")
@own_failures_are_125
@with_api
async def command(
    api: Api,
    label: Sequence[tuple[str, str]],
    selector: Sequence[list[Requirement]],
    env: Sequence[tuple[str, str]],
    time_limit: int | None,
    name: str,
    retry: int,
    priority: int | None,
    start_within: int | None,
    concurrency: task_pb2.ConcurrencyGroup | None,
    cancel_running: bool,
    kept: Sequence[str],
    keep_workspace: bool,
    words: Sequence[str],
) -> int:
    """Run a command on a fitting machine, follow its output, exit as it does.

    A single word is a line of shell; several are one command with its arguments. Ctrl-C cancels
    the task and waits for its end. The exit code is the command's own; 124 when its time was up,
    125 when it could not be run, 130 after Ctrl-C.
    """
    request = task_pb2.CreateTaskRequest(
        name=name,
        commands=[command_line(words)],
        env=dict(env),
        timeout=time_limit or 0,
        retry_count=retry,
        label_selector=label_selector(label, selector),
        priority=priority,
        schedule_to_start=start_within or 0,
        concurrency=concurrency_group(concurrency, cancel_running=cancel_running),
        artifacts=artifacts(kept),
        keep_workspace=keep_workspace,
        request_id=str(uuid.uuid4()),
    )
    with Interrupt() as interrupt:
        try:
            async with alongside(interrupt.raise_when_insisted()):
                submitted = await call_patiently(api, api.tasks.CreateTask, request, SUBMIT_LIMIT)
                task = await see_through(api, submitted.task_id, interrupt)
        except StopAskedFor:
            raise CommandFailed("left the task to itself", interrupt.exit_code) from None
    if interrupt.asked.is_set():
        return interrupt.exit_code
    if failure := why_it_failed(task):
        raise CommandFailed(failure, exit_code_of(task))
    return exit_code_of(task)
