"""Every way a call can be refused.

    MusterError
    ├── Invalid            a request with malformed fields
    ├── Unauthenticated    nobody knows who calls
    ├── Forbidden          the caller may not do that
    ├── NotAsked           somebody else is to approve
    ├── StillEnrolled      an agent that is enrolled cannot be enrolled again
    ├── NotFound           an id nobody knows
    ├── AlreadyExists      a name that is taken
    ├── RequestIdReused    one request id for two requests
    ├── WrongState         not in this state
    ├── NotLeaseHolder     the caller does not hold the task (v1 agents)
    ├── SessionSuperseded  a newer registration has the agent's id
    ├── LogGap             log lines were skipped
    ├── CursorExpired      events after a reader's cursor are gone
    ├── DamagedLog         stored lines are not what was stored
    ├── Overloaded         the queue is full
    ├── TooManyCalls       a caller calls too fast
    ├── TooManyStreams     a caller has too many streams open
    ├── TooManyTasks       too many tasks wait in a namespace
    ├── StoreUnavailable   the database does not answer
    │   └── BlockUnreadable   a block of a log cannot be read, and may never be
    ├── Draining           the server is shutting down
    ├── LimitReached       larger, or more, than may be kept
    └── SecretsRefused     there is no key to encrypt secrets with

Each writes its own message from what it is given. `rpc/errors.py` maps them to gRPC.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta


class MusterError(Exception):
    """A refusal that the caller is told about."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One malformed field: its path in the request, and what would be right."""

    field: str
    description: str


class Invalid(MusterError):
    """A request has malformed fields."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        self.violations = tuple(violations)
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations))


class Unauthenticated(MusterError):
    """A call shows no credential, or none that counts (any more)."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class Forbidden(MusterError):
    """The caller is known and may not do that."""

    def __init__(self, caller: str, door: str, wanted: Sequence[str] = ()) -> None:
        self.caller = caller
        needs = f"; that needs the permission {' or '.join(wanted)}" if wanted else ""
        super().__init__(f"{caller} may not call {door}{needs}.")


class NotAsked(MusterError):
    """The caller is not one of those whose approval a job asks for."""

    def __init__(self, job: str, caller: str, who: Sequence[str]) -> None:
        super().__init__(
            f"{caller or 'The caller'} may not answer for {job!r}; it asks {', '.join(who)}."
        )


class StillEnrolled(MusterError):
    """An agent id that has a credential which counts cannot be enrolled again."""

    def __init__(self, agent_id: str) -> None:
        super().__init__(
            f"Agent {agent_id!r} is enrolled already and has its own credential; to enrol it anew, "
            f"revoke it first: muster agent revoke {agent_id}"
        )


class NotFound(MusterError):
    """No such thing in the caller's namespace."""

    def __init__(self, kind: str, public_id: str) -> None:
        self.kind = kind
        self.public_id = public_id
        super().__init__(f"There is no {kind} {public_id!r}.")


class AlreadyExists(MusterError):
    """The name is taken."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind = kind
        self.name = name
        super().__init__(f"A {kind} named {name!r} exists already.")


class RequestIdReused(MusterError):
    """The same request id came before with another request."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        super().__init__(
            f"request_id {request_id!r} was used before with another request; take a new one."
        )


class WrongState(MusterError):
    """The thing is in a state that does not allow the call."""

    def __init__(self, kind: str, public_id: str, reason: str) -> None:
        self.kind = kind
        self.public_id = public_id
        super().__init__(f"The {kind} {public_id} {reason}.")


class NotLeaseHolder(MusterError):
    """A v1 agent speaks about a task it does not hold."""

    def __init__(self, agent_id: str, task_id: str) -> None:
        self.agent_id = agent_id
        self.task_id = task_id
        super().__init__(f"Agent {agent_id!r} does not hold task {task_id}; stop working on it.")


class SessionSuperseded(MusterError):
    """A newer registration has taken the agent's id, or the session was closed."""

    def __init__(self, agent_id: str) -> None:
        self.agent_id = agent_id
        super().__init__(f"A newer session has taken over agent {agent_id!r}; this one must stop.")


class LogGap(MusterError):
    """Log lines were skipped."""

    def __init__(self, task_id: str, expected: int, got: int) -> None:
        self.task_id = task_id
        self.expected = expected
        self.got = got
        super().__init__(f"The log of task {task_id} goes on with line {expected}, not line {got}.")


class CursorExpired(MusterError):
    """Events after a reader's cursor are not kept any more."""

    def __init__(self, cursor: int, oldest: int) -> None:
        self.oldest = oldest
        super().__init__(
            f"What happened right after cursor {cursor} is not kept any more; "
            f"the oldest cursor that works is {oldest}."
        )


class DamagedLog(MusterError):
    """Stored log lines are not what was stored: the disk, or an agent, has changed them."""

    def __init__(self, first_line: int) -> None:
        self.first_line = first_line
        super().__init__(
            f"The log is damaged in the block that begins with line {first_line}; "
            "read on behind it, or what lies before."
        )


class Overloaded(MusterError):
    """The queue of new work is full."""

    def __init__(self, waiting: int, retry_after: timedelta) -> None:
        self.retry_after = retry_after
        super().__init__(
            f"{waiting} changes wait to be written; "
            f"try again in {retry_after.total_seconds():g} seconds."
        )


class TooManyCalls(MusterError):
    """A caller calls faster than it may."""

    def __init__(self, rate: float, retry_after: timedelta) -> None:
        self.retry_after = retry_after
        super().__init__(
            f"You may call {rate:g} times a second; "
            f"try again in {retry_after.total_seconds():g} seconds."
        )


class TooManyStreams(MusterError):
    """A caller has too many streams open."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"You have {limit} streams open already, as many as one caller may have.")


class TooManyTasks(MusterError):
    """Too many tasks wait in a namespace."""

    def __init__(self, namespace: str, waiting: int, limit: int) -> None:
        self.retry_after = timedelta(seconds=5)
        super().__init__(
            f"{waiting} tasks wait in namespace {namespace!r}, of {limit} that may; "
            "try again when some have started."
        )


class LimitReached(MusterError):
    """Something is larger, or more, than may be kept; the message says how much that is."""


STORES = frozenset({"artifacts", "plugins"})
"""What is kept elsewhere than in the database."""


class StoreUnavailable(MusterError):
    """The database, or another store, does not answer; nothing was changed.

    Where the reason begins with a store's name and a colon it is that one.
    """

    def __init__(self, reason: str) -> None:
        which, colon, _ = reason.partition(": ")
        store = f"store of {which}" if colon and which in STORES else "database"
        super().__init__(f"The {store} does not answer ({reason}); nothing was changed.")


class DamagedPlugin(MusterError):
    """Where plugins are kept are other bytes than were published: they are given to nobody."""

    def __init__(self, sha256: str) -> None:
        self.sha256 = sha256
        super().__init__(
            f"Where plugins are kept are other bytes for sha256:{sha256} than were published;"
            " put the package there again as it was."
        )


class BlockUnreadable(StoreUnavailable):
    """A block of a log cannot be read: its disk fails or is away, for now or for good."""


class Draining(MusterError):
    """The server is shutting down."""

    def __init__(self) -> None:
        super().__init__("The server is shutting down; try again in a moment.")


class SecretsRefused(MusterError):
    """A request holds secrets, and there is no key to encrypt them with."""

    def __init__(self) -> None:
        super().__init__(
            "Secrets are never stored in plain text, and this server has no key to encrypt them "
            "with: give all servers of the database the same file with --secret-keys."
        )
