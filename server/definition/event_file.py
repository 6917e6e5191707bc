"""Events from JSON, for plans without a server."""

import json

from server.domain.trigger_event import KINDS, TriggerEvent


class NotAnEventError(ValueError):
    """A text is no event; says why."""


def asked_for(branch: str = "") -> TriggerEvent:
    """Return that somebody asks for a run."""
    return TriggerEvent(kind="manual", branch=branch)


def read_event(text: str, branch: str = "") -> TriggerEvent:
    """Return the event in a JSON object with the fields of TriggerEvent.

    Raises:
        NotAnEventError: it is malformed.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise NotAnEventError(f"not JSON: {error}") from error
    sample = asked_for().to_facts()
    if not isinstance(data, dict) or data.get("kind") not in KINDS:
        raise NotAnEventError(f"kind: must be one of {', '.join(KINDS)}")
    for name, value in data.items():
        if name not in sample:
            there_are = ", ".join(sample)
            raise NotAnEventError(f"{name}: is not known; there are {there_are}")
        if not isinstance(value, type(sample[name])):
            wanted = type(sample[name]).__name__
            raise NotAnEventError(f"{name}: must be of type {wanted}")
    return TriggerEvent.from_facts({**data, "branch": branch or data.get("branch", "")})
