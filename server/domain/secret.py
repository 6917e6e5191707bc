"""Which secrets of a task can be hidden in what it prints."""

import re
from collections.abc import Mapping

from server.domain.checks import Checks, printable

SECRET_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
SHORTEST = 4
"""Characters; shorter values cannot be masked: they would blot out ordinary text."""


def check_secrets(checks: Checks, secrets: Mapping[str, str], field: str = "secrets") -> None:
    """Note each secret with a name no variable can have, or a value that cannot be masked."""
    checks.environment(field, secrets)
    for name, value in secrets.items():
        check_value(checks, f"{field}[{printable(name)}]", value)


def check_value(checks: Checks, path: str, value: str) -> None:
    """Note a value that cannot be masked."""
    if len(value) < SHORTEST:
        text = f"must have at least {SHORTEST} characters: less cannot be masked in logs"
        checks.fail(path, text)
    elif all(len(line) < SHORTEST for line in value.splitlines()):
        text = f"must have a line of at least {SHORTEST} characters: logs are masked by lines"
        checks.fail(path, text)


def check_secret_refs(checks: Checks, refs: Mapping[str, str], field: str = "secret_refs") -> None:
    """Note each variable with a name none can have, and each name that no secret can have."""
    checks.environment(field, dict.fromkeys(refs, ""))
    for variable, name in refs.items():
        if not SECRET_NAME.fullmatch(name):
            text = "must name a secret: 1 to 128 letters, digits and . _ -"
            checks.fail(f"{field}[{printable(variable)}]", text)
