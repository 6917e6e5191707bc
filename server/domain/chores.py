"""What is to be done with closed logs: taken in batches, by one server at a time."""

from collections.abc import Iterable
from dataclasses import dataclass

from server.domain.attempt import Attempt
from server.domain.changes import ChoreKind
from server.domain.ledger import Ledger
from server.domain.moment import Millis, Moment
from server.domain.task import Task

BATCH_LOGS = 200
BATCH_BYTES = 8 * 1024 * 1024
"""Text of logs that go together; one that is longer goes alone."""

CLAIM: Millis = 300_000
"""How long a batch is left to whoever has taken it and says nothing."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Until when a batch is left to whoever has taken it: who takes it later has a later moment."""

    name: str
    until: Moment


@dataclass(frozen=True, slots=True)
class Taken:
    """A batch of logs with a chore."""

    claim: Claim
    logs: list[tuple[Task, Attempt]]


def take(ledger: Ledger, kind: ChoreKind, name: str) -> Taken | None:
    """Take the next logs with a chore, as a batch of this name; None when there are none.

    A batch that somebody took and did not finish comes first: with the name and the logs it had.
    """
    ledger.flush()
    source = ledger.source
    due = source.chores_due(kind, ledger.now, BATCH_LOGS)
    if not due:
        return None
    again = due[0].batch
    keys = source.chore_batch(again) if again else [c.key for c in due if c.batch is None]
    tasks = {task.key: task for task in ledger.tasks_by_key(sorted({key for key, _ in keys}))}
    ledger.prefetch_attempts(keys)
    taken = Taken(Claim(again or name, ledger.now + CLAIM), [])
    size = 0
    for task_key, number in keys:
        attempt = ledger.attempt(tasks[task_key], number)
        if attempt is None:
            continue
        size += attempt.log_bytes
        if taken.logs and size > BATCH_BYTES and not again:
            break
        taken.logs.append((tasks[task_key], attempt))
    # As they come when the batch is taken again: what is written anew is then the same.
    taken.logs.sort(key=lambda each: (each[1].task_key, each[1].number))
    ours = [(attempt.task_key, attempt.number) for _, attempt in taken.logs]
    source.claim_chores(kind, ours, taken.claim.name, taken.claim.until)
    return taken


@dataclass(frozen=True, slots=True)
class RenewClaim:
    """Keep a batch for longer; answers the claim that holds now.

    None says that the batch is done or deleted, or that somebody else has taken it.
    """

    claim: Claim

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> Claim | None:
        """See Command."""
        ours, until = self.claim, max(ledger.now + CLAIM, self.claim.until)
        if ledger.source.renew_chores(ours.name, ours.until, until):
            return Claim(ours.name, until)
        return None


@dataclass(frozen=True, slots=True)
class EndChores:
    """Note that a batch is done."""

    name: str

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> None:
        """See Command."""
        ledger.source.end_chores(self.name)
