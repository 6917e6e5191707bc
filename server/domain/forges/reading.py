"""Getting at what a payload holds, and saying what is wrong where it does not hold it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

GONE = "0" * 40
"""The commit of a branch that was deleted."""


class Unread(Exception):  # noqa: N818 (often it is no error)
    """A delivery tells nothing that could start a run; says why."""

    def __init__(self, why: str, *, malformed: bool = False) -> None:
        self.malformed = malformed
        super().__init__(why)


def find(payload: object, path: str) -> Any:  # noqa: ANN401 (a JSON value)
    """Return what stands at a path such as `pull_request.head.ref`, None where nothing does."""
    for name in path.split("."):
        if not isinstance(payload, Mapping):
            return None
        payload = payload.get(name)
    return payload


def text(payload: object, *paths: str) -> str:
    """Return the text at the first of some paths that has one, or an empty one."""
    for path in paths:
        found = find(payload, path)
        if isinstance(found, str):
            return found
    return ""


def needed(payload: object, path: str) -> str:
    """Return the text at a path.

    Raises:
        Unread: there is none.
    """
    found = find(payload, path)
    if not isinstance(found, str) or not found:
        raise Unread(f"its body has no text at {path}", malformed=True)
    return found


def whole(payload: object, path: str) -> int:
    """Return the whole number at a path, or 0."""
    found = find(payload, path)
    return found if isinstance(found, int) and not isinstance(found, bool) else 0


def ref_name(ref: str) -> tuple[str, str]:
    """Return what a ref such as `refs/heads/main` names, as (branch, tag).

    Raises:
        Unread: neither.
    """
    for prefix, kind in (("refs/heads/", "branch"), ("refs/tags/", "tag")):
        name = ref.removeprefix(prefix)
        if name != ref:
            return (name, "") if kind == "branch" else ("", name)
    raise Unread(f"{ref[:128]!r} is neither a branch nor a tag")


def changed_paths(commits: object, total: int = 0) -> tuple[str, ...] | None:
    """Return the files that commits change; None when not all commits are told of."""
    if not isinstance(commits, Sequence) or isinstance(commits, str) or len(commits) < total:
        return None
    paths: dict[str, None] = {}
    for commit in commits:
        for name in ("added", "modified", "removed"):
            paths.update(dict.fromkeys(_texts(find(commit, name))))
    return tuple(paths) if commits else None


def _texts(values: object) -> Iterable[str]:
    if isinstance(values, Sequence) and not isinstance(values, str):
        return [value for value in values if isinstance(value, str)]
    return ()
