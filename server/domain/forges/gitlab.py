"""GitLab's deliveries."""

from collections.abc import Mapping, Sequence
from typing import Any

from server.domain.forges.reading import (
    GONE,
    Unread,
    changed_paths,
    find,
    needed,
    ref_name,
    text,
    whole,
)
from server.domain.trigger_event import TriggerEvent

ACTIONS = {"open": "opened", "reopen": "opened", "update": "updated", "close": "closed"}


def events(name: str, payload: Mapping[str, Any]) -> Sequence[TriggerEvent]:
    """Return what a delivery tells.

    Raises:
        Unread: it tells nothing that could start a run, or is malformed.
    """
    kind = text(payload, "object_kind")
    if kind in ("push", "tag_push"):
        return [_push(payload)]
    if kind == "merge_request":
        return [_merge_request(payload)]
    raise Unread(f"{(kind or name)[:64] or 'an unnamed event'} starts no runs")


def _push(payload: Mapping[str, Any]) -> TriggerEvent:
    branch, tag = ref_name(needed(payload, "ref"))
    commit = text(payload, "checkout_sha") or needed(payload, "after")
    if commit == GONE or text(payload, "after") == GONE:
        raise Unread(f"{branch or tag} was deleted")
    commits = payload.get("commits")
    listed = commits if isinstance(commits, list) else []
    head = next((each for each in listed if find(each, "id") == commit), None)
    return TriggerEvent(
        kind="tag" if tag else "push",
        branch=branch,
        tag=tag,
        commit=commit,
        author=text(head, "author.name"),
        message=text(head, "message"),
        paths=changed_paths(commits, whole(payload, "total_commits_count")),
        sender=text(payload, "user_username", "user_name"),
        url=text(payload, "project.web_url"),
    )


def _merge_request(payload: Mapping[str, Any]) -> TriggerEvent:
    said = needed(payload, "object_attributes.action")
    action = "closed" if said == "merge" else ACTIONS.get(said)
    if action is None:
        raise Unread(f"a merge request had the action {said[:64]}, which starts no runs")
    if said == "update" and not text(payload, "object_attributes.oldrev"):
        raise Unread("a merge request was updated, but for its commits")
    title = text(payload, "object_attributes.title")
    description = text(payload, "object_attributes.description")
    return TriggerEvent(
        kind="pull_request",
        action=action,
        branch=needed(payload, "object_attributes.source_branch"),
        commit=needed(payload, "object_attributes.last_commit.id"),
        base=needed(payload, "object_attributes.target_branch"),
        author=text(payload, "object_attributes.last_commit.author.name"),
        message=f"{title}\n\n{description}".strip(),
        title=title,
        number=whole(payload, "object_attributes.iid"),
        paths=None,
        sender=text(payload, "user.username"),
        url=text(payload, "object_attributes.url"),
    )
