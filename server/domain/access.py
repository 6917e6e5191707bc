"""Roles, and what each may do."""

from collections.abc import Mapping
from enum import StrEnum


class Permission(StrEnum):
    """One thing a caller may be allowed to do, in its namespace and for itself alone."""

    VIEW = "view"
    """See tasks, pipelines, runs, agents, logs and events."""

    OPERATE = "operate"
    """Start, change and end work, and take agents in and out of service."""

    ADMINISTER = "administer"
    """Decide who may call, and with which secrets."""

    MEASURE = "measure"
    """Read figures about the whole server."""

    ENROL = "enrol"
    """Become an agent."""

    SERVE = "serve"
    """Act as one agent: take tasks and report about those it holds."""

    ATTEND = "attend"
    """Act as one running task: see its run, and speak about itself."""

    UPLOAD = "upload"
    """Hand in files by an upload grant."""


ANYBODY: frozenset[Permission] = frozenset()
"""What an entry of the access table says that asks for no permission at all."""


class Role(StrEnum):
    """What a person or a program is in a namespace."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


_SEES = frozenset({Permission.VIEW})
_OPERATES = _SEES | {Permission.OPERATE}

GRANTS: Mapping[Role, frozenset[Permission]] = {
    Role.VIEWER: _SEES,
    Role.OPERATOR: _OPERATES,
    Role.ADMIN: _OPERATES | {Permission.ADMINISTER},
}
"""Each role's permissions; those of agents and tasks come with their own credentials."""

EVERYTHING = frozenset(Permission)


def may(held: frozenset[Permission], wanted: frozenset[Permission] | None) -> bool:
    """Tell whether one who holds these permissions gets past a door that wants one of those.

    A door that nobody has listed (None) lets nobody in.
    """
    return wanted is not None and (not wanted or not held.isdisjoint(wanted))
