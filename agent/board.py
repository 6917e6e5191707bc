"""What becomes of every attempt the agent holds: which starts, ends, is told, is handed back."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import structlog

from agent.allowing import AllowLists
from agent.collecting import CannotCollect, Collector
from agent.executor import Identity, Phase, TaskRun
from agent.holdings import Holdings, show
from agent.kept_workspaces import Keeper
from agent.log_reader import summarize
from agent.outbox import Outbox
from agent.pace import Pace
from agent.preparing import CannotPrepare, Preparer, needs_preparation
from agent.room import Room
from agent.spool import Spool
from agent.supervisor.frames import Message
from agent.supervisor.order import gives_back
from agent.trusting import TrustedKeys
from generated.agent.v1 import agent_pb2
from generated.stream.v1 import stream_pb2

_SUM_INLINE_BYTES = 256 * 1024
_PATIENCE_SECONDS = 0.5
"""How long a task may wait for a slot before it is handed back."""

_QUICK_SECONDS = 20.0
"""How long it may take to prepare a task before the server is told that it runs."""

_GIVEN_BACK = "was given back while it was prepared"

_ARM_SECONDS = 0.02
"""Pause before asking for further output, so that lines travel in batches."""

_log = structlog.get_logger("agent.board")


class Board:
    """Decides about attempts: between the control plane's word and the supervisor's.

    Attributes:
        quiet: Set while nothing runs and nothing waits for a slot.
        empty: Set while nothing is held at all.
        vacant: Set while there are slots that nothing is meant for.
    """

    def __init__(
        self,
        spool: Spool,
        slots: int,
        outbox: Outbox,
        tell: Callable[[Message], None],
        room: Room,
        group: asyncio.TaskGroup,
        *,
        allowed: AllowLists | None = None,
        trusted: TrustedKeys | None = None,
        confinement: Message | None = None,
        preparer: Preparer | None = None,
        collector: Collector | None = None,
        keeper: Keeper | None = None,
        plans: Callable[[], bool] = lambda: True,
    ) -> None:
        self._preparer = preparer
        self._collector = collector
        self._keeper = keeper
        self._plans = plans
        self._trusted = trusted or TrustedKeys()
        self._allowed = allowed or AllowLists()
        self._confinement = confinement
        self.slots = slots
        self.seen_through = 0
        self.vacant = asyncio.Event()
        self._lease_seconds = 30.0
        self._draining = False
        self._spool = spool
        self._outbox = outbox
        self._tell = tell
        self._room = room
        self._group = group
        self._holdings = Holdings()
        self.quiet, self.empty = self._holdings.quiet, self._holdings.empty
        self._renewed_at = 0.0
        self._arming: set[str] = set()
        self._pace = Pace()
        self._patience: asyncio.TimerHandle | None = None
        self._log_delay = _ARM_SECONDS
        self.look()

    @property
    def running(self) -> int:
        """How many attempts have a process, or are about to."""
        return len(self._holdings.ordered) + len(self._holdings.preparing)

    @property
    def takes_work(self) -> bool:
        """Whether new tasks are welcome."""
        return not self._draining and self._room.enough

    @property
    def vacancies(self) -> int:
        """How many more tasks could run now."""
        meant = self.running + len(self._holdings.waiting)
        return max(self.slots - meant, 0) if self.takes_work else 0

    def look(self) -> None:
        """Brings up to date what depends on how much work there is."""
        self._outbox.patient = bool(self._holdings.waiting)
        show(self.vacant, self.vacancies > 0)

    def held(self) -> agent_pb2.Held:
        """Returns everything the agent holds."""
        return agent_pb2.Held(leases=self._holdings.leases(), seen_through=self.seen_through)

    def assign(self, frame_number: int, tasks: Iterable[agent_pb2.Task]) -> None:
        """Takes the tasks of an assignment; one that is known already is not taken twice."""
        self.seen_through = max(self.seen_through, frame_number)
        for task in tasks:
            if task.lease_id in self._holdings or self._holdings.finished(task.lease_id):
                continue
            run = TaskRun(Identity.of_task(task), self._spool, task)
            self._holdings.add(run)
            if not self.takes_work:
                self._return(run)
            elif refusal := self._trusted.refusal(task) or self._allowed.refusal(task):
                self._end_without_process(run, _end("not_started", refusal, "task"))
            elif task.executor == "noop":
                self._end_without_process(run, _end("exited", "", "task"))
            elif task.executor or (needs_preparation(task) and self._preparer is None):
                self._end_without_process(run, _end("not_started", _cannot_run(task), "task"))
        self._start_waiting()

    def judge(self, verdicts: Iterable[agent_pb2.LeaseVerdict]) -> None:
        """Does what the server says about leases."""
        for verdict in verdicts:
            if verdict.action == agent_pb2.VERDICT_ACTION_CANCEL:
                self.cancel(
                    verdict.task_id, verdict.lease_id, verdict.reason, verdict.grace_seconds
                )
            elif verdict.action == agent_pb2.VERDICT_ACTION_SUPERSEDED:
                self._supersede(verdict.lease_id)

    def cancel(self, task_id: str, lease_id: str, reason: str, grace: int) -> None:
        """Ends an attempt, to be reported CANCELLED."""
        found = self._holdings.get(lease_id)
        if lease_id:
            runs = [found] if found is not None else []
        else:
            runs = [run for run in self._holdings if run.identity.task == task_id]
        for run in runs:
            if run.phase in (Phase.WAITING, Phase.PREPARING):
                self._end_without_process(run, _end("cancelled", reason, "task"))
                self._start_waiting()
            elif run.phase is Phase.ORDERED and run.work is not None:
                self._stop_collecting(run, "cancelled", reason)
            elif run.phase is Phase.ORDERED and run.stop_message is None:
                self._tell(run.stop("cancelled", reason, float(grace) or None))

    def acknowledge(self, acks: stream_pb2.Acks) -> None:
        """Takes the answers to a frame of reports."""
        for log in acks.logs:  # first: an end whose log is whole leaves nothing to note
            if run := self._holdings.get(log.lease_id):
                self.judge([log.verdict])
                self._retry_later(run, run.log.acknowledge(log), run.log.resume)
                self._settle(run)
        for status in acks.statuses:
            if run := self._holdings.get(status.lease_id):
                self._retry_later(run, run.acknowledge(status), run.resend)
                self.judge([status.verdict])
                self._settle(run)
        self._start_waiting()

    def reconnect(self) -> None:
        """Prepares everything for a new stream."""
        self._outbox.reconnect()
        for run in self._holdings:
            run.reconnect()
            self._outbox.mark(run)

    def renewed(self, sent_at: float) -> None:
        """Notes that the leases held at a moment (monotonic) were renewed by the server."""
        self._renewed_at = max(self._renewed_at, sent_at)
        moments = {
            lease: run.stop_by(self._renewed_at, self._lease_seconds)
            for lease, run in self._holdings.ordered.items()
            if run.identity.stop_with_lease
        }
        if moments:
            self._tell({"kind": "renew", "stop_by": moments})

    def set_lease_seconds(self, seconds: int) -> None:
        """Takes how long a lease lasts without renewal; 0 leaves it."""
        if seconds > 0:
            self._lease_seconds = float(seconds)

    def drain(self) -> None:
        """Takes no new work and hands back what has not started."""
        self._draining = True
        self.hand_back()

    def resize(self, slots: int) -> None:
        """Takes the server's number of slots; 0 leaves it."""
        if slots > 0:
            self.slots = slots
            self._start_waiting()

    def set_log_delay(self, milliseconds: int) -> None:
        """Takes how long output is gathered before it is asked for again; 0 takes our own."""
        self._log_delay = milliseconds / 1000 or _ARM_SECONDS

    def at_work(self) -> list[TaskRun]:
        """Returns the attempts that have a process, or are about to."""
        ordered = self._holdings.ordered.values()
        return [run for run in ordered if run.work is None and not run.ending]

    def stop(self, run: TaskRun, cause: str, message: str) -> None:
        """Stops an attempt that is at work, with its own grace; it ends by that cause."""
        if run.stop_message is None and not run.ending:
            self._tell(run.stop(cause, message))

    def stop_all(self, cause: str, message: str, grace: float | None = None) -> None:
        """Stops everything that runs, with its own grace or a shorter one; what waits goes back."""
        self.hand_back()
        for run in list(self._holdings.ordered.values()):
            if run.work is not None:
                self._stop_collecting(run, cause, message)
            else:
                self._tell(run.stop(cause, message, grace))

    def supervisor_found(self, states: list[Message]) -> None:
        """Compares what a supervisor knows with what the session knows, and settles both."""
        known = {state["lease"]: state for state in states}
        for lease, state in known.items():
            if self._holdings.finished(lease):
                self._tell({"kind": "forget", "lease": lease})
                continue
            run = self._holdings.get(lease)
            if run is None:
                run = TaskRun(Identity.of_state(state), self._spool, None)
                self._holdings.add(run)
                if self._preparer is not None and run.identity.shown:
                    self._preparer.hold(lease, run.identity.shown)
            with _apart(run):
                if not run.ending:  # whether it has printed is not certain any more
                    run.printed()
                self._take_state(run, state)
                self._arm_soon(run)
        for run in list(self._holdings.ordered.values()):
            if run.identity.lease in known or run.ending:
                continue
            if run.task is not None and (stop := run.stop_message) is not None:
                end = _end(stop["cause"], stop["message"], "task")
                self._end_without_process(run, end)  # nobody has begun it
            else:
                self._order(run)
        self._start_waiting()

    def supervisor_says(self, event: Message) -> None:
        """Takes an event of the supervisor."""
        run = self._holdings.get(event["lease"])
        if run is None:
            return
        with _apart(run):
            if event["kind"] == "output":
                run.printed()
                self._outbox.mark(run)
                self._arm_soon(run)
            elif event["kind"] in ("started", "ended"):
                self._take_state(run, event)
            else:
                _log.warning("processes of a task cannot be killed", task=run.identity.task)

    def _take_state(self, run: TaskRun, state: Message) -> None:
        if state["end"] is not None:
            if gives_back(state["end"]["cause"], state["end"]["failure"]):
                self._not_started(run, state["end"]["message"])
            else:
                self._end(run, state["end"])
            return
        if state["running"]:
            self._room.prove()
            run.started(state["started_at"])
            self._outbox.mark(run)
        if run.stop_message is not None:
            self._tell(run.stop_message)

    def _not_started(self, run: TaskRun, reason: str) -> None:
        """Gives back a task that this host could not start: elsewhere it may run at once."""
        if run.ending:
            return
        self._room.lack(reason)
        if run.superseded:
            self._forget(run)
        elif (stop := run.stop_message) is not None and stop["cause"] == "cancelled":
            self._end_without_process(run, _end("cancelled", stop["message"], "task"))
        else:
            self._return(run, reason)
        self.hand_back()

    def _end(self, run: TaskRun, end: Message) -> None:
        if run.ending:
            return
        run.ending = True
        end, concluded = run.concluded(end)
        wanted = [] if concluded else run.to_collect(end)
        if wanted and self._collector is not None:
            run.end = end
            run.work = self._group.create_task(self._collect(run, self._collector, wanted, end))
        else:
            self._conclude(run, end)

    async def _collect(
        self, run: TaskRun, collector: Collector, wanted: list[Message], end: Message
    ) -> None:
        """Keeps what a task leaves before its end is told: whoever waits for it finds that."""
        try:
            notes = await collector.collect(run.identity, run.folder.workspace, wanted)
        except CannotCollect as error:
            notes, end = _uncollected(end, str(error), elsewhere=error.elsewhere)
        except Exception as error:  # a bug must not keep the task for ever
            _log.exception("artifacts cannot be collected", task=run.identity.task)
            notes, end = _uncollected(end, f"artifacts: {type(error).__name__}", elsewhere=True)
        run.work = None
        self._conclude(run, _remark(run, notes, end))

    def _stop_collecting(self, run: TaskRun, cause: str, message: str) -> None:
        """Ends an attempt that only its artifacts kept from its end."""
        if run.work is not None and run.end is not None:
            run.work.cancel()
            run.work = None
            self._conclude(run, {**run.end, "cause": cause, "message": message})

    def _conclude(self, run: TaskRun, end: Message) -> None:
        if run.end is not None:
            run.conclude(end)  # before the workspace is moved away
        if run.identity.keep_workspace and self._keeper is not None:
            note = self._keeper.keep(run.identity, run.folder.workspace)
            end = _remark(run, [note] if note else [], end)
        if end.get("silent"):
            run.end_log(silent=True)
            self._ended(run, end)
            self._start_waiting()
            return
        run.printed()
        run.shipper.end()
        place = run.shipper.reader.place
        folder = run.folder
        if folder.unread_bytes(place.segment, place.offset) > _SUM_INLINE_BYTES:
            self._group.create_task(self._sum_up(run, end))
        else:
            run.shipper.total = summarize(folder, place)
            self._ended(run, end)
            self._start_waiting()

    async def _sum_up(self, run: TaskRun, end: Message) -> None:
        """Reads a long rest of a log in a thread: the heartbeat must not wait for it."""
        run.shipper.total = await asyncio.to_thread(summarize, run.folder, run.shipper.reader.place)
        self._ended(run, end)
        self._start_waiting()

    def _end_without_process(self, run: TaskRun, end: Message) -> None:
        run.ending = True
        _abandon_work(run)
        run.end_log()
        self._ended(run, end)

    def _ended(self, run: TaskRun, end: Message) -> None:
        run.ended(end)
        self._holdings.sort(run)
        if end["cause"] == "exited":
            self._pace.took((end["ended_at"] - end["started_at"]) / 1000)
            self._outbox.ahead = self._pace.ahead(self.slots)
        _log.debug("task ended", task=run.identity.task, cause=end["cause"], code=end["exit_code"])
        self._outbox.mark(run)
        self._settle(run)

    def _supersede(self, lease_id: str) -> None:
        run = self._holdings.get(lease_id)
        if run is None:
            return
        run.supersede()
        if run.phase is Phase.ORDERED and run.work is not None:
            self._stop_collecting(run, "superseded", "the lease is not current any more")
        elif run.phase is Phase.ORDERED:
            self._tell(run.stop("superseded", "the lease is not current any more"))
        elif run.phase in (Phase.WAITING, Phase.PREPARING):
            self._forget(run)
        self._settle(run)
        self._start_waiting()

    def _start_waiting(self) -> None:
        free = max(self.slots - self.running, 0)
        for run in list(islice(self._holdings.waiting.values(), free)):
            self._begin(run)
        self.look()
        if self._holdings.waiting and self._patience is None:
            loop = asyncio.get_running_loop()
            self._patience = loop.call_later(_PATIENCE_SECONDS, self._return_stale)

    def _return_stale(self) -> None:
        """Hands back what has waited for a slot too long: another agent may have one free."""
        self._patience = None
        now = time.monotonic()
        waiting = list(self._holdings.waiting.values())
        stale = [run for run in waiting if now - run.arrived >= _PATIENCE_SECONDS]
        if stale:
            self._pace.forget()
            self._outbox.ahead = 0
        for run in stale:
            self._return(run)
        self._start_waiting()

    def _begin(self, run: TaskRun) -> None:
        """Starts an attempt, or what has to be done before that."""
        if self._preparer is None or run.task is None or not needs_preparation(run.task):
            self._order(run)
            return
        run.phase = Phase.PREPARING
        self._holdings.sort(run)
        if self._plans():
            run.work = self._group.create_task(self._prepare(run, self._preparer, run.task))
        else:
            self._return(
                run, "the running supervisor is of an earlier version; stop the agent with SIGTERM"
            )

    async def _prepare(self, run: TaskRun, preparer: Preparer, task: agent_pb2.Task) -> None:
        """Gets what an attempt needs, and orders it."""
        begun, started_at = time.monotonic(), time.time_ns() // 1_000_000
        # It counts as its own time; a server that hears nothing would give it to another agent.
        loop = asyncio.get_running_loop()
        telling = loop.call_later(_QUICK_SECONDS, self._tell_of_start, run, started_at)
        end: Message | None = None
        try:
            async with asyncio.timeout(run.timeout):
                prepared = await preparer.prepare(task)
        except TimeoutError:
            end = _end("timeout", f"was not prepared within {run.timeout:g} s", "task")
            end["started_at"] = started_at
        except CannotPrepare as error:
            end = _end("not_started", str(error), "infrastructure" if error.elsewhere else "task")
        except Exception as error:  # a bug must not keep the task for ever
            _log.exception("a task cannot be prepared", task=run.identity.task)
            end = _end("not_started", f"could not start: {error}", "infrastructure")
        finally:
            telling.cancel()
        run.work = None
        run.preparing_seconds = time.monotonic() - begun
        if end is None:
            run.prepared = prepared.words()
            self._order(run)
        elif end["failure"] == "infrastructure" and not run.told_of_start:
            self._return(run, end["message"])
        else:
            self._end_without_process(run, end)
        self._start_waiting()

    def _tell_of_start(self, run: TaskRun, started_at: int) -> None:
        run.started(started_at)
        self._outbox.mark(run)

    def _give_up_preparing(self) -> None:
        """Gives back what is being prepared."""
        for run in list(self._holdings.preparing.values()):
            if run.told_of_start:
                self._end_without_process(run, _end("stopped", _GIVEN_BACK, ""))
            else:
                self._return(run)

    def _order(self, run: TaskRun) -> None:
        stop_by = None
        if run.identity.stop_with_lease:
            stop_by = run.stop_by(self._renewed_at, self._lease_seconds)
            if run.task is not None and stop_by <= time.monotonic():
                # It was prepared for too long: another agent may have it by now.
                self._return(run)
                return
        order = run.order(stop_by, self._confinement)
        self._holdings.sort(run)
        if order is None:  # its folder was deleted by other hands
            end = _end("lost", "the task's folder is gone", "")
            self._end_without_process(run, {**end, "dropped": True})
            self._start_waiting()
        else:
            self._tell(order)
            if run.stop_message is not None:
                self._tell(run.stop_message)

    def hand_back(self) -> None:
        """Gives back what has not started."""
        self._give_up_preparing()
        for run in list(self._holdings.waiting.values()):
            self._return(run)
        self.look()

    def _return(self, run: TaskRun, reason: str = "") -> None:
        self._outbox.hand_back(run, reason)
        self._forget(run)

    def _settle(self, run: TaskRun) -> None:
        if run.settled and run.identity.lease in self._holdings:
            self._holdings.finish(run)
            self._forget(run)

    def _forget(self, run: TaskRun) -> None:
        _abandon_work(run)
        self._holdings.drop(run)
        if self._preparer is not None and (run.prepared or run.identity.shown):
            self._preparer.release(run.identity.lease)
        if run.spooled:
            self._tell({"kind": "forget", "lease": run.identity.lease})

    def _retry_later(self, run: TaskRun, delay: float | None, again: Callable[[], None]) -> None:
        self._outbox.mark(run)
        if delay is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(delay, self._again, run, again)

    def _again(self, run: TaskRun, again: Callable[[], None]) -> None:
        again()
        self._outbox.mark(run)

    def _arm_soon(self, run: TaskRun) -> None:
        if run.identity.lease not in self._arming:
            self._arming.add(run.identity.lease)
            asyncio.get_running_loop().call_later(self._log_delay, self._arm, run)

    def _arm(self, run: TaskRun) -> None:
        lease = run.identity.lease
        self._arming.discard(lease)
        if run.phase is Phase.ORDERED:
            place = run.shipper.reader.place
            self._tell(
                {"kind": "arm", "lease": lease, "segment": place.segment, "offset": place.offset}
            )


