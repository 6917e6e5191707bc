"""Secrets as they are kept: encrypted, by name."""

from dataclasses import dataclass

from server.domain.checks import Checks
from server.domain.moment import Moment
from server.domain.secret import SECRET_NAME, check_value

VALUE_LIMIT = 64 * 1024


@dataclass(frozen=True, slots=True)
class Sealed:
    """A value under a data key of its own, and that under a key-encryption key."""

    kek: str
    """Which key-encryption key."""
    wrapped: bytes
    """The data key."""
    data: bytes
    """The value."""


@dataclass(slots=True)
class KeptSecret:
    """A secret's row."""

    key: int
    namespace: str
    name: str
    version: int
    """How often it was put; part of what its ciphertext is bound to."""
    created_at: Moment
    updated_at: Moment
    updated_by: str
    kek: str
    wrapped: bytes
    data: bytes


def check_name(name: str, field: str = "name") -> None:
    """See that a name can be one.

    Raises:
        Invalid: it is malformed.
    """
    checks = Checks()
    if not SECRET_NAME.fullmatch(name):
        checks.fail(field, "must be 1 to 128 letters, digits and . _ -")
    checks.done()


def check_put(name: str, value: str) -> None:
    """See that a secret can be kept.

    Raises:
        Invalid: its name or its value is malformed; the value is not in the message.
    """
    checks = Checks()
    if not SECRET_NAME.fullmatch(name):
        checks.fail("name", "must be 1 to 128 letters, digits and . _ -")
    if "\0" in value:
        checks.fail("value", "must not contain NUL")
    elif len(value.encode(errors="replace")) > VALUE_LIMIT:
        checks.fail("value", f"must have at most {VALUE_LIMIT} bytes")
    else:
        check_value(checks, "value", value)
    checks.done()
