"""Failures that a command foresees: a message for people and an exit code."""

from collections.abc import Iterable

from cli.exit_codes import Exit

MALFORMED = "the server refuses these fields:"


class CommandFailed(Exception):  # noqa: N818 - reads as what it says
    """The command cannot do what it was asked; the message says why and what to do next."""

    def __init__(self, message: str, exit_code: int = Exit.FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Refusal(CommandFailed):
    """A call to the server did not succeed; `violations` are the fields it complained about."""

    def __init__(
        self, message: str, exit_code: int, violations: Iterable[tuple[str, str]] = ()
    ) -> None:
        self.violations = list(violations)
        lines = [f"{field}: {why}" for field, why in self.violations]
        # A message that only repeats the fields is not worth a line of its own.
        self.summary = MALFORMED if lines and message.startswith(lines[0]) else message
        super().__init__("\n  ".join([self.summary, *lines]), exit_code)