def _remark(run: TaskRun, notes: Iterable[str], end: Message) -> Message:
    """Adds remarks to a task's log, and returns its end, which is not silent then."""
    now = time.time_ns() // 1_000_000
    with contextlib.suppress(OSError):  # a full disk: they are remarks
        for note in notes:
            run.folder.append_output(2, now, f"muster: {note}\n".encode())
            end = {**end, "silent": False}
    return end


def _uncollected(end: Message, why: str, *, elsewhere: bool) -> tuple[list[str], Message]:
    """Returns remarks and the end of a task of which not all could be kept.

    One that has failed by itself ends as it did, and its log says what is missing.
    """
    if (end["cause"], end["exit_code"]) != ("exited", 0):
        return [why], end
    failure = "infrastructure" if elsewhere else "task"
    return [], {**end, "cause": "uncollected", "message": why, "failure": failure}


def _abandon_work(run: TaskRun) -> None:
    work, run.work = run.work, None
    if work is not None and work is not asyncio.current_task():
        work.cancel()


@contextlib.contextmanager
def _apart(run: TaskRun) -> Iterator[None]:
    """Lets what goes wrong with one task, as in a folder that it ruined, not stop the others."""
    try:
        yield
    except Exception:
        _log.exception("the supervisor's word cannot be taken", task=run.identity.task)


def _end(cause: str, message: str, failure: str) -> Message:
    now = time.time_ns() // 1_000_000
    return {
        "cause": cause,
        "exit_code": 0,
        "message": message,
        "failure": failure,
        "started_at": now,
        "ended_at": now,
    }


def _cannot_run(task: agent_pb2.Task) -> str:
    if task.image:
        return f"this agent cannot run container images ({task.image})"
    return f"this agent has no executor {task.executor!r}"
