"""schedule.v1.ScheduleService."""

from collections.abc import Sequence

from uuid_utils import uuid7

from generated.schedule.v1 import schedule_pb2, schedule_pb2_grpc
from server.auth import current_caller
from server.domain.checks import Checks
from server.domain.errors import Invalid, Violation
from server.domain.moment import Moment
from server.domain.schedule import CatchUp, Fire, Overlap, Owner, Plan, Schedule, Times
from server.domain.scheduling import (
    CreateSchedule,
    DeleteSchedule,
    PauseSchedule,
    RunSchedule,
    UpdateSchedule,
    plan_of,
)
from server.engine.call_limits import QueueLimit
from server.engine.clock import Clock
from server.engine.writer import Writer
from server.rpc.context import Context
from server.rpc.convert import enum, within
from server.stores.interfaces import Reader

NEXT_TIMES = 10
FIRES_SHOWN = 20

_CATCH_UP = (CatchUp.LAST, CatchUp.NONE, CatchUp.LAST, CatchUp.ALL)
_OVERLAP = (Overlap.SKIP, Overlap.SKIP, Overlap.QUEUE, Overlap.CANCEL_RUNNING, Overlap.ALLOW)
_OWNER = (Owner.CALLER, Owner.PIPELINE, Owner.FILE)


