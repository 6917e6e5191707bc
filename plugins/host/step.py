"""A step that is a plugin: which program it is, and what it is given."""

import platform
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plugins.package.manifest import MANIFEST, MAX_MANIFEST, Manifest, parse_manifest
from plugins.package.refusal import PackageRefused

if TYPE_CHECKING:
    from jsonschema import ValidationError

FROM_ENV = "from_env"
"""A parameter `{from_env: NAME}` is the value of that variable: a secret of the task's, mostly."""

_PYTHON = re.compile(rb"#!\s*(?:\S*/env\s+)?(?:\S*/)?python[0-9.]*\s*$")
_NAMES_ONLY = ("additionalProperties", "dependentRequired", "required")
"""Rules whose messages have names in them, and no values."""

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_MOST_FAULTS = 10


class StepFailed(Exception):  # noqa: N818 (not an error of ours)
    """A step could not be done; the message says why."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def folder_of(step: Mapping[str, Any]) -> Path:
    """Returns where the plugin of a step lies.

    Raises:
        StepFailed: Nobody knows.
    """
    if not step.get("folder"):
        raise StepFailed(f"nobody said where the plugin {step['uses']} is")
    return Path(step["folder"])


def manifest_of(folder: Path) -> Manifest:
    """Returns what a plugin says of itself.

    Raises:
        StepFailed: It cannot be read.
    """
    try:
        with (folder / MANIFEST).open("rb") as file:
            return parse_manifest(file.read(MAX_MANIFEST + 1))
    except OSError as error:
        raise StepFailed(f"{MANIFEST} cannot be read: {error.strerror}") from error
    except PackageRefused as error:
        raise StepFailed(str(error)) from error


def program_of(folder: Path, manifest: Manifest) -> list[str]:
    """Returns the command that runs a plugin on this host.

    A script of Python runs in the agent's own: that has gRPC and the kit.

    Raises:
        StepFailed: It has none for this host.
    """
    machine = platform.machine()
    here = f"{platform.system().lower()}/{_ARCHITECTURES.get(machine, machine)}"
    path = manifest.entry_point(here)
    if path is None:
        there = ", ".join(sorted(manifest.entry_points))
        raise StepFailed(f"{manifest.id} has programs for {there}, and none for {here}")
    program = folder / path
    try:
        with program.open("rb") as file:
            first = file.readline(256)
    except OSError as error:
        raise StepFailed(f"{path} cannot be read: {error.strerror}") from error
    if _PYTHON.match(first):
        return [sys.executable, "-B", str(program)]  # -B: what is kept stays as it was packed
    return [str(program)]


def parameters_of(
    step: Mapping[str, Any], manifest: Manifest, environment: Mapping[str, str]
) -> dict[str, Any]:
    """Returns what a plugin is given, checked against what it takes.

    Raises:
        StepFailed: Something is missing or wrong; all of it is told, but for secrets.
    """
    settings = step.get("settings") or {}
    hidden = {name for name, value in settings.items() if _is_from_env(value)}
    given = {
        name: _from_env(name, value[FROM_ENV], environment) if name in hidden else value
        for name, value in settings.items()
    }
    if manifest.parameters == {"type": "object"}:
        return given
    from jsonschema import Draft202012Validator  # late: slow to import

    try:
        errors = list(Draft202012Validator(manifest.parameters).iter_errors(given))
    except Exception as error:  # a reference to nowhere, an endless one, an odd expression
        raise StepFailed(
            f"its plugin.toml says what it takes in a way that cannot be used: {_brief(str(error))}"
        ) from error
    faults = [
        f"{'.'.join(map(str, error.path)) or 'with'}: {_fault(error, hidden)}" for error in errors
    ]
    if faults:
        raise StepFailed("; ".join(sorted(faults)[:_MOST_FAULTS]))
    return given


def _is_from_env(value: object) -> bool:
    return isinstance(value, dict) and set(value) == {FROM_ENV}


def _from_env(name: str, variable: object, environment: Mapping[str, str]) -> str:
    if not isinstance(variable, str) or variable not in environment:
        raise StepFailed(f"{name}: there is no variable {variable!r} to take it from")
    return environment[variable]


def _fault(error: "ValidationError", hidden: set[str]) -> str:
    """Returns what is wrong; a message may quote the value, which no secret survives."""
    whose = error.path[0] if error.path else None
    if whose in hidden or (whose is None and hidden and error.validator not in _NAMES_ONLY):
        return f"is not what it takes ({error.validator})"
    return _brief(error.message)


def _brief(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"
