"""What has been over for long enough goes, in small steps."""

from collections.abc import Iterable
from dataclasses import dataclass

from server.domain.ledger import Ledger
from server.domain.moment import Moment

STEP = 200
"""Tasks a transaction: new work waits for a step, never for the whole."""

EVENT_STEP = 5000


@dataclass(frozen=True, slots=True)
class PruneTasks:
    """Remove the oldest tasks that ended before a moment; answers how many.

    Tasks of active runs stay, and those that an open task depends on, and those with a log that is
    to be archived.
    """

    before: Moment

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> int:
        """See Command."""
        tasks = ledger.prunable_tasks(self.before, STEP)
        ledger.delete_tasks(tasks)
        return len(tasks)


@dataclass(frozen=True, slots=True)
class PruneRest:
    """Remove old events, runs and groups without tasks, forgotten request ids; answers how many."""

    events_before: Moment
    events_through: int
    """Position of the last event to remove whatever its age; 0 for none."""
    runs_before: Moment
    audit_before: Moment = 0

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> int:
        """See Command."""
        source = ledger.source
        return (
            source.prune_events(self.events_before, self.events_through, EVENT_STEP)
            + source.prune_runs(self.runs_before, STEP)
            + source.prune_fires(self.events_before, EVENT_STEP)
            + source.prune_groups(STEP)
            + source.prune_audit(self.audit_before, EVENT_STEP)
            + source.prune_requests(ledger.now, EVENT_STEP)
        )
