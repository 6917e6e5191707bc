"""What happened outside that starts runs, told the same way whatever told us."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

KINDS = ("push", "tag", "pull_request", "webhook", "cron", "manual", "api", "pipeline")


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerEvent:
    """One event; what its kind does not have stays empty."""

    kind: str
    """One of KINDS."""
    action: str = ""
    """Of a pull request: opened, updated or closed."""
    branch: str = ""
    """What was pushed to; of a pull request the branch that it comes from."""
    tag: str = ""
    commit: str = ""
    author: str = ""
    """Who wrote the commit."""
    message: str = ""
    """The commit's message, or the pull request's title and text."""
    base: str = ""
    """Of a pull request: the branch that it is to go into."""
    paths: tuple[str, ...] | None = ()
    """Files that were changed; None when nobody told."""
    title: str = ""
    number: int = 0
    """Of a pull request."""
    sender: str = ""
    """Who did it, as the forge names them."""
    url: str = ""
    """Where people can look at it."""
    data: dict[str, Any] = field(default_factory=dict)
    """Of a call that no forge made: what it held."""

    def to_facts(self) -> dict[str, Any]:
        """Return what expressions read as `event`; also its form as JSON."""
        facts = asdict(self)
        facts["paths"] = None if self.paths is None else list(self.paths)
        return facts

    @staticmethod
    def from_facts(facts: Mapping[str, Any]) -> "TriggerEvent":
        """Return the event that `to_facts` gave."""
        paths = facts.get("paths", ())
        return TriggerEvent(**{**facts, "paths": None if paths is None else tuple(paths)})
