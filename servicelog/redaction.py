"""What log records must not hold: secrets, and payloads beyond a preview."""

import re
from collections.abc import Mapping

from structlog.typing import EventDict, WrappedLogger

REDACTED = "[redacted]"
PREVIEW = 2048
"""Characters of a value that are kept."""
DEPTH = 6
"""Levels of mappings and lists that are looked into."""

_SECRET = re.compile(
    r"secret|passw|passphrase|token|api_?key|private_?key|credential|authorization|cookie", re.I
)
_URL_PASSWORD = re.compile(r"(\w+://[^\s:/@]*:)[^\s/@]+(?=@)")


def redact(_logger: WrappedLogger, _method: str, record: EventDict) -> EventDict:
    """Return a record without values of keys that look secret, and without long values."""
    return {key: _safe(str(key), value, DEPTH) for key, value in record.items()}


def _safe(key: str, value: object, depth: int) -> object:
    if _SECRET.search(key):
        return REDACTED
    if isinstance(value, str):
        return _preview(_URL_PASSWORD.sub(rf"\1{REDACTED}", value))
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if depth and isinstance(value, Mapping):
        return {name: _safe(str(name), each, depth - 1) for name, each in value.items()}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_safe("", each, depth - 1) for each in value]
    return value


def _preview(text: str) -> str:
    if len(text) <= PREVIEW:
        return text
    return f"{text[:PREVIEW]}… ({len(text)} characters)"
