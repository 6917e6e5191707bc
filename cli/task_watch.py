"""Seeing one task through: its log, why it waits, Ctrl-C, its end."""

import asyncio
import sys
from datetime import timedelta

import grpc
from grpc import aio

from cli.alongside import alongside
from cli.connection import Api
from cli.failure import CommandFailed
from cli.interrupt import Interrupt
from cli.log_follow import LogFollower
from cli.log_print import print_lines, remark
from cli.patience import BROKEN, call_patiently
from cli.states import ENDED, WAITING, task_status
from cli.stream_follow import Answers, follow
from cli.times import lasted
from generated.stream.v1 import stream_pb2
from generated.task.v1 import task_pb2

NOTICE_AFTER = timedelta(seconds=2)
LOOK_AGAIN = timedelta(milliseconds=200)


async def see_through(api: Api, task_id: str, interrupt: Interrupt) -> task_pb2.TaskDetail:
    """Print a task's log until its end and return it as it ended; a signal cancels it.

    Raises:
        CommandFailed: when the connection was lost for too long.
    """
    helpers = [tell_why_it_waits(api, task_id), cancel_when_asked(api, task_id, interrupt)]
    if progress_wanted():
        helpers.append(tell_progress(api, task_id))
    try:
        async with alongside(*helpers):
            await print_log(api, task_id)
            return await wait_for_end(api, task_id)
    except BrokenPipeError:  # nobody reads on; a local command would have died of it
        await cancel(api, task_id, "its output was closed")
        raise
    except aio.AioRpcError as error:
        if error.code() not in BROKEN:
            raise
        raise CommandFailed(
            f"lost {api.settings.server}; the task goes on: muster task logs -f {task_id}"
        ) from error


async def print_log(api: Api, task_id: str) -> None:
    """Print a task's log as it grows, until its end."""
    follower = LogFollower(api, task_id, follow=True)
    shown = 0
    async for attempt, lines in follower.batches():
        if shown and attempt > shown:
            remark(f"attempt {attempt}")
        shown = attempt
        print_lines(lines)
    if follower.log_state == task_pb2.LOG_STATE_INCOMPLETE:
        remark("the log is not whole: lines were lost with the agent")


async def wait_for_end(api: Api, task_id: str) -> task_pb2.TaskDetail:
    """Return a task once it has ended."""
    request = task_pb2.GetTaskRequest(task_id=task_id)
    while True:
        task = (await call_patiently(api, api.tasks.GetTask, request)).task
        if task.status in ENDED:
            return task
        await asyncio.sleep(LOOK_AGAIN.total_seconds())


async def tell_why_it_waits(api: Api, task_id: str) -> None:
    """Tell why a task does not start, and each new reason, until it starts."""
    request = task_pb2.GetTaskRequest(task_id=task_id)
    told = ""
    while True:
        await asyncio.sleep(NOTICE_AFTER.total_seconds())
        task = (await call_patiently(api, api.tasks.GetTask, request)).task
        if task.status not in WAITING:
            return
        if task.waiting_reason and task.waiting_reason != told:
            told = task.waiting_reason
            remark(f"waiting: {told}")


def progress_wanted() -> bool:
    """Return whether somebody at a terminal sees what is told on standard error."""
    return sys.stderr.isatty()


async def tell_progress(api: Api, task_id: str) -> None:
    """Tell where a task stands and each change, until its end."""

    def look(after: str) -> Answers[stream_pb2.StreamTaskStatusResponse]:
        request = stream_pb2.StreamTaskStatusRequest(task_ids=[task_id], after=after)
        return api.streams.StreamTaskStatus(request, metadata=api.metadata)

    async for change in follow(look):
        remark(progress(change))


def progress(change: stream_pb2.StreamTaskStatusResponse) -> str:
    """Return a change of a task in a few words."""
    match change.status:
        case task_pb2.TASK_STATUS_RUNNING:
            attempt = f" (attempt {change.attempt})" if change.attempt > 1 else ""
            return f"running on {change.agent_id}{attempt}"
        case status if status in ENDED:
            return f"{task_status(status)} after {lasted(change.duration)}"
        case status:
            why = f": {change.error_message}" if change.error_message else ""
            return f"{task_status(status).lower()}{why}"


async def cancel_when_asked(api: Api, task_id: str, interrupt: Interrupt) -> None:
    """Cancel a task when a signal comes."""
    await interrupt.asked.wait()
    remark("cancelling the task; again to leave it")
    await cancel(api, task_id, "interrupted by its submitter")


async def cancel(api: Api, task_id: str, reason: str) -> None:
    """Cancel a task unless it has ended."""
    request = task_pb2.CancelTaskRequest(task_id=task_id, reason=reason)
    try:
        await call_patiently(api, api.tasks.CancelTask, request)
    except aio.AioRpcError as error:
        if error.code() != grpc.StatusCode.FAILED_PRECONDITION:  # it has ended meanwhile
            raise
