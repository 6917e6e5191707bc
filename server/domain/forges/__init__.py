"""What forges deliver, made into events that look the same whoever delivers them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from server.domain.forges import bitbucket, generic, gitea, github, gitlab
from server.domain.forges.reading import Unread
from server.domain.hook import HookKind
from server.domain.trigger_event import TriggerEvent

__all__ = ["EVENT_HEADERS", "Unread", "events_of"]

Reader: TypeAlias = Callable[[str, Mapping[str, Any]], Sequence[TriggerEvent]]

EVENT_HEADERS: Mapping[HookKind, str] = {
    HookKind.GITHUB: "x-github-event",
    HookKind.GITLAB: "x-gitlab-event",
    HookKind.GITEA: "x-gitea-event",
    HookKind.BITBUCKET: "x-event-key",
}
"""Where a call says what it is about."""

_READERS: Mapping[HookKind, Reader] = {
    HookKind.GITHUB: github.events,
    HookKind.GITLAB: gitlab.events,
    HookKind.GITEA: gitea.events,
    HookKind.BITBUCKET: bitbucket.events,
    HookKind.STANDARD: generic.events,
    HookKind.HMAC: generic.events,
}


def events_of(kind: HookKind, name: str, payload: object) -> Sequence[TriggerEvent]:
    """Return what a delivery tells; `name` is what the caller says that it is about.

    Raises:
        Unread: it tells nothing that could start a run, or is malformed; says why.
    """
    if not isinstance(payload, Mapping):
        raise Unread("its body is not a JSON object", malformed=True)
    return _READERS[kind](name, payload)
