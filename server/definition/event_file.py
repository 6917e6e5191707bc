"""Events from JSON, for plans without a server."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from server.domain.forges import Unread, events_of
from server.domain.hook import HookKind
from server.domain.trigger_event import KINDS, TriggerEvent


class NotAnEventError(ValueError):
    """A text is no event; says why."""


def asked_for(branch: str = "") -> TriggerEvent:
    """Return that somebody asks for a run."""
    return TriggerEvent(kind="manual", branch=branch)


def read_event(text: str, branch: str = "") -> TriggerEvent:
    """Return the event in a JSON object: the fields of TriggerEvent, or what a forge delivers.

    Raises:
        NotAnEventError: it is malformed.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotAnEventError(f"not JSON: {error}") from error
    sample = asked_for().to_facts()
    if isinstance(data, dict) and "kind" not in data and (told := _delivered(data)):
        return replace(told, branch=branch or told.branch)
    if not isinstance(data, dict) or data.get("kind") not in KINDS:
        raise NotAnEventError(f"kind: must be one of {', '.join(KINDS)}")
    for name, value in data.items():
        if name not in sample:
            there_are = ", ".join(sample)
            raise NotAnEventError(f"{name}: is not known; there are {there_are}")
        unknown_paths = name == "paths" and value is None
        if not unknown_paths and not isinstance(value, type(sample[name])):
            wanted = type(sample[name]).__name__
            raise NotAnEventError(f"{name}: must be of type {wanted}")
    return TriggerEvent.from_facts({**data, "branch": branch or data.get("branch", "")})


def _delivered(data: Mapping[str, Any]) -> TriggerEvent | None:
    """Return what a forge's delivery tells, None when it looks like none.

    Raises:
        NotAnEventError: it tells nothing that could start a run.
    """
    for key, kind, name in _FORMS:
        if key in data:
            try:
                return events_of(kind, name, data)[0]
            except Unread as unread:
                raise NotAnEventError(f"a delivery that starts nothing: {unread}") from unread
    return None


_FORMS = (
    ("object_kind", HookKind.GITLAB, ""),
    ("pullrequest", HookKind.BITBUCKET, "pullrequest:created"),
    ("push", HookKind.BITBUCKET, "repo:push"),
    ("pull_request", HookKind.GITHUB, "pull_request"),
    ("ref", HookKind.GITHUB, "push"),
)
"""What tells a forge's payload from others: a key of it, the forge, what it would be called."""
