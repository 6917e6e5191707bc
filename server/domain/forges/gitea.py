"""Gitea's and Forgejo's deliveries: GitHub's form, but for names of events."""

from collections.abc import Mapping, Sequence
from typing import Any

from server.domain.forges import github
from server.domain.trigger_event import TriggerEvent


def events(name: str, payload: Mapping[str, Any]) -> Sequence[TriggerEvent]:
    """Return what a delivery tells.

    Raises:
        Unread: it tells nothing that could start a run, or is malformed.
    """
    return github.events("pull_request" if name == "pull_request_sync" else name, payload)
