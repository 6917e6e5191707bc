"""Whether an event starts a pipeline, and if not, why not."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from server.definition.expression import CelExpressions
from server.domain.expression import ExpressionError
from server.domain.glob import selects, selects_any
from server.domain.trigger_event import TriggerEvent

SKIPS = re.compile(r"\[(skip ci|ci skip|no ci|skip muster)\]", re.IGNORECASE)
ACTIONS = ("opened", "updated")
_OF_FORGE = ("push", "tag", "pull_request")


def why_not(triggers: Mapping[str, Any], event: TriggerEvent) -> str | None:
    """Return why an event does not start a pipeline with these triggers; None when it does.

    A pipeline whose definition names no triggers starts by hand and on every push.
    """
    kind = event.kind
    if kind in ("manual", "api"):
        return None
    if not triggers and kind == "push":
        triggers = {"push": {}}
    if kind not in triggers:
        there_are = ", ".join(triggers) or "none"
        return f"the pipeline is not started by {kind}; its triggers: {there_are}"
    if kind in _OF_FORGE and (found := SKIPS.search(event.message)):
        return f"the message says {found[0]}"
    wanted = triggers[kind] if isinstance(triggers[kind], Mapping) else {}
    return _filtered(wanted, event) or _condition(wanted.get("condition", ""), event)


def _filtered(wanted: Mapping[str, Any], event: TriggerEvent) -> str | None:
    branches: Sequence[str] = wanted.get("branches", ())
    if event.kind == "push" and not selects(branches, event.branch):
        return f"branch {event.branch!r} is none of {', '.join(branches)}"
    if event.kind == "tag" and not selects(tags := wanted.get("tags", ()), event.tag):
        return f"tag {event.tag!r} is none of {', '.join(tags)}"
    if event.kind == "pull_request":
        actions = wanted.get("actions", ACTIONS)
        if event.action not in actions:
            return f"the pull request was {event.action}, not {' or '.join(actions)}"
        if not selects(branches, event.base):
            return f"the pull request is for {event.base!r}, none of {', '.join(branches)}"
    paths: Sequence[str] = wanted.get("paths", ())
    if paths and event.paths is not None and not selects_any(paths, event.paths):
        return f"no changed file is one of {', '.join(paths)}"
    return None


def _condition(condition: str, event: TriggerEvent) -> str | None:
    if not condition:
        return None
    told = event.to_facts()
    facts = {
        "event": {**told, "paths": told["paths"] or []},
        "branch": event.branch,
        "commit": event.commit,
        "inputs": {},
        "matrix": {},
        "needs": {},
        "run": {"id": "", "number": 0},
        "pipeline": {"id": "", "name": ""},
    }
    try:
        if CelExpressions().holds(condition, facts):
            return None
    except ExpressionError as error:
        return f"its condition has no value: {error}"
    return f"its condition does not hold: {condition}"
