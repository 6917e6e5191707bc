"""Checks of what callers send, gathered into one list of violations with field paths."""

import re
from collections.abc import Iterable, Mapping

from server.domain.errors import Invalid, Violation

NAME_LIMIT = 256
REASON_LIMIT = 1024
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# A task sees these as the truth about itself; a caller may not forge them.
RESERVED_ENV = "MUSTER_"
ENV_VALUE_LIMIT = 128 * 1024  # one argument or variable of execve(2): MAX_ARG_STRLEN
LOAD_LIMIT = 512 * 1024
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
AGENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


class Checks:
    """Collects violations; `done` raises them together."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []

    def fail(self, field: str, description: str) -> None:
        """Note one malformed field."""
        self.violations.append(Violation(field, description))

    def extend(self, violations: Iterable[Violation]) -> None:
        """Note what another check found."""
        self.violations.extend(violations)

    def done(self) -> None:
        """End the checks.

        Raises:
            Invalid: anything was noted.
        """
        if self.violations:
            raise Invalid(self.violations)

    def name(
        self, field: str, value: str, *, required: bool = True, limit: int = NAME_LIMIT
    ) -> None:
        """A name for people: 1 to `limit` characters, none of them a control character."""
        if not value:
            if required:
                self.fail(field, "must not be empty")
        elif len(value) > limit:
            self.fail(field, f"must have at most {limit} characters, has {len(value)}")
        elif has_control(value):
            self.fail(field, "must not contain control characters")

    def text(self, field: str, value: str, limit: int) -> None:
        """Free text: no NUL, at most `limit` characters."""
        if "\0" in value:
            self.fail(field, "must not contain NUL")
        elif len(value) > limit:
            self.fail(field, f"must have at most {limit} characters, has {len(value)}")

    def number(self, field: str, value: int, lowest: int, highest: int) -> None:
        """A whole number between two bounds, both included."""
        if not lowest <= value <= highest:
            self.fail(field, f"must be from {lowest} to {highest}, is {value}")

    def script(self, field: str, commands: Iterable[str]) -> None:
        """The lines of a script: at least one, none empty, no NUL."""
        commands = list(commands)
        if not commands:
            self.fail(field, "must have at least one command")
        for index, command in enumerate(commands):
            if not command.strip():
                self.fail(f"{field}[{index}]", "must not be empty")
            elif "\0" in command:
                self.fail(f"{field}[{index}]", "must not contain NUL")

    def environment(self, field: str, env: Mapping[str, str]) -> None:
        """Environment variables: POSIX names, no NUL, none of the reserved names."""
        for key, value in env.items():
            path = f"{field}[{printable(key)}]"
            if not ENV_NAME.fullmatch(key):
                self.fail(
                    path, "must be a name of letters, digits and _, not starting with a digit"
                )
            elif key.startswith(RESERVED_ENV):
                self.fail(path, f"names beginning with {RESERVED_ENV} are reserved")
            if "\0" in value:
                self.fail(path, "must not contain NUL")
            elif len(value.encode(errors="replace")) >= ENV_VALUE_LIMIT:
                self.fail(path, f"must be shorter than {ENV_VALUE_LIMIT} bytes")

    def load(self, field: str, commands: Iterable[str], env: Mapping[str, str]) -> None:
        """Script and environment together: an agent gets them in one message, with others'."""
        size = sum(map(len, commands)) + sum(map(len, env)) + sum(map(len, env.values()))
        if size > LOAD_LIMIT:
            text = f"must have at most {LOAD_LIMIT} characters together with env, has {size}"
            self.fail(field, text)

    def relative_path(self, field: str, path: str) -> None:
        """A path that stays inside the workspace."""
        if not path:
            return
        if has_control(path):
            self.fail(field, "must not contain control characters")
        elif path.startswith("/") or ".." in path.split("/"):
            self.fail(field, "must be a relative path that stays inside the workspace")


def has_control(text: str) -> bool:
    """Whether text holds a control character (Unicode category Cc)."""
    return _CONTROL.search(text) is not None


def printable(text: str) -> str:
    """Return text fit for a field path."""
    return text[:64].encode("unicode_escape").decode()
