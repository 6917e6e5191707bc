"""Every attempt the agent holds, by how far it is."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator

from agent.executor import Phase, TaskRun
from generated.agent.v1 import agent_pb2

_REMEMBERED = 4096
"""Finished leases that are remembered, so that a late repeat does not run twice."""


class Holdings:
    """The attempts, by lease.

    Attributes:
        waiting: Those that wait for a slot, in order of arrival.
        preparing: Those whose plugins and files are on their way.
        ordered: Those that the supervisor has, or is about to have.
        quiet: Set while nothing runs and nothing waits for a slot.
        empty: Set while nothing is held at all.
    """

    def __init__(self) -> None:
        self.waiting: dict[str, TaskRun] = {}
        self.preparing: dict[str, TaskRun] = {}
        self.ordered: dict[str, TaskRun] = {}
        self.quiet = asyncio.Event()
        self.empty = asyncio.Event()
        self._runs: dict[str, TaskRun] = {}
        self._finished: OrderedDict[str, None] = OrderedDict()
        self._look()

    def __iter__(self) -> Iterator[TaskRun]:
        return iter(list(self._runs.values()))

    def __contains__(self, lease_id: str) -> bool:
        return lease_id in self._runs

    def get(self, lease_id: str) -> TaskRun | None:
        """Returns a lease's attempt, or None when it is not held."""
        return self._runs.get(lease_id)

    def finished(self, lease_id: str) -> bool:
        """Tells whether the server had all of this attempt not long ago."""
        return lease_id in self._finished

    def leases(self) -> list[agent_pb2.HeldLease]:
        """Returns the leases to tell the server of."""
        return [
            agent_pb2.HeldLease(task_id=run.identity.task, lease_id=run.identity.lease)
            for run in self._runs.values()
            if run.held
        ]

    def add(self, run: TaskRun) -> None:
        """Takes an attempt in."""
        self._runs[run.identity.lease] = run
        self.sort(run)

    def drop(self, run: TaskRun) -> None:
        """Lets an attempt go."""
        self._runs.pop(run.identity.lease, None)
        self.sort(run)

    def finish(self, run: TaskRun) -> None:
        """Lets an attempt go and remembers that it is done."""
        self.drop(run)
        self._finished[run.identity.lease] = None
        if len(self._finished) > _REMEMBERED:
            self._finished.popitem(last=False)

    def sort(self, run: TaskRun) -> None:
        """Puts an attempt where its phase belongs."""
        lease = run.identity.lease
        here = lease in self._runs
        places = (
            (Phase.WAITING, self.waiting),
            (Phase.PREPARING, self.preparing),
            (Phase.ORDERED, self.ordered),
        )
        for phase, runs in places:
            if here and run.phase is phase:
                runs[lease] = run
            else:
                runs.pop(lease, None)
        self._look()

    def _look(self) -> None:
        show(self.quiet, not (self.waiting or self.preparing or self.ordered))
        show(self.empty, not self._runs)


def show(event: asyncio.Event, holds: bool) -> None:
    """Brings an event up to date."""
    if holds:
        event.set()
    else:
        event.clear()
