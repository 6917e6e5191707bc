"""Deliveries of anything that is no forge: what they hold is the event's data."""

from collections.abc import Mapping, Sequence
from typing import Any

from server.domain.forges.reading import text
from server.domain.trigger_event import TriggerEvent


def events(name: str, payload: Mapping[str, Any]) -> Sequence[TriggerEvent]:
    """Return what a delivery tells; `branch`, `commit`, `message` and `sender` count if there."""
    return [
        TriggerEvent(
            kind="webhook",
            action=name or text(payload, "type"),
            branch=text(payload, "branch"),
            commit=text(payload, "commit"),
            message=text(payload, "message"),
            sender=text(payload, "sender"),
            data=dict(payload),
        )
    ]
