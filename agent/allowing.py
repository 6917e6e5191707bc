"""What the agent's host lets tasks do, whatever the control plane says.

A TOML file with lists of patterns; what has no list is not limited:

    commands = ["make *", "./deploy.sh production"]
    images = ["registry.internal/*"]
    plugins = ["git-checkout@1.*"]
    repositories = ["https://git.internal/team/*"]
    variables = ["VERSION", "TARGET_*"]
    permissions = ["workspace", "network"]

`*` stands for any text; in a command for any text that the shell takes as plain words, so that
`make *` does not let `make x; rm y` through. Every line of a script must be in the list, also those
of a task's steps and those that a plugin is given. Where there is any list but none of variables,
those are refused that make an allowed program run something else. `permissions` are what a plugin
may ask for in its plugin.toml.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from generated.agent.v1 import agent_pb2

REPOSITORY = "MUSTER_REPO_URL"
LISTS = ("commands", "images", "plugins", "repositories", "variables", "permissions")
OWN_VARIABLES = "MUSTER_"
"""How the names of variables begin that Muster gives to tasks; no program obeys them."""

STEERING = (
    # The shell, the loader and the C library.
    *("BASH_*", "ENV", "SHELLOPTS", "BASHOPTS", "IFS", "PS4", "CDPATH", "PATH", "SHELL", "HOME"),
    *("LD_*", "GCONV_PATH", "GETCONF_DIR", "GLIBC_TUNABLES", "LOCPATH", "NLSPATH", "MALLOC_*"),
    *("HOSTALIASES", "RESOLV_HOST_CONF", "TMPDIR", "XDG_*", "OPENSSL_*", "SSL*"),
    # make and compilers.
    *("MAKE*", "GNUMAKEFLAGS", "MFLAGS", "VPATH", "AR", "AS", "CC", "CPP", "CXX", "FC", "LD", "RM"),
    *("*FLAGS", "GCC_*", "COMPILER_PATH", "LIBRARY_PATH", "CMAKE_*", "RUSTC*", "CARGO_*", "GO*"),
    # git, ssh and what others start.
    *("GIT_*", "SSH_*", "EDITOR", "VISUAL", "PAGER", "LESS*", "BROWSER", "*_PROXY", "*_proxy"),
    # Interpreters and their packages.
    *(
        "PYTHON*",
        "PIP_*",
        "UV_*",
        "PERL*",
        "RUBY*",
        "GEM_*",
        "BUNDLE_*",
        "NODE_*",
        "NPM_*",
        "npm_*",
    ),
    *("*JAVA*OPTIONS", "*JAVA_OPTS", "JAVA_HOME", "JDK_*", "CLASSPATH", "MAVEN_*", "GRADLE_*"),
    *("PHP*", "LUA_*", "R_*", "ZDOTDIR", "AWK*", "TAR_OPTIONS", "GZIP"),
    # Containers and tools of the trade.
    *("DOCKER_*", "BUILDKIT_*", "BUILDAH_*", "CONTAINER*", "PODMAN_*", "KUBECONFIG", "ANSIBLE_*"),
)
"""Variables that make a program run, load or reach something else than it would by itself."""

HARMLESS = ("GIT_TOKEN", "GIT_AUTHOR_*", "GIT_COMMITTER_*")
"""Of those, what only says who somebody is."""

SETTINGS = {
    "commands": ("commands", "command", "script", "run"),
    "images": ("images", "image"),
}
"""Under which names plugins are given what a list is about."""

CHECKOUT = "git-checkout"
"""The plugin whose `repository` has to be in the list."""

UNREADABLE = "settings that cannot be read"

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
        if not self.patterns:
            return ""
        for name, values in _wanted(task).items():
            if name in self.patterns and (refused := self._first_outside(name, values)):
                return f"this agent's host does not allow it: {refused!r} is not in its {name}"
        if "variables" not in self.patterns:
            for variable in _variables(task):
                if _STEERING.fullmatch(variable) and not _HARMLESS.fullmatch(variable):
                    return (
                        f"this agent's host does not allow it: the variable {variable[:200]!r} can"
                        " make a program run something else, and the host has no list of variables"
                    )
        return ""

    def refused_permission(self, asked: Iterable[str]) -> str:
        """Returns the first of a plugin's permissions that is not in the list, or an empty text."""
        listed = "permissions" in self.patterns
        return self._first_outside("permissions", sorted(asked)) if listed else ""

    def _first_outside(self, name: str, values: Iterable[str]) -> str:
        patterns = self.patterns[name]
        for value in values:
            if value.strip() and not any(each.fullmatch(value.strip()) for each in patterns):
                return value.strip()[:200]
        return ""


def _wanted(task: agent_pb2.Task) -> dict[str, list[str]]:
    """Returns what a task would do, by the list that it has to be in."""
    wanted = {
        "commands": list(_lines(task.commands)),
        "images": [task.image] if task.image else [],
        "plugins": [f"{plugin.plugin_id}@{plugin.version}" for plugin in task.plugins],
        "repositories": [task.env[REPOSITORY]] if REPOSITORY in task.env else [],
        "variables": list(_variables(task)),
    }
    named = {plugin.reference for plugin in task.plugins}
    for step in task.steps:
        wanted["commands"] += _lines(step.commands)
        if not step.uses:
            continue
        if step.uses not in named:  # then one of the agent's own would be taken
            wanted["plugins"].append(step.uses)
        for name, values in _given(step).items():
            wanted[name] += values
    return wanted


def _given(step: agent_pb2.Step) -> dict[str, list[str]]:
    """Returns what a plugin is given that has to be in a list, by the list."""
    checks_out = step.uses.partition("@")[0] == CHECKOUT
    about = {**SETTINGS, "repositories": ("repository",)} if checks_out else SETTINGS
    try:
        given = json.loads(step.settings or "{}")
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        return {name: [UNREADABLE] for name in about}
    return {
        name: [line for word in words if word in given for line in _texts(name, given[word])]
        for name, words in about.items()
    }


def _texts(name: str, value: object) -> list[str]:
    """Returns each line of a text, or of a list of commands, and anything else as JSON."""
    parts = value if name == "commands" and isinstance(value, list) else [value]
    return list(_lines(part if isinstance(part, str) else json.dumps(part) for part in parts))


def _lines(commands: Iterable[str]) -> Iterator[str]:
    for command in commands:
        yield from command.splitlines()


def _variables(task: agent_pb2.Task) -> Iterator[str]:
    """Returns the names of a task's variables and secrets but for Muster's own, in order."""
    return (
        name for name in sorted({*task.env, *task.secrets}) if not name.startswith(OWN_VARIABLES)
    )


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
    return re.compile(anything.join(map(re.escape, pattern.split("*"))), re.DOTALL)


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(_compiled("variables", each).pattern for each in patterns))


_STEERING = _any_of(STEERING)
_HARMLESS = _any_of(HARMLESS)
