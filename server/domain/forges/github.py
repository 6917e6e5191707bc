"""GitHub's deliveries; Gitea's and Forgejo's have the same form."""

from collections.abc import Mapping, Sequence
from typing import Any

from server.domain.forges.reading import GONE, Unread, changed_paths, needed, ref_name, text, whole
from server.domain.trigger_event import TriggerEvent

ACTIONS = {
    "opened": "opened",
    "reopened": "opened",
    "synchronize": "updated",
    "synchronized": "updated",
    "closed": "closed",
}


def events(name: str, payload: Mapping[str, Any]) -> Sequence[TriggerEvent]:
    """Return what a delivery tells.

    Raises:
        Unread: it tells nothing that could start a run, or is malformed.
    """
    if name == "push":
        return [push(payload)]
    if name == "pull_request":
        return [_pull_request(payload)]
    if name == "ping":
        raise Unread("a ping: the hook works")
    raise Unread(f"{name[:64] or 'an unnamed event'} starts no runs")


def push(payload: Mapping[str, Any]) -> TriggerEvent:
    """Return what a push tells.

    Raises:
        Unread: it is malformed, or a branch was deleted.
    """
    branch, tag = ref_name(needed(payload, "ref"))
    commit = needed(payload, "after")
    if payload.get("deleted") is True or commit == GONE:
        raise Unread(f"{branch or tag} was deleted")
    return TriggerEvent(
        kind="tag" if tag else "push",
        branch=branch,
        tag=tag,
        commit=commit,
        author=text(payload, "head_commit.author.name"),
        message=text(payload, "head_commit.message"),
        paths=changed_paths(payload.get("commits"), whole(payload, "total_commits")),
        sender=text(payload, "sender.login", "pusher.name", "pusher.login"),
        url=text(payload, "compare", "compare_url", "repository.html_url"),
    )


def _pull_request(payload: Mapping[str, Any]) -> TriggerEvent:
    said = needed(payload, "action")
    if said not in ACTIONS:
        raise Unread(f"a pull request was {said[:64]}, which starts no runs")
    title = text(payload, "pull_request.title")
    return TriggerEvent(
        kind="pull_request",
        action=ACTIONS[said],
        branch=needed(payload, "pull_request.head.ref"),
        commit=needed(payload, "pull_request.head.sha"),
        base=needed(payload, "pull_request.base.ref"),
        author=text(payload, "pull_request.user.login"),
        message=f"{title}\n\n{text(payload, 'pull_request.body')}".strip(),
        title=title,
        number=whole(payload, "number"),
        paths=None,
        sender=text(payload, "sender.login"),
        url=text(payload, "pull_request.html_url"),
    )
