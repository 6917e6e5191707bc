"""Who calls, how that is found out, and what it lets them do."""

import re
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from server.domain.access import EVERYTHING, Permission, Role, may
from server.domain.errors import Forbidden, Invalid, Violation
from server.domain.moment import Moment

DEFAULT_NAMESPACE = "default"
ANONYMOUS = "anonymous"

_NAMESPACE = re.compile(r"[a-z0-9-]{1,63}")


class Kind(StrEnum):
    """What calls."""

    ANYBODY = "anybody"
    """Nobody has to say who they are: the server runs with `auth = "off"`."""

    USER = "user"
    """A person or a program, with a token of their own."""

    ENROLLING = "enrolling"
    """A host with an enrolment token, about to become an agent."""

    GRANT = "grant"
    """A producer of files, with an upload grant."""

    AGENT = "agent"
    TASK = "task"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call, in which namespace, and the id its log records carry."""

    namespace: str = DEFAULT_NAMESPACE
    name: str = ANONYMOUS
    request_id: str = ""
    kind: Kind = Kind.ANYBODY
    permissions: frozenset[Permission] = EVERYTHING
    agent_id: str = ""
    """The agent that an AGENT is; the one that runs a TASK."""

    task_id: str = ""
    """The task that a TASK is."""

    run_id: str = ""
    """The run that a TASK belongs to; empty where it belongs to none."""

    lease_id: str = ""
    """The lease a TASK's token is bound to."""

    credential_id: str = ""
    """Which token or key it showed, for the audit log; never the secret itself."""

    peer: str = ""
    """Where the call comes from, as the transport says it."""

    role: Role | None = None
    """What a USER is in the namespace."""

    server_wide: bool = False
    """Whether it may call in every namespace."""

    expires_at: Moment | None = None
    """When its credential ends."""

    def author(self, claimed: str) -> str:
        """Return who has made what the caller makes: a caller we know cannot claim another name."""
        return claimed or self.name if self.kind is Kind.ANYBODY else self.name


@dataclass(frozen=True, slots=True)
class Presented:
    """What a call shows of its caller, unchecked."""

    authorization: str = ""
    """The `authorization` metadata or header as it came; empty where there is none."""

    namespace: str | None = None
    """The namespace it asks for, well-formed; None where it asks for none."""

    peer: str = ""
    """Where it comes from, as the transport says it."""

    certificate_names: tuple[str, ...] = ()
    """Names of a client certificate that the transport has verified."""

    request_id: str = ""
    """The id that the caller's log records are to carry."""


class Authenticator(Protocol):
    """Finds out who calls."""

    async def caller(self, shown: Presented) -> Caller:
        """Return who shows this.

        Raises:
            Unauthenticated: it shows nothing, or nothing that counts (any more).
            Forbidden: the namespace it asks for is not its own.
            StoreUnavailable: nobody can tell now.
        """


class Open:
    """Lets everybody in, to do everything: `auth = "off"`."""

    async def caller(self, shown: Presented) -> Caller:
        """Return a caller without a name in the namespace it asks for."""
        namespace = shown.namespace or DEFAULT_NAMESPACE
        return Caller(namespace, request_id=shown.request_id, peer=shown.peer, server_wide=True)


_current: ContextVar[Caller] = ContextVar("caller")


def current_caller() -> Caller:
    """Return who makes the call that is being answered.

    Raises:
        LookupError: no call is being answered, so something runs on nobody's behalf.
    """
    return _current.get()


def set_caller(caller: Caller) -> None:
    """Make this the caller for the rest of the call; a call's context ends with it."""
    _current.set(caller)


def check_may(caller: Caller, wanted: frozenset[Permission] | None, door: str) -> None:
    """See that the caller gets past a door of the access table.

    Raises:
        Forbidden: it has none of the permissions that the door wants.
    """
    if not may(caller.permissions, wanted):
        raise Forbidden(caller.name, door, sorted(wanted or ()))


def check_acts_for(agent_id: str) -> None:
    """See that whoever calls may speak for an agent: one that we know speaks for itself alone.

    Raises:
        Forbidden: it is another agent.
    """
    caller = _current.get()
    if caller.kind is Kind.AGENT and caller.agent_id != agent_id:
        raise Forbidden(caller.name, f"anything for agent {agent_id!r}")


def check_attends(task_id: str = "", run_id: str = "") -> None:
    """See that a running task speaks of itself or of its run; others may speak of any.

    Raises:
        Forbidden: it is another task or run.
    """
    caller = _current.get()
    if caller.kind is not Kind.TASK:
        return
    if task_id and task_id != caller.task_id:
        raise Forbidden(caller.name, f"anything about task {task_id!r}")
    if run_id and run_id != caller.run_id:
        raise Forbidden(caller.name, f"anything about run {run_id!r}")
    if not task_id and not run_id:
        raise Forbidden(caller.name, "anything about other tasks")


def check_namespace(name: str) -> str:
    """Return the name.

    Raises:
        Invalid: it is not 1-63 characters of a-z, 0-9 and the hyphen.
    """
    if _NAMESPACE.fullmatch(name):
        return name
    raise Invalid(
        [Violation("muster-namespace", "should be 1-63 characters of a-z, 0-9 and the hyphen")]
    )
