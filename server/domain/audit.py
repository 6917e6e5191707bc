"""Who changed what: one entry for each change that a caller made."""

from dataclasses import dataclass, field
from typing import Any

from server.domain.moment import Moment


@dataclass(frozen=True, slots=True)
class Origin:
    """The call that a change comes from."""

    namespace: str
    caller: str
    """The caller's name."""
    kind: str
    """What it is: user, agent, enrolling, task."""
    credential: str
    """The token it showed, by id."""
    peer: str
    """Where it called from."""
    request_id: str
    method: str


@dataclass(slots=True)
class AuditEntry:
    """A row of the audit log, which nothing ever changes."""

    key: int
    namespace: str
    at: Moment
    action: str
    """What was done: `task.create`."""
    subject: str
    """To what, by its id or name."""
    caller: str
    kind: str
    credential: str
    peer: str
    request_id: str
    method: str
    before: dict[str, Any] = field(default_factory=dict)
    """What was different before; never a secret."""
    after: dict[str, Any] = field(default_factory=dict)