class ScheduleService(schedule_pb2_grpc.ScheduleServiceServicer):
    """Schedules: add, change, pause, look at."""

    def __init__(
        self,
        writer: Writer,
        reader: Reader,
        clock: Clock,
        times: Times,
        queue_limit: QueueLimit,
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._clock = clock
        self._times = times
        self._queue_limit = queue_limit

    async def CreateSchedule(
        self, request: schedule_pb2.CreateScheduleRequest, context: Context
    ) -> schedule_pb2.CreateScheduleResponse:
        """See the proto."""
        caller = current_caller()
        plan = self._plan(request.plan)
        command = CreateSchedule(
            caller.namespace, str(uuid7()), request.name, request.pipeline_id, plan, caller.name
        )
        schedule_id = await self._writer.submit(command, new_work=True)
        return schedule_pb2.CreateScheduleResponse(
            schedule_id=schedule_id, next_times=self._next_times(plan)
        )

    async def UpdateSchedule(
        self, request: schedule_pb2.UpdateScheduleRequest, context: Context
    ) -> schedule_pb2.UpdateScheduleResponse:
        """See the proto."""
        plan = self._plan(request.plan)
        await self._writer.submit(
            UpdateSchedule(current_caller().namespace, request.schedule_id, plan)
        )
        return schedule_pb2.UpdateScheduleResponse(next_times=self._next_times(plan))

    async def DeleteSchedule(
        self, request: schedule_pb2.DeleteScheduleRequest, context: Context
    ) -> schedule_pb2.DeleteScheduleResponse:
        """See the proto."""
        await self._writer.submit(DeleteSchedule(current_caller().namespace, request.schedule_id))
        return schedule_pb2.DeleteScheduleResponse()

    async def GetSchedule(
        self, request: schedule_pb2.GetScheduleRequest, context: Context
    ) -> schedule_pb2.GetScheduleResponse:
        """See the proto."""
        namespace = current_caller().namespace
        schedule = await self._reader.schedule(namespace, request.schedule_id)
        fires = await self._reader.fires(schedule, FIRES_SHOWN)
        return schedule_pb2.GetScheduleResponse(
            schedule=_message(schedule),
            next_times=self._next_times(plan_of(schedule)),
            fires=map(_fire, fires),
        )

    async def ListSchedules(
        self, request: schedule_pb2.ListSchedulesRequest, context: Context
    ) -> schedule_pb2.ListSchedulesResponse:
        """See the proto."""
        found = await self._reader.schedules(
            current_caller().namespace, request.pipeline_id, request.name
        )
        return schedule_pb2.ListSchedulesResponse(schedules=map(_message, found))

    async def PauseSchedule(
        self, request: schedule_pb2.PauseScheduleRequest, context: Context
    ) -> schedule_pb2.PauseScheduleResponse:
        """See the proto."""
        command = PauseSchedule(
            current_caller().namespace, request.schedule_id, paused=True, note=request.note
        )
        command.check()
        await self._writer.submit(command)
        return schedule_pb2.PauseScheduleResponse()

    async def ResumeSchedule(
        self, request: schedule_pb2.ResumeScheduleRequest, context: Context
    ) -> schedule_pb2.ResumeScheduleResponse:
        """See the proto."""
        namespace = current_caller().namespace
        await self._writer.submit(PauseSchedule(namespace, request.schedule_id, paused=False))
        schedule = await self._reader.schedule(namespace, request.schedule_id)
        return schedule_pb2.ResumeScheduleResponse(next_times=self._next_times(plan_of(schedule)))

    async def RunSchedule(
        self, request: schedule_pb2.RunScheduleRequest, context: Context
    ) -> schedule_pb2.RunScheduleResponse:
        """See the proto."""
        caller = current_caller()
        await self._queue_limit.check(caller.namespace)
        command = RunSchedule(caller.namespace, request.schedule_id, str(uuid7()), caller.name)
        run_id = await self._writer.submit(command, new_work=True)
        return schedule_pb2.RunScheduleResponse(run_id=run_id)

    async def PreviewSchedule(
        self, request: schedule_pb2.PreviewScheduleRequest, context: Context
    ) -> schedule_pb2.PreviewScheduleResponse:
        """See the proto."""
        plan = self._plan(request.plan)
        return schedule_pb2.PreviewScheduleResponse(next_times=self._next_times(plan))

    def _plan(self, message: schedule_pb2.Plan) -> Plan:
        """Return the plan in a message, checked.

        Raises:
            Invalid: it is malformed.
        """
        with within("plan"):
            plan = _plan(message)
            checks = Checks()
            plan.check(checks, self._times, self._clock.now())
            checks.done()
        return plan

    def _next_times(self, plan: Plan) -> Sequence[Moment]:
        moment = self._clock.now()
        if plan.starts_at is not None:
            moment = max(moment, plan.starts_at - 1)
        found: list[Moment] = []
        while len(found) < NEXT_TIMES:
            next_one = self._times.after(plan.cron, plan.zone, moment)
            if next_one is None or (plan.ends_at is not None and next_one > plan.ends_at):
                break
            found.append(next_one)
            moment = next_one
        return found


def _plan(message: schedule_pb2.Plan) -> Plan:
    if message.catch_up not in schedule_pb2.CatchUp.values():
        raise Invalid([Violation("catch_up", f"there is no {message.catch_up}")])
    if message.overlap not in schedule_pb2.Overlap.values():
        raise Invalid([Violation("overlap", f"there is no {message.overlap}")])
    return Plan(
        cron=message.cron,
        zone=message.zone or "UTC",
        jitter=message.jitter,
        starts_at=message.starts_at or None,
        ends_at=message.ends_at or None,
        catch_up=_CATCH_UP[message.catch_up],
        catch_up_window=message.catch_up_window or 86_400,
        catch_up_limit=message.catch_up_limit or 10,
        overlap=_OVERLAP[message.overlap],
        branch=message.branch,
        inputs=dict(message.inputs),
    )


def _message(schedule: Schedule) -> schedule_pb2.Schedule:
    return schedule_pb2.Schedule(
        schedule_id=schedule.public_id,
        name=schedule.name,
        pipeline_id=schedule.pipeline_id,
        owner=enum(_OWNER.index(schedule.owner) + 1),
        plan=_plan_message(schedule),
        next_at=schedule.due_at or 0,
        last_at=schedule.last_at or 0,
        paused_at=schedule.paused_at or 0,
        note=schedule.note,
        created_at=schedule.created_at,
        created_by=schedule.created_by,
        pending_at=schedule.pending_at or 0,
    )


def _plan_message(schedule: Schedule) -> schedule_pb2.Plan:
    return schedule_pb2.Plan(
        cron=schedule.cron,
        zone=schedule.zone,
        jitter=schedule.jitter,
        starts_at=schedule.starts_at or 0,
        ends_at=schedule.ends_at or 0,
        catch_up=enum(_CATCH_UP.index(schedule.catch_up, 1)),
        catch_up_window=schedule.catch_up_window,
        catch_up_limit=schedule.catch_up_limit,
        overlap=enum(_OVERLAP.index(schedule.overlap, 1)),
        branch=schedule.branch,
        inputs={name: str(value) for name, value in schedule.inputs.items()},
    )


def _fire(fire: Fire) -> schedule_pb2.Fire:
    return schedule_pb2.Fire(
        at=fire.at, struck_at=fire.struck_at, run_id=fire.run_id or "", outcome=fire.outcome
    )
