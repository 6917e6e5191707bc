"""One agent's stream: what it says, what it is told.

Frames are read without waiting for the commits they cause; a few may be on their way at once, and
each is answered when its commit is durable. The commands of a frame are queued before the next
frame is read, and reports are answered in the order in which they came, so an agent's words keep
their order and it knows which of them an answer is for.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any, TypeAlias, TypeVar

from generated.stream.v1 import stream_pb2
from server.auth import check_acts_for, current_caller
from server.domain.checks import Checks
from server.domain.errors import Draining, Invalid, MusterError, SessionSuperseded, Violation
from server.domain.lease import LeaseRef, Verdict, VerdictAction
from server.domain.ledger import Command
from server.domain.log_keeping import LogAnswer
from server.domain.policy import Policy
from server.domain.registering import SLOT_LIMIT
from server.engine.attendance import Attendance
from server.engine.clock import Clock
from server.engine.dispatcher import Dispatcher
from server.engine.log_intake import LogIntake
from server.engine.mailbox import Configure, HandBackAll, Mailbox, Stop, Work
from server.engine.parked import Parked
from server.engine.sessions import Session
from server.engine.writer import Writer
from server.issuer import Issuer
from server.rpc.agent_service import LOOK_SECONDS
from server.rpc.convert import batch_of
from server.rpc.convert_agent import (
    hand_back_of,
    held_of,
    measured_of,
    task_info,
    update_of,
    verdict_message,
)
from server.rpc.errors import answer_to
from server.rpc.handover import Handover

M = TypeVar("M")

Request: TypeAlias = stream_pb2.AgentChannelRequest
Response: TypeAlias = stream_pb2.AgentChannelResponse

FRAMES_AT_ONCE = 16


class AgentChannel:
    """See the module. `responses` is the whole life of one stream."""

    def __init__(
        self,
        writer: Writer,
        intake: LogIntake,
        attendance: Attendance,
        dispatcher: Dispatcher,
        clock: Clock,
        policy: Policy,
        issuer: Issuer | None,
        handover: Handover,
    ) -> None:
        self._issuer = issuer
        self._handover = handover
        self._caller = current_caller()
        self._key_ends = self._caller.expires_at
        """When the key that its agent has now ends; None where nobody asks for one."""
        self._writer = writer
        self._intake = intake
        self._attendance = attendance
        self._dispatcher = dispatcher
        self._clock = clock
        self._policy = policy
        self._out: asyncio.Queue[Response | Exception | None] = asyncio.Queue()
        self._taken = asyncio.Event()
        self._places = asyncio.Semaphore(FRAMES_AT_ONCE)
        self._mailbox = Mailbox(pushes=False)
        self._session: Session | None = None
        self._answered: asyncio.Event | None = None
        """Set once the reports that came last are answered."""

    async def responses(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Response, None]:
        """Yield what the agent is told until it hangs up.

        Raises:
            MusterError: the stream cannot go on.
        """
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(self._read(requests, tasks))
            try:
                while (item := await self._out.get()) is not None:
                    self._taken.set()
                    if isinstance(item, Exception):
                        raise item
                    yield item
            except GeneratorExit:
                pass  # the agent hung up; a task group would make an error of it
            finally:
                reading.cancel()
                if self._session is not None:
                    self._attendance.close_stream(self._session, self._mailbox)
                self._mailbox.close()

    # ---- what the agent says

    async def _read(self, requests: AsyncIterator[Request], tasks: asyncio.TaskGroup) -> None:
        """Take in frames. Errors travel through `_out`, for whoever yields must raise them."""
        try:
            async for request in requests:
                if self._session is None:
                    await self._open(request)
                    tasks.create_task(self._pass_frames_on())
                    if request.HasField("hello"):
                        continue
                await self._room_to_answer()
                await self._places.acquire()
                tasks.create_task(self._handle_in_place(request))
                # Let it queue its commands before the next frame queues its own.
                await asyncio.sleep(0)
            self._out.put_nowait(None)
        except Exception as error:
            self._out.put_nowait(error)

    async def _room_to_answer(self) -> None:
        """Wait while an agent that speaks does not listen: its answers would pile up here."""
        while self._out.qsize() > FRAMES_AT_ONCE:
            self._taken.clear()
            await self._taken.wait()

    async def _open(self, request: Request) -> None:
        check_acts_for(request.agent_id)
        if not request.HasField("hello"):
            self._session = await self._attendance.session(request.agent_id, "")
            self._attendance.use_v1_stream(self._session, self._mailbox)
            return
        hello = request.hello
        if not hello.session_id:
            raise Invalid([Violation("hello.session_id", "must not be empty; Register gives one")])
        self._mailbox = Mailbox(pushes=True)
        held = held_of(hello.held, "hello.held")
        self._session, verdicts = await self._attendance.open_stream(
            request.agent_id, hello.session_id, held, self._mailbox
        )
        interval, lease = self._attendance.times_of(self._session)
        self._say(
            request,
            welcome=stream_pb2.Welcome(
                verdicts=[verdict_message(v, self._policy) for v in verdicts],
                heartbeat_interval=interval,
                lease_seconds=lease,
                hand_back=not self._session.open,
            ),
        )

    async def _handle_in_place(self, request: Request) -> None:
        before, answered = self._answered, asyncio.Event()
        if request.HasField("reports"):
            self._answered = answered
        try:
            await self._handle(request, before)
        except Exception as error:
            self._out.put_nowait(error)
        finally:
            answered.set()
            self._places.release()

    async def _handle(self, request: Request, before: asyncio.Event | None) -> None:
        session = await self._live()
        match request.WhichOneof("payload"):
            case "reports":
                acks = await self._reports(session, request)
                if before is not None:
                    await before.wait()
                self._say(request, acks=acks)
            case "heartbeat":
                await self._heartbeat(session, request)
            case "task_status":
                await self._v1_status(session, request)
            case "log_data":
                await self._v1_log(session, request)
            case "task_fetch":
                await self._v1_fetch(session, request)
            case "metrics":
                self._attendance.measure(session, measured_of(request.metrics, self._clock.now()))
            case "hello":
                raise Invalid([Violation("hello", "belongs in the first message only")])
            case _:
                pass  # unknown payloads are of a newer agent

    async def _live(self) -> Session:
        """Return the session, revived when it was given up while the stream stayed open."""
        session = self._session
        if session is None:
            raise SessionSuperseded("")
        if session.lost:
            session = await self._attendance.session(session.agent_id, session.session_id)
        else:
            self._attendance.hear(session)
        return session

    async def _reports(self, session: Session, request: Request) -> stream_pb2.Acks:
        reports = request.reports
        agent_id = session.agent_id
        if reports.HasField("ahead"):
            checks = Checks()
            checks.number("reports.ahead", reports.ahead, 0, SLOT_LIMIT)
            checks.done()
            session.ahead = reports.ahead
        statuses = [_or_refusal(update_of, agent_id, each) for each in reports.statuses]
        back = [hand_back_of(agent_id, reports.handed_back)] if reports.handed_back else []
        answered = self._each([*statuses, *back])
        # Statuses are queued before the log lines that end with them.
        answers, *logs = await asyncio.gather(
            answered, *(self._append(agent_id, message) for message in reports.logs)
        )
        acks = stream_pb2.Acks(
            statuses=map(self._status_ack, reports.statuses, answers),
            logs=map(self._log_ack, reports.logs, logs),
        )
        if back and isinstance(answers[-1], Exception):
            raise answers[-1]
        return acks

    async def _each(self, commands: Sequence[Command[Any] | MusterError]) -> list[Any]:
        """Have commands committed; a refusal stands where it was made."""
        good = [command for command in commands if not isinstance(command, MusterError)]
        answers = iter(await self._writer.submit_each(good))
        return [c if isinstance(c, MusterError) else next(answers) for c in commands]

    async def _append(self, agent_id: str, message: stream_pb2.LogData) -> LogAnswer | MusterError:
        """Take in log lines; a refusal concerns these alone."""
        ref = LeaseRef(message.job_id, message.lease_id)
        try:
            return await self._intake.append(agent_id, ref, batch_of(message))
        except Draining:
            raise
        except MusterError as refusal:
            return refusal

    def _status_ack(
        self, message: stream_pb2.TaskStatusUpdate, answer: Verdict | Exception
    ) -> stream_pb2.StatusAck:
        ack = stream_pb2.StatusAck(
            task_id=message.task_id, lease_id=message.lease_id, status=message.status
        )
        if isinstance(answer, Exception):
            _refuse(ack, answer)
        elif answer.action is not VerdictAction.CONTINUE:
            ack.verdict.CopyFrom(verdict_message(answer, self._policy))
        return ack

    def _log_ack(
        self, message: stream_pb2.LogData, answer: LogAnswer | Exception
    ) -> stream_pb2.LogAck:
        ack = stream_pb2.LogAck(task_id=message.job_id, lease_id=message.lease_id)
        if isinstance(answer, Exception):
            _refuse(ack, answer)
            ack.acked_through = max(0, getattr(answer, "expected", 1) - 1)
            return ack
        ack.acked_through = answer.acked_through
        if answer.verdict.action is not VerdictAction.CONTINUE:
            ack.verdict.CopyFrom(verdict_message(answer.verdict, self._policy))
        return ack

    async def _heartbeat(self, session: Session, request: Request) -> None:
        beat = request.heartbeat
        checks = Checks()
        checks.number("heartbeat.max_concurrent_jobs", beat.max_concurrent_jobs, 0, SLOT_LIMIT)
        checks.done()
        session.draining = beat.draining
        held = held_of(beat.held, "heartbeat.held") if beat.HasField("held") else None
        verdicts = await self._attendance.heartbeat(session, held, beat.max_concurrent_jobs)
        ack = stream_pb2.HeartbeatAck(
            server_time=self._clock.now(),
            success=True,
            verdicts=[verdict_message(v, self._policy) for v in verdicts],
            hand_back=not session.open,
            agent_key=await self._renewed(),
        )
        self._say(request, heartbeat_ack=ack)

    async def _renewed(self) -> str:
        """Return the agent's next key, where the one it has ends soon, or an empty text.

        Raises:
            Unauthenticated: its credential was revoked.
        """
        if self._issuer is None:
            return ""
        key, self._key_ends = await self._issuer.renewed(self._caller, self._key_ends)
        return key

    # ---- v1 agents

    async def _v1_status(self, session: Session, request: Request) -> None:
        message = request.task_status
        try:
            verdict = await self._writer.submit(update_of(session.agent_id, message))
        except MusterError as error:
            # v1 has no answer to a report; ending the task is what the refusal means.
            self._tell_stop(message.task_id, message.lease_id, str(error))
            return
        self._obey(verdict)

    async def _v1_log(self, session: Session, request: Request) -> None:
        message = request.log_data
        try:
            ref = LeaseRef(message.job_id, message.lease_id)
            answer = await self._intake.append(session.agent_id, ref, batch_of(message))
        except MusterError as error:
            self._tell_stop(message.job_id, message.lease_id, str(error))
            return
        self._obey(answer.verdict)

    async def _v1_fetch(self, session: Session, request: Request) -> None:
        parked = Parked(max(1, request.task_fetch.max_tasks), None, once=True)
        tasks, _ = await self._dispatcher.fetch(session, parked, LOOK_SECONDS)
        messages = await self._handover.messages(tasks, session.agent_id, self._caller)
        secrets = {message.job_id: message.secrets for message in messages}
        infos = [task_info(task) for task in tasks if task.task_id in secrets]
        for info in infos:
            info.secrets.update(secrets[info.task_id])
        assignment = stream_pb2.TaskAssignment(tasks=infos)
        self._say(request, task_assignment=assignment)

    def _obey(self, verdict: Verdict) -> None:
        if verdict.action is not VerdictAction.CONTINUE:
            self._tell_stop(verdict.task_id, verdict.lease_id, verdict.reason)

    # ---- what the agent is told

    async def _pass_frames_on(self) -> None:
        while frames := await self._mailbox.take():
            for frame in frames:
                match frame:
                    case Work():
                        self._out.put_nowait(await self._work(frame))
                    case Stop():
                        verdict = frame.verdict
                        self._tell_stop(verdict.task_id, verdict.lease_id, verdict.reason)
                    case HandBackAll():
                        self._out.put_nowait(self._hand_back_all())
                    case Configure():
                        self._out.put_nowait(self._configure(frame.config))
        self._out.put_nowait(self._mailbox.error)

    def _configure(self, config: dict[str, int]) -> Response:
        session = self._session
        return Response(
            agent_id=session.agent_id if session else "",
            config_update=stream_pb2.ConfigUpdate(
                heartbeat_interval=self._attendance.times_of(session)[0] if session else 0,
                max_concurrent_jobs=config.get("slots", 0),
                config={"log_delay_ms": str(config.get("log_delay", 0))},
            ),
        )

    def _hand_back_all(self) -> Response:
        return Response(
            agent_id=self._session.agent_id if self._session else "",
            heartbeat_ack=stream_pb2.HeartbeatAck(
                server_time=self._clock.now(), success=True, hand_back=True
            ),
        )

    async def _work(self, work: Work) -> Response:
        agent_id = self._session.agent_id if self._session else ""
        tasks = await self._handover.messages(work.assignments, agent_id, self._caller)
        assignments = stream_pb2.Assignments(frame_number=work.frame, tasks=tasks)
        return Response(agent_id=agent_id, assignments=assignments)

    def _tell_stop(self, task_id: str, lease_id: str, reason: str) -> None:
        command = stream_pb2.TaskCancelCommand(
            task_id=task_id,
            reason=reason,
            lease_id=lease_id,
            grace_seconds=self._policy.kill_grace_seconds,
        )
        agent_id = self._session.agent_id if self._session else ""
        self._out.put_nowait(Response(agent_id=agent_id, task_cancel_command=command))

    def _say(self, request: Request, **payload: Any) -> None:  # noqa: ANN401 (one of the oneof)
        self._out.put_nowait(
            Response(agent_id=request.agent_id, response_id=request.request_id, **payload)
        )


def _or_refusal(
    convert: Callable[[str, M], Command[Any]], agent_id: str, message: M
) -> Command[Any] | MusterError:
    try:
        return convert(agent_id, message)
    except MusterError as refusal:
        return refusal


def _refuse(ack: stream_pb2.StatusAck | stream_pb2.LogAck, error: Exception) -> None:
    """Tell in its ack that one report was refused; it concerns no other."""
    code: Any = answer_to(error).code.value
    ack.error_code, ack.error_message = code[0], str(error)
