"""Tasks are handed to agents, and handed back."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil

from server.domain.admission import settle_groups
from server.domain.agent import Agent, SessionState
from server.domain.attempt import Attempt, AttemptStatus
from server.domain.ending import Outcome, end_attempt, heard_until
from server.domain.errors import SessionSuperseded
from server.domain.lease import LeaseRef, attempt_of
from server.domain.ledger import Ledger
from server.domain.moment import Millis, Moment
from server.domain.placement import Offer, in_turn, place
from server.domain.policy import Policy
from server.domain.quarantine import blame
from server.domain.task import Queue, Task


@dataclass(frozen=True, slots=True)
class Assignment:
    """A task as it goes to its agent."""

    task_id: str
    lease_id: str
    attempt: int
    name: str
    pipeline_id: str
    run_id: str
    stage: int
    timeout: int
    """Milliseconds."""
    spec: str
    stop_with_lease: bool
    """Whether its agent stops it before the lease ends when the server cannot be reached."""
    namespace: str = ""


@dataclass(slots=True)
class Claimed:
    """Answer to a claim."""

    assignments: dict[str, list[Assignment]] = field(default_factory=dict)
    """By session id; a session that got nothing is absent."""
    exhausted: set[Queue] = field(default_factory=set)
    """Queues in which no ready task is left."""
    served: list[str] = field(default_factory=list)
    """Namespaces that got something, the last served last."""
    waits: list[Millis] = field(default_factory=list)
    """How long each task was ready before."""
    refused: set[str] = field(default_factory=set)
    """Sessions that are not current any more."""
    lost: set[str] = field(default_factory=set)
    """Sessions that were given up, perhaps by another server; their agent's next word revives."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Hand ready tasks to the agents that offer slots; answers Claimed."""

    offers: tuple[Offer, ...]
    queues: tuple[Queue, ...]
    """Where to look; of the namespaces, the one whose turn it is comes first."""

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> Claimed:
        """See Command."""
        claimed = Claimed()
        agents = ledger.agents_by_key([offer.agent_key for offer in self.offers])
        settle_groups(ledger)
        if ledger.source.replayed:
            self._find_again(ledger, agents, claimed)
        offers = self._good_offers(ledger, agents, claimed)
        ready = self._ready(ledger, offers, agents, claimed)
        ledger.look_at_clock()  # what made them ready may have happened while we waited for rows
        placed = place(ready, offers, _barred(ledger, ready, agents))
        left = {task.key for task in ready} - {task.key for task, _ in placed}
        claimed.exhausted -= {task.queue for task in ready if task.key in left}
        for task, offer in placed:
            _lease(ledger, task, agents[offer.agent_key], offer)
            claimed.waits.append(max(0, ledger.now - (task.ready_at or ledger.now)))
            claimed.assignments.setdefault(offer.session_id, []).append(assignment(task))
        served = dict.fromkeys(task.namespace for task, _ in reversed(placed))
        claimed.served = list(reversed(served))
        return claimed

    def _find_again(self, ledger: Ledger, agents: dict[int, Agent], claimed: Claimed) -> None:
        """Return what a first try handed out, whose answer was lost: the frame tells."""
        for offer in self.offers:
            agent = agents.get(offer.agent_key)
            for task in ledger.tasks_leased_to(agent) if agent is not None else ():
                if (task.lease_session, task.lease_frame) == (offer.session_id, offer.frame):
                    claimed.assignments.setdefault(offer.session_id, []).append(assignment(task))

    def _good_offers(
        self, ledger: Ledger, agents: dict[int, Agent], claimed: Claimed
    ) -> list[Offer]:
        """Return offers of current sessions, cut to the slots that are free by the database."""
        held = ledger.leases_of(list(agents))
        good = []
        for offer in self.offers:
            agent = agents.get(offer.agent_key)
            if agent is None or not _is_current(agent, offer):
                claimed.refused.add(offer.session_id)
                continue
            if agent.session_state is SessionState.LOST:
                claimed.lost.add(offer.session_id)
                continue
            if not agent.open:
                continue
            found = len(claimed.assignments.get(offer.session_id, ()))
            room = agent.slots + offer.ahead - held.get(agent.key, 0)
            slots = min(offer.slots - found, room)
            if slots > 0:
                good.append(replace(offer, slots=slots))
        return good

    def _ready(
        self, ledger: Ledger, offers: list[Offer], agents: dict[int, Agent], claimed: Claimed
    ) -> list[Task]:
        ready: dict[str, list[Task]] = {queue.namespace: [] for queue in self.queues}
        namespaces = Counter(queue.class_key for queue in self.queues)
        for queue in self.queues:
            takers = [
                offer
                for offer in offers
                if queue.class_key in offer.class_keys and offer.serves(queue.namespace)
            ]
            # Namespaces share the slots; what one leaves goes to the others in the next claim.
            share = ceil(sum(offer.slots for offer in takers) / namespaces[queue.class_key])
            # Only v1 agents are avoided by tasks; where others take too, nothing is in the way.
            lone_v1 = len(takers) == 1 and agents[takers[0].agent_key].v1
            only = takers[0].agent_key if lone_v1 else None
            tasks = ledger.ready_tasks(queue, share, only) if share else []
            if takers and len(tasks) < share and only is None:
                claimed.exhausted.add(queue)
            ready[queue.namespace] += tasks
        return in_turn(ready)


