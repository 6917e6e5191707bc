"""Group commit: commands in, one transaction, answers out.

All commands that arrive while one commit runs share the next one. A command is answered only after
the commit that holds it. One bad command never harms its neighbours: when the database rejects a
statement, or a rule breaks half-way, the batch is thrown away and replayed command by command.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import zip_longest
from typing import Any, Protocol, TypeVar

import structlog

from server import metrics
from server.domain.admission import settle_groups
from server.domain.audit import Origin
from server.domain.auditing import Witness
from server.domain.changes import Effects
from server.domain.claiming import Claim, Claimed
from server.domain.errors import Draining, MusterError, Overloaded, StoreUnavailable
from server.domain.event import Event, EventKind
from server.domain.expression import Expressions
from server.domain.following import follow_runs
from server.domain.ledger import NO_EXPRESSIONS, NO_TIMES, Command, Ledger
from server.domain.policy import Policy
from server.domain.schedule import Times
from server.domain.source import Source
from server.domain.task import TaskStatus
from server.engine.clock import Clock
from server.engine.origin import current_origin
from server.stores.interfaces import Database

T = TypeVar("T")

RETRY_AFTER = timedelta(seconds=1)

log = structlog.get_logger(__name__)


class BrokenRuleError(Exception):
    """A command raised after it had changed the ledger, or raised something unexpected."""


@dataclass(slots=True)
class Committed:
    """What a transaction did."""

    answers: list[Any]
    """One a command: its answer, or the MusterError it was refused with."""
    events: list[Event]
    effects: Effects


class Claimer(Protocol):
    """Who hands out work: the dispatcher."""

    def offer(self, batch: Sequence[Command[Any]]) -> Claim | None:
        """Return a claim to end the batch with, its slots reserved, or None."""

    def claimed(self, claim: Claim, answer: Claimed | None) -> None:
        """Take a claim's answer, None when it failed."""


class _Together:
    """Commands whose caller waits for all of them."""

    def __init__(self, count: int) -> None:
        self.answers: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._given: list[Any] = [None] * count
        self._left = count

    def give(self, place: int, answer: object) -> None:
        """Take one command's answer."""
        self._given[place] = answer
        self._left -= 1
        if not self._left and not self.answers.done():
            self.answers.set_result(self._given)


@dataclass(slots=True)
class _Place:
    """Where one of several commands is answered; bears what the writer needs of a future."""

    together: _Together
    place: int

    def cancelled(self) -> bool:
        return self.together.answers.cancelled()

    def done(self) -> bool:
        return self.together.answers.done()

    def set_result(self, answer: object) -> None:
        self.together.give(self.place, answer)

    def set_exception(self, refusal: BaseException) -> None:
        self.together.give(self.place, refusal)


@dataclass(slots=True)
class _Waiting:
    command: Command[Any]
    answer: "asyncio.Future[Any] | _Place"
    origin: Origin | None = None


