"""Which call the work at hand comes from; nothing where it happens by itself."""

from contextvars import ContextVar

from server.domain.audit import Origin

_current: ContextVar[Origin | None] = ContextVar("origin", default=None)


def current_origin() -> Origin | None:
    """Return the call that is being answered, if it is to be audited."""
    return _current.get()


def set_origin(origin: Origin | None) -> None:
    """Make this the call for the rest of it; a call's context ends with it."""
    _current.set(origin)
