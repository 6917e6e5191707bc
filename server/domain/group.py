"""A concurrency group: tasks of which only so many may be ready or run at once.

A group belongs to a namespace and is known by its key. Its members are its tasks; who holds a place
can be read off a task's state, so there is nothing to count wrongly:

    PENDING, and waits for nothing else   waits for a place, in order
    QUEUED, RUNNING                       holds one: also leased, lost, and queued again
    PENDING for its back-off, or ended    has none
"""

from dataclasses import dataclass
from typing import TypeAlias

from server.domain.checks import Checks
from server.domain.moment import Moment

KEY_LIMIT = 128
PLACES_LIMIT = 10_000

GroupId: TypeAlias = tuple[str, str]
"""Namespace and key."""


@dataclass(frozen=True, slots=True)
class Membership:
    """The group a task is to be in, as its author asks."""

    key: str
    limit: int = 1
    """How many places the group has from now on."""
    cancels_older: bool = False
    """Whether the task, when it finds no place free, cancels the members submitted before it."""

    def check(self, checks: Checks, path: str = "concurrency") -> None:
        """Note every malformed field, by the group's path in the request."""
        checks.name(f"{path}.key", self.key, limit=KEY_LIMIT)
        checks.number(f"{path}.limit", self.limit, 1, PLACES_LIMIT)


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A waiting member that cancels older ones."""

    created_at: Moment
    key: int
    public_id: str
