"""Ready work to fitting agents.

Memory knows which task classes may have ready tasks and which sessions have free slots; the claim
itself is the last command of a batch, so a task can be submitted and handed out in one commit. A
class whose tasks nobody can take is not looked at again until a session that fits appears: `offer`
is asked only when something has changed.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import structlog

from server import metrics
from server.domain.claiming import Assignment, Claim, Claimed, HandBack
from server.domain.errors import SessionSuperseded
from server.domain.event import Event
from server.domain.labels import Selector
from server.domain.lease import LeaseRef
from server.domain.ledger import Command
from server.domain.placement import Offer
from server.domain.submitting import CreateTask, NewTask, task_class
from server.domain.submitting_many import CreateTasks
from server.engine.clock import Clock
from server.engine.mailbox import Work
from server.engine.parked import Parked
from server.engine.sessions import Session, Sessions
from server.engine.surviving import survives
from server.engine.writer import Committed, Writer
from server.stores.interfaces import Reader

RETRY_SECONDS = 1.0
LOOK_AGAIN = 15.0

log = structlog.get_logger(__name__)


def _new_tasks(command: Command[Any]) -> Sequence[NewTask]:
    match command:
        case CreateTask():
            return (command.task,)
        case CreateTasks():
            return command.tasks
    return ()


class Dispatcher:
    """Hands out work; see Writer.Claimer."""

    def __init__(self, sessions: Sessions, clock: Clock) -> None:
        self._sessions = sessions
        self._clock = clock
        self._ready: dict[str, Selector] = {}
        """Classes that may have ready tasks."""
        self._told: set[str] = set()
        """Classes others told of while a claim is being written, which cannot know of it."""
        self._unknown: set[str] = set()
        """Ready classes whose needs are not in memory."""
        self._selectors: dict[str, Selector] = {}
        self._news = asyncio.Event()
        self._undelivered: list[HandBack] = []
        self.kick: Callable[[], None] = lambda: None
        """Asks the writer to ask us for an offer; set by whoever builds both."""

    # ---- what the writer asks

    def offer(self, batch: Sequence[Command[Any]]) -> Claim | None:
        """See Claimer."""
        self._foresee(batch)
        if not self._ready:
            self._answer_hopeless()
            return None
        self._told.clear()
        offers = [offer for session in self._sessions if (offer := self._offer_of(session))]
        self._answer_hopeless()
        return Claim(tuple(offers)) if offers else None

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
            session.reserved -= offer.slots
            self._deliver(session, offer, tasks)
        if answer is None:
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self.kick)
            return
        metrics.dispatch_claims.inc(assigned)
        for session_id in answer.refused:
            session = self._sessions.get(session_id)
            if session is not None:
                self._sessions.remove(session, SessionSuperseded(session.agent_id))
        for session_id in answer.lost:
            session = self._sessions.get(session_id)
            if session is not None:
                session.lost = True
        for class_key in answer.exhausted - self._told:
            self._ready.pop(class_key, None)
        if self._ready and (assigned or self._told):
            self.kick()

    def _foresee(self, batch: Sequence[Command[Any]]) -> None:
        """Count on what this batch will make ready, so that it is handed out in its own commit."""
        for command in batch:
            for task in _new_tasks(command):
                if not task.depends_on:
                    needs = task_class(task.selector, task.spec.image)
                    if needs.key not in self._selectors:
                        self._selectors[needs.key] = Selector.from_canonical(needs.canonical)
                    self._ready[needs.key] = self._selectors[needs.key]

    def _offer_of(self, session: Session) -> Offer | None:
        wants = session.wants
        if wants <= 0:
            return None
        fitting = frozenset(
            key for key, selector in self._ready.items() if session.fits_class(key, selector)
        )
        if not fitting:
            return None
        session.reserved += wants
        return Offer(
            agent_key=session.agent_key,
            agent_id=session.agent_id,
            session_id=session.session_id,
            slots=wants,
            class_keys=fitting,
            frame=session.next_frame(),
            request_id=session.parked.request_id if session.parked else None,
            assigned_at=session.assigned_at,
        )

    def _answer_hopeless(self) -> None:
        """Answer fetches that wanted one look and for which nothing was offered."""
        for session in self._sessions:
            parked = session.parked
            if parked is not None and parked.once and not session.reserved:
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

    # ---- what others tell

    def committed(self, committed: Committed) -> None:
        """Take in a commit: leases gone and come, classes that became ready."""
        effects = committed.effects
        for session_id, lease_id in effects.ended_leases:
            session = self._sessions.get(session_id)
            if session is not None:
                session.let_go(lease_id)
        for session_id, lease_id in effects.adopted_leases:
            session = self._sessions.get(session_id)
            if session is not None:
                session.leases.setdefault(lease_id, 0)
        self._expect(effects.ready_classes)
        if (effects.ended_leases and self._ready) or effects.ready_classes:
            self.kick()

    def told(self, event: Event) -> None:
        """Take in an event of another server: it may have made work ready."""
        class_key = event.data.get("class")
        if class_key:
            self._told.add(class_key)
            self._expect([class_key])
            self.kick()

    def _expect(self, class_keys: Iterable[str]) -> None:
        for key in class_keys:
            selector = self._selectors.get(key)
            if selector is not None:
                self._ready[key] = selector
            else:
                self._unknown.add(key)
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
        """Learn which classes have ready tasks."""
        for key, canonical in (await reader.ready_classes()).items():
            self._ready[key] = self._selectors[key] = Selector.from_canonical(canonical)

    async def _learn(self, reader: Reader) -> None:
        if not self._unknown:
            return
        unknown = sorted(self._unknown)
        texts = await reader.class_text(unknown)
        self._unknown.difference_update(unknown)
        for key, canonical in texts.items():
            self._ready[key] = self._selectors[key] = Selector.from_canonical(canonical)
            self._told.add(key)
        self.kick()
