"""Bitbucket Cloud's deliveries; one push may move several branches."""

from collections.abc import Mapping, Sequence
from typing import Any

from server.domain.forges.reading import Unread, find, needed, text, whole
from server.domain.trigger_event import TriggerEvent

ACTIONS = {
    "pullrequest:created": "opened",
    "pullrequest:updated": "updated",
    "pullrequest:fulfilled": "closed",
    "pullrequest:rejected": "closed",
}
MOST_CHANGES = 20


def events(name: str, payload: Mapping[str, Any]) -> Sequence[TriggerEvent]:
    """Return what a delivery tells.

    Raises:
        Unread: it tells nothing that could start a run, or is malformed.
    """
    if name == "repo:push":
        return _push(payload)
    if name in ACTIONS:
        return [_pull_request(ACTIONS[name], payload)]
    raise Unread(f"{name[:64] or 'an unnamed event'} starts no runs")


def _push(payload: Mapping[str, Any]) -> Sequence[TriggerEvent]:
    changes = find(payload, "push.changes")
    if not isinstance(changes, list):
        raise Unread("its body has no list at push.changes", malformed=True)
    there = [change for change in changes[:MOST_CHANGES] if find(change, "new") is not None]
    if not there:
        raise Unread("a branch or tag was deleted")
    return [_change(change, payload) for change in there]


def _change(change: object, payload: Mapping[str, Any]) -> TriggerEvent:
    kind, name = needed(change, "new.type"), needed(change, "new.name")
    if kind not in ("branch", "tag"):
        raise Unread(f"{kind[:64]} is neither a branch nor a tag")
    return TriggerEvent(
        kind="tag" if kind == "tag" else "push",
        branch=name if kind == "branch" else "",
        tag=name if kind == "tag" else "",
        commit=needed(change, "new.target.hash"),
        author=text(change, "new.target.author.user.display_name", "new.target.author.raw"),
        message=text(change, "new.target.message"),
        paths=None,
        sender=text(payload, "actor.nickname", "actor.display_name"),
        url=text(change, "links.html.href"),
    )


def _pull_request(action: str, payload: Mapping[str, Any]) -> TriggerEvent:
    title = text(payload, "pullrequest.title")
    return TriggerEvent(
        kind="pull_request",
        action=action,
        branch=needed(payload, "pullrequest.source.branch.name"),
        commit=needed(payload, "pullrequest.source.commit.hash"),
        base=needed(payload, "pullrequest.destination.branch.name"),
        author=text(payload, "pullrequest.author.nickname", "pullrequest.author.display_name"),
        message=f"{title}\n\n{text(payload, 'pullrequest.description')}".strip(),
        title=title,
        number=whole(payload, "pullrequest.id"),
        paths=None,
        sender=text(payload, "actor.nickname", "actor.display_name"),
        url=text(payload, "pullrequest.links.html.href"),
    )
