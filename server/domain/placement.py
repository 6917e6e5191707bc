"""Ready tasks to fitting agents: who gets what."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from server.domain.moment import Moment
from server.domain.task import Task

FRAME_SIZE = 1024 * 1024
"""Characters of task specs after which an agent gets no more in one frame; the next follows."""


@dataclass(frozen=True, slots=True)
class Offer:
    """An agent's free slots, as the dispatcher offers them to a claim."""

    agent_key: int
    agent_id: str
    session_id: str
    slots: int
    """How many tasks it takes at most this time."""
    class_keys: frozenset[str]
    """Task classes it fits."""
    frame: int
    """Number of the frame that will carry the assignments."""
    request_id: str | None = None
    """`request_id` of the FetchTask that waits for them."""
    assigned_at: Moment = 0
    """When it last got work; among equals the longest idle goes first."""
    namespace: str | None = None
    """The only namespace whose tasks it runs; None where it runs those of all."""
    ahead: int = 0
    """How many of the slots are none: tasks it takes ahead of free slots, for they are short."""

    def serves(self, namespace: str) -> bool:
        """Tell whether it runs tasks of a namespace."""
        return self.namespace is None or self.namespace == namespace


def in_turn(waiting: Mapping[str, Sequence[Task]]) -> list[Task]:
    """Return tasks of several namespaces, the first of each, then the second of each, and so on.

    Each namespace's tasks go by their own sort keys, and the namespaces in the order given.
    """
    lines = [
        sorted(tasks, key=lambda task: (task.sort_key, task.key)) for tasks in waiting.values()
    ]
    turns = zip_longest(*lines)
    return [task for turn in turns for task in turn if task is not None]


def place(
    ready: Sequence[Task], offers: Sequence[Offer], barred: Mapping[int, Collection[int]]
) -> list[tuple[Task, Offer]]:
    """Return who takes which task, in the tasks' order.

    Each goes to the fitting agent with the most free slots, then to the one that has waited
    longest for work; what is taken ahead of a free slot comes after every free slot. `barred` are
    agents, by task key, that must not take it.
    """
    free: dict[str, int] = {offer.session_id: offer.slots for offer in offers}
    room: dict[str, int] = dict.fromkeys(free, FRAME_SIZE)
    placed = []
    for task in ready:
        offer = _best(task, offers, free, barred.get(task.key, ()))
        if offer is not None:
            room[offer.session_id] -= len(task.spec)
            full = room[offer.session_id] <= 0
            free[offer.session_id] = 0 if full else free[offer.session_id] - 1
            placed.append((task, offer))
    return placed


def _best(
    task: Task, offers: Sequence[Offer], free: Mapping[str, int], barred: Collection[int]
) -> Offer | None:
    best: Offer | None = None
    rank = (0, 0)
    for offer in offers:
        slots = free[offer.session_id]
        if slots <= 0 or task.class_key not in offer.class_keys:
            continue
        if not offer.serves(task.namespace):
            continue
        if offer.agent_key in barred:
            continue
        own = (slots - offer.ahead, -offer.assigned_at)
        if best is None or own > rank:
            best, rank = offer, own
    return best