def _is_current(agent: Agent, offer: Offer) -> bool:
    closed = agent.session_state is SessionState.CLOSED
    return agent.session_id == offer.session_id and not closed


def _barred(
    ledger: Ledger, ready: list[Task], agents: dict[int, Agent]
) -> dict[int, frozenset[int]]:
    """Return, by task key, v1 agents of which an earlier run of the task may still be heard.

    They name no lease: the late report of a lost run would end the one that they were given now.
    """
    tried = [task for task in ready if task.attempt]
    if not tried or not any(agent.v1 for agent in agents.values()):
        return {}
    ledger.prefetch_attempts((t.key, n) for t in tried for n in range(1, t.attempt + 1))
    barred = {}
    for task in tried:
        attempts = [ledger.attempt(task, number) for number in range(1, task.attempt + 1)]
        barred[task.key] = may_be_heard_of(task, attempts, ledger.now, ledger.policy)
    return barred


def may_be_heard_of(
    task: Task, attempts: Iterable[Attempt | None], now: Moment, policy: Policy
) -> frozenset[int]:
    """Return keys of v1 agents that a lost attempt of the task may still be heard from."""
    lost = [a for a in attempts if a and a.status is AttemptStatus.LOST and not a.reported]
    return frozenset(
        a.agent_key
        for a in lost
        if not a.session and now < heard_until(task, a.ended_at or 0, policy)
    )


def _lease(ledger: Ledger, task: Task, agent: Agent, offer: Offer) -> None:
    task.attempt += 1
    task.lease_epoch += 1
    task.lease_agent = task.last_agent = agent.key
    task.last_agent_id = agent.public_id
    task.lease_session = offer.session_id
    task.lease_frame = offer.frame
    task.lease_request = offer.request_id
    task.claimed_at = ledger.now
    task.release_requested_at = None
    task.started_at = None
    task.exit_code = 0
    task.error = ""
    ledger.touch(task)
    ledger.add_attempt(
        Attempt(
            task_key=task.key,
            number=task.attempt,
            namespace=task.namespace,
            epoch=task.lease_epoch,
            agent_key=agent.key,
            agent_id=agent.public_id,
            session="" if agent.v1 else offer.session_id,
            claimed_at=ledger.now,
        )
    )


def assignment(task: Task) -> Assignment:
    """Return a leased task as it goes to its agent."""
    return Assignment(
        task_id=task.public_id,
        lease_id=task.lease_id,
        attempt=task.attempt,
        name=task.name,
        pipeline_id=task.pipeline_id or "",
        run_id=task.run_id or "",
        stage=task.stage,
        timeout=task.timeout,
        spec=task.spec,
        stop_with_lease=not task.retry_on_lost or task.group_key is not None,
        namespace=task.namespace,
    )


@dataclass(frozen=True, slots=True)
class Refetch:
    """Find what a FetchTask with this request id was given; answers the tasks still held."""

    agent_id: str
    session_id: str
    request_id: str

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> list[Assignment]:
        """See Command."""
        agent = ledger.agent(self.agent_id)
        if self.session_id and agent.session_id != self.session_id:
            raise SessionSuperseded(self.agent_id)
        return [
            assignment(task)
            for task in ledger.tasks_leased_to(agent)
            if task.lease_request == self.request_id
        ]


@dataclass(frozen=True, slots=True)
class HandBack:
    """Release leases of tasks that have not started and will not."""

    agent_id: str
    leases: tuple[LeaseRef, ...]
    reasons: Mapping[str, str] = field(default_factory=dict)
    """By lease id why the agent's host cannot start its task."""

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return [ref.task_id for ref in self.leases]

    def decide(self, ledger: Ledger) -> None:
        """See Command."""
        agent = ledger.agent(self.agent_id)
        for ref in self.leases:
            task = ledger.find_task(ref.task_id)
            attempt = attempt_of(ledger, task, ref.lease_id) if task is not None else None
            if task is None or attempt is None or attempt.agent_key != agent.key:
                continue
            reason = self.reasons.get(ref.lease_id, "")
            if attempt.status is AttemptStatus.CLAIMED:
                cause = reason or f"agent {agent.public_id} handed it back"
                outcome = Outcome(AttemptStatus.RELEASED, cause=cause, fault=bool(reason))
                end_attempt(ledger, task, outcome)
            elif attempt.status is AttemptStatus.RELEASED and reason not in ("", attempt.cause):
                # A heartbeat was faster: it did not name the lease, nor why.
                attempt.cause = reason
                ledger.touch_attempt(attempt)
                blame(ledger, agent, attempt, reason)