class Writer:
    """The only way to change anything.

    Attributes:
        failure: Why the newest transaction was not written; None when it was. One that had nothing
            to write says nothing.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        policy: Policy,
        claimer: Claimer,
        *,
        batch_limit: int,
        queue_limit: int,
        expressions: Expressions = NO_EXPRESSIONS,
        times: Times = NO_TIMES,
    ) -> None:
        self._expressions = expressions
        self._times = times
        self._database = database
        self._clock = clock
        self._policy = policy
        self._claimer = claimer
        self._batch_limit = batch_limit
        self._queue_limit = queue_limit
        self._queue: deque[_Waiting] = deque()
        self._queued = 0
        """What waits in the queue, a batch of tasks counted as so many."""
        self._wake = asyncio.Event()
        self._listeners: list[Callable[[Committed], None]] = []
        self._stopping = False
        self.failure: str | None = None

    def listen(self, listener: Callable[[Committed], None]) -> None:
        """Call `listener` after each commit, before its commands are answered."""
        self._listeners.append(listener)

    async def submit(self, command: Command[T], *, new_work: bool = False) -> T:
        """Have a command committed and return its answer.

        `new_work` may be refused when the queue is full; reports, claims and timers never are, for
        refusing them would only make the queue longer.

        Raises:
            MusterError: the command was refused, or the store does not answer.
        """
        if self._stopping:
            raise Draining
        if new_work and self._queued >= self._queue_limit:
            raise Overloaded(self._queued, RETRY_AFTER)
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(command, answer, current_origin()))
        self._queued += _weight(command)
        self._wake.set()
        return await answer

    async def submit_each(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Have commands committed; return for each its answer, or what it was refused with.

        Many at once cost far less than as many `submit`s.

        Raises:
            Draining: the server stops.
        """
        if self._stopping:
            raise Draining
        if not commands:
            return []
        together = _Together(len(commands))
        for place, command in enumerate(commands):
            self._queue.append(_Waiting(command, _Place(together, place)))
            self._queued += _weight(command)
        self._wake.set()
        return await together.answers

    def kick(self) -> None:
        """Have the dispatcher asked for a claim even though no command waits."""
        self._wake.set()

    def stop(self) -> None:
        """Refuse further commands; `run` ends when all that wait are answered."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Write until stopped."""
        while not (self._stopping and not self._queue):
            await self._wake.wait()
            self._wake.clear()
            while await self._write_batch():
                pass

    async def _write_batch(self) -> bool:
        """Write what waits; return whether there may be more."""
        batch = self._cut()
        claim = None if self._stopping else self._claimer.offer([w.command for w in batch])
        if not batch and claim is None:
            return False
        metrics.writer_queue_length.set(self._queued)
        committed = await self._commit(batch, claim)
        if committed is None:
            await self._one_by_one(batch, claim)
        else:
            self._answer(batch, claim, committed)
        return bool(self._queue)

    def _cut(self) -> list[_Waiting]:
        """Take the next batch; callers that went away are skipped before anything is decided."""
        batch: list[_Waiting] = []
        weight = 0
        while self._queue and weight < self._batch_limit:
            waiting = self._queue.popleft()
            self._queued -= _weight(waiting.command)
            weight += _weight(waiting.command)
            if not waiting.answer.cancelled():
                batch.append(waiting)
        return batch

    async def _commit(self, batch: Sequence[_Waiting], claim: Claim | None) -> Committed | None:
        """Commit commands together; return None when they must be tried one by one."""
        commands = [waiting.command for waiting in batch]
        every = [*commands, claim] if claim is not None else commands
        origins = tuple(waiting.origin for waiting in batch)
        try:
            with metrics.writer_commit_seconds.time():
                work = partial(
                    decide,
                    every,
                    self._clock,
                    self._policy,
                    origins=origins if any(origins) else (),
                    expressions=self._expressions,
                    times=self._times,
                )
                committed = await self._database.transact(work)
        except StoreUnavailable as error:
            log.warning("store_unavailable", error=str(error), commands=len(every))
            self.failure = str(error)
            return Committed([error] * len(every), [], Effects())
        except Exception as error:
            # A rejected statement, a broken rule, or a bug nobody foresaw: it may fail its own
            # caller, never the writer.
            log.error("batch_rejected", error=str(error), commands=len(every), exc_info=error)
            if len(every) == 1:
                return Committed([error], [], Effects())
            return None
        if committed.effects.wrote:
            self.failure = None
        metrics.writer_batch_size.observe(len(every))
        _count(committed.events)
        return committed

    async def _one_by_one(self, batch: Sequence[_Waiting], claim: Claim | None) -> None:
        for waiting in batch:
            committed = await self._commit([waiting], None)
            if committed is not None:
                self._answer([waiting], None, committed)
        if claim is not None:
            committed = await self._commit([], claim)
            if committed is not None:
                self._answer([], claim, committed)

    def _answer(self, batch: Sequence[_Waiting], claim: Claim | None, committed: Committed) -> None:
        answers = committed.answers
        for listener in self._listeners:
            listener(committed)
        # After the listeners: the claim came last, so what it says of ready classes is the latest.
        if claim is not None:
            answer = answers[-1]
            self._claimer.claimed(claim, answer if isinstance(answer, Claimed) else None)
        for waiting, answer in zip(batch, answers, strict=False):
            if waiting.answer.done():
                continue
            if isinstance(answer, Exception):
                waiting.answer.set_exception(answer)
            else:
                waiting.answer.set_result(answer)


def _weight(command: Command[Any]) -> int:
    """Return how many single commands a command is worth: one, unless it says otherwise."""
    weight: int = getattr(command, "weight", 1)
    return weight


def _count(events: Sequence[Event]) -> None:
    metrics.events.inc(len(events))
    statuses = Counter(e.data["status"] for e in events if e.kind is EventKind.TASK_STATUS)
    for status, count in statuses.items():
        metrics.task_transitions.labels(TaskStatus(status).name).inc(count)


def decide(
    commands: Sequence[Command[Any]],
    clock: Clock,
    policy: Policy,
    source: Source,
    *,
    origins: Sequence[Origin | None] = (),
    expressions: Expressions = NO_EXPRESSIONS,
    times: Times = NO_TIMES,
) -> Committed:
    """Let commands decide in order over one ledger, and save it. Runs in the database's thread.

    `origins` are the calls that the first commands come from, where those are audited.

    Raises:
        BrokenRuleError: a command cannot be trusted to have left the ledger whole.
    """
    ledger = Ledger(source, source.now() or clock.now(), policy, expressions, times)
    ledger.prefetch_tasks(task_id for command in commands for task_id in command.task_ids())
    answers = [
        _decide_one(command, ledger, origin)
        for command, origin in zip_longest(commands, origins[: len(commands)])
    ]
    follow_runs(ledger)
    settle_groups(ledger)
    while ledger.ended_runs:  # ended by who takes a place in a group
        follow_runs(ledger)
        settle_groups(ledger)
    ledger.finish()
    return Committed(answers, ledger.events, ledger.effects)


def _decide_one(command: Command[Any], ledger: Ledger, origin: Origin | None) -> object:
    edits = ledger.edits
    try:
        if origin is None:
            return command.decide(ledger)
        witness = Witness(command, origin, ledger)
        answer = command.decide(ledger)
        witness.tell(ledger, answer)
        return answer
    except MusterError as refusal:
        if isinstance(refusal, StoreUnavailable):
            raise
        if ledger.edits != edits:
            raise BrokenRuleError(f"{type(command).__name__} refused after a change") from refusal
        return refusal
    except (LookupError, TypeError, ValueError, AssertionError, AttributeError) as error:
        raise BrokenRuleError(f"{type(command).__name__}: {error}") from error
