"""Ready work to fitting agents.

Memory knows which task classes may have ready tasks and which sessions have free slots; the claim
itself is the last command of a batch, so a task can be submitted and handed out in one commit. A
class whose tasks nobody can take is not looked at again until a session that fits appears: `offer`
is asked only when something has changed.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import count, islice
from typing import Any

import structlog

from server import metrics
from server.domain.claiming import Assignment, Claim, Claimed, HandBack
from server.domain.errors import SessionSuperseded
from server.domain.event import Event
from server.domain.labels import Selector
from server.domain.lease import LeaseRef
from server.domain.ledger import Command
from server.domain.moment import SECOND
from server.domain.placement import Offer
from server.domain.submitting import CreateTask, NewTask, task_class
from server.domain.submitting_many import CreateTasks
from server.domain.task import Queue
from server.engine.clock import Clock
from server.engine.mailbox import Work
from server.engine.parked import Parked
from server.engine.roster import KNOWN_CLASSES, AgentClass
from server.engine.sessions import Session, Sessions
from server.engine.surviving import survives
from server.engine.writer import Committed, Writer
from server.stores.interfaces import Reader

RETRY_SECONDS = 1.0
LOOK_AGAIN = 15.0

FEW_AGENTS = 8
MANY_AGENTS = 256
"""How many agents a claim looks at, at least and at most: each costs a locked row."""

CLASSES_AT_ONCE = 32
QUEUES_AT_ONCE = 64
"""How many queues a claim looks into: each costs a query. The others follow in the next one."""

log = structlog.get_logger(__name__)


def _new_tasks(command: Command[Any]) -> Sequence[tuple[str, NewTask]]:
    """Return the tasks that a command submits, with their namespace."""
    match command:
        case CreateTask():
            return [(command.namespace, command.task)]
        case CreateTasks():
            return [(command.namespace, task) for task in command.tasks]
    return ()


class ReadyClass:
    """A task class that may have ready tasks, and in which namespaces."""

    __slots__ = ("namespaces", "selector")

    def __init__(self, selector: Selector) -> None:
        self.selector = selector
        self.namespaces: set[str] = set()


class Dispatcher:
    """Hands out work; see Writer.Claimer."""

    def __init__(self, sessions: Sessions, clock: Clock) -> None:
        self._sessions = sessions
        self._clock = clock
        self._ready: dict[str, ReadyClass] = {}
        """Classes that may have ready tasks; the longest without a look first."""
        self._told: set[Queue] = set()
        """Queues others told of while a claim is being written, which cannot know of it."""
        self._unknown: set[Queue] = set()
        """Queues with ready tasks whose class's needs are not in memory."""
        self._selectors: dict[str, Selector] = {}
        self._turns: dict[str, int] = {}
        """Namespaces by when they were served last: the longest ago is served next."""
        self._served = count(1)
        self._breadth = FEW_AGENTS
        """How many agents a claim looks at; more while there is more work than they take."""
        self._glances: list[Session] = []
        """Sessions whose fetch wants one look only."""
        self._offered_at = 0.0
        """When the claim that is being written was offered, on the monotonic clock."""
        self._news = asyncio.Event()
        self._undelivered: list[HandBack] = []
        self.kick: Callable[[], None] = lambda: None
        """Asks the writer to ask us for an offer; set by whoever builds both."""

    # ---- what the writer asks

    def offer(self, batch: Sequence[Command[Any]]) -> Claim | None:
        """See Claimer."""
        foreseen = self._foresee(batch)
        claim = self._claim(max(self._breadth, min(foreseen, MANY_AGENTS))) if self._ready else None
        self._answer_hopeless()
        self._offered_at = self._clock.monotonic()
        return claim

    def claimed(self, claim: Claim, answer: Claimed | None) -> None:
        """See Claimer."""
        assigned = 0
        for offer in claim.offers:
            session = self._sessions.get(offer.session_id)
            tasks = answer.assignments.get(offer.session_id, []) if answer is not None else []
            assigned += len(tasks)
            if session is None:
                self._hand_back(offer.agent_id, tasks)
                continue
            self._deliver(session, offer, tasks)
            session.reserved -= offer.slots
        if answer is None:
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self.kick)
            return
        if assigned:
            metrics.dispatch_claims.inc(assigned)
            metrics.dispatch_claim_seconds.observe(self._clock.monotonic() - self._offered_at)
            metrics.queue_wait_seconds.add(wait / SECOND for wait in answer.waits)
        self._take_in_sessions(answer)
        self._take_in_queues(claim, answer)
        more = bool(self._ready)
        self._breadth = min(2 * self._breadth, MANY_AGENTS) if more and assigned else FEW_AGENTS
        # Each of these leaves less to look at, so looking again comes to an end.
        if more and (assigned or self._told or answer.exhausted or answer.refused or answer.lost):
            self.kick()

    def _take_in_sessions(self, answer: Claimed) -> None:
        for session_id in answer.refused:
            session = self._sessions.get(session_id)
            if session is not None:
                self._sessions.remove(session, SessionSuperseded(session.agent_id))
        for session_id in answer.lost:
            session = self._sessions.get(session_id)
            if session is not None:
                session.lost = True

    def _take_in_queues(self, claim: Claim, answer: Claimed) -> None:
        self._turns.update((namespace, next(self._served)) for namespace in answer.served)
        for queue in claim.queues:
            ready = self._ready.pop(queue.class_key, None)
            if ready is None:
                continue
            if queue in answer.exhausted and queue not in self._told:
                ready.namespaces.discard(queue.namespace)
            if ready.namespaces:
                self._ready[queue.class_key] = ready  # behind those that were not looked at

    def _foresee(self, batch: Sequence[Command[Any]]) -> int:
        """Count on what this batch will make ready, so that it is handed out in its own commit.

        Return how many tasks that may be.
        """
        foreseen = 0
        for command in batch:
            for namespace, task in _new_tasks(command):
                if not task.depends_on:
                    needs = task_class(
                        task.selector, task.spec.image, plugins=task.spec.wants_plugins
                    )
                    if needs.key not in self._selectors:
                        self._know(needs.key, needs.canonical)
                    self._add(Queue(needs.key, namespace))
                    foreseen += 1
        return foreseen

    def _know(self, class_key: str, canonical: str) -> None:
        if len(self._selectors) >= KNOWN_CLASSES + len(self._ready):
            self._selectors = {key: ready.selector for key, ready in self._ready.items()}
        selector = self._selectors[class_key] = Selector.from_canonical(canonical)
        self._sessions.roster.learn(selector)

    def _add(self, queue: Queue) -> None:
        ready = self._ready.get(queue.class_key)
        if ready is None:
            ready = self._ready[queue.class_key] = ReadyClass(self._selectors[queue.class_key])
        ready.namespaces.add(queue.namespace)

    def _claim(self, breadth: int) -> Claim | None:
        self._told.clear()
        hungry = self._sessions.roster.hungry(self._classes_for, breadth)
        offers = [self._offer_of(session, class_keys) for session, class_keys in hungry]
        if not offers:
            return None
        classes = dict.fromkeys(key for offer in offers for key in sorted(offer.class_keys))
        queues = [
            Queue(class_key, namespace)
            for class_key in classes
            for namespace in self._ready[class_key].namespaces
            if any(offer.serves(namespace) and class_key in offer.class_keys for offer in offers)
        ]
        queues.sort(key=lambda queue: (self._turns.get(queue.namespace, 0), queue.namespace))
        return Claim(tuple(offers), tuple(queues[:QUEUES_AT_ONCE]))

    def _classes_for(self, agent_class: AgentClass) -> list[str]:
        """Return the ready classes that these agents fit, at most a claim's worth."""
        asked = len(self._ready)
        fitting = (
            key
            for key, ready in self._ready.items()
            if agent_class.serves_any(ready.namespaces)
            and agent_class.fits(key, ready.selector, asked=asked)
        )
        return list(islice(fitting, CLASSES_AT_ONCE))

    def _offer_of(self, session: Session, class_keys: frozenset[str]) -> Offer:
        wants = session.wants
        parked = session.parked
        session.reserved += wants
        return Offer(
            agent_key=session.agent_key,
            agent_id=session.agent_id,
            session_id=session.session_id,
            slots=wants,
            class_keys=class_keys,
            namespace=session.serves,
            frame=session.next_frame(),
            request_id=parked.request_id if parked else None,
            assigned_at=session.assigned_at,
            ahead=0 if parked else session.ahead,
        )

    def _answer_hopeless(self) -> None:
        """Answer fetches that wanted one look and for which nothing was offered."""
        glances, self._glances = self._glances, []
        for session in glances:
            parked = session.parked
            if parked is None or not parked.once:
                continue
            if session.reserved:
                self._glances.append(session)
            else:
                session.parked = None
                parked.resolve([], session.frame)

    def _deliver(self, session: Session, offer: Offer, tasks: list[Assignment]) -> None:
        parked = session.parked
        if tasks:
            session.hold(tasks, offer.frame, self._clock.now())
        if parked is not None and parked.request_id == offer.request_id:
            if not tasks and not parked.once:
                return
            session.parked = None
            if not parked.resolve(tasks, offer.frame):
                self._hand_back(offer.agent_id, tasks)
        elif tasks and (mailbox := session.mailbox) and mailbox.pushes and not mailbox.closed:
            mailbox.put(Work(tasks, offer.frame))
        elif tasks:
            self._hand_back(offer.agent_id, tasks)

    def _hand_back(self, agent_id: str, tasks: Iterable[Assignment]) -> None:
        """Remember tasks that could not be delivered; `run` releases them through the writer."""
        leases = tuple(LeaseRef(task.task_id, task.lease_id) for task in tasks)
        if leases:
            self._undelivered.append(HandBack(agent_id, leases))
            self._news.set()

    def queues(self) -> dict[Queue, Selector]:
        """Return where there may be ready tasks, each with what its class needs."""
        return {
            Queue(class_key, namespace): ready.selector
            for class_key, ready in self._ready.items()
            for namespace in ready.namespaces
        }

    # ---- what others tell

    def committed(self, committed: Committed) -> None:
        """Take in a commit: leases gone and come, classes that became ready."""
        effects = committed.effects
        ended: dict[str, list[str]] = defaultdict(list)
        for session_id, lease_id in effects.ended_leases:
            ended[session_id].append(lease_id)
        for session_id, lease_ids in ended.items():
            session = self._sessions.get(session_id)
            if session is not None:
                session.let_go(*lease_ids)
        for session_id, lease_id in effects.adopted_leases:
            session = self._sessions.get(session_id)
            if session is not None:
                session.adopt(lease_id)
        self._expect(effects.ready_queues)
        if (effects.ended_leases and self._ready) or effects.ready_queues:
            self.kick()

    def told(self, event: Event) -> None:
        """Take in an event of another server: it may have made work ready."""
        class_key = event.data.get("class")
        if class_key:
            queue = Queue(class_key, event.namespace)
            self._told.add(queue)
            self._expect([queue])
            self.kick()

    def _expect(self, queues: Iterable[Queue]) -> None:
        for queue in queues:
            if queue.class_key in self._selectors:
                self._add(queue)
            else:
                self._unknown.add(queue)
                self._news.set()

    def capacity_changed(self) -> None:
        """Look again: a session came, changed its labels or has more room."""
        if self._ready:
            self.kick()

    async def fetch(
        self, session: Session, parked: Parked, wait: float
    ) -> tuple[list[Assignment], int]:
        """Wait for work for a FetchTask; return it with its frame's number.

        An older fetch of the session ends empty.
        """
        self._sessions.check_open()
        if session.parked is not None:
            session.parked.resolve([], session.frame)
        session.parked = parked
        if parked.once:
            self._glances.append(session)
        self.kick()
        try:
            async with asyncio.timeout(wait):
                return await asyncio.shield(parked.answer)
        except TimeoutError:
            return self._withdraw(session, parked)
        except asyncio.CancelledError:
            tasks, _ = self._withdraw(session, parked)
            self._hand_back(session.agent_id, tasks)
            raise

    def _withdraw(self, session: Session, parked: Parked) -> tuple[list[Assignment], int]:
        """End a fetch that nobody answered; what was answered at the last moment still counts."""
        if session.parked is parked:
            session.parked = None
        if parked.answer.done():
            return parked.answer.result()
        parked.answer.cancel()
        return [], session.frame

    # ---- the loop

    async def run(self, reader: Reader, writer: Writer, *, shared: bool) -> None:
        """Learn the needs of classes met for the first time; hand back what found nobody.

        Where servers share a database, look now and then for ready work that no event told of:
        another server may have made it ready, or have held its rows when we looked.
        """

        async def work() -> None:
            await self._learn(reader)
            while self._undelivered:
                await writer.submit(self._undelivered[0])
                self._undelivered.pop(0)

        while True:
            if await self._news_within(LOOK_AGAIN if shared else None):
                self._news.clear()
                if not await survives("dispatch", work):
                    self._news.set()
                    await asyncio.sleep(RETRY_SECONDS)
            elif await survives("dispatch", lambda: self.start(reader)):
                self.kick()

    async def _news_within(self, seconds: float | None) -> bool:
        jitter = random.uniform(0.7, 1.3)  # noqa: S311 (spreads load, hides nothing)
        try:
            async with asyncio.timeout(None if seconds is None else seconds * jitter):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    async def start(self, reader: Reader) -> None:
        """Learn where there are ready tasks."""
        for queue, canonical in (await reader.ready_queues()).items():
            if queue.class_key not in self._selectors:
                self._know(queue.class_key, canonical)
            self._add(queue)
            self._told.add(queue)  # a claim that is being written may not have seen it

    async def _learn(self, reader: Reader) -> None:
        if not self._unknown:
            return
        unknown = set(self._unknown)
        texts = await reader.class_text(sorted({queue.class_key for queue in unknown}))
        self._unknown -= unknown
        for queue in unknown:
            if canonical := texts.get(queue.class_key):
                self._know(queue.class_key, canonical)
                self._add(queue)
                self._told.add(queue)
        self.kick()
