"""Members of concurrency groups get their places.

A place is taken before the claim: members without one are not ready, so no claim ever looks at
them. Nobody hands a place over when one gets free. Whoever frees a place, makes a member wait, or
merely has a waiting member's row in its hands has the group settled before its transaction ends,
with the group's row locked; so between two transactions no member waits while there is a place.
The one exception: members that a newcomer cancels go in steps, and until all are gone the place
stays free; `engine.group_sweep` takes the next step.

Several servers may settle at once. Groups are locked last and in order, and rows of members that
another transaction has in its hands are passed over: nobody waits for a row while holding a group.
Who has such a row settles the group after us; should it die, the next sweep does.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from server.domain.canceling import cancel
from server.domain.ending import tell_status
from server.domain.group import GroupId, Newcomer
from server.domain.ledger import Ledger
from server.domain.task import Task, TaskStatus, move

STEP = 100
"""Groups a transaction of the sweep."""


CANCEL_STEP = 200
"""Older members a transaction cancels at most; whoever waits for it waits for no more."""


def settle_groups(ledger: Ledger) -> None:
    """Give free places to whoever is next in each group that somebody had in hand."""
    while ledger.unsettled:
        ids, ledger.unsettled = sorted(ledger.unsettled), set()
        for group, places in ledger.lock_groups(ids).items():
            _settle(ledger, group, places)


def _settle(ledger: Ledger, group: GroupId, places: int) -> None:
    while True:
        free = max(0, places - ledger.places_taken(group))
        following = ledger.next_members(group, free) if free else []
        if len(following) < free:
            break  # there is a place for everybody
        newcomer = ledger.newest_canceller(group)
        keys = [task.key for task in following]
        if newcomer is None or newcomer.key in keys:
            break
        older = ledger.older_members(group, newcomer, CANCEL_STEP - ledger.cancelled + 1)
        step = older[: CANCEL_STEP - ledger.cancelled]
        ended = _cancel(ledger, group, newcomer, step)
        if len(step) < len(older):  # the rest later; until then the place is for none of them
            ledger.effects.unsettled.add(group)
            following = []
            break
        if not ended:
            break
    _admit(ledger, following)
    ledger.unsettled.discard(group)


def _admit(ledger: Ledger, members: Sequence[Task]) -> None:
    for task in members:
        previous = move(task, TaskStatus.QUEUED)
        ledger.touch(task)
        tell_status(ledger, task, previous)
        ledger.effects.ready_queues.add(task.queue)


def _cancel(ledger: Ledger, group: GroupId, newcomer: Newcomer, members: Sequence[Task]) -> bool:
    """Cancel members submitted before one; return whether any ended at once."""
    reason = f"task {newcomer.public_id} takes its place in concurrency group {group[1]!r}"
    ended = False
    for task in members:
        ledger.cancelled += 1
        ended |= not task.status.ended and cancel(ledger, task, reason)
    return ended


@dataclass(frozen=True, slots=True)
class SettleSome:
    """Go on with groups that a transaction has left unsettled."""

    groups: Sequence[GroupId]

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> None:
        """See Command."""
        ledger.unsettled.update(self.groups)


@dataclass(frozen=True, slots=True)
class SettleGroups:
    """Look at groups in which somebody waits; answers after which to go on, None at the end."""

    after: GroupId = ("", "")

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> GroupId | None:
        """See Command."""
        groups = ledger.source.awaited_groups(self.after, STEP)
        ledger.unsettled.update(groups)
        return groups[-1] if len(groups) == STEP else None
