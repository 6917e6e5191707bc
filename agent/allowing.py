"""What the agent's host lets tasks do, whatever the control plane says.

A TOML file with lists of patterns; what has no list is not limited:

    commands = ["make *", "./deploy.sh production"]
    images = ["registry.internal/*"]
    plugins = ["git-checkout@1.*"]
    repositories = ["https://git.internal/team/*"]

`*` stands for any text; in a command for any text that the shell takes as plain words, so that
`make *` does not let `make x; rm y` through. Every line of a script must be in the list.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from generated.agent.v1 import agent_pb2

REPOSITORY = "MUSTER_REPO_URL"
CHECKOUT = "git-checkout"
LISTS = ("commands", "images", "plugins", "repositories")

_ANYTHING = ".*"
_PLAIN_WORDS = r"[^;&|<>$`()\\\"'\n\r{}*?\[\]#~!]*"


class AllowListError(Exception):
    """The file of allow-lists cannot be used; the message says why."""


@dataclass(frozen=True)
class AllowLists:
    """What tasks may do; a list that is missing allows everything."""

    patterns: Mapping[str, list[re.Pattern[str]]] = field(default_factory=dict)

    def refusal(self, task: agent_pb2.Task) -> str:
        """Returns why a task is not run here, or an empty text."""
        commands = [*task.commands, *(line for step in task.steps for line in step.commands)]
        wanted: dict[str, list[str]] = {
            "commands": [line for command in commands for line in command.splitlines()],
            "images": [task.image] if task.image else [],
            "plugins": [f"{plugin.plugin_id}@{plugin.version}" for plugin in task.plugins],
            "repositories": _repositories(task),
        }
        for name, values in wanted.items():
            if name in self.patterns and (refused := self._first_outside(name, values)):
                return f"this agent's host does not allow it: {refused!r} is not in its {name}"
        return ""

    def _first_outside(self, name: str, values: Iterable[str]) -> str:
        patterns = self.patterns[name]
        for value in values:
            if value.strip() and not any(each.fullmatch(value.strip()) for each in patterns):
                return value.strip()[:200]
        return ""


def _repositories(task: agent_pb2.Task) -> list[str]:
    """Returns the repositories that a task is told of, and those that it checks out."""
    found = [task.env[REPOSITORY]] if REPOSITORY in task.env else []
    for step in task.steps:
        if step.uses.partition("@")[0] == CHECKOUT:
            try:
                settings = json.loads(step.settings or "{}")
            except ValueError:
                settings = {}
            # What is no text is in no list.
            found.append(str(settings.get("repository", "")) or "a repository without a name")
    return found


def read(file: Path | None) -> AllowLists:
    """Returns the lists in a file; those of no file allow everything.

    Raises:
        AllowListError: It cannot be read, or holds something else.
    """
    if file is None:
        return AllowLists()
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AllowListError(f"{file}: {error}") from None
    for name, values in data.items():
        if name not in LISTS:
            raise AllowListError(f"{file}: there is no list {name!r}; there are {', '.join(LISTS)}")
        if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
            raise AllowListError(f"{file}: {name} should be a list of texts")
    return AllowLists({name: [_compiled(name, each) for each in data[name]] for name in data})


def _compiled(name: str, pattern: str) -> re.Pattern[str]:
    anything = _PLAIN_WORDS if name == "commands" else _ANYTHING
    return re.compile(anything.join(map(re.escape, pattern.split("*"))))
