"""Which secrets of a task can be hidden in what it prints."""

from collections.abc import Mapping

from server.domain.checks import Checks, printable

SHORTEST = 4
"""Characters; shorter values cannot be masked: they would blot out ordinary text."""


def check_secrets(checks: Checks, secrets: Mapping[str, str], field: str = "secrets") -> None:
    """Note each secret with a name no variable can have, or a value that cannot be masked."""
    checks.environment(field, secrets)
    for name, value in secrets.items():
        path = f"{field}[{printable(name)}]"
        if len(value) < SHORTEST:
            text = f"must have at least {SHORTEST} characters: less cannot be masked in logs"
            checks.fail(path, text)
        elif all(len(line) < SHORTEST for line in value.splitlines()):
            text = f"must have a line of at least {SHORTEST} characters: logs are masked by lines"
            checks.fail(path, text)
