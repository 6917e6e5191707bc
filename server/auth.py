"""Who calls. Until there are identities, a caller only names its namespace."""

import re
from contextvars import ContextVar
from dataclasses import dataclass

from server.domain.errors import Invalid, Violation

DEFAULT_NAMESPACE = "default"
ANONYMOUS = "anonymous"

_NAMESPACE = re.compile(r"[a-z0-9-]{1,63}")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call, in which namespace, and the id its log records carry."""

    namespace: str = DEFAULT_NAMESPACE
    name: str = ANONYMOUS
    request_id: str = ""


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
